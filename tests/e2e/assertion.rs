//! What an assertion says, and that those it is for take it.

use crate::world::{code, decode, now_s, us, with_bank};
use harness::peers::{self, AuthorizationServer, Expected};
use harness::{Config, Daemon, Token};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Mutex;

/// What the profile takes and every keystore here has.
const AWS_ALGS: [&str; 3] = ["RS256", "ES256", "ES384"];

/// Every profile with every algorithm that it takes.
fn every_target(token: &Token) -> Config {
    let mut config = Config::new(token).workload("ours", us(), "");
    for alg in token.kind().algs() {
        config = config.target("ours", &format!("bank-{alg}"), &format!("alg = \"{alg}\""));
    }
    for alg in AWS_ALGS {
        config = config.with(&format!(
            "[issuer.{alg}]\nurl = \"https://id.example.com/{alg}\"\nsubjects = [\"reports-*\"]\n\
             keystore = \"hsm\"\nalg = \"{alg}\"\n[workload.ours.target.aws-{alg}]\n\
             profile = \"aws-oidc\"\nissuer = \"{alg}\"\nsubject = \"reports-eu\"\n\
             audience = \"sts.amazonaws.com\"\n"
        ));
    }
    config
}

#[test]
fn every_profile_and_algorithm_is_accepted_by_verifiers_nobody_here_wrote() {
    let token = Token::new();
    let daemon = Daemon::with_keys(every_target(&token));
    let (jwks, mut client) = (daemon.jwks(), daemon.client());
    let mut minted = Vec::new();
    for alg in token.kind().algs() {
        let name = format!("ours-bank-{alg}");
        let assertion = client
            .assertion(&format!("bank-{alg}"), None)
            .unwrap()
            .assertion;
        let aud = "https://as.bank.example";
        minted.push((
            assertion,
            name.clone(),
            name,
            aud,
            *alg,
            "client-authentication+jwt",
        ));
    }
    for alg in AWS_ALGS {
        let assertion = client
            .assertion(&format!("aws-{alg}"), None)
            .unwrap()
            .assertion;
        let iss = format!("https://id.example.com/{alg}");
        minted.push((
            assertion,
            iss,
            "reports-eu".into(),
            "sts.amazonaws.com",
            alg,
            "JWT",
        ));
    }
    let expected: Vec<Expected> = minted
        .iter()
        .map(|(assertion, iss, sub, aud, alg, typ)| Expected {
            assertion,
            iss,
            sub,
            aud,
            alg,
            typ,
        })
        .collect();
    for (verdict, (.., alg, typ)) in peers::verify(&jwks, &expected).iter().zip(&minted) {
        assert!(peers::all_accept(verdict), "{alg} {typ}: {verdict}");
    }

    // The control: the same verifiers refuse the same assertions with one byte changed.
    let changed: Vec<String> = minted
        .iter()
        .zip(["signature", "payload", "header"].iter().cycle())
        .map(|((assertion, ..), part)| peers::flipped(assertion, part))
        .collect();
    let expected: Vec<Expected> = expected
        .into_iter()
        .zip(&changed)
        .map(|(expected, assertion)| Expected {
            assertion,
            ..expected
        })
        .collect();
    for verdict in peers::verify(&jwks, &expected) {
        assert!(peers::all_refuse(&verdict), "{verdict}");
    }
}

#[test]
fn a_client_assertion_says_exactly_this() {
    let (daemon, _token) = with_bank();
    let before = now_s();
    let answer = daemon.client().assertion("bank", None).unwrap();
    let (header, claims) = decode(&answer.assertion);
    let kid = daemon.keys()[0].kid.clone();
    let typ = "client-authentication+jwt";
    assert_eq!(header, json!({ "alg": "ES256", "typ": typ, "kid": kid }));
    let (iat, jti) = (
        claims["iat"].as_u64().unwrap(),
        claims["jti"].as_str().unwrap(),
    );
    assert!(
        (before..=now_s()).contains(&iat),
        "iat {iat}, asked at {before}"
    );
    assert_eq!(jti.len(), 22, "16 bytes in base64url");
    let expected = json!({
        "iss": "ours-bank", "sub": "ours-bank", "aud": "https://as.bank.example",
        "jti": jti, "iat": iat, "exp": iat + 60,
    });
    assert_eq!(claims, expected);
    assert_eq!((answer.expires_at, answer.kid), (iat + 60, kid));
    assert_eq!(answer.target, "bank");
}

#[test]
fn a_federation_token_says_exactly_this() {
    let token = Token::new();
    let config = Config::new(&token).workload("ours", us(), "").with(
        "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"payments\"]\n\
         keystore = \"hsm\"\nalg = \"ES256\"\n[workload.ours.target.aws]\nprofile = \"aws-oidc\"\n\
         issuer = \"prod\"\nsubject = \"payments\"\naudience = \"sts.amazonaws.com\"\n",
    );
    let daemon = Daemon::with_keys(config);
    let answer = daemon.client().assertion("aws", None).unwrap();
    let (header, claims) = decode(&answer.assertion);
    assert_eq!(
        header,
        json!({ "alg": "ES256", "typ": "JWT", "kid": answer.kid })
    );
    let (iat, jti) = (
        claims["iat"].as_u64().unwrap(),
        claims["jti"].as_str().unwrap(),
    );
    let expected = json!({
        "iss": "https://id.example.com/prod", "sub": "payments", "aud": "sts.amazonaws.com",
        "jti": jti, "iat": iat, "exp": iat + 600,
    });
    assert_eq!(claims, expected);
    assert_eq!(daemon.keys()[0].key, "issuer/prod.1");
}

#[test]
fn a_request_may_shorten_the_lifetime_and_never_lengthen_it() {
    let token = Token::new();
    let config = Config::new(&token).workload("ours", us(), "");
    let config = config
        .target("ours", "plain", "")
        .target("ours", "long", "lifetime = 300");
    let daemon = Daemon::with_keys(config.target("ours", "short", "lifetime = 5"));
    let mut client = daemon.client();
    for (target, asked, lives) in [
        ("plain", None, 60),
        ("plain", Some(2), 2), // of one second nothing may be left when it has been made
        ("plain", Some(59), 59),
        ("plain", Some(60), 60),
        ("plain", Some(61), 60),
        ("plain", Some(u32::MAX), 60),
        ("long", None, 300),
        ("long", Some(301), 300),
        ("short", None, 5),
        ("short", Some(60), 5),
    ] {
        let answer = client.assertion(target, asked).unwrap();
        let (_, claims) = decode(&answer.assertion);
        let (iat, exp) = (
            claims["iat"].as_u64().unwrap(),
            claims["exp"].as_u64().unwrap(),
        );
        assert_eq!(exp - iat, lives, "{target} with {asked:?}");
        assert_eq!(answer.expires_at, exp);
    }
    let answer = daemon.ask(r#"{"target":"plain","lifetime":0}"#);
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (400, "invalid_request")
    );
}

#[test]
fn no_two_assertions_of_a_thousand_have_the_same_jti() {
    let token = Token::new();
    let limits = "[limits]\nworkload_rate = 100000\nworkload_burst = 100000\n";
    let daemon = Daemon::with_keys(crate::world::bank(&token).with(limits));
    let seen = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = daemon.client();
                for _ in 0..250 {
                    let answer = client.assertion("bank", None).unwrap();
                    let (_, claims) = decode(&answer.assertion);
                    let jti = claims["jti"].as_str().unwrap().to_owned();
                    assert!(seen.lock().unwrap().insert(jti), "a jti came twice");
                }
            });
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 1000);
    let status = daemon.status();
    assert_eq!(
        (status.requests.released, status.keystores[0].minted),
        (1000, 1000)
    );
}

#[test]
fn a_real_authorization_server_takes_it_once_and_not_with_a_byte_changed() {
    let server = AuthorizationServer::start();
    let token = Token::new();
    let config = Config::new(&token).workload("ours", us(), "");
    let daemon = Daemon::with_keys(config.target_at("ours", "bank", server.issuer(), ""));
    server.register("ours-bank", "ES256", &daemon.jwks());
    let mut client = daemon.client();
    let mut assertion = || client.assertion("bank", None).unwrap().assertion;

    let first = assertion();
    let (header, payload, signature) = (assertion(), assertion(), assertion());
    let answers = server.redeem(&[
        first.clone(),
        first,
        peers::flipped(&header, "header"),
        peers::flipped(&payload, "payload"),
        peers::flipped(&signature, "signature"),
        assertion(),
    ]);
    let statuses: Vec<u64> = answers
        .iter()
        .map(|a| a["status"].as_u64().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [200, 401, 401, 401, 401, 200],
        "{answers:?}\n{}",
        server.reasons()
    );

    let access_token = answers[0]["body"]["access_token"].as_str().unwrap();
    let worth = server.introspect(access_token);
    assert_eq!(worth["body"]["active"], true, "{worth}");
    assert_eq!(worth["body"]["client_id"], "ours-bank", "{worth}");
}

#[test]
fn every_release_stands_in_the_log_before_and_after() {
    let (daemon, _token) = with_bank();
    let answer = daemon.client().assertion("bank", None).unwrap();
    let decision = daemon.audit_record(|record| record["kind"] == "decision");
    assert_eq!(decision["id"], answer.id);
    assert_eq!(
        (&decision["uid"], &decision["pid"]),
        (&json!(us()), &json!(std::process::id()))
    );
    assert_eq!(
        (&decision["workload"], &decision["target"]),
        (&json!("ours"), &json!("bank"))
    );
    assert_eq!(
        (&decision["kid"], &decision["exp"]),
        (&json!(answer.kid), &json!(answer.expires_at))
    );
    let outcome = daemon.audit_record(|record| record["kind"] == "outcome");
    assert_eq!(
        (&outcome["id"], &outcome["result"]),
        (&json!(answer.id), &json!("released"))
    );
    let log = format!("{:?}", daemon.audit_records());
    let (_, claims) = decode(&answer.assertion);
    assert!(
        !log.contains(claims["jti"].as_str().unwrap()),
        "the log holds a jti in the clear"
    );
    assert!(
        !log.contains(&answer.assertion),
        "the log holds an assertion"
    );
}
