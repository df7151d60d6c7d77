//! One assertd with one keystore, one issuer whose documents are published and one client: what a
//! rotation of the issuer's key is tried on, again and again. Time goes by when it is told to.

use super::program::Program;
use assertd_client::Client;
use assertd_client::api::{KeyStatus, KeyVerb, KeyVerbRequest};
use harness::clock::Clocks;
use harness::daemon::Site;
use harness::process::Process;
use harness::token::{KEYSTORE, Kind};
use harness::{Config, DEADLINE, Daemon, SoftHsm, Token, Tpm, process, public_dir, wait_until};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The key that is rotated, and one that must not notice.
pub const ROTATED: &str = "issuer/prod";
pub const OTHER: &str = "ours/own";

/// The targets that are signed for with each.
pub const TARGETS: [&str; 2] = ["bank", "own"];

/// A version that retires is withdrawn after an hour and ten seconds: what an issuer signs may live so
/// long.
const LATER_S: i64 = 4000;

/// How long a rotation may take to its end, with everything that is tried again.
const ROTATED_WITHIN: Duration = Duration::from_secs(60);

/// A place with its daemon.
pub struct World {
    daemon: Option<Daemon>,
    pub token: Token,
    pub published: TempDir,
    clocks: Clocks,
    moved_s: i64,
    /// The number of the version that signs while nothing happens.
    pub version: u32,
    /// Why the last order to rotate was refused.
    refused: String,
}

/// How far a rotation has come by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The new version signs, the old one is destroyed.
    ToItsEnd,
    /// assertd has ended before.
    UntilTheEndOfAssertd,
    /// What was waited for is so.
    AsFarAsWanted,
}

impl World {
    /// With a token or a TPM of its own.
    pub fn new(kind: Kind) -> World {
        let token = match kind {
            Kind::Pkcs11 => Token::Pkcs11(SoftHsm::new()),
            Kind::Tpm => Token::Tpm(Tpm::new()),
        };
        let published = public_dir();
        let uid = nix::unistd::geteuid().as_raw();
        // The first key of a client signs as soon as it is there.
        let config = Config::new(&token)
            .workload("ours", uid, "rate = 1000000\nburst = 1000000")
            .target("ours", "own", "")
            .with(&format!(
                "[workload.ours.target.bank]\nprofile = \"vault-jwt\"\nissuer = \"prod\"\n\
                 subject = \"a\"\naudience = \"https://vault.example\"\nlifetime = 10\nreuse = false\n\
                 [issuer.prod]\nurl = \"https://id.example/prod\"\nsubjects = [\"a\"]\n\
                 keystore = \"{KEYSTORE}\"\nalg = \"ES256\"\ntrust_domain = \"example.org\"\n\
                 rotation = {{ publish_latency = \"0s\", verifier_cache = \"0s\", skew = \"0s\", \
                 leeway = \"0s\", rollback = \"0s\" }}\n\
                 [publication]\ndirectory = \"{}\"",
                published.path().display()
            ));
        let mut world = World {
            daemon: None,
            token,
            published,
            clocks: Clocks::new(),
            moved_s: 0,
            version: 1,
            refused: String::new(),
        };
        let site = Site::new(config.text());
        let started = world.start(site);
        started.unwrap_or_else(|refusal| panic!("{refusal}"));
        world.daemon().apply();
        for target in TARGETS {
            world.daemon().wait_served(target);
        }
        world
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon
            .as_ref()
            .expect("it is taken while it is started")
    }

    pub fn site(&self) -> &Site {
        self.daemon().site()
    }

    pub fn keystore_state(&self) -> PathBuf {
        self.site().keystore_state(KEYSTORE)
    }

    /// A process of a program, once it serves.
    pub fn pid(&self, program: Program) -> u32 {
        self.daemon().wait_usable();
        match program {
            Program::Assertd => self.daemon().pid(),
            Program::Keystore => self.daemon().keystore_pid(),
        }
    }

    /// Starts assertd as before, and without cleaning up.
    ///
    /// # Errors
    /// That it refuses: its exit code with what it says.
    pub fn start_again(&mut self) -> Result<(), String> {
        let mut daemon = self.daemon.take().expect("it was started");
        if daemon.lives() {
            daemon.stop();
        }
        let pid = daemon.pid();
        // Its children are killed by the kernel, which takes a moment.
        let alone = || {
            process::children(pid)
                .iter()
                .all(|child| !process::runs(*child))
        };
        assert!(wait_until(DEADLINE, alone), "its children go on");
        self.start(daemon.into_site())
    }

    fn start(&mut self, site: Site) -> Result<(), String> {
        let mut process = Process::start(&mut self.clocks.command(&site));
        let ready = wait_until(DEADLINE, || {
            process.stderr().contains("assertd: ready:") || process.ended().is_some()
        });
        if let Some(status) = process.ended() {
            return Err(format!("{status}: {}", process.stderr()));
        }
        assert!(ready, "neither ready nor ended: {}", process.stderr());
        self.daemon = Some(Daemon::ready(process, site));
        Ok(())
    }

    /// The versions of the rotated key that are recorded; none while nobody answers.
    pub fn versions(&self) -> Option<Vec<KeyStatus>> {
        let mut client = Client::connect(&self.daemon().admin_socket()).ok()?;
        let mut keys = client.keys().ok()?.keys;
        keys.retain(|key| key.key.starts_with(&format!("{ROTATED}.")));
        Some(keys)
    }

    /// Has the rotation begun, if it has not, and goes with it until it has come to its end, or
    /// assertd has, or `wanted` holds.
    pub fn go_on(&mut self, wanted: impl Fn(&World) -> bool) -> Came {
        let (old, new) = (self.version, self.version + 1);
        let end = Instant::now() + ROTATED_WITHIN;
        let mut is_later = false;
        loop {
            if !self.daemon.as_mut().expect("it was started").lives() {
                return Came::UntilTheEndOfAssertd;
            }
            super::disk::is_whole(self);
            if wanted(self) {
                return Came::AsFarAsWanted;
            }
            let versions = self.versions().unwrap_or_default();
            let phase = |number: u32| {
                let id = format!("{ROTATED}.{number}");
                let version = versions.iter().find(|version| version.key == id);
                version.map_or("", |version| version.phase.as_str())
            };
            let active = versions.iter().filter(|version| version.phase == "active");
            let active = active.count();
            assert!(
                versions.is_empty() || active == 1,
                "{active} active: {versions:#?}"
            );
            match (phase(old), phase(new)) {
                ("destroyed", "active") => {
                    self.version = new;
                    self.refused.clear();
                    return Came::ToItsEnd;
                }
                // Whoever was refused does it again, although it may stand on the disk already.
                ("active", "")
                    if self.newest_on_disk() == Some(old) || !self.refused.is_empty() =>
                {
                    self.rotate();
                }
                // Whoever takes the first key of a set takes the one that signs.
                ("retiring", "active") if !is_later && self.comes_first(&versions, new) => {
                    self.later();
                    is_later = true;
                }
                _ => {}
            }
            assert!(
                Instant::now() < end,
                "the rotation does not come to its end: {versions:#?}\n{}",
                self.daemon().stderr()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn comes_first(&self, versions: &[KeyStatus], number: u32) -> bool {
        let id = format!("{ROTATED}.{number}");
        let version = versions.iter().find(|version| version.key == id);
        let set = super::disk::published(self, super::promises::SETS[0]);
        version.is_some_and(|version| set[0]["kid"] == version.kid.as_str())
    }

    /// It may be refused, or assertd may end: whoever says it says it again.
    fn rotate(&mut self) {
        if let Ok(mut client) = Client::connect(&self.daemon().admin_socket()) {
            let ordered = client.key_verb(&KeyVerbRequest {
                key: ROTATED.to_owned(),
                verb: KeyVerb::Rotate,
                now: false,
            });
            self.refused = ordered
                .err()
                .map_or_else(String::new, |why| format!("{why:?}"));
        }
    }

    /// All that somebody is told who asks: the answer to the order, the keys, the status.
    pub fn says(&self) -> String {
        let status = self.daemon().try_status();
        format!("{}\n{:?}\n{status:?}", self.refused, self.versions())
    }

    fn newest_on_disk(&self) -> Option<u32> {
        let state = super::disk::keyring(self);
        let versions = state["lineages"][ROTATED]["versions"].as_object()?;
        versions
            .keys()
            .filter_map(|number| number.parse().ok())
            .max()
    }

    /// Has time go by, for all clocks alike, and has assertd look at them.
    fn later(&mut self) {
        self.moved_s += LATER_S;
        self.clocks.set_suspended(self.moved_s);
        self.daemon().signal(Signal::SIGHUP);
    }

    /// Where its files are: its state, and what it publishes.
    pub fn directories(&self) -> [PathBuf; 2] {
        [self.site().state_dir(), self.published.path().to_owned()]
    }
}
