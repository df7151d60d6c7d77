//! `make crashes`: a rotation is killed at each of its system calls, and each write of state is made to
//! fail, in the broker and in both keystores; afterwards everything that is promised must hold. Each
//! number N goes from 1 until a rotation comes to its end without having been hit. Prints N of each
//! program, call and fault; ends with 1 if something did not hold.
//!
//! Words on the command line choose the lines of that table that hold all of them; CRASHES_WORLDS in the
//! environment says how many are tried at once.

#![allow(clippy::unwrap_used, reason = "a trial that cannot go on has failed")]

mod rotation;
mod table;

use harness::token::Kind;
use rotation::all::points_of;
use rotation::points::{self, Left, Point};
use rotation::program::{Program, Subject};
use rotation::world::World;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use table::Table;

/// In this order.
const SUBJECTS: [Subject; 4] = [
    Subject::of(Program::Assertd, Kind::Pkcs11),
    Subject::of(Program::Keystore, Kind::Pkcs11),
    Subject::of(Program::Assertd, Kind::Tpm),
    Subject::of(Program::Keystore, Kind::Tpm),
];

/// Most of a trial is waiting for a process to start: on two cores some go well beside each other.
const WORLDS: usize = 4;

fn main() -> ExitCode {
    let began = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut points = VecDeque::new();
    for subject in SUBJECTS {
        let all = points_of(subject);
        points.extend(all.into_iter().filter(|point| {
            let line = table::line(point);
            words.iter().all(|word| line.contains(word.as_str()))
        }));
    }
    assert!(!points.is_empty(), "{words:?}: no line has them all");
    eprintln!("{} points, after {:?}", points.len(), began.elapsed());
    let worlds = std::env::var("CRASHES_WORLDS").ok();
    let worlds = worlds.and_then(|text| text.parse().ok()).unwrap_or(WORLDS);
    let work = Work {
        points: Mutex::new(points),
        table: Mutex::new(Table::default()),
    };
    std::thread::scope(|scope| {
        for _ in 0..worlds {
            scope.spawn(|| work.through());
        }
    });
    let table = work
        .table
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    table.print();
    println!("{:.0} s", began.elapsed().as_secs_f64());
    match table.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What is left to do, and what came of the rest.
struct Work {
    points: Mutex<VecDeque<Point>>,
    table: Mutex<Table>,
}

impl Work {
    fn through(&self) {
        let mut world: Option<(Subject, World)> = None;
        while let Some(point) = self.next() {
            let of_it = world
                .take()
                .filter(|(subject, _)| *subject == point.subject);
            let tried = catch_unwind(AssertUnwindSafe(|| {
                let mut world =
                    of_it.map_or_else(|| World::new(point.subject.keystore), |(_, it)| it);
                let (hit, left) = points::try_one(&mut world, &point);
                let shown =
                    hit.map(|step| format!("{} {}", step.call, shown(&world, &step.target)));
                (world, shown, left)
            }));
            let outcome = match tried {
                Ok((used, hit, left)) => {
                    // What one has left behind would hide what the next one leaves.
                    if left == Left::Nothing {
                        world = Some((point.subject, used));
                    }
                    Ok((hit, left))
                }
                // The world is gone with its trial.
                Err(panic) => Err(text(&*panic)),
            };
            let goes_on = point.is_highest && !matches!(outcome, Ok((None, _)));
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.note(&point, outcome);
            drop(table);
            if goes_on {
                let number = point.number + 1;
                let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
                points.push_front(Point { number, ..point });
            }
        }
    }

    fn next(&self) -> Option<Point> {
        self.points
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// A path below what it is below, or the kind of a socket.
fn shown(world: &World, target: &str) -> String {
    let [state, published] = world.directories();
    let places = [
        (world.keystore_state(), "KEYSTORE"),
        (state, "STATE"),
        (published, "PUBLISHED"),
    ];
    let below = |(dir, name): &(PathBuf, &str)| {
        let rest = Path::new(target).strip_prefix(dir).ok()?;
        Some(format!("{name}/{}", rest.display()))
    };
    let shown = places.iter().find_map(below);
    shown.unwrap_or_else(|| match target.split_once(':') {
        Some((kind, _)) => kind.to_owned(),
        None => Path::new(target)
            .file_name()
            .map_or_else(String::new, |name| format!("TOKEN/{}", name.display())),
    })
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}
