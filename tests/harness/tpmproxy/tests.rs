//! Each action, on the wire, with a real swtpm behind the proxy.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};
use tss_esapi::{Context, tcti_ldr::TctiNameConf};

/// TPM2_GetCapability for TPM2_PT_MANUFACTURER: the answer is always the same.
const COMMAND: [u8; 22] = [
    0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 6, 0, 0, 0x01, 0x05, 0, 0, 0, 1,
];
const NAME: &str = "TPM2_GetCapability";

struct World {
    proxy: TpmProxy,
    /// Before the directory, so that it ends first.
    swtpm: Swtpm,
    _dir: TempDir,
    /// What the TPM answers.
    reply: Vec<u8>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path());
        let mut world = World {
            proxy: TpmProxy::before(&swtpm),
            swtpm,
            _dir: dir,
            reply: Vec::new(),
        };
        world.reply = world.connect().ask();
        assert_eq!(world.reply[6..10], [0, 0, 0, 0], "{:x?}", world.reply);
        assert_eq!(world.reply.len(), 27);
        world
    }

    fn connect(&self) -> Connection {
        let stream = TcpStream::connect((self.proxy.host, self.proxy.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Connection(stream)
    }

    /// Sends the command once with these rules, demands that they fired, and returns what came.
    fn spoilt(&self, action: &str) -> (Vec<u8>, Connection) {
        let before = (self.proxy.seen(NAME), self.proxy.fired(NAME));
        self.proxy.rules(&format!("{NAME} 1 {action}\n"));
        let mut connection = self.connect();
        connection.send();
        let mut bytes = vec![0; 10_000];
        let length = connection.0.read(&mut bytes).unwrap();
        bytes.truncate(length);
        let after = (self.proxy.seen(NAME), self.proxy.fired(NAME));
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{action}");
        (bytes, connection)
    }

    /// The same connection, or else another one, has the truth next.
    fn goes_on(&self, mut connection: Connection) {
        assert_eq!(connection.ask(), self.reply);
    }

    fn was_closed(&self, mut connection: Connection) {
        match connection.0.read(&mut [0; 100]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("it is open: {other:?}"),
        }
        self.goes_on(self.connect());
    }
}

struct Connection(TcpStream);

impl Connection {
    fn send(&mut self) {
        self.0.write_all(&COMMAND).unwrap();
    }

    fn ask(&mut self) -> Vec<u8> {
        self.send();
        self.whole()
    }

    /// One answer as its head says.
    fn whole(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 10];
        self.0.read_exact(&mut bytes).unwrap();
        let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
        bytes.resize(usize::try_from(size).unwrap(), 0);
        self.0.read_exact(&mut bytes[10..]).unwrap();
        bytes
    }
}

#[test]
fn without_rules_it_relays_and_counts() {
    let world = World::new();
    let (before, all) = (world.proxy.seen(NAME), world.proxy.seen("*"));
    let (mut one, mut two) = (world.connect(), world.connect());
    for _ in 0..3 {
        assert_eq!(one.ask(), world.reply);
        assert_eq!(two.ask(), world.reply);
    }
    assert_eq!(world.proxy.seen(NAME), before + 6);
    assert_eq!(world.proxy.seen("*"), all + 6);
    assert_eq!(world.proxy.seen("TPM2_Sign"), 0);
    assert_eq!(world.proxy.fired("*"), 0);
    assert!(world.proxy.has_seen(&COMMAND[6..]));
    assert!(!world.proxy.has_seen(b"something else"));
}

/// tpm2-tss, which the keystore uses, on its way through the proxy.
fn library(world: &World) -> Context {
    let tcti = TctiNameConf::from_str(&world.proxy.tcti().to_string());
    Context::new(tcti.unwrap()).unwrap()
}

/// Whatever it makes of it: it comes back, and a new context works. Of an answer that is too short
/// tpm2-tss 3.2.1 makes one that is long enough, with what lay behind it in its memory.
#[test]
fn no_spoilt_answer_holds_the_library() {
    let world = World::new();
    for (times, action) in (1..).zip([
        "drop",
        "drop-after",
        "truncate",
        "short",
        "oversize",
        "huge",
        "garbage",
        "scramble",
        "flip",
    ]) {
        world.proxy.rules(&format!("TPM2_GetRandom 1 {action}\n"));
        let said = library(&world).get_random(8);
        assert_eq!(world.proxy.fired("TPM2_GetRandom"), times, "{action}");
        assert!(
            said.is_err() || ["short", "flip"].contains(&action),
            "{action}"
        );
        assert_eq!(library(&world).get_random(8).unwrap().len(), 8, "{action}");
    }
}

#[test]
fn a_library_of_the_world_talks_through_it() {
    let world = World::new();
    world.proxy.rules("TPM2_GetRandom 1 rc:0x922\n"); // TPM_RC_RETRY: the library asks again
    let mut context = library(&world);
    assert_eq!(context.get_random(8).unwrap().len(), 8);
    assert_eq!(world.proxy.seen("TPM2_GetRandom"), 2);
    assert_eq!(world.proxy.fired("TPM2_GetRandom"), 1);
}

#[test]
fn rc_answers_without_the_tpm_and_lie_after_it() {
    let mut world = World::new();
    let retry = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22];
    let (said, connection) = world.spoilt("lie:0x922");
    assert_eq!(said, retry);
    world.goes_on(connection);
    world.swtpm.power_off();
    let (said, _connection) = world.spoilt("rc:0x922");
    assert_eq!(said, retry);
    // There is nobody who could be asked before a lie.
    world.proxy.rules(&format!("{NAME} 1 lie:0x922\n"));
    let before = world.proxy.fired(NAME);
    let mut connection = world.connect();
    connection.send();
    assert_eq!(connection.0.read(&mut [0; 100]).unwrap(), 0);
    assert_eq!(world.proxy.fired(NAME), before);
}

#[test]
fn delay_takes_its_time() {
    let world = World::new();
    let began = Instant::now();
    let (said, connection) = world.spoilt("delay:80");
    assert!(began.elapsed() >= Duration::from_millis(80));
    assert_eq!(said, world.reply);
    world.goes_on(connection);
}

#[test]
fn drop_closes_without_the_tpm_and_drop_after_with_it() {
    let world = World::new();
    for action in ["drop", "drop-after"] {
        let (said, connection) = world.spoilt(action);
        assert_eq!(said, b"");
        world.was_closed(connection);
    }
}

#[test]
fn stall_is_silent_until_the_rules_change_and_others_are_served_meanwhile() {
    let world = World::new();
    world.proxy.rules(&format!("{NAME} 1 stall\n"));
    let mut stalled = world.connect();
    stalled.send();
    world.proxy.wait_fired(NAME, 1);
    let mut other = world.connect();
    assert_eq!(other.ask(), world.reply);
    stalled.0.set_nonblocking(true).unwrap();
    let silent = stalled.0.read(&mut [0; 100]).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    stalled.0.set_nonblocking(false).unwrap();
    world.proxy.rules("");
    assert_eq!(stalled.whole(), world.reply);
    world.goes_on(stalled);
}

#[test]
fn truncate_keeps_the_size_and_short_does_not() {
    let world = World::new();
    let cut = world.reply.len() - 4;
    let (said, connection) = world.spoilt("truncate");
    assert_eq!(said, world.reply[..cut]);
    world.was_closed(connection);
    let (said, connection) = world.spoilt("short");
    assert_eq!(said[2..6], u32::try_from(cut).unwrap().to_be_bytes());
    assert_eq!(said[6..], world.reply[6..cut]);
    world.goes_on(connection);
}

#[test]
fn sizes_that_no_tpm_has_are_oversize_and_huge() {
    let world = World::new();
    let (said, connection) = world.spoilt("oversize");
    assert_eq!(said[2..6], [0xff; 4]);
    assert_eq!(said[6..], world.reply[6..]);
    world.was_closed(connection);

    world.proxy.rules(&format!("{NAME} 1 huge\n"));
    let mut connection = world.connect();
    let said = connection.ask();
    assert_eq!(said.len(), 5_000);
    assert_eq!(said[6..world.reply.len()], world.reply[6..]);
    world.goes_on(connection);
}

#[test]
fn noise_is_garbage_and_behind_a_head_scramble() {
    let world = World::new();
    let (said, connection) = world.spoilt("garbage");
    assert_eq!(said.len(), world.reply.len());
    assert_ne!(said[..10], world.reply[..10]);
    world.was_closed(connection);
    let (said, connection) = world.spoilt("scramble");
    assert_eq!(said[..10], world.reply[..10]);
    assert_eq!(said.len(), world.reply.len());
    assert_ne!(said[10..], world.reply[10..]);
    world.goes_on(connection);
}

#[test]
fn flip_changes_one_bit_of_what_is_given_and_no_bare_code() {
    let world = World::new();
    let (said, connection) = world.spoilt("flip");
    let pairs = said.iter().zip(&world.reply);
    let bits: u32 = pairs.map(|(said, reply)| (said ^ reply).count_ones()).sum();
    assert_eq!((bits, said.len()), (1, world.reply.len()));
    world.goes_on(connection);

    world.proxy.rules("* 1 flip\n");
    let before = world.proxy.fired("*");
    let mut connection = world.connect();
    connection
        .0
        .write_all(&[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x7a])
        .unwrap();
    assert_eq!(connection.whole().len(), 10);
    assert_eq!(world.proxy.fired("*"), before);
}

#[test]
fn swtpm_may_be_ended_and_started_behind_it() {
    let mut world = World::new();
    let mut connection = world.connect();
    assert_eq!(connection.ask(), world.reply);
    world.swtpm.restart();
    assert_eq!(connection.ask(), world.reply);
    world.swtpm.power_off();
    connection.send();
    assert_eq!(connection.0.read(&mut [0; 100]).unwrap(), 0);
    world.swtpm.power_on();
    world.goes_on(world.connect());
}

#[test]
#[should_panic(expected = "not a rule: TPM2_Sing 1 drop")]
fn a_typo_fails_the_test_that_makes_it() {
    World::new().proxy.rules("TPM2_Sing 1 drop\n");
}

#[test]
fn when_it_is_gone_nobody_listens() {
    let World { proxy, .. } = World::new();
    let (host, port) = (proxy.host, proxy.port);
    drop(proxy);
    for port in [port, port + 1] {
        let refused = TcpStream::connect((host, port)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
