//! A pid namespace of its own, in which assertd runs and where a process gets the number that the
//! test wants: numbers are given out in order, and `ns_last_pid` says which was last
//! (pid_namespaces(7)). From outside of it assertd serves nobody, so keys are made before.

use crate::cgroup::Unit;
use crate::daemon::{Daemon, Site};
use crate::process::{self, Process};
use std::io::{BufRead, BufReader, Lines, PipeReader, PipeWriter, Write};
use std::process::Command;

/// The namespace, its first process, and assertd in it.
pub struct PidSpace {
    daemon: Daemon,
    assertd: u32,
    orders: PipeWriter,
    says: Lines<BufReader<PipeReader>>,
}

/// Process 1 of the namespace. An order is a line of words, and each is answered by one line. Actors
/// are processes of another user; a socket belongs to process 1, so that every actor that is made later
/// has it too.
const INIT: &str = r"
import os, signal, socket, sys, time
uid, path = int(sys.argv[1]), sys.argv[2]
assertd = os.fork()
if assertd == 0:
    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.execv(sys.argv[3], sys.argv[3:])
def request(target):
    body = b'{\x22target\x22:\x22%s\x22}' % target.encode()
    return b'POST /v1/assertion HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s' % (len(body), body)
def send(s, target):
    try:
        s.sendall(request(target))
    except (BrokenPipeError, ConnectionResetError):
        pass
    return 'sent'
def read(s):
    try:
        got = s.recv(65536)
    except ConnectionResetError:
        got = b''
    return got[9:12].decode() or 'nothing'
def act(words, s):
    if words[0] == 'connect':
        s.connect(path)
        return 'connected'
    if words[0] == 'send':
        return send(s, words[1])
    if words[0] == 'read':
        return read(s)
    if words[0] == 'afresh':
        with socket.socket(socket.AF_UNIX) as own:
            own.settimeout(20)
            own.connect(path)
            send(own, words[1])
            return read(own)
def perform(s, unit, orders, reports):
    if unit != '-':
        with open(unit, 'w') as file:
            file.write('0')
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    with os.fdopen(orders) as orders, os.fdopen(reports, 'w') as reports:
        print('ready', file=reports, flush=True)
        for line in orders:
            print(act(line.split(), s), file=reports, flush=True)
    os._exit(0)
def actor(s, unit):
    theirs, ours = os.pipe()
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.close(heard)
        for _, other, _ in actors.values():
            other.close()
        perform(s, unit, theirs, said)
    os.close(theirs)
    os.close(said)
    return pid, os.fdopen(ours, 'w'), os.fdopen(heard)
def end(one):
    pid, orders, reports = one
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    orders.close()
    reports.close()
def ticks():
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 100)
def successor(s, unit, number):
    # Younger than whatever its predecessor did, by the clock that start times are taken from.
    before = ticks()
    while ticks() < before + 3:
        time.sleep(0.005)
    for _ in range(1000):
        with open('/proc/sys/kernel/ns_last_pid', 'w') as file:
            file.write(str(number - 1))
        one = actor(s, unit)
        if one[0] == number:
            return one
        end(one)
    sys.exit('the number was not given out again')
actors, sockets = {}, {}
def obey(words):
    if words[0] == 'actor':
        name, s, unit = words[1:4]
        if s not in sockets:
            sockets[s] = socket.socket(socket.AF_UNIX)
            sockets[s].settimeout(20)
        of = words[4] if len(words) > 4 else None
        made = successor(sockets[s], unit, actors[of][0]) if of else actor(sockets[s], unit)
        if made[2].readline() != 'ready\n':
            sys.exit('an actor is not ready')
        actors[name] = made
        return made[0]
    if words[0] == 'end':
        end(actors[words[1]])
        return 'ended'
    _, orders, reports = actors[words[0]]
    print(*words[1:], file=orders, flush=True)
    return reports.readline().strip()
print('assertd', assertd, flush=True)
for line in sys.stdin:
    print(obey(line.split()), flush=True)
";

/// Mounts the `/proc` of the pid namespace in this mount namespace alone, then runs its arguments.
const OWN_PROC: &str = r#"mount --make-private /proc && mount -t proc proc /proc && exec "$@""#;

impl PidSpace {
    /// Starts assertd by this command, at this place, in a new namespace. Actors are of user `uid`.
    pub fn start(site: Site, assertd: &Command, uid: u32) -> PidSpace {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount"]);
        // Not --mount-proc: that makes `/` private, which is no mount point where tests run in a tree.
        unshare.args(["--propagation", "unchanged", "sh", "-c", OWN_PROC, "sh"]);
        unshare.args(["/usr/bin/python3", "-I", "-c", INIT, &uid.to_string()]);
        unshare.arg(site.runtime_dir().join("assertd.sock"));
        unshare.arg(assertd.get_program()).args(assertd.get_args());
        let (theirs, orders) = std::io::pipe().unwrap();
        let (says, report) = std::io::pipe().unwrap();
        let process = Process::start(unshare.stdin(theirs).stdout(report));
        drop(unshare); // its copies of the pipes
        let daemon = Daemon::ready(process, site);
        let init = process::children(daemon.pid())[0];
        let assertd = process::children(init)[0];
        let mut space = PidSpace {
            daemon,
            assertd,
            orders,
            says: BufReader::new(says).lines(),
        };
        let number = space.line();
        assert!(number.starts_with("assertd "), "{number}");
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert_eq!(namespace(space.assertd), namespace(init));
        assert_ne!(namespace(space.assertd), namespace(std::process::id()));
        space
    }

    /// assertd, as a process to be looked at from outside; its [`Daemon::pid`] is the namespace's.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// assertd's process id outside.
    pub fn assertd(&self) -> u32 {
        self.assertd
    }

    /// Makes an actor that has this socket, in a unit or where the test is; its number in the namespace.
    pub fn actor(&mut self, name: &str, socket: &str, unit: Option<&Unit>) -> u32 {
        let said = self.order(&format!("actor {name} {socket} {}", procs(unit)));
        said.parse().unwrap_or_else(|_| panic!("{said}"))
    }

    /// Makes an actor with the number of one that was ended.
    #[track_caller]
    pub fn successor(&mut self, name: &str, socket: &str, unit: Option<&Unit>, of: (&str, u32)) {
        let said = self.order(&format!("actor {name} {socket} {} {}", procs(unit), of.0));
        assert_eq!(said, of.1.to_string(), "the number was taken again");
    }

    /// Kills an actor and takes its number back.
    pub fn end(&mut self, name: &str) {
        assert_eq!(self.order(&format!("end {name}")), "ended");
    }

    /// Tells an actor: `connect`, `send TARGET`, `read`, which says the status of what was read or
    /// `nothing`; `afresh TARGET` is all of it on another socket.
    pub fn tell(&mut self, name: &str, order: &str) -> String {
        self.order(&format!("{name} {order}"))
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let line = self.says.next();
        let line = line.unwrap_or_else(|| panic!("it has ended:\n{}", self.daemon.stderr()));
        line.unwrap()
    }
}

/// Where an actor writes itself to; `-` for nowhere.
fn procs(unit: Option<&Unit>) -> String {
    unit.map_or("-".to_owned(), |unit| unit.procs().display().to_string())
}
