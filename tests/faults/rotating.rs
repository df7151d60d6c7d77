//! Keys rotate while the configuration is reloaded all the time: how long something lives was decided when it was
//! signed, and its key stays published for as long, whatever the configuration says by then.

use crate::observed::{self, NO_LIMIT, TARGET};
use crate::reloads::configure;
use harness::assertion::{decode, now_s};
use harness::{Config, Daemon, SoftHsm};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lifetimes in seconds that take turns. By the short one alone a key would be published for 12 s after its last
/// signature: the 10 s more are for requests in flight.
const LIFETIMES_S: [u64; 2] = [2, LONGEST_S];
const LONGEST_S: u64 = 15;

/// Reloads of a version that is published, before it is told to sign.
const BETWEEN: usize = 20;

/// For each thing that is waited for; what lives longest goes after half a minute.
const PATIENCE: Duration = Duration::from_secs(90);

const KEY: &str = "issuer/prod";

fn text(token: &SoftHsm, longest_s: u64, lifetime_s: u64) -> String {
    let uid = nix::unistd::geteuid().as_raw();
    let issuer = format!(
        "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"payments\"]\n\
                  keystore = \"hsm\"\nalg = \"ES256\"\nrotation = {{ activation = \"hand\", publish_latency = \"0s\", \
                  verifier_cache = \"0s\", skew = \"0s\", leeway = \"0s\", rollback = \"0s\" }}\n\
         lifetime_max = {longest_s}\n"
    );
    let target = format!(
        "[workload.payments.target.{TARGET}]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
         subject = \"payments\"\naudience = \"sts.amazonaws.com\"\nlifetime = {lifetime_s}\nreuse = false\n"
    );
    let config = Config::new(token).workload("payments", uid, NO_LIMIT);
    config.with(&issuer).with(&target).text().to_owned()
}

/// Whether a version is being made: what the longest lifetime is then is in its charter, for ever.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Making {
    Yes,
    No,
}

struct Scene {
    daemon: Daemon,
    token: SoftHsm,
    reloads: usize,
    making: Making,
    /// By kid: how often it signed, and until when anything of it is valid, in seconds since 1970.
    signed: BTreeMap<String, (usize, u64)>,
}

impl Scene {
    fn new() -> Scene {
        let token = SoftHsm::new();
        let daemon = Daemon::with_keys(text(&token, LONGEST_S, LONGEST_S));
        Scene {
            daemon,
            token,
            reloads: 0,
            making: Making::No,
            signed: BTreeMap::new(),
        }
    }

    fn verb(&self, verb: &str) {
        let output = self.daemon.assertctl(&["keys", verb, KEY]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {said}");
    }

    fn published(&self) -> Vec<String> {
        let output = self.daemon.assertctl(&["jwks", "--key", KEY]);
        let set: Value = serde_json::from_slice(&output.stdout).unwrap();
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    }

    fn phase(&self, version: usize) -> String {
        let id = format!("{KEY}.{version}");
        let keys = self.daemon.keys();
        let found = keys.into_iter().find(|key| key.key == id);
        found.map_or_else(String::new, |key| key.phase)
    }

    /// The other configuration, one assertion by it, and a look at what is published.
    fn turn(&mut self) {
        self.reloads += 1;
        let lifetime_s = LIFETIMES_S[self.reloads % LIFETIMES_S.len()];
        let longest_s = match self.making {
            Making::Yes => LONGEST_S,
            Making::No => lifetime_s,
        };
        configure(
            self.daemon.site(),
            &text(&self.token, longest_s, lifetime_s),
        );
        self.daemon.admin().reload().unwrap();

        let answer = self.daemon.client().assertion(TARGET, None);
        let assertion = answer.expect("a reload costs no request").assertion;
        let (header, claims) = decode(&assertion);
        let exp = claims["exp"].as_u64().unwrap();
        assert_eq!(exp - claims["iat"].as_u64().unwrap(), lifetime_s);
        let kid = header["kid"].as_str().unwrap().to_owned();
        let signed = self.signed.entry(kid).or_default();
        *signed = (signed.0 + 1, signed.1.max(exp));

        let published = self.published();
        let now = now_s(); // what is valid now was when the set was read
        for (kid, (_, until)) in &self.signed {
            assert!(
                *until <= now || published.contains(kid),
                "after {} reloads {kid} is published no more, and something of it is valid for {} s: {:?}",
                self.reloads,
                until - now,
                self.daemon.keys()
            );
        }
    }

    fn turn_until(&mut self, what: &str, mut is_there: impl FnMut(&Scene) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_there(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.daemon.keys());
            self.turn();
        }
    }
}

#[test]
fn row_37_a_key_that_rotates_between_reloads_is_published_until_nothing_it_signed_is_valid() {
    let mut scene = Scene::new();
    scene.turn();
    let first = scene.published();
    for version in 2..=3 {
        scene.making = Making::Yes;
        scene.turn();
        scene.verb("rotate");
        scene.turn_until("published", |scene| scene.phase(version) == "published");
        scene.making = Making::No;
        for _ in 0..BETWEEN {
            scene.turn();
        }
        scene.verb("activate");
        scene.turn_until("active", |scene| scene.phase(version) == "active");
        scene.turn();
    }
    scene.turn_until("the first one is withdrawn", |scene| {
        !scene.published().contains(&first[0])
    });
    let signed: Vec<usize> = scene.signed.values().map(|(times, _)| *times).collect();
    println!(
        "{} reloads; signed by each version: {signed:?}",
        scene.reloads
    );
    assert!(
        signed.len() == 3 && signed.iter().all(|times| *times > 1),
        "{signed:?}"
    );
    let records = scene.daemon.audit_records();
    assert_eq!(
        observed::of_kind(&records, "configured").len(),
        1 + scene.reloads
    );
    observed::chain_verifies(&scene.daemon);
}
