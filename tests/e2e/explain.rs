//! `assertctl explain`: of a denial and of a process that runs, in the words that are printed.

use harness::http::post_target;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, Daemon, Token};

fn daemon(token: &Token) -> Daemon {
    let config = Config::new(token)
        .with(&format!(
            "[workload.web]\nmatch = {{ unit = \"web.service\", uid = {ALICE} }}\n\
             unless = {{ uid = {BOB} }}\nshadow = {{ interactive = false }}"
        ))
        .target("web", "bank", "")
        .workload("bob", BOB, "")
        .target("bob", "vault", "");
    Daemon::with_keys(config)
}

fn said(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon.assertctl(&[&["explain"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_denial_is_explained_by_its_id_with_the_selector_that_fails() {
    need_root();
    let token = Token::new();
    let daemon = daemon(&token);
    let denied = exchange_as(ALICE, &daemon.socket(), &post_target("bank"));
    assert_eq!(denied.status, 403);
    let (code, text) = said(&daemon, &[&denied.member("id")]);
    assert_eq!(code, Some(0), "{text}");
    let has = |part: &str| assert!(text.contains(part), "{part} is not in:\n{text}");
    has("target bank: denied (no section that has this target matches) at ");
    has(&format!("uid {ALICE}, gid {ALICE}"));
    has("[workload.web] does not match  (");
    has("assertd.toml:");
    let line = |key: &str| {
        text.lines()
            .find(|line| line.contains(key))
            .unwrap_or_default()
    };
    assert!(line("web.service  ").contains("FAIL"), "{text}");
    assert!(line("user  ").contains("ok"), "{text}");
    assert!(
        !text.contains("vault") && !text.contains("workload.bob"),
        "{text}"
    );
}

#[test]
fn what_a_process_would_get_is_explained_without_a_record() {
    need_root();
    let token = Token::new();
    let daemon = daemon(&token);
    let records = daemon.audit_records().len();
    let ours = std::process::id().to_string();
    let (code, text) = said(&daemon, &["--pid", &ours, "--target", "bank"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("it is 0"), "our user is named: {text}");
    let (_, unknown) = said(&daemon, &["--pid", &ours, "--target", "nothing"]);
    assert!(
        unknown.contains("no section has a target of this name"),
        "{unknown}"
    );
    let (code, gone) = said(&daemon, &["--pid", "4194304", "--target", "bank"]);
    assert_ne!(code, Some(0), "{gone}");
    assert_eq!(daemon.audit_records().len(), records);
}

#[test]
fn what_assertd_has_forgotten_the_audit_log_may_know() {
    need_root();
    let token = Token::new();
    let daemon = daemon(&token);
    let granted = exchange_as(BOB, &daemon.socket(), &post_target("vault"));
    assert_eq!(granted.status, 200, "{}", granted.body());
    let id = granted.member("id");
    daemon.audit_record(|it| it["kind"] == "outcome" && it["id"] == id.as_str());
    let (code, text) = said(&daemon, &[&id]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("bob → vault") && text.contains("released"),
        "{text}"
    );
    let (code, text) = said(&daemon, &["01JD8K0000000000000000000"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("assertctl explain --pid P --target T"),
        "{text}"
    );
}
