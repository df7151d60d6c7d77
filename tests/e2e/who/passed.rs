//! A connection that somebody else uses: it speaks for the process that made it, as long as that
//! lives, whoever holds the descriptor. To hand it on is to hand on what one may have, like a password.

use super::{config, daemon};
use crate::world::{serves, us};
use harness::caller::printed;
use harness::user::{ALICE, BOB};
use harness::{Daemon, Token};

#[test]
fn a_descriptor_that_was_passed_on_speaks_for_its_connector_while_that_lives() {
    let token = Token::new();
    let config = config(&token).workload("bob", BOB, "");
    let mut daemon = Daemon::with_keys(config.target("bob", "his", ""));
    // Two processes that are not related pass it by SCM_RIGHTS (unix(7)).
    let script = format!(
        r"
def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
hers, his = socket.socketpair()
go, gone = os.pipe()
alice = os.fork()
if alice == 0:
    become({ALICE})
    s = connect()
    socket.send_fds(hers, [b'%d' % os.fstat(s.fileno()).st_ino], [s.fileno()])
    s.close()
    time.sleep(60)
bob = os.fork()
if bob == 0:
    become({BOB})
    inode, fds, _, _ = socket.recv_fds(his, 100, 1)
    s = socket.socket(fileno=fds[0])
    s.settimeout(20)
    if os.getresuid() != ({BOB},) * 3 or os.fstat(fds[0]).st_ino != int(inode):
        sys.exit('this is not the attack')
    for target in ['hers', 'his']:
        ask(s, target)
        say(status(s))
    his.send(b'x')
    os.read(go, 1)
    ask(s, 'hers')
    say(answer(s))
    t = connect()
    ask(t, 'his')
    say(status(t))
    os._exit(0)
his.close()
hers.recv(1)
os.kill(alice, signal.SIGKILL)
os.waitpid(alice, 0)
os.write(gone, b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(bob, 0)[1]))
"
    );
    let said = printed(us(), &daemon.socket(), &script);
    assert_eq!(said, "200\n403\n(0, '')\n200");
    let records = daemon.audit_records();
    let who = |kind: &str| {
        let records = records.iter().filter(|record| record["kind"] == kind);
        records
            .map(|record| record["uid"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(who("decision"), [ALICE, BOB]);
    let gone = daemon.audit_record(|record| record["reason"] == "peer_gone");
    assert_eq!(gone["uid"], ALICE, "{gone}");
    serves(&mut daemon);
}

#[test]
fn a_connection_of_roots_is_of_no_use_for_its_childs_own_target() {
    let token = Token::new();
    let daemon = daemon(&token);
    // The kernel still says root, who lives.
    let script = format!(
        "
s = connect()
child = os.fork()
if child == 0:
    os.setresgid({ALICE}, {ALICE}, {ALICE})
    os.setresuid({ALICE}, {ALICE}, {ALICE})
    if os.getresuid() != ({ALICE},) * 3: sys.exit('still root')
    ask(s, 'hers')
    say(status(s))
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"
    );
    assert_eq!(printed(us(), &daemon.socket(), &script), "403");
}

#[test]
fn a_caller_that_execs_is_the_same_caller() {
    let token = Token::new();
    let daemon = daemon(&token);
    let script = r"
if len(sys.argv) < 3:
    s = connect()
    s.set_inheritable(True)
    code = open('/proc/self/cmdline').read().split('\0')[3]
    before = os.readlink('/proc/self/exe')
    os.execv('/bin/sh', ['sh', '-c', 'exec /usr/bin/python3 -I -c \x22$0\x22 \x22$@\x22', code, sys.argv[1], str(s.fileno()), str(os.getpid())])
if int(sys.argv[3]) != os.getpid():
    sys.exit('another process')
s = socket.socket(fileno=int(sys.argv[2]))
s.settimeout(20)
ask(s, 'hers')
say(status(s))
";
    assert_eq!(printed(ALICE, &daemon.socket(), script), "200");
}
