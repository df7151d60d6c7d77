//! What a workload runs, where a section asks for it: the file that runs, whatever its name leads to
//! by now, on every request anew. The witness is assertd's own here.

use super::is_served_as as served;
use harness::caller::Caller;
use harness::process::{children, runs, send, state};
use harness::programs::Copies;
use harness::user::{ALICE, BOB, need_root};
use harness::{Config, DEADLINE, Daemon, Token, wait_until};
use nix::sys::signal::Signal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Copies of assertctl that ask for themselves: two of the same, and another one.
fn copies(daemon: &Daemon) -> Copies {
    let (copies, assertctl) = (Copies::new(), daemon.site().programs().assertctl());
    let mut bytes = std::fs::read(&assertctl).unwrap();
    for name in ["right", "same"] {
        copies.from_bytes(&bytes, name);
    }
    bytes.push(0);
    copies.from_bytes(&bytes, "other");
    copies
}

/// A configuration with a section for each of these selectors, of the user, with a target of its name.
fn config(token: &Token, uid: u32, selectors: &[(&str, String)]) -> Config {
    let mut config = Config::new(token);
    for (name, selector) in selectors {
        let section = format!("[workload.{name}]\nmatch = {{ uid = {uid}, {selector} }}");
        config = config.with(&section).target(name, name, "");
    }
    config
}

/// Brings a configuration into force that needs the witness, and makes its keys. The witness is
/// started by the first question, and on a busy machine its first answer may take longer than assertd
/// waits: then the reload says so, and the next one finds the witness running. A start would end with
/// 78.
#[track_caller]
fn in_force(daemon: &Daemon, config: &Config) {
    daemon.site().configure(config.text());
    let mut said = String::new();
    let reloaded = wait_until(DEADLINE, || {
        let reload = daemon.assertctl(&["reload"]);
        said = String::from_utf8_lossy(&reload.stderr).into_owned();
        let late = said.contains("the witness did not answer");
        assert!(reload.status.success() || late, "{said}");
        reload.status.success()
    });
    assert!(reloaded, "{said}");
    daemon.apply();
}

#[test]
fn a_program_is_matched_by_its_path_or_its_digest_and_by_nothing_that_looks_like_it() {
    need_root();
    let token = Token::new();
    let daemon = Daemon::with_keys(Config::new(&token).workload("a", ALICE, ""));
    let copies = copies(&daemon);
    let right = copies.path("right");
    let selectors = [
        ("path", format!("exe = \"{}\"", right.display())),
        (
            "digest",
            format!("exe_sha256 = \"{}\"", copies.sha256("right")),
        ),
    ];
    in_force(&daemon, &config(&token, ALICE, &selectors));
    for (name, path, digest) in [
        ("right", true, true),
        ("same", false, true),
        ("other", false, false),
    ] {
        let program = copies.path(name);
        for (target, expected) in [("path", path), ("digest", digest)] {
            // What the witness has not seen before may take it too long on a busy machine.
            let holds = wait_until(DEADLINE, || {
                served(&daemon, &program, ALICE, target) == expected || !expected
            });
            assert!(holds, "{name} is not served {target}");
            assert_eq!(served(&daemon, &program, ALICE, target), expected, "{name}");
        }
        assert!(
            !served(&daemon, &program, BOB, "digest"),
            "{name}: its user is enforced"
        );
    }
    // A path says where a file lies, a digest what is in it.
    std::fs::rename(copies.path("other"), &right).unwrap();
    assert!(served(&daemon, &right, ALICE, "path"));
    assert!(!served(&daemon, &right, ALICE, "digest"));
    let record = daemon.audit_record(|it| it["kind"] == "decision" && it["target"] == "digest");
    assert_eq!(record["exe_sha256"], copies.sha256("same"));
}

#[test]
fn exe_replaced_on_disk_does_not_match() {
    need_root();
    let token = Token::new();
    let daemon = Daemon::with_keys(Config::new(&token).workload("a", ALICE, ""));
    let copies = copies(&daemon);
    let python = copies.of("/usr/bin/python3", "python");
    let selectors = [("path", format!("exe = \"{}\"", python.display()))];
    in_force(&daemon, &config(&token, ALICE, &selectors));
    let script = "
say('ready')
while told() == 'ask':
    s = connect()
    ask(s, 'path')
    say(status(s))
";
    let usual = harness::caller::script_as(ALICE, &daemon.socket(), script);
    let mut ours = Command::new(&python);
    ours.args(usual.get_args()).uid(ALICE).gid(ALICE);
    let mut caller = Caller::run(&mut ours);
    caller.expect("ready");
    let runs = || std::fs::read_link(format!("/proc/{}/exe", caller.pid())).unwrap();
    assert_eq!(runs(), python);
    let ask = |caller: &mut Caller| {
        caller.tell("ask");
        caller.line()
    };
    assert_eq!(ask(&mut caller), "200");
    std::fs::rename(copies.path("other"), &python).unwrap();
    let shown = std::fs::read_link(format!("/proc/{}/exe", caller.pid())).unwrap();
    assert!(shown.to_string_lossy().ends_with("(deleted)"), "{shown:?}");
    assert_eq!(
        ask(&mut caller),
        "403",
        "the name leads to another file now"
    );
    caller.tell("end");
}

/// The same process, on one connection, while things are done to its file that leave its content alone
/// and change its ctime, as package managers, backups and restorecon(8) do.
#[test]
fn a_program_whose_file_is_renamed_linked_or_relabelled_is_still_that_program() {
    need_root();
    let token = Token::new();
    let daemon = Daemon::with_keys(Config::new(&token).workload("a", ALICE, ""));
    let copies = copies(&daemon);
    let python = copies.of("/usr/bin/python3", "python");
    let digest = copies.sha256("python");
    let selectors = [("digest", format!("exe_sha256 = \"{digest}\""))];
    daemon
        .site()
        .configure(config(&token, ALICE, &selectors).text());
    daemon.assertctl(&["reload"]);
    daemon.apply();
    let script = "
s = connect()
say('ready')
while told() == 'ask':
    ask(s, 'digest')
    say(status(s))
";
    let usual = harness::caller::script_as(ALICE, &daemon.socket(), script);
    let mut ours = Command::new(&python);
    ours.args(usual.get_args()).uid(ALICE).gid(ALICE);
    let mut caller = Caller::run(&mut ours);
    caller.expect("ready");
    let exe = format!("/proc/{}/exe", caller.pid());
    let changed = || {
        let status = std::fs::metadata(&exe).unwrap();
        (status.ctime(), status.ctime_nsec())
    };
    let mut last = None;
    let mut served_after = |what: &str| {
        let now = Some(changed());
        assert_ne!(now, last, "{what} leaves no trace");
        last = now;
        caller.tell("ask");
        assert_eq!(caller.line(), "200", "after {what}");
    };
    served_after("nothing");
    let mode = std::fs::Permissions::from_mode(0o555);
    std::fs::set_permissions(&python, mode).unwrap();
    served_after("chmod");
    std::fs::hard_link(&python, copies.path("link")).unwrap();
    served_after("cp -al");
    std::os::unix::fs::chown(&python, Some(0), Some(BOB)).unwrap();
    served_after("chown");
    std::fs::rename(copies.path("other"), &python).unwrap();
    served_after("its name is another file's");
    caller.tell("end");
}

/// A witness that cannot tell now is no policy: nothing is denied, and who asks again may be served.
/// This one has its socket's name, and says in its protocol what the real one says when four hashes of
/// one user hang (tests/e2e/witness/hanging.rs).
#[test]
fn a_program_that_cannot_be_told_now_is_asked_for_again_and_not_denied() {
    need_root();
    let token = Token::new();
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let selectors = [("path", format!("exe = \"{}\"", python.display()))];
    let daemon = Daemon::with_keys(config(&token, ALICE, &selectors));
    let busy = "
import json
path = sys.argv[1].replace('assertd.sock', 'witness.sock')
os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
say('ready')
s, _ = listener.accept()
while s.recv(64) == b'exe? v1\\n':
    answer = json.dumps({sys.argv[2]: 'too many processes of its user are looked at now'}).encode()
    s.sendall(struct.pack('>I', len(answer)) + answer)
";
    let ask = "
s = connect()
ask(s, 'path')
print(to_end(s).decode() if s.shutdown(socket.SHUT_WR) is None else None)
";
    let before = harness::caller::printed(ALICE, &daemon.socket(), ask);
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");
    let of_the_real_one = |pid: &u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.ends_with("assertd-witness")
    };
    let real = children(daemon.pid()).into_iter().find(of_the_real_one);
    let real = real.expect("it was asked");
    for (answer, status) in [("not_attestable", "403"), ("not_now", "503")] {
        let mut witness = harness::caller::script_as(0, &daemon.socket(), busy);
        let mut witness = Caller::run(witness.arg(answer));
        witness.expect("ready");
        if runs(real) {
            send(real, Signal::SIGKILL); // its connection is kept
        }
        assert!(wait_until(DEADLINE, || !runs(real)));
        let said = harness::caller::printed(ALICE, &daemon.socket(), ask);
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        let again = said.to_ascii_lowercase().contains("\r\nretry-after: ");
        assert_eq!(again, status == "503", "{said}");
    }
    let denied = daemon.audit_record(|it| it["kind"] == "denied");
    assert_eq!(denied["uid"], ALICE);
}

/// Who has the user of a workload can run the workload's own program, and it is that one then. On the
/// connection on which it was another one it is refused, and that connection ends.
#[test]
fn exec_after_connect_with_borrowed_binary() {
    need_root();
    let token = Token::new();
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let sleep = std::fs::canonicalize("/usr/bin/sleep").unwrap();
    let selectors = [
        ("first", format!("exe = \"{}\"", python.display())),
        ("borrowed", format!("exe = \"{}\"", sleep.display())),
    ];
    let daemon = Daemon::with_keys(Config::new(&token).workload("a", ALICE, ""));
    in_force(&daemon, &config(&token, ALICE, &selectors));
    // The connector becomes sleep; a child of it that has the connection too goes on asking.
    let script = "
s = connect()
before = sys.argv[2] == 'asks'
if before:
    ask(s, 'first')
    assert status(s) == 200
    ask(s, 'borrowed')
    assert status(s) == 403
parent = os.getpid()
if os.fork() == 0:
    until(lambda: os.readlink('/proc/%d/exe' % parent).endswith('/sleep'), 'exec')
    ask(s, 'borrowed')
    first = status(s)
    ask(s, 'borrowed')
    say(first, status(s))
    sys.exit()
os.set_inheritable(s.fileno(), True)
os.execv('/usr/bin/sleep', ['sleep', '60'])
";
    for (before, answer) in [("asks", "403 0"), ("silent", "200 200")] {
        let mut command = harness::caller::script_as(ALICE, &daemon.socket(), script);
        let mut caller = Caller::run(command.arg(before));
        caller.expect(answer);
        let link = std::fs::read_link(format!("/proc/{}/exe", caller.pid())).unwrap();
        assert_eq!(link, sleep, "it did exec");
        assert!(wait_until(DEADLINE, || state(caller.pid()).is_some()));
    }
    let changed = daemon.audit_record(|it| it["reason"] == "peer_changed_program");
    assert_eq!(changed["uid"], ALICE);
}

#[test]
fn a_selector_for_programs_alone_is_a_configuration_error() {
    let token = Token::new();
    let config = Config::new(&token).with("[workload.any]\nmatch = { exe = \"/usr/bin/sleep\" }");
    let site = harness::daemon::Site::new(config.text());
    let checked = site.command().arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("a match needs at least `unit`"), "{said}");
}

#[test]
fn without_a_witness_a_selector_for_programs_is_a_configuration_error() {
    need_root();
    let token = Token::new();
    let daemon = Daemon::with_keys(
        Config::new(&token)
            .workload("a", ALICE, "")
            .target("a", "t", ""),
    );
    let witness = daemon.site().programs().path("assertd-witness");
    std::fs::remove_file(witness).unwrap();
    let selectors = [("path", "exe = \"/usr/bin/sleep\"".to_owned())];
    let with = config(&token, ALICE, &selectors);
    daemon.site().configure(with.text());
    let reloaded = daemon.assertctl(&["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert_eq!(reloaded.status.code(), Some(1), "{said}");
    assert!(
        said.contains("workload `path` selects by its executable"),
        "{said}"
    );
    assert!(
        said.contains("the old configuration stays in force"),
        "{said}"
    );
    assert_eq!(daemon.status().config.workloads, 1);
}
