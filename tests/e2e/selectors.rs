//! Selectors, each with a real process that has what is asked for and one that has not: the kernel's
//! groups, cgroups and terminals. Units by name and namespaces: see [`crate::who`]; executables: see
//! `who::program` and, as installed, `units`.

use crate::world::code;
use harness::caller::{Caller, PRELUDE, finished, printed, script_as};
use harness::cgroup::{self, Slice, Unit};
use harness::http::post_target;
use harness::user::{ALICE, BOB, exchange_as, need_root};
use harness::{Config, Daemon, Token};
use serde_json::Value;
use std::process::Command;

/// A group that Debian always has (base-passwd), for nothing here is a member of it.
const GROUP: (&str, u32) = ("games", 60);

/// Asks for the targets of each order, on a new connection each, and says what came of it.
const ASKS: &str = "
def results(targets):
    results = []
    for target in targets:
        s = connect()
        ask(s, target)
        results.append(str(status(s)))
    return ' '.join(results)
say('ready')
for line in sys.stdin:
    say(results(line.split()))
";

/// Sections of Alice's, each with more in its `match` and a target of its name.
fn config(token: &Token, sections: &[(&str, String)]) -> Config {
    need_root();
    let mut config = Config::new(token);
    for (name, selectors) in sections {
        let section = format!("[workload.{name}]\nmatch = {{ uid = {ALICE}, {selectors} }}");
        config = config.with(&section).target(name, name, "");
    }
    config
}

/// Alice's process is in that unit now, by the kernel, and asks for these.
#[track_caller]
fn asks_in(caller: &mut Caller, unit: &Unit, targets: &str) -> String {
    unit.take(caller.pid());
    assert_eq!(cgroup::of(caller.pid()), unit.path());
    caller.tell(targets);
    caller.line()
}

#[test]
fn a_slice_is_matched_at_any_depth_above_the_unit_and_nowhere_else() {
    let (token, slice, elsewhere) = (Token::new(), Slice::new(), Slice::new());
    let outer = slice.path().trim_start_matches('/');
    let sections = [
        ("outer", format!("slice = \"{outer}\"")),
        ("inner", "slice = \"inner.slice\"".to_owned()),
    ];
    let daemon = Daemon::with_keys(config(&token, &sections));
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("ready");
    for (unit, expected) in [
        (slice.unit("web.service"), "200 403"),
        (slice.unit("inner.slice/web.service"), "200 200"),
        (slice.unit("inner.slice/deep.slice/web.service"), "200 200"),
        (elsewhere.unit("inner.slice/web.service"), "403 200"),
        (elsewhere.unit("web.service"), "403 403"),
        // Below a unit its owner names things, and without a unit nobody is in a slice.
        (elsewhere.unit("web.service/inner.slice/a"), "403 403"),
        (elsewhere.unit(&format!("web.service/{outer}")), "403 403"),
        (slice.unit("inner.slice/no-unit"), "403 403"),
    ] {
        let answers = asks_in(&mut caller, &unit, "outer inner");
        assert_eq!(answers, expected, "{}", unit.path());
    }
}

#[test]
fn a_unit_of_the_users_own_manager_is_matched_as_that_users_and_as_no_system_unit() {
    let (token, slice) = (Token::new(), Slice::new());
    let sections = [
        ("own", "user_unit = \"payments.service\"".to_owned()),
        ("any", "user_unit = \"pay*.service\"".to_owned()),
        ("system", "unit = \"payments.service\"".to_owned()),
    ];
    let daemon = Daemon::with_keys(config(&token, &sections));
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("ready");
    let manager = |uid: u32| format!("user.slice/user-{uid}.slice/user@{uid}.service");
    let [hers, his] = [ALICE, BOB].map(manager);
    for (unit, expected) in [
        (format!("{hers}/app.slice/payments.service"), "200 200 403"),
        (format!("{hers}/payments.service"), "200 200 403"),
        (
            format!("{hers}/app.slice/payments.service/worker"),
            "200 200 403",
        ),
        (format!("{hers}/app.slice/payday.service"), "403 200 403"),
        (
            format!("{hers}/app.slice/web.service/payments.service"),
            "403 403 403",
        ),
        (format!("{hers}/init.scope"), "403 403 403"),
        // In another user's manager, in what is only called like one, and in none.
        (format!("{his}/app.slice/payments.service"), "403 403 403"),
        ("user@me.service/payments.service".to_owned(), "403 403 403"),
        ("web.service/payments.service".to_owned(), "403 403 403"),
        ("payments.service".to_owned(), "403 403 200"),
    ] {
        let answers = asks_in(&mut caller, &slice.unit(&unit), "own any system");
        assert_eq!(answers, expected, "{unit}");
    }
}

/// Alice with this group and these others, as setpriv(1) sets them: what she is answered, and what the
/// kernel says of her.
fn asks_with_groups(daemon: &Daemon, group: u32, others: &str) -> String {
    let script = "
lines = dict(line.split(':', 1) for line in open('/proc/self/status'))
results = []
for target in ['group', 'gid', 'other']:
    s = connect()
    ask(s, target)
    results.append(status(s))
say(*results, lines['Gid'].split(), lines['Groups'].split())
";
    let mut setpriv = Command::new("setpriv");
    setpriv.args([format!("--reuid={ALICE}"), format!("--regid={group}")]);
    setpriv.arg(others).args(["/usr/bin/python3", "-I", "-c"]);
    setpriv
        .arg(format!("{PRELUDE}{script}"))
        .arg(daemon.socket());
    finished(&mut setpriv)
}

#[test]
fn a_group_is_the_one_it_runs_with_and_a_supplementary_group_one_of_the_others() {
    let token = Token::new();
    let (name, gid) = GROUP;
    let sections = [
        ("group", format!("group = \"{name}\"")),
        ("gid", format!("gid = {gid}")),
        ("other", format!("supplementary_group = \"{name}\"")),
    ];
    let daemon = Daemon::with_keys(config(&token, &sections));
    let number = format!("'{gid}'");
    for (group, others, expected) in [
        (ALICE, "--clear-groups", (403, 403, String::new())),
        (gid, "--clear-groups", (200, 403, String::new())),
        (
            ALICE,
            &format!("--groups={gid}"),
            (403, 200, number.clone()),
        ),
        (
            ALICE,
            &format!("--groups=1,{gid}"),
            (403, 200, format!("'1', {number}")),
        ),
        (ALICE, "--groups=1", (403, 403, "'1'".to_owned())),
        (gid, &format!("--groups={gid}"), (200, 200, number.clone())),
    ] {
        let answers = asks_with_groups(&daemon, group, others);
        let (of_group, of_others, groups) = expected;
        let gids = format!("'{group}'");
        let gids = [gids.as_str(); 4].join(", ");
        let expected = format!("{of_group} {of_group} {of_others} [{gids}] [{groups}]");
        assert_eq!(answers, expected, "{group} {others}");
    }
}

/// A script's part: whether it has a controlling terminal, by the kernel (proc_pid_stat(5), `tty_nr`),
/// and what it is answered.
const LOOKS: &str = "
def has_terminal():
    return open('/proc/self/stat').read().rsplit(')', 1)[1].split()[4] != '0'
def looks():
    s = connect()
    ask(s, 'hers')
    return '%s %s' % (has_terminal(), status(s))
def on_terminal(look):
    import pty
    child, terminal = pty.fork()
    if child == 0:
        print(look(), flush=True)
        os._exit(0)
    data = b''
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # nobody has it open any more
            part = b''
        if not part:
            break
        data += part
    os.waitpid(child, 0)
    say(data.decode().strip())
os.setsid()
";

#[test]
fn who_has_a_terminal_is_interactive_until_it_is_given_up() {
    let token = Token::new();
    let sections = [("hers", "interactive = false".to_owned())];
    let daemon = Daemon::with_keys(config(&token, &sections));
    let script = "
def gives_up():
    import fcntl, termios
    s = connect()
    ask(s, 'hers')
    before = '%s %s' % (has_terminal(), status(s))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    fcntl.ioctl(0, termios.TIOCNOTTY)
    ask(s, 'hers')
    return '%s, %s %s' % (before, has_terminal(), status(s))
say(looks())
on_terminal(looks)
on_terminal(gives_up)
";
    let said = printed(ALICE, &daemon.socket(), &format!("{LOOKS}{script}"));
    assert_eq!(said, "False 200\nTrue 403\nTrue 403, False 200");
    let denied = daemon.audit_record(|record| record["kind"] == "denied");
    let explained = daemon.assertctl(&["explain", denied["id"].as_str().unwrap()]);
    let said = String::from_utf8_lossy(&explained.stdout);
    assert!(said.contains("it is true: it has a terminal"), "{said}");
}

/// A login session's scope, as systemd-logind names it. In the box there is a real one: see `units`.
#[test]
fn who_is_in_a_login_session_is_interactive_without_a_terminal() {
    let (token, slice) = (Token::new(), Slice::new());
    let sections = [("hers", "interactive = false".to_owned())];
    let daemon = Daemon::with_keys(config(&token, &sections));
    let mut caller = Caller::start(ALICE, &daemon.socket(), &format!("os.setsid()\n{ASKS}"));
    caller.expect("ready");
    let user = format!("user.slice/user-{ALICE}.slice");
    for (unit, expected) in [
        (format!("{user}/session-3.scope"), "403"),
        (format!("{user}/session-c1.scope/below"), "403"),
        (
            format!("{user}/user@{ALICE}.service/app.slice/web.service"),
            "200",
        ),
        ("web.service/session-3.scope".to_owned(), "200"),
        ("web.service".to_owned(), "200"),
    ] {
        let answer = asks_in(&mut caller, &slice.unit(&unit), "hers");
        assert_eq!(answer, expected, "{unit}");
    }
}

#[test]
fn one_of_several_unless_excludes_and_only_if_all_of_it_holds() {
    let (token, slice) = (Token::new(), Slice::new());
    need_root();
    let unless = format!(
        "unless = [{{ unit = \"batch@*.service\" }},\n  {{ slice = \"lab.slice\", uid = {BOB} }},\n  \
         {{ slice = \"lab.slice\", unit = \"trial.service\" }}]"
    );
    let config = Config::new(&token).workload("alice", ALICE, &unless);
    let daemon = Daemon::with_keys(config.target("alice", "hers", ""));
    let mut caller = Caller::start(ALICE, &daemon.socket(), ASKS);
    caller.expect("ready");
    for (unit, expected) in [
        ("web.service", "200"),
        ("batch@1.service", "403"),
        ("lab.slice/web.service", "200"),
        ("lab.slice/trial.service", "403"),
        ("trial.service", "200"),
    ] {
        let answer = asks_in(&mut caller, &slice.unit(unit), "hers");
        assert_eq!(answer, expected, "{unit}");
    }
    // It is the same denial as of anybody else, to the caller and in the log.
    let excluded = slice.unit("batch@1.service").path().to_owned();
    let denied = daemon.audit_record(|record| record["kind"] == "denied");
    let why = (&denied["reason"], &denied["unit"]);
    assert_eq!(why, (&"not_yours".into(), &excluded.into()), "{denied}");
    let explained = daemon.assertctl(&["explain", denied["id"].as_str().unwrap()]);
    let said = String::from_utf8_lossy(&explained.stdout);
    let excludes = "would match, and its `unless` excludes it";
    assert!(said.contains(excludes), "{said}");
    let other = exchange_as(BOB, &daemon.socket(), &post_target("hers"));
    assert_eq!((other.status, code(&other).as_str()), (403, "denied"));
}

/// The records of decisions as `assertctl audit show` prints them.
fn decisions_shown(daemon: &Daemon) -> Vec<Value> {
    let shown = daemon.assertctl(&["audit", "show", "-n", "100", "--json"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let is_decision = |record: &Value| record["kind"] == "decision";
    records.filter(is_decision).collect()
}

#[test]
fn what_is_only_shadowed_is_granted_and_the_record_of_the_decision_says_what_would_not_hold() {
    let (token, slice) = (Token::new(), Slice::new());
    need_root();
    let (name, _) = GROUP;
    let shadow = format!(
        "shadow = {{ slice = \"prod.slice\", supplementary_group = \"{name}\", interactive = false }}"
    );
    let config = Config::new(&token).workload("alice", ALICE, &shadow);
    let daemon = Daemon::with_keys(config.target("alice", "hers", ""));
    let mut caller = Caller::start(ALICE, &daemon.socket(), &format!("os.setsid()\n{ASKS}"));
    caller.expect("ready");
    for unit in ["web.service", "prod.slice/web.service"] {
        let answer = asks_in(&mut caller, &slice.unit(unit), "hers");
        assert_eq!(answer, "200", "{unit}");
    }
    let script = format!("{LOOKS}on_terminal(looks)");
    let mut command = script_as(ALICE, &daemon.socket(), &script);
    assert_eq!(finished(&mut command), "True 200");
    let shadowed: Vec<Value> = decisions_shown(&daemon)
        .into_iter()
        .map(|record| record["shadow"].clone())
        .collect();
    let expected = [
        serde_json::json!(["slice", "supplementary_group"]),
        serde_json::json!(["supplementary_group"]),
        serde_json::json!(["slice", "supplementary_group", "interactive"]),
    ];
    assert_eq!(shadowed, expected);
}

#[test]
fn a_decision_that_no_shadow_is_against_says_nothing_of_any() {
    let token = Token::new();
    need_root();
    let config = Config::new(&token).workload("alice", ALICE, "shadow = { container = false }");
    let config = config.target("alice", "hers", "");
    let daemon = Daemon::with_keys(config.workload("bob", BOB, "").target("bob", "his", ""));
    for (uid, target) in [(ALICE, "hers"), (BOB, "his")] {
        let answer = exchange_as(uid, &daemon.socket(), &post_target(target));
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    let shown = decisions_shown(&daemon);
    assert_eq!(shown.len(), 2);
    for record in shown {
        assert!(record.get("shadow").is_none(), "{record}");
    }
}
