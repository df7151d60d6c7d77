//! The TPM loses its power, or is started again while the machine goes on: rows 14 and 20.

use super::scene::{Allowance, BOTH, ENCRYPTED, MANY, PASSWORD, Scene, handles, number, tool};
use harness::token::KEYSTORE;
use harness::{DEADLINE, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// What a TPM may go through (TPM 2.0 Part 1 §12.2.3). All of them lose what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The emulator ends and starts on its state: what a machine's reboot is for its TPM.
    PowerCycle,
    /// TPM2_Shutdown(CLEAR), initialised, and nobody has sent TPM2_Startup yet.
    ResetNotStarted,
    /// The same, and TPM2_Startup(CLEAR).
    Reset,
    /// TPM2_Shutdown(STATE), initialised, TPM2_Startup(CLEAR): a machine that hibernated.
    Restart,
    /// TPM2_Shutdown(STATE), initialised, TPM2_Startup(STATE): a machine that slept.
    Resume,
}

const EVENTS: [Event; 5] = [
    Event::PowerCycle,
    Event::ResetNotStarted,
    Event::Reset,
    Event::Restart,
    Event::Resume,
];

/// TPM2_Startup and TPM2_Shutdown, and what they may be asked for (Part 3 §9.3, §9.4).
const STARTUP: u32 = 0x144;
const SHUTDOWN: u32 = 0x145;
const CLEAR: u16 = 0;
const STATE: u16 = 1;

/// CMD_INIT of swtpm's control channel: the TPM's reset line (swtpm_ioctls(3)).
const CMD_INIT: u32 = 2;

/// What the TPM counts (TPM2_ReadClock): resets since it was made, and restarts and resumes since.
fn counts(tcti: &str) -> (u64, u64) {
    let shown = tool(tcti, "tpm2_readclock", &[]);
    (
        number(&shown, "reset_count"),
        number(&shown, "restart_count"),
    )
}

/// Sends one command that takes a number, and demands that the TPM carries it out.
#[track_caller]
fn order(scene: &mut Scene, code: u32, what: u16) {
    let mut tpm = TcpStream::connect(scene.tpm.tpm.swtpm().address()).unwrap();
    let command = [
        &[0x80, 0x01, 0, 0, 0, 12][..],
        &code.to_be_bytes(),
        &what.to_be_bytes(),
    ];
    tpm.write_all(&command.concat()).unwrap();
    let mut answer = [0; 10];
    tpm.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0], "{code:#x}");
}

/// Pulls the reset line.
#[track_caller]
fn initialise(scene: &mut Scene) {
    let (host, port) = scene.tpm.tpm.swtpm().address();
    let mut control = TcpStream::connect((host, port + 1)).unwrap();
    let flags = 0_u32;
    let command = [CMD_INIT.to_be_bytes(), flags.to_be_bytes()].concat();
    control.write_all(&command).unwrap();
    let mut answer = [0; 4];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0; 4], "CMD_INIT");
}

fn happen(event: Event, scene: &mut Scene) {
    let (before, then) = match event {
        Event::PowerCycle => return scene.tpm.tpm.swtpm().restart(),
        Event::ResetNotStarted => (CLEAR, None),
        Event::Reset => (CLEAR, Some(CLEAR)),
        Event::Restart => (STATE, Some(CLEAR)),
        Event::Resume => (STATE, Some(STATE)),
    };
    order(scene, SHUTDOWN, before);
    initialise(scene);
    if let Some(how) = then {
        order(scene, STARTUP, how);
    }
}

/// What every event of row 14 comes to; `parent` is the command by which the primary is found again.
fn signs_after_every_event(scene: &mut Scene, parent: &str) {
    let tcti = scene.tcti();
    let (pid, state) = (scene.daemon.keystore_pid(), scene.state());
    for event in EVENTS {
        let was = counts(&tcti);
        let (found, loaded) = (
            scene.tpm.proxy.seen(parent),
            scene.tpm.proxy.seen("TPM2_Load"),
        );
        happen(event, scene);
        if event != Event::ResetNotStarted {
            let reset = (was.0 + 1, 0);
            let now = counts(&tcti);
            match event {
                Event::Restart | Event::Resume => assert_eq!(now, (was.0, was.1 + 1), "{event:?}"),
                _ => assert_eq!(now, reset, "{event:?}"),
            }
            assert!(handles(&tcti, "transient").is_empty(), "{event:?}");
        }
        // Nobody notices it but the keystore: the first who asks is served.
        for n in 1..=MANY {
            assert_eq!(scene.ask(n).0, 200, "{event:?}\n{}", scene.daemon.stderr());
        }
        if event == Event::ResetNotStarted {
            assert_eq!(counts(&tcti), (was.0 + 1, 0), "{event:?}");
        }
        assert!(scene.tpm.proxy.seen(parent) > found, "{event:?}");
        assert!(scene.tpm.proxy.seen("TPM2_Load") > loaded, "{event:?}");
    }
    scene.is_as_before(pid);
    assert_eq!(scene.state(), state, "its state is the same, byte for byte");
}

#[test]
fn row_14_after_a_reset_the_same_keys_sign_and_nobody_is_needed() {
    for sessions in BOTH {
        let mut scene = Scene::new(MANY, sessions);
        signs_after_every_event(&mut scene, "TPM2_CreatePrimary");
    }
}

#[test]
fn row_14_after_a_reset_a_persistent_parent_is_found_again() {
    let tpm = harness::fault::Proxied::new();
    make_storage_root_key(&tpm.tpm.tcti());
    let mut scene = Scene::on(tpm, MANY, PASSWORD);
    let elsewhere = scene.tpm.proxy.seen("TPM2_CreatePrimary"); // above the attestation key
    signs_after_every_event(&mut scene, "TPM2_ReadPublic");
    assert_eq!(scene.tpm.proxy.seen("TPM2_CreatePrimary"), elsewhere);
    assert_eq!(handles(&scene.tcti(), "persistent").len(), 1);
}

/// Where the TCG wants it, as our own error text says to make one.
fn make_storage_root_key(tcti: &str) {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("srk.ctx").display().to_string();
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let shape = ["-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb"];
    let rest = ["-a", attributes, "-c", &made];
    tool(
        tcti,
        "tpm2_createprimary",
        &[&shape[..], &rest[..]].concat(),
    );
    let place = ["-C", "o", "-c", &made, "0x81000001"];
    tool(tcti, "tpm2_evictcontrol", &place);
    tool(tcti, "tpm2_flushcontext", &["-t"]);
}

/// How often the TPM may be asked while it is away and a client asks all the time: the ladder waits
/// longer and longer, and no request of a client is one to the TPM.
const ATTEMPTS: Allowance = Allowance {
    at_once: 20,
    each_second: 5,
};
const REQUESTS: usize = 100;

#[test]
fn row_20_a_tpm_that_is_gone_is_a_503_and_degraded_and_comes_back_by_itself() {
    for (sessions, times) in [(PASSWORD, 2), (ENCRYPTED, 1)] {
        let mut scene = Scene::new(MANY, sessions);
        let (pid, state) = (scene.daemon.keystore_pid(), scene.state());
        for time in 1..=times {
            let first = scene.tpm.tpm.swtpm().pid();
            scene.tpm.tpm.swtpm().power_off();
            let (attempts, begun) = (scene.tpm.proxy.seen("*"), Instant::now());
            // Refused within the deadline (`ask` looks at the time), with a word when to come back.
            let refused = wait_until(DEADLINE, || scene.ask(1).0 == 503);
            assert!(refused, "{}", scene.daemon.stderr());
            let shown = scene.daemon.wait_keystore(KEYSTORE, "degraded");
            let why = shown.why.unwrap_or_default();
            assert!(why.contains("the TPM cannot be reached"), "{why}");
            for _ in 0..REQUESTS {
                let refusal = (503, "keystore_unavailable".to_owned());
                assert_eq!(scene.ask(1), refusal);
            }
            let attempts = scene.tpm.proxy.seen("*") - attempts;
            let allowed = ATTEMPTS.since(begun);
            assert!(
                (1..=allowed).contains(&attempts),
                "{attempts} commands of {allowed}"
            );

            scene.tpm.tpm.swtpm().power_on();
            assert_ne!(scene.tpm.tpm.swtpm().pid(), first);
            for n in 1..=MANY {
                scene.serves_again(n);
            }
            scene.daemon.wait_keystore(KEYSTORE, "usable");
            // One line for each change, of the keystore's and of the broker's own.
            for who in ["keystore hsm: ", "assertd: keystore hsm: "] {
                for state in ["degraded: ", "usable"] {
                    let begins = format!("{who}{state}");
                    let lines = scene.daemon.logged(&begins);
                    let lines = lines.iter().filter(|line| line.starts_with(&begins));
                    let wanted = time + usize::from(state == "usable"); // once at the start
                    assert_eq!(lines.count(), wanted, "{}", scene.daemon.stderr());
                }
            }
        }
        scene.is_as_before(pid);
        assert_eq!(scene.state(), state);
        scene.nobody_panicked();
    }
}

#[test]
fn row_20_a_tpm_that_goes_in_the_middle_of_a_signature_costs_that_one() {
    let mut scene = Scene::new(1, PASSWORD);
    let pid = scene.daemon.keystore_pid();
    scene.tpm.proxy.rules("TPM2_Sign 1 stall\n");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| scene.witness.ask(&scene.daemon, 1));
        scene.tpm.proxy.wait_fired("TPM2_Sign", 1);
        scene.tpm.tpm.swtpm().power_off();
        scene.tpm.proxy.rules(""); // the proxy asks a TPM that is not there any more
        assert_eq!(asking.join().unwrap().0, 503);
    });
    scene.daemon.wait_keystore(KEYSTORE, "degraded");
    scene.tpm.tpm.swtpm().power_on();
    scene.serves_again(1);
    scene.is_as_before(pid);
    assert_eq!(scene.tpm.proxy.fired("TPM2_Sign"), 1);
}
