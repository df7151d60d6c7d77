//! The request that `assertctl env` prints for a client of an authorization server: run by sh as it was
//! printed, against an unmodified oidc-provider, which has to be able to refuse it.

use crate::world::us;
use harness::peers::AuthorizationServer;
use harness::{Config, Daemon, Token};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Has the request for a target printed, and writes it into a file.
fn printed(daemon: &Daemon, target: &str, server: &AuthorizationServer, dir: &Path) -> PathBuf {
    let endpoint = format!("token_endpoint={}/token", server.issuer());
    let name = format!("ours/{target}");
    let output = daemon.assertctl(&[
        "env",
        &name,
        "--part",
        "file",
        "--set",
        &endpoint,
        "--set",
        "scope=api:read",
    ]);
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{wrong}");
    let path = dir.join(format!("{target}.sh"));
    std::fs::write(&path, &output.stdout).unwrap();
    path
}

fn run(script: &Path) -> Output {
    let mut shell = Command::new("/bin/sh");
    // Loopback only: no proxy that the environment may name.
    shell.arg(script).env("no_proxy", "*");
    shell.output().unwrap()
}

/// The access token that it gets.
fn access_token(server: &AuthorizationServer, output: &Output) -> String {
    let wrong = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{wrong}{}",
        server.reasons()
    );
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn the_request_that_env_prints_gets_an_access_token_whenever_it_is_run() {
    let (server, token, dir) = (
        AuthorizationServer::start(),
        Token::new(),
        tempfile::tempdir().unwrap(),
    );
    // The same client, with an assertion for somebody else.
    let elsewhere = "[workload.ours.target.elsewhere]\nprofile = \"rfc7523\"\nclient_id = \"ours-bank\"\n\
                     authorization_server = \"https://as.example\"\n";
    let config = Config::new(&token).workload("ours", us(), "");
    let config = config.target_at("ours", "bank", server.issuer(), "");
    let config = config.with(elsewhere);
    let daemon = Daemon::with_keys(&config);
    server.register("ours-bank", "ES256", &daemon.jwks());

    let bank = printed(&daemon, "bank", &server, dir.path());
    let first = access_token(&server, &run(&bank));
    let second = access_token(&server, &run(&bank));
    assert_ne!(first, second);
    let worth = server.introspect(&second);
    let body = &worth["body"];
    let told = (&body["active"], &body["client_id"], &body["scope"]);
    let expected = (true.into(), "ours-bank".into(), "api:read".into());
    assert_eq!(told, (&expected.0, &expected.1, &expected.2), "{worth}");

    let refused = run(&printed(&daemon, "elsewhere", &server, dir.path()));
    let body = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(22), "curl(1), --fail: {body}");
    assert!(body.contains("invalid_client"), "{body}");

    // Without an assertion nothing is sent.
    let asked = server.reasons();
    let renamed = config.text().replace("target.bank", "target.gone");
    daemon.site().configure(&renamed);
    assert_eq!(daemon.assertctl(&["reload"]).status.code(), Some(0));
    let denied = run(&bank);
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert_eq!((denied.status.code(), denied.stdout), (Some(1), Vec::new()));
    assert!(said.contains("denied") && !said.contains("curl"), "{said}");
    assert_eq!(server.reasons(), asked);
}
