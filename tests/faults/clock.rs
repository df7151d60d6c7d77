//! The wall clock is wrong while assertd and its keystores run, or before they start. Both judge for
//! themselves, so both are given other clocks (`harness::clock`), and what a keystore makes of it is
//! asked of the keystore. What was moved is seen in what comes of it: a refusal, or an `iat`.

use crate::observed::{self, NO_LIMIT, TARGET};
use assertd_client::api::Status;
use harness::assertion::decode;
use harness::clock::Clocks;
use harness::daemon::Site;
use harness::process::Process;
use harness::token::KEYSTORE;
use harness::{DEADLINE, Daemon, SoftHsm, wait_for, wait_until};
use keystore::charter::PurposeKind;
use keystore::client::Client as KeystoreClient;
use keystore::protocol::{Reply, Request};
use keystore::{Claims, Error, Kind};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEARS_10: i64 = 3653 * DAY;

/// What `rfc7523` gives an assertion unless something else is said (docs/man/assertd.toml.5.md).
const LIFETIME_S: i64 = 60;

/// How far an `iat` may lie from the time at which it was asked for.
const LEEWAY_S: i64 = 2;

/// A daemon with a key, and its clocks.
struct Scene {
    daemon: Daemon,
    clocks: Clocks,
    token: SoftHsm,
}

/// What must be the same after a clock was wrong.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    kids: BTreeSet<String>,
    private_keys: usize,
    decisions: usize,
}

impl Scene {
    fn serving(extra: &str) -> Scene {
        let scene = Scene::started_at(0, extra);
        scene.daemon.apply();
        scene.daemon.wait_served(TARGET);
        scene
    }

    /// `extra` is more lines of the workload's section.
    fn started_at(wall: i64, extra: &str) -> Scene {
        let (clocks, token) = (Clocks::new(), SoftHsm::new());
        clocks.set_wall(wall);
        let uid = nix::unistd::geteuid().as_raw();
        let config = harness::Config::new(&token)
            .workload("payments", uid, &format!("{NO_LIMIT}\n{extra}"))
            .target("payments", TARGET, "");
        let site = Site::new(config.text());
        let daemon = Daemon::ready(Process::start(&mut clocks.command(&site)), site);
        assert!(clocks.asked() > 0, "nobody asked the clocks we move");
        Scene {
            daemon,
            clocks,
            token,
        }
    }

    /// Ends assertd and starts it with the same clocks.
    fn restarted(self) -> Scene {
        let Scene {
            mut daemon,
            clocks,
            token,
        } = self;
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
        let site = daemon.into_site();
        let daemon = Daemon::ready(Process::start(&mut clocks.command(&site)), site);
        Scene {
            daemon,
            clocks,
            token,
        }
    }

    /// `iat` of an assertion, which lives as long as it should by that.
    #[track_caller]
    fn iat(&self) -> i64 {
        let answer = self.daemon.client().assertion(TARGET, None);
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", self.daemon.stderr()));
        let (_, claims) = decode(&answer.assertion);
        let time = |name: &str| claims[name].as_i64().unwrap();
        assert_eq!(time("exp") - time("iat"), LIFETIME_S, "{claims}");
        time("iat")
    }

    /// Demands an assertion of the time that is `ahead` of ours.
    #[track_caller]
    fn mints_at(&self, ahead: i64) {
        self.daemon.wait_served(TARGET);
        let before = now_s();
        let iat = self.iat();
        let after = now_s();
        let allowed = before + ahead - LEEWAY_S..=after + ahead + LEEWAY_S;
        assert!(allowed.contains(&iat), "{iat} is not in {allowed:?}");
    }

    /// Waits until assertd trusts its clock no more, and demands that nothing is minted by it, that
    /// who asks is told, and an administrator as well.
    #[track_caller]
    fn is_suspect(&self, why: &str) -> Status {
        let suspect = |status: &Status| status.clock.state == "suspect";
        let seen = wait_for(DEADLINE, || self.daemon.try_status().filter(suspect));
        let status =
            seen.unwrap_or_else(|| panic!("it is trusted: {:?}", self.daemon.status().clock));
        let said = status.clock.why.clone().unwrap();
        assert!(said.contains(why), "{said}");
        let before = self.kept();
        for _ in 0..3 {
            let answer = self.daemon.ask(&format!("{{\"target\":\"{TARGET}\"}}"));
            let told = (answer.status, answer.problem());
            assert_eq!(told, (503, "clock_untrusted".to_owned()));
            assert!(answer.body().contains(why), "{}", answer.body());
        }
        assert_eq!(self.kept(), before, "something was granted");
        let output = self.daemon.assertctl(&["status"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = shown.lines().find(|line| line.starts_with("FAIL  clock"));
        assert!(line.is_some_and(|line| line.contains(why)), "{shown}");
        self.daemon.wait_logged("assertd: clock: ", 1);
        status
    }

    #[track_caller]
    fn is_trusted(&self) {
        let trusted = wait_until(DEADLINE, || self.daemon.status().clock.state == "ok");
        assert!(trusted, "{:?}", self.daemon.status().clock);
    }

    fn kept(&self) -> Kept {
        let keys = self.daemon.keys();
        Kept {
            kids: keys.into_iter().map(|key| key.kid).collect(),
            private_keys: self.token.private_keys(),
            decisions: observed::of_kind(&self.daemon.audit_records(), "decision").len(),
        }
    }

    /// What the keystore answers to whoever has taken the broker over and asks for an assertion of
    /// the time that is `ahead` of ours: exactly what it does for the broker.
    fn taken_over(&self, ahead: i64) -> Result<String, Error> {
        let socket = self.daemon.keystore_socket(KEYSTORE);
        let mut client = KeystoreClient::connect(&socket, Duration::from_secs(5)).unwrap();
        let iat = u64::try_from(now_s() + ahead).unwrap();
        let request = Request::Mint {
            key: self.daemon.keys()[0].key.parse().unwrap(),
            purpose: PurposeKind::ClientAuthentication,
            claims: Claims {
                iss: format!("payments-{TARGET}"),
                sub: Some(format!("payments-{TARGET}")),
                aud: Some("https://as.bank.example".into()),
                scope: None,
                jti: Some("q6urq6urq6urq6urq6urqw".into()),
                iat,
                nbf: None,
                exp: iat + LIFETIME_S.unsigned_abs(),
            },
        };
        match client.call(&request)? {
            Reply::Minted { jws } => Ok(jws),
            other => panic!("{other:?}"),
        }
    }

    /// Demands that the keystore refuses by itself, for a reason with this text.
    #[track_caller]
    fn keystore_is_suspicious(&self, ahead: i64, why: &str) {
        let refused = self.taken_over(ahead).expect_err("the keystore has minted");
        assert_eq!(refused.kind(), Kind::Clock, "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[test]
fn row_32_a_clock_that_goes_back_mints_nothing_and_no_iat_runs_backwards() {
    let scene = Scene::serving("");
    scene.taken_over(0).expect("the control");
    let (iat, kept) = (scene.iat(), scene.kept());
    scene.clocks.set_wall(-HOUR);
    scene.is_suspect("went back 3");
    scene.keystore_is_suspicious(-HOUR, "went back 3");
    scene.clocks.set_wall(-YEARS_10);
    scene.is_suspect("before assertd was built");
    scene.keystore_is_suspicious(-YEARS_10, "before assertd was built");
    assert_eq!(scene.kept(), kept, "a key or a grant too many");

    // An hour goes by on a clock that is an hour behind. It shows what it showed, and nobody has to
    // come and say that this is the time.
    scene.clocks.set_suspended_and_wall(HOUR + 100, -HOUR);
    scene.is_trusted();
    scene.mints_at(100);
    assert!(scene.iat() >= iat);
    let after = scene.kept();
    assert_eq!(
        (after.kids, after.private_keys),
        (kept.kids, kept.private_keys)
    );
}

#[test]
fn row_32_a_clock_that_goes_back_a_second_stops_nothing() {
    let scene = Scene::serving("");
    scene.mints_at(0);
    let before = scene.iat();
    scene.clocks.set_wall(-1);
    scene.clocks.wait_asked(10);
    let iat = scene.iat();
    assert!(iat >= before - 1, "{iat} after {before}");
    assert!(iat < now_s(), "{iat}: the clock was not moved");
    assert_eq!(scene.daemon.status().clock.state, "ok");
}

#[test]
fn row_33_a_clock_that_goes_ahead_ten_years_and_back_is_minted_by_at_no_time_in_between() {
    let scene = Scene::serving("");
    let kept = scene.kept();
    scene.clocks.set_wall(YEARS_10);
    scene.is_suspect("went ahead 31561");
    scene.keystore_is_suspicious(YEARS_10, "went ahead 31561");
    assert_eq!(scene.kept(), kept, "a key or a grant too many");
    scene.clocks.set_wall(0);
    scene.is_trusted();
    scene.mints_at(0);
    scene.taken_over(0).expect("the keystore is at peace too");
    let after = scene.kept();
    assert_eq!(
        (after.kids, after.private_keys),
        (kept.kids, kept.private_keys)
    );
    scene.daemon.wait_logged("assertd: clock: trusted again", 1);
}

/// A machine that was paused, or that finds the time late: nobody restarts it for that.
#[test]
fn row_33_a_clock_that_stays_ahead_is_believed_after_a_minute_of_the_boot_clock_and_back_again() {
    let scene = Scene::serving("");
    scene.clocks.set_wall(90 * DAY);
    scene.is_suspect("went ahead 7776");
    scene.keystore_is_suspicious(90 * DAY, "went ahead 7776");
    // A minute goes by: each process waits for as long from when it saw the step.
    scene.clocks.set_suspended_and_wall(61, 90 * DAY);
    scene.is_trusted();
    scene.mints_at(90 * DAY + 61);
    // It was wrong after all.
    scene.clocks.set_suspended(61);
    scene.is_trusted();
    scene.mints_at(61);
}

#[test]
fn row_34_a_host_that_starts_in_1970_mints_nothing_before_it_knows_the_time() {
    let scene = Scene::started_at(-now_s() + 100, "");
    scene.daemon.apply();
    let kept = scene.kept();
    scene.is_suspect("before assertd was built");
    scene.keystore_is_suspicious(0, "before assertd was built");
    assert_eq!(scene.kept(), kept, "something was granted");
    // It is ready all the same: status and denials are answered, and a fallback of systemd's or a
    // unit that is ordered after us waits for no time server.
    scene.daemon.wait_logged("assertd: ready: ", 1);
    scene.clocks.set_wall(0);
    scene.is_trusted();
    scene.mints_at(0);
    observed::chain_verifies(&scene.daemon);
}

/// assertd is stopped, and so is its memory; the audit log has another.
#[test]
fn row_34_a_host_that_starts_before_its_last_assertion_mints_nothing_until_it_has_passed_that() {
    let mut scene = Scene::serving("");
    scene.mints_at(0);
    let kept = scene.kept();
    scene.clocks.set_wall(-HOUR);
    for start in ["the first start", "another one"] {
        scene = scene.restarted();
        scene.is_suspect("before the last assertion in the audit log");
        assert_eq!(scene.kept(), kept, "{start}: something was granted");
    }
    scene.clocks.set_wall(0);
    scene.is_trusted();
    scene.mints_at(0);
    observed::chain_verifies(&scene.daemon);
}

#[test]
fn row_35_after_eight_hours_of_suspend_it_serves_at_once_and_what_has_expired_is_denied() {
    // The workload of this test ends in seven hours, on nobody's clock but the wall's.
    let expires = rfc3339(now_s() + 7 * HOUR);
    let scene = Scene::serving(&format!("expires = {expires}"));
    scene.mints_at(0);
    let mut kept_open = scene.daemon.raw();
    let none = harness::http::post_target("none");
    for _ in 0..3 {
        kept_open.send(&none).unwrap();
        assert_eq!(kept_open.answer(DEADLINE).expect("an answer").status, 403);
    }

    scene.clocks.set_suspended(6 * HOUR);
    scene.mints_at(6 * HOUR); // no step, and nothing to wait for
    assert_eq!(scene.daemon.status().clock.state, "ok");
    scene.clocks.set_suspended(8 * HOUR);
    let expired = wait_until(DEADLINE, || scene.daemon.outcome(TARGET).0 == 403);
    assert!(expired, "{:?}", scene.daemon.outcome(TARGET));
    scene
        .daemon
        .audit_record(|record| record["reason"] == "expired");

    // A connection that was open all the time is open: waiting is by the clock that stands still.
    kept_open.send(&none).unwrap();
    assert_eq!(kept_open.answer(DEADLINE).expect("an answer").status, 403);
    // What was to be counted for a minute is written down once, not 480 times.
    let counted = |record: &Value| record["kind"] == "denials" && record["target"].is_null();
    scene.daemon.audit_record(counted);
    scene.clocks.wait_asked(20);
    let records = scene.daemon.audit_records();
    let sums: Vec<&Value> = records.iter().filter(|record| counted(record)).collect();
    let sum: u64 = sums
        .iter()
        .filter_map(|record| record["count"].as_u64())
        .sum();
    assert!((1..=2).contains(&sums.len()) && sum >= 2, "{sums:#?}");
    observed::chain_verifies(&scene.daemon);
}

/// RFC 3339 in UTC, as TOML writes it.
fn rfc3339(unix_s: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"])
        .arg(format!("@{unix_s}"))
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}
