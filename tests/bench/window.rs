//! One window of requests: warmed up, counted, and with what it took of the processors.

use crate::load::{self, Next, Times};
use crate::process;
use crate::summary::Summary;
use std::path::Path;
use std::time::{Duration, Instant};

/// One measurement in one round; three rounds make the 3 s a figure needs here to be steady.
pub const WINDOW: Duration = Duration::from_secs(1);

/// Before each measurement: caches, the processor's clock, lanes that rested.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of so many assertions one is kept and verified.
const SAMPLE: usize = 500;

/// One window of requests.
pub struct Run {
    pub times: Vec<Duration>,
    pub elapsed: Duration,
    pub cpu: Cpu,
    pub samples: Vec<String>,
}

/// Processor time in one window.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    pub broker: Duration,
    pub keystore: Duration,
    pub client: Duration,
    pub machine: Duration,
}

/// Warms up, then counts whole requests of one window.
pub fn run(socket: &Path, connections: usize, request: &[u8], cpu: impl Fn() -> Cpu) -> Run {
    let (begin, mut before) = (Instant::now() + WARM_UP, None);
    let (mut times, mut samples) = (Vec::with_capacity(200_000), Vec::new());
    let (mut last, mut after) = (begin, Cpu::default());
    load::ask(socket, connections, request, |answer| {
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(answer.body)
        );
        if last >= begin + WINDOW {
            return Next::Stop; // the others' answers, when the window is over
        }
        if answer.answered < begin {
            return Next::Ask;
        }
        before.get_or_insert_with(&cpu);
        last = answer.answered;
        times.push(answer.answered - answer.asked);
        if times.len().is_multiple_of(SAMPLE) {
            samples.push(String::from_utf8_lossy(answer.body).into_owned());
        }
        if last >= begin + WINDOW {
            after = cpu();
            return Next::Stop;
        }
        Next::Ask
    })
    .expect("every connection is answered");
    let before = before.expect("a request takes less than a window");
    Run {
        times,
        elapsed: last - begin,
        cpu: Cpu {
            broker: after.broker - before.broker,
            keystore: after.keystore - before.keystore,
            client: after.client - before.client,
            machine: after.machine.saturating_sub(before.machine),
        },
        samples,
    }
}

/// All windows of one kind as one.
pub fn together(runs: &[Run]) -> (Times, Duration, Cpu) {
    let times = runs.iter().flat_map(|run| run.times.iter().copied());
    let elapsed = runs.iter().map(|run| run.elapsed).sum();
    let cpu = runs
        .iter()
        .fold(Cpu::default(), |sum, run| sum.plus(run.cpu));
    (Times::new(times.collect()), elapsed, cpu)
}

/// Answers a second of all windows of one kind.
pub fn rate(runs: &[Run]) -> f64 {
    let (times, elapsed, _) = together(runs);
    times.count() as f64 / elapsed.as_secs_f64()
}

impl Cpu {
    /// So far, of these two processes, of this thread and of the machine.
    pub fn so_far(broker: u32, keystore: u32) -> Cpu {
        Cpu {
            broker: process::cpu(broker),
            keystore: process::cpu(keystore),
            client: process::own_thread_cpu(),
            machine: process::machine_cpu(),
        }
    }

    /// The sum.
    pub fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            broker: self.broker + other.broker,
            keystore: self.keystore + other.keystore,
            client: self.client + other.client,
            machine: self.machine + other.machine,
        }
    }

    /// What others took of all processors, who are none of our business and slow us down.
    pub fn neighbours_percent(self, elapsed: Duration) -> f64 {
        let others = self
            .machine
            .saturating_sub(self.broker + self.keystore + self.client);
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        100.0 * others.as_secs_f64() / (elapsed.as_secs_f64() * processors as f64)
    }

    /// What each request took.
    pub fn report(self, suffix: &str, requests: usize, summary: &mut Summary) {
        for (who, time) in [
            ("broker", self.broker),
            ("keystore", self.keystore),
            ("client", self.client),
        ] {
            let each = time.as_secs_f64() * 1e6 / requests as f64;
            summary.push(&format!("cpu_us_per_request_{who}{suffix}"), each, "us");
        }
    }
}
