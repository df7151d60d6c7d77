//! Namespaces, of the caller and of assertd, and a `/proc` that shows less: the uid is the one we see,
//! and whoever cannot be looked at is refused.

use super::{config, daemon};
use crate::world::{bank, serves, us};
use harness::caller::{PRELUDE, finished, printed, script_as};
use harness::daemon::Site;
use harness::http::post_target;
use harness::pidspace::PidSpace;
use harness::process::Process;
use harness::rootspace::rooted;
use harness::user::{ALICE, BOB, BROKER, give_to, need_root};
use harness::{Config, DEADLINE, Daemon, Token, wait_until};
use std::path::Path;
use std::process::Command;

/// Runs a script of [`PRELUDE`] as Alice below `unshare` with these words.
fn unshared(daemon: &Daemon, options: &[&str], before: &str, script: &str) -> String {
    need_root();
    let mut command = Command::new("unshare");
    command
        .args(options)
        .args(["--propagation", "unchanged", "sh", "-c"])
        .arg(format!(
            "{before} exec setpriv --reuid={ALICE} --regid={ALICE} --clear-groups \"$@\""
        ))
        .args([
            "sh",
            "/usr/bin/python3",
            "-I",
            "-c",
            &format!("{PRELUDE}{script}"),
        ])
        .arg(daemon.socket());
    finished(&mut command)
}

/// Asks for a target and reads what there is to read, though the connection may be closed before.
fn asks(uid: u32, daemon: &Daemon, target: &str) -> String {
    let script = format!("s = connect()\nask(s, '{target}')\nsay(*answer(s))");
    printed(uid, &daemon.socket(), &script)
}

/// A caller that assertd cannot know: not served, and the log says why.
#[track_caller]
fn is_unknown(daemon: &Daemon, answer: &str, why: &str) {
    let refused = answer.starts_with("503 ") && answer.contains("problem:peer_unknown");
    assert!(refused, "{answer}");
    let said = wait_until(DEADLINE, || daemon.stderr().contains(why));
    assert!(said, "{why:?} is not in:\n{}", daemon.stderr());
}

#[test]
fn a_caller_in_a_pid_namespace_is_served_as_a_container_and_as_nothing_else() {
    let token = Token::new();
    let config = config(&token).with(&format!(
        "[workload.pod]\nmatch = {{ uid = {ALICE}, container = true }}"
    ));
    let daemon = Daemon::with_keys(config.target("pod", "pods", ""));
    let script = "
s = connect()
results = []
for target in ['hers', 'pods']:
    ask(s, target)
    results.append(status(s))
say(os.getpid(), *results)
";
    assert_eq!(
        unshared(&daemon, &["--mount", "--pid", "--fork"], "", script),
        "1 403 200"
    );
    let record = daemon.audit_record(|record| record["kind"] == "decision");
    assert_eq!(
        (&record["container"], &record["uid"]),
        (&true.into(), &ALICE.into())
    );
    assert_ne!(record["pid"], 1, "{record}");
    let outside = printed(ALICE, &daemon.socket(), script);
    assert!(outside.ends_with(" 200 403"), "{outside}");
}

#[test]
fn what_a_caller_mounts_over_its_own_proc_changes_nothing() {
    let token = Token::new();
    let daemon = daemon(&token);
    let script = "
s = connect()
results = []
for target in ['hers', 'bank']:
    ask(s, target)
    results.append(status(s))
say(os.listdir('/proc'), *results)
";
    let cover = "mount --make-private /proc && mount -t tmpfs none /proc &&";
    assert_eq!(unshared(&daemon, &["--mount"], cover, script), "[] 200 403");
}

/// Root in a user namespace is whoever it is outside (user_namespaces(7)).
#[test]
fn root_in_a_user_namespace_is_who_it_is_outside() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let script = format!(
        r"
import ctypes
CLONE_NEWUSER = 0x10000000
ready, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.setgroups([])
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        sys.exit('no user namespace')
    os.write(ready[1], b'x')
    os.read(mapped[0], 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    s = connect()
    results = []
    for target in ['bank', 'hers']:
        ask(s, target)
        results.append(status(s))
    say(os.getuid(), open('/proc/self/uid_map').read().split(), *results)
    os._exit(0)
os.read(ready[0], 1)
for name in ['uid_map', 'gid_map']:
    with open('/proc/%d/%s' % (child, name), 'w') as file:
        file.write('0 {ALICE} 1')
os.write(mapped[1], b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"
    );
    let script = script_as(us(), &daemon.socket(), &script);
    let said = finished(&mut rooted(&script));
    assert_eq!(said, format!("0 ['0', '{ALICE}', '1'] 403 200"));
    serves(&mut daemon);
}

#[test]
fn a_caller_outside_of_assertds_pid_namespace_is_refused() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let site = daemon.into_site();
    let command = site.command();
    let space = PidSpace::start(site, &command, ALICE);
    let answer = asks(ALICE, space.daemon(), "hers");
    is_unknown(space.daemon(), &answer, "the peer's pid is 0");
}

/// As with `PrivateUsers=`: assertd sees root as itself, and all others as one.
#[test]
fn who_is_unknown_in_assertds_user_namespace_is_not_taken_for_nobody() {
    need_root();
    let token = Token::new();
    let config = bank(&token).workload("nobody", 65_534, "");
    let mut daemon = Daemon::with_keys(config.target("nobody", "nobodys", ""));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    let site = daemon.into_site();
    let assertd = site.command();
    let mut unshare = Command::new("/usr/bin/unshare");
    unshare.args(["--user", "--map-root-user"]);
    unshare.arg(assertd.get_program()).args(assertd.get_args());
    let mut daemon = Daemon::ready(Process::start(&mut rooted(&unshare)), site);
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", daemon.pid())).unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "0", "1"]);
    for uid in [ALICE, BOB, 65_534] {
        let answer = asks(uid, &daemon, "nobodys");
        is_unknown(&daemon, &answer, "unknown in assertd's user namespace");
    }
    // A user it knows, with a group that it does not.
    let script = "s = connect()\nask(s, 'bank')\nsay(os.getuid(), os.getgid(), *answer(s))";
    let mut setpriv = Command::new("setpriv");
    setpriv.args([&format!("--regid={ALICE}"), "--clear-groups"]);
    setpriv.args(["/usr/bin/python3", "-I", "-c"]);
    setpriv
        .arg(format!("{PRELUDE}{script}"))
        .arg(daemon.socket());
    let said = finished(&mut setpriv);
    let answer = said.strip_prefix(&format!("0 {ALICE} "));
    is_unknown(
        &daemon,
        answer.expect(&said),
        "unknown in assertd's user namespace",
    );
    serves(&mut daemon);
}

/// assertd as a user without privileges below `before`, a shell's commands that change its mounts.
fn with_mounts(site: Site, before: &str, uid: u32) -> Daemon {
    let assertd = site.command();
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation", "unchanged", "sh", "-c"])
        .arg(format!(
            "mount --make-private /proc && {before} exec setpriv --reuid={uid} --regid={uid} \
             --clear-groups \"$@\""
        ))
        .arg("sh")
        .arg(assertd.get_program())
        .args(assertd.get_args());
    Daemon::ready(Process::start(&mut unshare), site)
}

#[test]
fn a_caller_that_hidepid_hides_is_refused_and_the_log_says_so() {
    need_root();
    let token = Token::of_user(BROKER);
    let config = Config::new(&token).workload("alice", ALICE, "");
    let site = Site::new(config.target("alice", "hers", "").text());
    give_to(site.config().parent().unwrap(), BROKER);
    let daemon = with_mounts(site, "", BROKER);
    daemon.apply();
    let answer = asks(ALICE, &daemon, "hers");
    assert!(answer.starts_with("200 "), "the control: {answer}");

    let hidden = |site, options: &str| {
        let mount = format!("mount -t proc -o {options} proc /proc &&");
        let daemon = with_mounts(site, &mount, BROKER);
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", daemon.pid())).unwrap();
        assert!(mounts.contains("hidepid="), "{mounts}");
        daemon
    };
    let daemon = hidden(stopped(daemon), "hidepid=2");
    let answer = asks(ALICE, &daemon, "hers");
    is_unknown(&daemon, &answer, "is not shown in /proc");
    assert!(daemon.stderr().contains("hidepid="), "{}", daemon.stderr());
    // Administrators are not seen either, and are told where to look.
    let status = daemon.assertctl(&["status"]);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(
        !status.status.success() && said.contains("its log says why"),
        "{said}"
    );
    // What the log advises helps.
    let daemon = hidden(stopped(daemon), &format!("hidepid=2,gid={BROKER}"));
    let answer = asks(ALICE, &daemon, "hers");
    assert!(answer.starts_with("200 "), "{answer}\n{}", daemon.stderr());
}

fn stopped(mut daemon: Daemon) -> Site {
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    daemon.into_site()
}

#[test]
fn without_proc_nobody_new_is_served() {
    let token = Token::new();
    let site = stopped(daemon(&token));
    let mut daemon = with_mounts(site, "", us());
    daemon.wait_usable();
    let within = |words: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--mount=/proc/{}/ns/mnt", daemon.pid()));
        nsenter.arg(format!("--root=/proc/{}/root", daemon.pid())); // which may be a chroot's
        nsenter.args(words).status().unwrap().success()
    };
    let mut before = daemon.raw();
    before.send(&post_target("bank")).unwrap();
    assert_eq!(before.answer(DEADLINE).expect("an answer").status, 200);

    assert!(within(&["mount", "-t", "tmpfs", "none", "/proc"]));
    assert!(!within(&["test", "-e", "/proc/1"]));
    for uid in [us(), ALICE] {
        let answer = asks(uid, &daemon, "bank");
        is_unknown(&daemon, &answer, "is not shown in /proc");
    }
    // Who was known before still is: its files are open.
    before.send(&post_target("bank")).unwrap();
    assert_eq!(before.answer(DEADLINE).expect("an answer").status, 200);
    assert!(within(&["umount", "/proc"]));
    assert!(Path::new("/proc/self").exists());
    serves(&mut daemon);
}
