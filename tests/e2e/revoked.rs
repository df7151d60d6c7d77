//! Once `keys revoke --compromised` has returned, nothing that the key signed leaves assertd, whatever was
//! on its way (P4 of the operator: it is over when it says so).

use crate::world::us;
use harness::{Config, Daemon, Token, caller::Caller, wait_until};
use std::time::Duration;

const REVOKE: [&str; 5] = ["keys", "revoke", "ours/bank", "--compromised", "--yes"];

/// A daemon whose caller is held back by nothing but the token.
fn unhurried() -> (Daemon, Token) {
    let token = Token::new();
    let config = Config::new(&token)
        .workload("ours", us(), "rate = 100000\nburst = 100000")
        .target("ours", "bank", "");
    (Daemon::with_keys(&config), token)
}

fn revoke(daemon: &Daemon) {
    let output = daemon.assertctl(&REVOKE);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{why}\n{}", daemon.stderr());
}

/// Forty connections that ask without a pause. Told that it is over, it counts what the kernel holds for
/// each, and afterwards what came beyond that and is signed.
const CROWD: &str = r#"
import selectors
class Asks:
    def __init__(self):
        self.s, self.data, self.signed, self.held = connect(), b'', 0, None
        ask(self.s, 'bank')
    def read(self):
        part = self.s.recv(65536)
        if self.held is not None:
            late = part[max(self.held, 0):]
            self.held -= len(part)
            if b'"assertion"' in late:
                say('late', late[:200])
        self.data += part
        head, _, body = self.data.partition(b'\r\n\r\n')
        lengths = [l.split(b':')[1] for l in head.lower().split(b'\r\n') if l.startswith(b'content-length:')]
        if lengths and len(body) >= int(lengths[0]):
            self.signed += self.data.startswith(b'HTTP/1.1 200')
            self.data = b''
            ask(self.s, 'bank')
crowd = [Asks() for _ in range(40)]
waits = selectors.DefaultSelector()
for one in crowd:
    waits.register(one.s, selectors.EVENT_READ, one)
waits.register(sys.stdin, selectors.EVENT_READ)
begun, end = False, None
while end is None or time.monotonic() < end:
    for key, _ in waits.select(0.1):
        if key.data is None:
            told()
            for one in crowd:
                one.held = waiting(one.s)
            waits.unregister(sys.stdin)
            end = time.monotonic() + 1
            break
        key.data.read()
    if not begun and all(one.signed > 1 for one in crowd):
        begun = True
        say('begun')
say('over', sum(one.signed for one in crowd) > 40)
"#;

#[test]
fn nothing_that_a_key_signed_is_released_once_revoking_it_has_returned() {
    let (daemon, _token) = unhurried();
    let mut crowd = Caller::start(us(), &daemon.socket(), CROWD);
    crowd.expect("begun");
    revoke(&daemon);
    crowd.tell("returned");
    crowd.expect("over True");
}

/// Asks for more than the kernel holds for who does not read, and never reads until it is told.
const DEAF: &str = r"
s = connect()
s.setblocking(False)
left, last, since = request('bank') * 8000, -1, time.monotonic()
while time.monotonic() - since < 0.5:
    try:
        left = left[s.send(left):]
    except BlockingIOError:
        pass
    if waiting(s) != last:
        last, since = waiting(s), time.monotonic()
    time.sleep(0.005)
say('full', waiting(s) > 10000 and len(left) > 0)
told()
held = waiting(s)
s.settimeout(20)
say('more', len(to_end(s)) - held)
";

#[test]
fn an_answer_that_nobody_reads_is_not_waited_for_long_and_goes_nowhere() {
    let (mut daemon, _token) = unhurried();
    let mut deaf = Caller::start(us(), &daemon.socket(), DEAF);
    deaf.expect("full True");
    revoke(&daemon);
    deaf.tell("returned");
    deaf.expect("more 0");
    assert!(daemon.lives());
}

#[test]
fn whoever_says_it_a_second_time_is_answered_when_it_is_true() {
    const HOLD: [&str; 3] = ["keys", "hold", "ours/bank"];
    let (daemon, _token) = unhurried();
    let mut deaf = Caller::start(us(), &daemon.socket(), DEAF);
    deaf.expect("full True");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| daemon.assertctl(&HOLD));
        let is_held = || daemon.keys().iter().any(|key| key.state == "held");
        assert!(wait_until(Duration::from_secs(20), is_held));
        let second = daemon.assertctl(&HOLD);
        deaf.tell("returned");
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(said.contains("is stopped already"), "{said}");
        assert!(first.join().unwrap().status.success());
    });
    deaf.expect("more 0");
}
