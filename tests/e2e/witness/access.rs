//! Whom the witness answers, what it takes to look at others' processes, and what it makes of bytes
//! that are no question.

use super::{DEADLINE, Running, Witness, public_program, python, sha256, wait_until};
use harness::user::{ALICE, BROKER, STRANGER, as_uid};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const TRACING: [&str; 2] = ["--inh-caps=+sys_ptrace", "--ambient-caps=+sys_ptrace"];

/// A process of Alice's.
fn hers(program: &std::path::Path) -> Running {
    Running::start(as_uid(ALICE, program).arg("60"))
}

#[test]
fn another_users_process_takes_the_capability() {
    let (_dir, program) = public_program(ALICE, "1");
    let running = hers(&program);
    let mut without = Witness::start_as(BROKER, &[]);
    let why = without.refusal(running.pid());
    assert!(why.contains("CAP_SYS_PTRACE"), "{why}");
    // Its own user's take none.
    let own = Running::start(as_uid(BROKER, &program).arg("60"));
    assert_eq!(without.executable(own.pid())["sha256"], sha256(&program));

    let mut with = Witness::start_as(BROKER, &TRACING);
    let executable = with.executable(running.pid());
    assert_eq!(executable["place"]["at"], program.to_str().unwrap());
    assert_eq!(executable["sha256"], sha256(&program));
    let status = std::fs::read_to_string(format!("/proc/{}/status", with.process.pid())).unwrap();
    let effective = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(
        effective,
        Some("CapEff:\t0000000000080000"),
        "one capability"
    );
}

#[test]
fn an_executable_that_nobody_else_may_read_is_not_attested() {
    let (_dir, program) = public_program(ALICE, "1");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o711)).unwrap();
    let running = hers(&program);
    let mut witness = Witness::start_as(BROKER, &TRACING);
    let why = witness.refusal(running.pid());
    assert!(why.contains("may not be read"), "{why}");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        witness.executable(running.pid())["sha256"],
        sha256(&program)
    );
}

#[test]
fn a_path_through_a_closed_directory_is_not_attested_but_the_digest_is() {
    let (dir, program) = public_program(ALICE, "1");
    let running = hers(&program);
    let mut witness = Witness::start_as(BROKER, &TRACING);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let executable = witness.executable(running.pid());
    assert_eq!(executable["place"]["unproven"], "unsearchable");
    assert_eq!(executable["sha256"], sha256(&program));
}

/// Asks about itself, and prints what came back.
const ABOUT_ITSELF: &str = "
s = connect(sys.argv[1])
print(json.dumps(ask(s, os.getpid())))
";

#[test]
fn nobody_but_the_broker_is_answered() {
    let mut witness = Witness::start_as(BROKER, &TRACING);
    for (uid, answered) in [
        (STRANGER, false),
        (0, false),
        (ALICE, false),
        (BROKER, true),
    ] {
        let mut asking = python(uid, ABOUT_ITSELF);
        let output = asking.arg(witness.socket()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        match answered {
            true => assert!(said.contains("python3"), "{uid}: {said}"),
            false => assert_eq!(said, "null\n", "{uid}"),
        }
    }
    let asker = witness.asker.id();
    witness.executable(asker);
}

/// What is no question, each on a connection of its own: prints what came back, and at the end how
/// many there were.
const NONSENSE: &str = "
import random
us = os.pidfd_open(os.getpid())
file = os.open('/dev/null', os.O_RDONLY)
question = b'exe? v1\\n'
attempts = [([], question), ([us, us], question), ([us] * 253, question), ([file], question),
            ([us], question[:-1]), ([us], b'exe? v2\\n'), ([us], bytes(8)), ([us], question * 2),
            ([us, file], question), ([], b'GET / HTTP/1.1\\r\\n\\r\\n'), ([us], b'\\0\\0\\0\\x02{}')]
random.seed(1)
attempts += [([us] * random.randrange(4), random.randbytes(random.randrange(1, 64))) for _ in range(200)]
for descriptors, data in attempts:
    s = connect(sys.argv[1])
    send(s, descriptors, data)
    first = answer(s)
    then = first and answer(s)
    print(json.dumps([data == question * 2, first is not None, then is not None]))
print(len(attempts))
";

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[test]
fn what_is_no_question_is_hung_up_on_and_leaves_nothing_behind() {
    let mut witness = Witness::start();
    let asker = witness.asker.id();
    witness.executable(asker);
    let pid = witness.process.pid();
    let before = descriptors(pid);
    let output = python(0, NONSENSE).arg(witness.socket()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.pop(), Some(lines.len().to_string().as_str()));
    for line in lines {
        // Two questions in one message have one descriptor: the first is one, the second is not.
        let expected = ["[true, true, false]", "[false, false, false]"];
        assert!(expected.contains(&line), "{line}");
    }
    let closed = wait_until(DEADLINE, || descriptors(pid) == before);
    assert!(closed, "{} descriptors, not {before}", descriptors(pid));
    witness.executable(asker);
    for part in [
        "more than one descriptor",
        "no descriptor",
        "no pidfd",
        "no question",
    ] {
        assert!(witness.said().contains(part), "{part}: {}", witness.said());
    }
}

/// Asks over ever more connections, which stay open, until one is hung up on; then closes one, and
/// asks on another.
const CROWD: &str = "
crowd = []
def answered():
    crowd.append(connect(sys.argv[1]))
    return ask(crowd[-1], os.getpid()) is not None
while answered():
    pass
crowd.pop()
print(len(crowd))
crowd.pop(0).close()
wait_until(answered, 'a place for another')
";

#[test]
fn connections_are_bounded_and_a_place_that_is_left_is_anothers() {
    let mut witness = Witness::start();
    let asker = witness.asker.id();
    witness.executable(asker);
    let output = python(0, CROWD).arg(witness.socket()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // With the one that asked before, there were sixteen.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "15\n");
    witness.executable(asker);
}

#[test]
fn the_witness_is_as_closed_as_its_siblings() {
    let mut witness = Witness::start_as(BROKER, &TRACING);
    let asker = witness.asker.id();
    witness.executable(asker); // so that it has started
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", witness.process.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", witness.process.pid())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Its user cannot read its memory: a process that may be dumped would belong to its user.
    let mut look = Command::new("stat");
    let shown = look.args([
        "--format=%u",
        &format!("/proc/{}/mem", witness.process.pid()),
    ]);
    let owner = shown.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&owner.stdout), "0\n");
}
