//! A configuration that is read again (P13): a bad one changes nothing and says where it is wrong, to
//! whoever asked, to the log and to the service manager; a good one holds from one request to the
//! next. That a fault was there is seen in the verdict, which names it.

use crate::observed::{self, NO_LIMIT};
use harness::daemon::Site;
use harness::http::{Raw, post_target};
use harness::manager::{Ear, SILENCE};
use harness::process::{Process, freeze, send};
use harness::token::KEYSTORE;
use harness::{Config, DEADLINE, Daemon, SoftHsm, wait_for, wait_until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The target of the main file, and the one of the team's.
const OURS: &str = "bank";
const THEIRS: &str = "other";

/// keystore::config::CONFIG_LEN_MAX
const FILE_LEN_MAX: u64 = 16 << 20;

/// A daemon with a file in conf.d, and the service manager that it tells.
struct Scene {
    daemon: Daemon,
    ear: Ear,
    team: PathBuf,
    token: SoftHsm,
}

fn team_section() -> String {
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default().workload("team", uid, NO_LIMIT);
    config.target("team", THEIRS, "").text().to_owned()
}

impl Scene {
    fn new() -> Scene {
        let (token, ear) = (SoftHsm::new(), Ear::new());
        let site = Site::new(observed::config(&token).text());
        let dir = site.config().with_file_name("conf.d");
        fs::create_dir(&dir).unwrap();
        let team = dir.join("team.toml");
        fs::write(&team, team_section()).unwrap();
        // Root without the capabilities that make every file readable.
        let mut command = Command::new("setpriv");
        let lost = "-dac_override,-dac_read_search";
        command.args(["--bounding-set", lost, "--inh-caps", lost]);
        command.arg(site.programs().assertd());
        command.args(site.command().get_args());
        command.env("NOTIFY_SOCKET", ear.path());
        let daemon = Daemon::ready(Process::start(&mut command), site);
        daemon.apply();
        let scene = Scene {
            daemon,
            ear,
            team,
            token,
        };
        assert!(scene.ear.hear_state().starts_with("READY=1\n"));
        scene
    }

    fn main(&self) -> PathBuf {
        self.daemon.site().config()
    }

    fn drop_ins(&self) -> &Path {
        self.team.parent().expect("the file is in conf.d")
    }

    fn reload(&self) -> Output {
        // As the unit does it: the socket is known, no file is read on the way to it.
        let socket = self.daemon.admin_socket();
        let arguments = ["-s", socket.to_str().unwrap(), "reload"];
        self.daemon.assertctl(&arguments)
    }

    /// The two messages of one reload: the second one.
    #[track_caller]
    fn hear_reload(&self) -> String {
        let first = self.ear.hear_state();
        assert!(
            first.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{first:?}"
        );
        let second = self.ear.hear_state();
        assert!(second.starts_with("READY=1\nSTATUS="), "{second:?}");
        second
    }

    /// Demands that both ways to reload are refused for a reason with this text, and that all goes on
    /// as before.
    #[track_caller]
    fn refuses(&self, fault: &str, why: &str) {
        let before = self.daemon.status().config;
        let refused = self.reload();
        let said = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{fault}: {said}");
        for part in [why, "the old configuration stays in force"] {
            assert!(said.contains(part), "{fault}: no {part:?} in: {said}");
        }
        // What has a place is shown there.
        let place = why.split_once(".toml:").map(|(_, rest)| rest);
        let has_place = place.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let caret = |line: &str| line.trim_start().starts_with('|') && line.contains('^');
        assert_eq!(has_place, said.lines().any(caret), "{fault}: {said}");
        let heard = self.hear_reload();
        assert!(heard.contains("STATUS=reload failed: "), "{heard}");
        assert!(heard.contains(why), "{fault}: {heard}");

        let failures = self.daemon.logged("reload failed: ").len();
        self.daemon.signal(Signal::SIGHUP);
        let heard = self.hear_reload();
        assert!(heard.contains(why), "{fault}: {heard}");
        self.daemon.wait_logged("reload failed: ", failures + 1);

        assert_eq!(self.daemon.status().config, before, "{fault}");
        self.serves_both(fault);
    }

    #[track_caller]
    fn serves_both(&self, after: &str) {
        for target in [OURS, THEIRS] {
            let outcome = self.daemon.outcome(target);
            assert_eq!(outcome.0, 200, "{target} after {after}: {outcome:?}");
        }
    }

    #[track_caller]
    fn accepts(&self) {
        let accepted = self.reload();
        assert_eq!(accepted.status.code(), Some(0), "{}", said(&accepted));
        let heard = self.hear_reload();
        assert!(heard.contains("(reloaded)"), "{heard}");
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Text of a team's file that is wrong, by what is wrong with it.
fn wrong_texts() -> Vec<(&'static str, String, &'static str)> {
    let right = team_section();
    let changed = |from: &str, to: &str| {
        assert!(right.contains(from), "{right}");
        right.replacen(from, to, 1)
    };
    vec![
        (
            "a bracket too few",
            changed("[workload.team]", "[workload.team"),
            "team.toml:1:",
        ),
        (
            "an unknown key",
            changed("client_id", "client"),
            "team.toml:8:1: unknown key `client`",
        ),
        (
            "a section that matches everybody",
            changed("match = {", "match = { } # {"),
            "team.toml:2:",
        ),
        (
            "a profile that there is not",
            changed("\"rfc7523\"", "\"rfc7524\""),
            "team.toml:6:",
        ),
        (
            "a section of assertd.toml",
            format!("[server]\nruntime_dir = \"/tmp\"\n{right}"),
            "team.toml:1:",
        ),
        (
            "a section that is there already",
            right.replace("[workload.team", "[workload.payments"),
            "team.toml:1:",
        ),
    ]
}

#[test]
fn row_36_a_configuration_with_a_mistake_changes_nothing_and_is_shown_with_its_place() {
    let scene = Scene::new();
    scene.serves_both("the start");
    for (fault, text, why) in wrong_texts() {
        fs::write(&scene.team, text).unwrap();
        scene.refuses(fault, why);
    }
    fs::write(&scene.team, team_section()).unwrap();
    scene.accepts();
    scene.serves_both("all that");
}

#[test]
fn row_36_a_configuration_that_cannot_be_read_changes_nothing() {
    let scene = Scene::new();
    scene.serves_both("the start");
    let (main, team) = (scene.main(), scene.team.clone());
    let aside = main.with_file_name("aside");

    fs::rename(&main, &aside).unwrap();
    scene.refuses("no main file", "assertd.toml: there is no such file");
    fs::create_dir(&main).unwrap();
    scene.refuses(
        "a directory for a main file",
        "assertd.toml: is a directory",
    );
    fs::remove_dir(&main).unwrap();
    fs::rename(&aside, &main).unwrap();

    fs::set_permissions(&team, Permissions::from_mode(0o000)).unwrap();
    scene.refuses(
        "no permission",
        "team.toml: cannot be read: Permission denied",
    );
    fs::remove_file(&team).unwrap();

    fs::create_dir(&team).unwrap();
    scene.refuses("a directory", "team.toml: is a directory");
    fs::remove_dir(&team).unwrap();

    mkfifo(&team, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    scene.refuses("a pipe", "team.toml: is a pipe or a device");
    fs::remove_file(&team).unwrap();

    make_device(&team); // /dev/zero, which never ends
    scene.refuses("a device", "team.toml: is a pipe or a device");
    fs::remove_file(&team).unwrap();

    File::create(&team)
        .unwrap()
        .set_len(FILE_LEN_MAX + 1)
        .unwrap();
    scene.refuses("a huge file", "team.toml: is longer than ");
    fs::write(&team, b"# \xff\n").unwrap();
    scene.refuses("a file of bytes", "team.toml: is not text in UTF-8");
    fs::write(&team, team_section()).unwrap();

    let moved = main.with_file_name("conf.d.old");
    fs::rename(scene.drop_ins(), &moved).unwrap();
    scene.refuses("conf.d has gone", "conf.d: is not there any more");
    fs::rename(&moved, scene.drop_ins()).unwrap();
    scene.accepts();
    scene.serves_both("all that");
}

/// The PIN is the keystore's to read, when it starts: a reload does not depend on it, and a keystore
/// that cannot read it is one that waits. Which one it is cannot change while assertd runs.
#[test]
fn row_36_a_credential_that_cannot_be_read_changes_nothing_until_the_keystore_needs_it() {
    let mut scene = Scene::new();
    scene.serves_both("the start");
    let (main, pin) = (scene.main(), scene.token.pin_file());
    let right = fs::read_to_string(&main).unwrap();
    let gone = format!("{}.gone", pin.display());
    let wrong = right.replace(pin.to_str().unwrap(), &gone);
    assert_ne!(wrong, right);
    fs::write(&main, wrong).unwrap();
    scene.refuses(
        "another credential, which is not there",
        "[keystore.hsm] changed, which takes a restart",
    );
    fs::write(&main, right).unwrap();

    fs::set_permissions(&pin, Permissions::from_mode(0o000)).unwrap();
    fs::write(&scene.team, format!("# moved\n{}", team_section())).unwrap();
    scene.accepts();
    scene.serves_both("a reload without the PIN");
    send(scene.daemon.keystore_pid(), Signal::SIGKILL);
    let unreadable = format!("{}: cannot be read: Permission denied", pin.display());
    let said = wait_for(DEADLINE, || {
        let keystore = scene.daemon.keystore(KEYSTORE)?;
        let why = keystore.why.unwrap_or_default();
        (keystore.state == "degraded" && why.contains(&unreadable)).then_some(why)
    });
    assert!(said.is_some(), "{:?}", scene.daemon.keystore(KEYSTORE));
    let refused = scene.daemon.outcome(OURS);
    assert_eq!(refused, (503, "keystore_unavailable".to_owned()));
    scene.accepts();

    fs::set_permissions(&pin, Permissions::from_mode(0o400)).unwrap();
    scene.daemon.wait_served(OURS);
    scene.serves_both("all that");
    assert!(scene.daemon.lives());
}

/// The device of /dev/zero (null(4)).
fn make_device(path: &Path) {
    use nix::sys::stat::{SFlag, makedev, mknod};
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(path, SFlag::S_IFCHR, mode, makedev(1, 5)).expect("root may make devices here");
}

/// Whoever was granted before the reload gets what was granted; whoever comes later, also on a
/// connection that was there before, is nobody's workload any more.
#[test]
fn row_36_a_section_that_is_removed_is_refused_from_then_on_and_what_was_granted_ends() {
    let scene = Scene::new();
    scene.serves_both("the start");
    let (daemon, keystore) = (&scene.daemon, scene.daemon.keystore_pid());
    let mut waiting = daemon.raw();
    let mut later = daemon.raw();
    later.send(&post_target(THEIRS)).unwrap();
    assert_eq!(later.answer(DEADLINE).expect("an answer").status, 200);

    freeze(keystore);
    let decisions = || observed::of_kind(&daemon.audit_records(), "decision").len();
    let before = decisions();
    waiting.send(&post_target(THEIRS)).unwrap();
    assert!(wait_until(DEADLINE, || decisions() > before));
    fs::write(&scene.team, "# the team has moved\n").unwrap();
    scene.accepts();
    // Refused by policy, without a word of the keystore, which stands still.
    later.send(&post_target(THEIRS)).unwrap();
    assert_eq!(later.answer(DEADLINE).expect("an answer").status, 403);
    assert_eq!(daemon.outcome(THEIRS).0, 403);
    send(keystore, Signal::SIGCONT);
    let answer = waiting.answer(DEADLINE).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body());
    assert_eq!(daemon.outcome(OURS).0, 200);
    observed::chain_verifies(daemon);
}

/// What a signal brings about while requests under way are waited for is nothing.
#[test]
fn row_37_a_reload_while_it_drains_cuts_nobody_and_delays_no_end() {
    let mut scene = Scene::new();
    scene.serves_both("the start");
    let keystore = scene.daemon.keystore_pid();
    freeze(keystore);
    let mut asked: Vec<Raw> = (0..4).map(|_| scene.daemon.raw()).collect();
    let decisions = |scene: &Scene| {
        let records = scene.daemon.audit_records();
        observed::of_kind(&records, "decision").len()
    };
    let before = decisions(&scene);
    for raw in &mut asked {
        raw.send(&post_target(OURS)).unwrap();
    }
    assert!(wait_until(DEADLINE, || decisions(&scene) == before + 4));

    fs::write(&scene.team, "[nonsense").unwrap();
    scene.daemon.signal(Signal::SIGTERM);
    assert_eq!(scene.ear.hear_state(), "STOPPING=1\nSTATUS=draining\n");
    for _ in 0..100 {
        scene.daemon.signal(Signal::SIGHUP);
    }
    let refused = scene.reload();
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
    send(keystore, Signal::SIGCONT);
    for mut raw in asked {
        let answer = raw.answer(DEADLINE).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body());
    }
    assert_eq!(
        scene.daemon.exit_code(),
        Some(0),
        "{}",
        scene.daemon.stderr()
    );
    assert_eq!(scene.ear.hear(SILENCE), None, "it was ending");
    let records = scene.daemon.audit_records();
    assert_eq!(records.last().unwrap()["kind"], "closed");
    fs::write(&scene.team, team_section()).unwrap(); // assertctl finds the log by it
    observed::chain_verifies(&scene.daemon);
}
