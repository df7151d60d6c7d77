//! A process that ends while it is looked at, and whose number is another's by then. Held at each of
//! the witness's system calls in turn: whatever it has done by then, what it says is of the process
//! that was asked about, or nothing.

use super::files::{inside, reporting};
use super::{DEADLINE, Running, Witness, public_dir, sha256, sleep, sleeper};
use harness::process::Process;
use harness::programs::Programs;
use serde_json::Value;
use std::process::Stdio;

#[test]
fn a_process_that_has_ended_is_not_attested() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let program = dir.path().join("payments");
    sleeper(&program, "1");
    let mut running = Running::start(&mut sleep(&program));
    let pid = running.pid();
    witness.executable(pid); // its pidfd is made
    running.0.kill().unwrap();
    let ended = || harness::process::state(pid) == Some('Z');
    assert!(harness::wait_until(DEADLINE, ended));
    assert_eq!(
        witness.refusal(pid),
        "it has ended",
        "nobody has waited for it"
    );
    running.0.wait().unwrap();
    assert_eq!(harness::process::state(pid), None);
    assert_eq!(witness.refusal(pid), "it has ended");
}

/// Process 1 of a pid namespace, with the witness in it, which strace stops after each system call of
/// its connection's thread. For each step: a victim runs, the witness is asked about it and let go on
/// for so many calls, the victim is killed, and another program gets its number (`ns_last_pid` of
/// pid_namespaces(7) decides which is next). Then the witness goes on to its answer, which is printed.
/// Ends with the first step that is never reached. The victim's time is one to come, so that it is
/// never remembered and always the same calls are made.
const REUSE: &str = "
import signal, subprocess
dir, program, victim, other = sys.argv[1:5]
path, trace = dir + '/witness.sock', dir + '/trace'
CALLS = 'openat,openat2,read,pread64,readlink,readlinkat,poll,fstat,newfstatat,statx,fstatfs'
os.utime(victim, (0, time.time() + 86400))
def exe(pid):
    try:
        return os.readlink('/proc/%d/exe' % pid)
    except OSError:
        return None
def start(path):
    pid = os.fork()
    if pid == 0:
        os.execv(path, [path, '60'])
    return pid
def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
def take(number):
    for _ in range(100):
        with open('/proc/sys/kernel/ns_last_pid', 'w') as file:
            file.write(str(number - 1))
        pid = start(other)
        if pid == number:
            wait_until(lambda: exe(pid) == other, 'the other runs')
            return
        end(pid)
    sys.exit('the number was not given out again')
witness = subprocess.Popen([program, '--socket', path])
s = connect_soon(path)
tasks = lambda: os.listdir('/proc/%d/task' % witness.pid)
wait_until(lambda: len(tasks()) == 2, 'its connection has a thread')
thread = max(tasks(), key=int)
strace = subprocess.Popen(['strace', '-f', '-o', trace, '-e', 'trace=' + CALLS, '-e',
    'inject=' + CALLS + ':signal=SIGSTOP', '-p', str(witness.pid)], stderr=subprocess.DEVNULL)
def traced():
    status = lambda task: open('/proc/%d/task/%s/status' % (witness.pid, task)).read()
    return all('TracerPid:\\t%d\\n' % strace.pid in status(task) for task in tasks())
wait_until(traced, 'strace has all threads')
def stops():
    lines = open(trace).read().splitlines()
    return sum(line.startswith(thread + ' ') and line.endswith('--- stopped by SIGSTOP ---') for line in lines)
def answered():
    s.setblocking(False)
    try:
        return len(s.recv(1, socket.MSG_PEEK)) == 1
    except BlockingIOError:
        return False
    finally:
        s.settimeout(20)
def attempt(step):
    done, held = stops(), False
    pid = start(victim)
    wait_until(lambda: exe(pid) == victim, 'the victim runs')
    pidfd = os.pidfd_open(pid)
    send(s, [pidfd])
    before = done
    while True:
        wait_until(lambda: stops() > done or answered(), 'it is held, or has answered')
        if stops() > done:
            done += 1
            if done == before + step:
                held = True
                end(pid)
                take(pid)
            os.kill(witness.pid, signal.SIGCONT)
        elif answered():
            break
    print(json.dumps({'step': step, 'held': held, 'answer': answer(s)}), flush=True)
    end(pid)
    os.close(pidfd)
    return held
step = 1
while attempt(step):
    step += 1
strace.terminate()
";

#[test]
fn a_number_that_was_taken_again_is_never_mistaken_for_the_process() {
    harness::user::need_root();
    let (programs, dir, files) = (Programs::installed(), public_dir(), public_dir());
    let (victim, other) = (files.path().join("victim"), files.path().join("other"));
    sleeper(&victim, "1");
    sleeper(&other, "2");
    let mut command = inside(REUSE);
    command
        .arg(dir.path())
        .arg(programs.path("assertd-witness"));
    command.arg(&victim).arg(&other);
    let report = reporting(files.path());
    let mut process = Process::start(command.stdout(Stdio::from(report)));
    assert!(process.wait(4 * DEADLINE).success(), "{}", process.stderr());
    let report = std::fs::read_to_string(files.path().join("report")).unwrap();
    let steps: Vec<Value> = report
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, held) = steps.split_last().unwrap();
    assert_eq!(last["held"], false);
    assert_eq!(
        last["answer"]["executable"]["sha256"],
        sha256(&victim),
        "the control"
    );
    assert!(held.len() >= 10, "it makes more calls than that: {report}");
    let mut refused = 0;
    for step in held {
        assert_eq!(step["held"], true);
        match step["answer"]["not_attestable"].as_str() {
            Some("it has ended") => refused += 1,
            Some(why) => panic!("{why}: {step}"),
            // Ended after it was asked for the last time whether it lives.
            None => assert_eq!(
                step["answer"]["executable"]["sha256"],
                sha256(&victim),
                "{step}"
            ),
        }
    }
    assert!(
        held.len() - refused <= 3,
        "late, and not otherwise: {report}"
    );
}
