//! Half an hour of work with a fault every minute, in turn of every kind that `make outages` has.
//! After each it serves again, nothing wrong is ever released, and neither descriptors nor memory
//! grow: a leak of one per fault would be thirty.

use crate::scene::client::Client;
use crate::scene::fault::Fault;
use crate::scene::log;
use crate::scene::place::{HSM, Place, TPM};
use harness::{wait_for, wait_until};
use std::time::{Duration, Instant};

/// `SOAK_S` in the environment has it try with less.
const SOAK: Duration = Duration::from_secs(30 * 60);
const FAULTS: u32 = 30;

/// Ten requests a second for each keystore: the soak runs beside other tests.
const EVERY: Duration = Duration::from_millis(100);

/// How long a token is away, where it is.
const AWAY: Duration = Duration::from_secs(3);

/// How long nothing may fail before it is said that all is well again, and how long that may take:
/// what an outage may take is measured elsewhere, with the machine to itself.
const WELL: Duration = Duration::from_secs(2);
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// Connections of two clients at rest: one each, two for a moment.
const CONNECTIONS_AT_REST: usize = 6;

/// So many samples in a hundred are warm-up: a first time of everything.
const WARM_UP_PERCENT: usize = 20;

/// What the last third may have more than the first: a few connections that are just being made, and
/// what an allocator keeps.
const DESCRIPTORS_MORE: u64 = 8;
const RSS_MORE_KIB: u64 = 2 * 1024;

/// One process after a recovery.
#[derive(Clone, Copy, Debug)]
struct Sample {
    descriptors: u64,
    rss_kib: u64,
}

/// All of them, of each kind of process: one that was replaced goes on as the same kind.
#[derive(Default)]
struct Samples {
    assertd: Vec<Sample>,
    hsm: Vec<Sample>,
    tpm: Vec<Sample>,
}

impl Sample {
    /// `None` if the process ends just now.
    fn of(pid: u32) -> Option<Sample> {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(Sample {
            descriptors: descriptors as u64,
            rss_kib: line.trim().trim_end_matches(" kB").parse().ok()?,
        })
    }
}

impl Samples {
    fn take(&mut self, place: &Place) {
        let rest = wait_until(WELL_WITHIN, || {
            let status = place.daemon.try_status();
            status.is_some_and(|status| status.connections <= CONNECTIONS_AT_REST)
        });
        let status = place.daemon.status();
        assert!(rest, "{} connections are open", status.connections);
        let keystore = |name: &str| {
            let sample = || Sample::of(place.daemon.keystore_process(name)?);
            wait_for(WELL_WITHIN, sample).unwrap_or_else(|| panic!("no process of {name}"))
        };
        let assertd = Sample::of(place.daemon.pid()).expect("assertd runs");
        self.assertd.push(assertd);
        self.hsm.push(keystore(HSM));
        self.tpm.push(keystore(TPM));
    }

    fn are_flat(&self) {
        for (kind, samples) in [
            ("assertd", &self.assertd),
            (HSM, &self.hsm),
            (TPM, &self.tpm),
        ] {
            let (first, last) = thirds(samples);
            println!("{kind}: {first:?}, then {last:?}");
            let flat = last.descriptors <= first.descriptors + DESCRIPTORS_MORE
                && last.rss_kib <= first.rss_kib + RSS_MORE_KIB;
            assert!(flat, "{kind} grows: {samples:?}");
        }
    }
}

/// The middle of the first third after the warm-up, and of the last.
fn thirds(samples: &[Sample]) -> (Sample, Sample) {
    let warm = &samples[samples.len() * WARM_UP_PERCENT / 100..];
    let third = warm.len() / 3;
    assert!(third > 0, "too few samples: {samples:?}");
    (middle(&warm[..third]), middle(&warm[warm.len() - third..]))
}

fn middle(samples: &[Sample]) -> Sample {
    let of = |value: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(value).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Sample {
        descriptors: of(|sample| sample.descriptors),
        rss_kib: of(|sample| sample.rss_kib),
    }
}

fn length() -> Duration {
    let asked = std::env::var("SOAK_S").ok();
    let seconds = asked.map(|text| text.parse().expect("SOAK_S is a number of seconds"));
    seconds.map_or(SOAK, Duration::from_secs)
}

/// Waits until both serve; panics if one does not.
fn all_is_well(place: &Place, clients: &[&Client; 2], fault: &str) {
    let since = clients.map(Client::now);
    let well = wait_until(WELL_WITHIN, || {
        clients.iter().zip(since).all(|(client, since)| {
            let lately = client.now().saturating_sub(WELL);
            lately >= since && client.serves_since(lately)
        })
    });
    assert!(well, "not after: {fault}\n{}", place.daemon.stderr());
}

/// Nothing wrong in what was logged, which is then forgotten; how many requests there were, and how
/// many of them failed.
fn nothing_was_wrong(client: &Client) -> (usize, usize) {
    let (wrong, counts) = client.with_entries(|entries| {
        let failed = entries
            .iter()
            .filter(|entry| entry.outcome != log::Outcome::Released);
        (log::wrong(entries), (entries.len(), failed.count()))
    });
    assert_eq!(wrong, None);
    client.forget();
    counts
}

#[test]
#[ignore = "long: half an hour with a fault every minute (2026-11-22)"]
fn with_a_fault_every_minute_it_serves_for_half_an_hour_and_does_not_grow() {
    let length = length();
    let mut place = Place::new();
    let hsm = Client::start(&place.daemon, HSM, EVERY);
    let tpm = Client::start(&place.daemon, TPM, EVERY);
    let (began, mut samples) = (Instant::now(), Samples::default());
    let (mut asked, mut failed) = (0, 0);
    all_is_well(&place, &[&hsm, &tpm], "the start");
    for (number, fault) in (1..).zip(Fault::ALL.into_iter().cycle()) {
        let client = if fault.keystore() == HSM { &hsm } else { &tpm };
        let felt = fault.inflict(&mut place, client, AWAY);
        place.hsm.rules("");
        place.tpm.proxy.rules("");
        felt.unwrap_or_else(|why| panic!("{}: {why}\n{}", fault.name(), place.daemon.stderr()));
        all_is_well(&place, &[&hsm, &tpm], fault.name());
        samples.take(&place);
        for client in [&hsm, &tpm] {
            let (more_asked, more_failed) = nothing_was_wrong(client);
            (asked, failed) = (asked + more_asked, failed + more_failed);
        }
        assert_eq!(place.assertd_restarts(), 0, "{}", place.daemon.stderr());
        let next = began + length / FAULTS * number;
        std::thread::sleep(next.saturating_duration_since(Instant::now())); // the pace of the soak
        if began.elapsed() >= length {
            break;
        }
    }
    drop((hsm, tpm));
    let (minutes, restarts) = (
        began.elapsed().as_secs() / 60,
        [HSM, TPM].map(|name| place.keystore_restarts(name)),
    );
    let faults = samples.assertd.len();
    println!(
        "{minutes} minutes, {faults} faults, {asked} requests, {failed} failed, {restarts:?} restarts"
    );
    samples.are_flat();
}
