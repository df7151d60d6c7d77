//! A user who changes after the connection was made (polkit CVE-2013-4288): the uid and gid at connect
//! must be all that the process has now, real, effective, saved and for files.

use super::daemon;
use crate::world::{serves, us};
use harness::Token;
use harness::caller::{finished, printed, script_as};
use harness::setuid::SetuidPython;
use harness::user::{ALICE, need_root};

/// What `/proc` says of the script's own ids, and what SO_PEERCRED says of a connection of the script
/// to a listener of its own, which it made with [`control`](Self).
const IDS: &str = r"
import ctypes
libc = ctypes.CDLL(None)
def ids():
    lines = dict(line.split(':', 1) for line in open('/proc/self/status'))
    return [[int(word) for word in lines[name].split()] for name in ('Uid', 'Gid')]
def control():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind('')  # an abstract name that nobody has (unix(7), autobind)
    listener.listen()
    mine = socket.socket(socket.AF_UNIX)
    mine.connect(listener.getsockname())
    return mine, listener.accept()[0]
def shown(control):
    return list(struct.unpack('3i', control[1].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:])
";

#[test]
fn uid_change_after_connect_is_refused() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    // Each of the ids alone, and all of them. Root can take them back, and is itself again.
    let script = format!(
        r"{IDS}
A = {ALICE}
def set(uids=(0, 0, 0), gids=(0, 0, 0), fsuid=None, fsgid=None):
    os.setresuid(0, 0, 0)
    os.setresgid(*gids)
    os.setresuid(*uids)
    if fsuid is not None: libc.setfsuid(fsuid)
    if fsgid is not None: libc.setfsgid(fsgid)
changes = [
    (dict(uids=(A, 0, 0)), [[A, 0, 0, 0], [0] * 4]),
    (dict(uids=(0, A, 0)), [[0, A, 0, A], [0] * 4]),
    (dict(uids=(0, 0, A)), [[0, 0, A, 0], [0] * 4]),
    (dict(fsuid=A), [[0, 0, 0, A], [0] * 4]),
    (dict(gids=(A, 0, 0)), [[0] * 4, [A, 0, 0, 0]]),
    (dict(gids=(0, A, 0)), [[0] * 4, [0, A, 0, A]]),
    (dict(gids=(0, 0, A)), [[0] * 4, [0, 0, A, 0]]),
    (dict(fsgid=A), [[0] * 4, [0, 0, 0, A]]),
    (dict(gids=(A, A, A)), [[0] * 4, [A] * 4]),
]
s, own = connect(), control()
ask(s, 'bank')
say(status(s))
for change, wanted in changes:
    set(**change)
    if ids() != wanted or shown(own) != [0, 0]:
        sys.exit('%s: %s, and SO_PEERCRED %s' % (change, ids(), shown(own)))
    ask(s, 'bank')
    changed = status(s)
    set()
    ask(s, 'bank')
    say(changed, status(s))
os.setresgid(A, A, A)
os.setresuid(A, A, A)
if ids() != [[A] * 4, [A] * 4] or shown(own) != [0, 0]:
    sys.exit('for good: %s, and SO_PEERCRED %s' % (ids(), shown(own)))
for target in ['bank', 'hers']:
    ask(s, target)
    say(status(s))
t = connect()
ask(t, 'hers')
say(status(t))
"
    );
    let said = printed(us(), &daemon.socket(), &script);
    let each = ["403 200"; 9].join("\n");
    assert_eq!(said, format!("200\n{each}\n403\n403\n200"));
    let record = daemon.audit_record(|record| record["kind"] == "denied");
    assert_eq!(record["reason"], "peer_changed_user", "{record}");
    serves(&mut daemon);
}

#[test]
fn whoever_connects_with_ids_that_differ_is_nobody() {
    let token = Token::new();
    let mut daemon = daemon(&token);
    let script = format!(
        r"{IDS}
A = {ALICE}
for uids in [(A, 0, 0), (0, A, 0), (0, 0, A), (0, A, A), (A, A, 0), (A, 0, A)]:
    os.setresuid(0, 0, 0)
    os.setresuid(*uids)
    own, s = control(), connect()
    if ids()[0][:3] != list(uids) or shown(own)[0] != uids[1]:
        sys.exit('%s: %s, and SO_PEERCRED %s' % (uids, ids(), shown(own)))
    for target in ['bank', 'hers']:
        ask(s, target)
        say(status(s))
"
    );
    let said = printed(us(), &daemon.socket(), &script);
    assert_eq!(said, ["403"; 12].join("\n"));
    serves(&mut daemon);
}

#[test]
fn a_set_uid_program_is_neither_its_owner_nor_its_caller() {
    need_root();
    let token = Token::new();
    let mut daemon = daemon(&token);
    let python = SetuidPython::new();
    // Alice connects and is served; then she becomes a set-uid program of root's, which becomes root.
    let script = format!(
        r"{IDS}
A = {ALICE}
if len(sys.argv) < 4:
    s = connect()
    ask(s, 'hers')
    say(status(s), ids()[0])
    s.set_inheritable(True)
    code = open('/proc/self/cmdline').read().split('\0')[3]
    os.execv(sys.argv[2], [sys.argv[2], '-I', '-c', code, *sys.argv[1:], str(s.fileno())])
s = socket.socket(fileno=int(sys.argv[3]))
s.settimeout(20)
def both(s):
    for target in ['bank', 'hers']:
        ask(s, target)
        say(status(s), ids()[0])
both(s)
both(connect())
os.setresuid(0, 0, 0)
both(s)
"
    );
    let mut command = script_as(ALICE, &daemon.socket(), &script);
    let said = finished(command.arg(python.path()));
    let (alice, set_uid, root) = (
        format!("[{ALICE}, {ALICE}, {ALICE}, {ALICE}]"),
        format!("403 [{ALICE}, 0, 0, 0]\n"),
        "403 [0, 0, 0, 0]",
    );
    let expected = format!("200 {alice}\n{}{root}\n{root}", set_uid.repeat(4));
    assert_eq!(said, expected);
    serves(&mut daemon);
}
