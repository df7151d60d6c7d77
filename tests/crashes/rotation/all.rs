//! Everything that can be tried: what an undisturbed rotation does, and what may go wrong with it.

use super::durable::everything_is_flushed_in_time;
use super::points::{self, Class, Fault, Point, Writes};
use super::program::{Program, Subject};
use super::world::World;
use harness::stepper::{Place, Step};
use harness::token::Kind;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::path::Path;

/// What is to be tried on a program: everything that an undisturbed rotation does, and one number more.
pub fn points_of(subject: Subject) -> Vec<Point> {
    let mut world = World::new(subject.keystore);
    let steps = points::steps_of(&mut world, subject.program);
    flushed_in_time(&world, subject.program, &steps);
    let audit = world.site().state_dir().join("audit");
    let [state, published] = world.directories();
    let is_below =
        |target: &str, dir: &std::path::Path| target.starts_with(&*dir.to_string_lossy());
    let mut all = Vec::new();
    let mut add =
        |writes: Writes, classes: BTreeMap<Class, u64>, faults: &dyn Fn(&str) -> Vec<Fault>| {
            for (class, count) in classes {
                for fault in faults(&class.call) {
                    all.extend((1..=count + 1).map(|number| Point {
                        subject,
                        class: class.clone(),
                        fault,
                        writes,
                        number,
                        is_highest: number > count,
                    }));
                }
            }
        };
    let classes = |wanted: &dyn Fn(&str) -> bool, place: Option<Place>| {
        let mut classes: BTreeMap<Class, u64> = BTreeMap::new();
        for step in &steps {
            if wanted(&step.target) && place.is_none_or(|place| place == step.place) {
                let (call, place) = (step.call.clone(), step.place);
                *classes.entry(Class { call, place }).or_default() += 1;
            }
        }
        classes
    };
    add(Writes::Any, classes(&|_| true, None), &|_| {
        vec![Fault::Kill]
    });
    if subject == Subject::of(Program::Assertd, Kind::Tpm) {
        return all; // it writes what it writes beside the other keystore
    }
    let is_state = |target: &str| {
        (is_below(target, &state) || is_below(target, &published)) && !is_below(target, &audit)
    };
    add(
        Writes::State,
        classes(&is_state, Some(Place::File)),
        &faults,
    );
    if subject.program == Program::Assertd {
        let is_audit = |target: &str| is_below(target, &audit);
        add(
            Writes::Audit,
            classes(&is_audit, Some(Place::File)),
            &faults,
        );
    }
    all
}

/// What each of them replaces, by the order of the calls.
fn flushed_in_time(world: &World, program: Program, steps: &[Step]) {
    let replaced = |below: &Path| everything_is_flushed_in_time(steps, below);
    match program {
        Program::Assertd => {
            assert!(replaced(&world.site().state_dir().join("keyring.v1")) >= 9);
            assert!(replaced(world.published.path()) >= 8);
        }
        Program::Keystore => assert!(replaced(&world.keystore_state()) >= 3),
    }
}

/// Errors that such a call may have for an answer: any medium fails, a full one has no room for what is
/// new, one that the kernel has lost trust in is read-only; and what waits may be interrupted.
fn faults(call: &str) -> Vec<Fault> {
    let mut faults = vec![Fault::Lasting(Errno::EIO), Fault::Once(Errno::EINTR)];
    match call {
        "write" | "fallocate" | "ftruncate" => faults.push(Fault::Lasting(Errno::ENOSPC)),
        "fsync" | "fdatasync" => {
            faults.push(Fault::Once(Errno::EIO));
            faults.push(Fault::Lasting(Errno::ENOSPC));
        }
        "open" | "link" | "rename" | "mkdir" => {
            faults.push(Fault::Lasting(Errno::ENOSPC));
            faults.push(Fault::Lasting(Errno::EROFS));
        }
        _ => faults.push(Fault::Lasting(Errno::EROFS)),
    }
    faults
}
