//! `assertctl explain`: of a denial and of a process that runs, in the words that are printed. What is
//! printed as a whole, as text and as data, stands in explain.toml.

use harness::caller::Caller;
use harness::cgroup::Slice;
use harness::daemon::Site;
use harness::http::post_target;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, Daemon, Token};
use serde::Deserialize;
use std::path::Path;

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
    assert!(gone.contains("there is no process 4194304"), "{gone}");
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

/// One thing that is explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The promise.
    name: String,
    /// Where Alice's process is, below a slice of the test's own.
    unit: String,
    /// What it asks for.
    target: String,
    /// What it is answered.
    status: u16,
    /// `explain` of that denial, or of the process if it was granted.
    text: String,
    /// The same with `--json`.
    json: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    /// conf.d/teams.toml
    teams: String,
    /// The deny list of units.
    denied: String,
    case: Vec<Case>,
}

/// What differs from run to run is in braces.
fn with_words_for_what_differs(text: &str, slice: &Slice, site: &Site, pid: u32) -> String {
    let dir = site.config().parent().unwrap().display().to_string();
    let mut text = text
        .replace(slice.path().trim_start_matches('/'), "{slice}")
        .replace(&dir, "{dir}")
        .replace(&format!("pid {pid},"), "pid {pid},")
        .replace(&format!("\"pid\": {pid},"), "\"pid\": {pid},");
    let is_time = |word: &str| word.len() == 20 && word.starts_with("20") && word.ends_with('Z');
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|it| it.is_ascii_hexdigit());
    let words = text.split(|letter: char| letter.is_whitespace() || letter == '"');
    let words: Vec<String> = words.map(str::to_owned).collect();
    for word in words {
        let what = match word.as_str() {
            time if is_time(time) => "{time}",
            digest if is_digest(digest) => "{sha256}",
            _ => continue,
        };
        text = text.replace(&word, what);
    }
    let seconds = text.split_once("\"denied_at\": ").map(|(_, rest)| rest);
    let seconds = seconds
        .and_then(|rest| rest.split(',').next())
        .map(str::to_owned);
    match seconds.filter(|seconds| seconds.parse::<u64>().is_ok()) {
        Some(seconds) => text.replace(&seconds, "{seconds}"),
        None => text,
    }
}

#[test]
fn a_grant_and_each_kind_of_denial_are_explained_in_these_words() {
    let (token, slice) = (Token::new(), Slice::new());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/explain.toml");
    let cases: Cases = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let site = Site::new("");
    let beside = |name: &str| site.config().with_file_name(name);
    std::fs::create_dir(beside("conf.d")).unwrap();
    std::fs::write(beside("conf.d/teams.toml"), &cases.teams).unwrap();
    std::fs::write(beside("denied-units"), &cases.denied).unwrap();
    let deny = format!("[deny]\nunits = \"{}\"", beside("denied-units").display());
    site.configure(Config::new(&token).with(&deny).text());
    let daemon = Daemon::start_at(site);
    daemon.apply();
    let script = "
os.setsid()  # a terminal that the tests have is not its own
say('ready')
while True:
    target = told()
    s = connect()
    ask(s, target)
    say(*answer(s))
";
    let mut caller = Caller::start(ALICE, &daemon.socket(), script);
    caller.expect("ready");
    let mut wrong = String::new();
    for case in &cases.case {
        slice.unit(&case.unit).take(caller.pid());
        caller.tell(&case.target);
        let answer = caller.line();
        let (status, body) = answer.split_once(' ').unwrap();
        assert_eq!(status, case.status.to_string(), "{}: {body}", case.name);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let (id, pid) = (body["id"].as_str().unwrap(), caller.pid().to_string());
        let of_process = ["--pid", &pid, "--target", &case.target];
        let of_denial = [id];
        let what: &[&str] = match case.status {
            200 => &of_process,
            _ => &of_denial,
        };
        for (format, expected) in [(&[][..], &case.text), (&["--json"][..], &case.json)] {
            let (code, said) = said(&daemon, &[format, what].concat());
            assert_eq!(code, Some(0), "{said}");
            let said = with_words_for_what_differs(&said, &slice, daemon.site(), caller.pid());
            if said != *expected {
                wrong += &format!("{}: expected\n{expected}--- got\n{said}\n", case.name);
            }
        }
    }
    assert!(cases.case.len() >= 5 && wrong.is_empty(), "{wrong}");
}
