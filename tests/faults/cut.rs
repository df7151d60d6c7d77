//! Rows 21 to 31: a rotation that is cut off, state that cannot be written, a state directory that is not
//! as it must be. A few points of what `make crashes` tries in full (`tests/crashes`).

use crate::rotation::all::points_of;
use crate::rotation::points::{self, Fault, Left, Point, Writes};
use crate::rotation::program::{Program, Subject};
use crate::rotation::world::World;
use harness::daemon::Site;
use harness::process::Process;
use harness::stepper::Step;
use harness::token::Kind;
use harness::{DEADLINE, Daemon, SoftHsm};
use nix::errno::Errno;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Tries the chosen points of a program, one after the other; what was hit. Nothing may be left in the
/// token but what the module does not make as a whole.
fn tried(subject: Subject, is_chosen: impl Fn(&Point) -> bool) -> Vec<Step> {
    let (hit, reported) = tried_and_left(subject, is_chosen);
    assert_eq!(reported, 0, "left behind, if reported");
    hit
}

/// The same, and how often something was left that `assertctl status` names.
fn tried_and_left(subject: Subject, is_chosen: impl Fn(&Point) -> bool) -> (Vec<Step>, usize) {
    let points = points_of(subject);
    let mut world = World::new(subject.keystore);
    let (mut hit, mut reported) = (Vec::new(), 0);
    let really = |point: &&Point| !point.is_highest && is_chosen(point);
    for point in points.iter().filter(really) {
        let (step, left) = points::try_one(&mut world, point);
        hit.extend(step);
        if left == Left::Reported {
            reported += 1;
            world = World::new(subject.keystore);
        }
    }
    (hit, reported)
}

fn is_kill(point: &Point, call: &str, numbers: &[u64]) -> bool {
    let is_call = point.class.call == call && numbers.contains(&point.number);
    point.fault == Fault::Kill && is_call
}

#[test]
fn row_26_assertd_killed_before_a_file_takes_its_place_goes_on_where_it_was() {
    let subject = Subject::of(Program::Assertd, Kind::Pkcs11);
    let numbers = [1, 2, 3, 5, 11, 12, 13, 15, 21, 22, 23];
    let hit = tried(subject, |point| is_kill(point, "rename", &numbers));
    assert_eq!(hit.len(), numbers.len(), "{hit:#?}");
}

#[test]
fn row_26_a_keystore_killed_while_it_makes_or_destroys_goes_on_where_it_was() {
    for (kind, calls) in [
        (Kind::Pkcs11, ["rename", "unlink"]),
        (Kind::Tpm, ["rename", "link"]),
    ] {
        let subject = Subject::of(Program::Keystore, kind);
        let is_chosen =
            |point: &Point| calls.iter().any(|call| is_kill(point, call, &[1, 2, 3, 4]));
        let hit = tried(subject, is_chosen);
        assert!(hit.len() >= 5, "{subject}: {hit:#?}");
    }
}

#[test]
fn row_26_a_pair_of_which_the_module_has_made_one_half_is_made_anew() {
    let subject = Subject::of(Program::Keystore, Kind::Pkcs11);
    let is_chosen = |point: &Point| is_kill(point, "ftruncate", &[40, 50, 60, 61]);
    let (hit, _shells) = tried_and_left(subject, is_chosen);
    assert!(hit.len() >= 3, "{hit:#?}");
}

fn of_state(point: &Point, fault: Fault, call: &str, numbers: &[u64]) -> bool {
    let is_call = point.class.call == call && numbers.contains(&point.number);
    point.writes == Writes::State && point.fault == fault && is_call
}

#[test]
fn row_21_without_space_for_state_a_rotation_waits_says_why_and_signing_goes_on() {
    for program in [Program::Assertd, Program::Keystore] {
        let subject = Subject::of(program, Kind::Pkcs11);
        let fault = Fault::Lasting(Errno::ENOSPC);
        let hit = tried(subject, |point| of_state(point, fault, "write", &[1, 2, 3]));
        assert!(hit.len() >= 2, "{subject}: {hit:#?}");
    }
}

#[test]
fn row_24_a_call_that_fails_once_costs_a_rotation_a_moment() {
    let subject = Subject::of(Program::Assertd, Kind::Pkcs11);
    let fault = Fault::Once(Errno::EINTR);
    let hit = tried(subject, |point| {
        let calls = ["open", "rename", "link"];
        calls
            .iter()
            .any(|call| of_state(point, fault, call, &[1, 3]))
    });
    assert_eq!(hit.len(), 6, "{hit:#?}");
}

#[test]
fn row_25_a_flush_that_failed_is_not_believed_a_second_time() {
    let subject = Subject::of(Program::Assertd, Kind::Pkcs11);
    let fault = Fault::Once(Errno::EIO);
    let hit = tried(subject, |point| {
        of_state(point, fault, "fsync", &[1, 2, 3, 7])
    });
    assert_eq!(hit.len(), 4, "{hit:#?}");
}

#[test]
fn row_27_nothing_takes_its_place_or_is_told_before_it_is_flushed() {
    for program in [Program::Assertd, Program::Keystore] {
        let points = points_of(Subject::of(program, Kind::Tpm)); // which looks at the order
        assert!(points.len() > 20, "{}", points.len());
    }
}

/// Starts assertd at a place where it must refuse, with a word on this.
#[track_caller]
fn refused(site: &Site, words: &[&str]) {
    let mut process = Process::start(&mut site.command());
    let code = process.wait(DEADLINE).code();
    let said = process.stderr();
    assert_eq!(code, Some(78), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?}: {said}");
    }
}

fn stopped(token: &SoftHsm) -> Site {
    let mut daemon = Daemon::with_keys(crate::observed::config(token));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.stderr());
    daemon.into_site()
}

#[test]
fn row_31_a_state_directory_that_is_a_link_of_others_or_open_to_them_is_refused() {
    harness::user::need_root();
    let token = SoftHsm::new();
    let site = stopped(&token);
    let (state, real) = (site.state_dir(), site.state_dir().with_extension("real"));
    std::fs::rename(&state, &real).unwrap();
    symlink(&real, &state).unwrap();
    refused(&site, &["symbolic link is not followed"]);
    std::fs::remove_file(&state).unwrap();
    std::fs::rename(&real, &state).unwrap();
    std::os::unix::fs::chown(&state, Some(1), None).unwrap();
    refused(&site, &["belongs to another user", "chown"]);
    std::os::unix::fs::chown(&state, Some(0), None).unwrap();
    for mode in [0o770, 0o707] {
        std::fs::set_permissions(&state, PermissionsExt::from_mode(mode)).unwrap();
        refused(&site, &["writable by others", "chmod"]);
    }
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    Daemon::start_at(site).wait_served(crate::observed::TARGET);
}

/// A directory that is mounted over itself, to be read only.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn mount(dir: &'a Path) -> ReadOnly<'a> {
        for options in [&["--bind"][..], &["-o", "remount,ro,bind"]] {
            let mut mount = Command::new("mount");
            mount.args(options);
            if options == ["--bind"] {
                mount.arg(dir);
            }
            assert!(mount.arg(dir).status().unwrap().success(), "{options:?}");
        }
        ReadOnly(dir)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn row_23_a_state_directory_that_cannot_be_written_is_refused_with_the_remedy() {
    harness::user::need_root();
    let token = SoftHsm::new();
    let site = stopped(&token);
    let state = site.state_dir();
    let mounted = ReadOnly::mount(&state);
    refused(&site, &["mount it for writing"]);
    drop(mounted);
    Daemon::start_at(site).wait_served(crate::observed::TARGET);
}
