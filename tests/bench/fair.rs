//! What a workload that asks rarely waits for on a slow token while another asks without pause; what
//! weights are worth; and a thousand workloads at once. Signatures take a time that the shim makes, so
//! that what is measured is the order in which they are made, in signatures.
//!
//! For comparison the same in a queue by arrival: both callers as one workload, which is what the queue
//! does with one.

use crate::load::Times;
use crate::site::NO_LIMIT;
use crate::summary::Summary;
use broker::queue::fair::Fair;
use harness::caller::{Caller, script_as};
use harness::fault::Shimmed;
use harness::http::post_target;
use harness::token::KEYSTORE;
use harness::user::{ALICE, BOB, exchange_as};
use harness::{Config, Daemon};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One signature of the token that greedy and quiet share: a discrete TPM's.
const SIGNATURE_MS: u32 = 100;

/// Connections of who asks without pause.
const GREEDY: usize = 60;

/// Requests of who asks rarely, so often.
const QUIET: usize = 200;
const QUIET_EVERY_S: u32 = 2;

/// How long the weights are watched, on a faster token: some hundred signatures.
const WEIGHTS_S: u32 = 20;
const WEIGHTS_SIGNATURE_MS: u32 = 20;

/// Workloads at once, and for how long: on this token each has its turn some times.
const CROWD: usize = 1_000;
const CROWD_S: u32 = 20;
const CROWD_SIGNATURE_MS: u32 = 2;

/// So many workloads wait when the order's own cost is measured, and so many signatures it is for.
const WAITING: [usize; 3] = [10, 1_000, 10_000];
const ORDERED: u32 = 200_000;

/// The first uid of the crowd; nobody has these.
const CROWD_UID: u32 = 3_000_000_000;

/// Asks on so many connections, each again as soon as it is served, or a moment after it was refused
/// (whatever `Retry-After` says: it does not care), until it is told to end; says then how often it was
/// served.
const ASKS_WITHOUT_PAUSE: &str = "
import heapq
crowd = [connect() for _ in range(COUNT)]
for s in crowd:
    ask(s, 'TARGET')
say('asked')
served, ending, refused = 0, False, []
while not ending:
    wait = max(0, refused[0][0] - time.monotonic()) if refused else None
    for s in select.select(crowd + [sys.stdin], [], [], wait)[0]:
        if s is sys.stdin:
            ending = True
            break
        code, body = answer(s)
        if code not in (200, 503):
            sys.exit(body)
        if code == 200:
            served += 1
            ask(s, 'TARGET')
        else:
            heapq.heappush(refused, (time.monotonic() + 0.02, s.fileno(), s))
    while refused and refused[0][0] <= time.monotonic():
        ask(heapq.heappop(refused)[2], 'TARGET')
say(served)
";

/// Asks now and then, and again until it is served, so often or until it is told to end; says how long each
/// took, in milliseconds.
const ASKS_RARELY: &str = "
s, times, next = connect(), [], time.monotonic()
def told_to_end(wait):
    return bool(select.select([sys.stdin], [], [], wait)[0])
for _ in range(COUNT):
    if told_to_end(max(0, next - time.monotonic())):
        break
    began = time.monotonic()
    next = began + EVERY
    while True:
        ask(s, 'TARGET')
        code, body = answer(s)
        if code == 200:
            break
        if code != 503:
            sys.exit(body or 'the connection is closed')
        time.sleep(0.02)
    times.append((time.monotonic() - began) * 1000)
say(*times)
";

/// A process for each uid, which asks on one connection until the time is over; says how often each was
/// served.
const A_CROWD: &str = "
readers = []
go_r, go_w = os.pipe()
for uid in range(FIRST, FIRST + COUNT):
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(go_w)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        s = connect()
        os.write(w, b'c')
        os.read(go_r, 1)
        end, served = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            ask(s, 'TARGET')
            served += status(s) == 200
        os.write(w, b' %d' % served)
        os._exit(0)
    os.close(w)
    readers.append(r)
for r in readers:
    os.read(r, 1)
os.close(go_w)
def all_of(r):
    data = b''
    while part := os.read(r, 64):
        data += part
    return int(data)
say(*[all_of(r) for r in readers])
";

/// Measures all of it. Takes eight minutes, most of which is waiting.
pub fn report(summary: &mut Summary) {
    costs(summary);
    quiet(summary);
    weights(summary);
    crowd(summary);
}

/// A daemon with one signer that takes so long, and a section for each name.
fn daemon(token: &Shimmed, signature_ms: u32, sections: &[(&str, u32, &str)]) -> Daemon {
    let mut config = Config::default().keystore(KEYSTORE, token, "signers = 1\n");
    for (name, uid, extra) in sections {
        let extra = format!("{NO_LIMIT}\n{extra}");
        config = config.workload(name, *uid, &extra).target(name, name, "");
    }
    let daemon = Daemon::with_keys(config);
    token.rules(&format!("C_Sign * delay:{signature_ms}\n"));
    let (name, uid, _) = sections[0];
    let answer = exchange_as(uid, &daemon.socket(), &post_target(name));
    assert_eq!(answer.status, 200, "{}", answer.body());
    daemon
}

fn caller(daemon: &Daemon, uid: u32, script: &str, count: usize, target: &str) -> Caller {
    let script = script.replace("COUNT", &count.to_string());
    let script = script.replace("TARGET", target);
    Caller::run(&mut script_as(uid, &daemon.socket(), &script))
}

fn greedy(daemon: &Daemon, uid: u32, count: usize, target: &str) -> Caller {
    let mut greedy = caller(daemon, uid, ASKS_WITHOUT_PAUSE, count, target);
    greedy.expect("asked");
    greedy
}

/// What the order itself costs each signature, with so many workloads that all wait: the next is taken,
/// and its workload asks again.
fn costs(summary: &mut Summary) {
    for workloads in WAITING {
        let names: Vec<Arc<str>> = (0..workloads).map(|n| format!("w{n}").into()).collect();
        let mut queue = Fair::default();
        for (number, name) in names.iter().enumerate() {
            queue.push(name, 1 + number as u32 % 3, number);
        }
        let mut served = || {
            let number = queue.pop(Some).expect("all of them wait");
            queue.push(&names[number], 1 + number as u32 % 3, number);
        };
        (0..ORDERED).for_each(|_| served()); // caches, and the first allocations
        let began = Instant::now();
        (0..ORDERED).for_each(|_| served());
        let ns = began.elapsed().as_secs_f64() * 1e9 / f64::from(ORDERED);
        summary.push(&format!("fair_order_ns_w{workloads}"), ns, "ns");
    }
}

/// The fair queue and the one by arrival at the same time, each with a token of its own: both wait, and
/// what disturbs one disturbs the other.
fn quiet(summary: &mut Summary) {
    eprintln!("a quiet workload beside a greedy one, {QUIET} requests");
    let tokens = [Shimmed::new(), Shimmed::new()];
    let two = [("greedy", ALICE, ""), ("quiet", BOB, "")];
    let fair = daemon(&tokens[0], SIGNATURE_MS, &two);
    let by_arrival = daemon(&tokens[1], SIGNATURE_MS, &two[..1]);
    let mut greedy = [&fair, &by_arrival].map(|daemon| greedy(daemon, ALICE, GREEDY, "greedy"));
    let script = ASKS_RARELY.replace("EVERY", &QUIET_EVERY_S.to_string());
    let mut quiet = [
        caller(&fair, BOB, &script, QUIET, "quiet"),
        caller(&by_arrival, ALICE, &script, QUIET, "greedy"),
    ];
    let times = quiet[0].line();
    quiet[1].tell("end"); // it would take half an hour more
    for (line, name) in [(times, ""), (quiet[1].line(), "_fifo")] {
        let times = numbers(&line).into_iter();
        let times = Times::new(times.map(|ms| Duration::from_secs_f64(ms / 1e3)).collect());
        summary.push(&format!("quiet_requests{name}"), times.count() as f64, "");
        for percent in [50, 99] {
            let us = times.percentile_us(f64::from(percent));
            let signatures = us / (f64::from(SIGNATURE_MS) * 1e3);
            summary.push(
                &format!("quiet_p{percent}_signatures{name}"),
                signatures,
                "",
            );
        }
    }
    for greedy in &mut greedy {
        greedy.tell("end");
        assert!(numbers(&greedy.line())[0] > 0.0, "it was served too");
    }
}

/// What a workload with weight 3 gets, where one with 1 gets one.
fn weights(summary: &mut Summary) {
    eprintln!("weights 1 and 3, {WEIGHTS_S} s");
    let token = Shimmed::new();
    let sections = [("one", ALICE, ""), ("three", BOB, "weight = 3")];
    let daemon = daemon(&token, WEIGHTS_SIGNATURE_MS, &sections);
    let mut one = greedy(&daemon, ALICE, 20, "one");
    let mut three = greedy(&daemon, BOB, 20, "three");
    std::thread::sleep(Duration::from_secs(u64::from(WEIGHTS_S))); // the window that is measured
    let [one, three] = [&mut one, &mut three].map(|caller| {
        caller.tell("end");
        numbers(&caller.line())[0]
    });
    summary.push("weight_3_to_1_shares", three / one, "");
}

/// A thousand workloads that all ask at once: how often the one that was served least was, beside the
/// one that was served most.
fn crowd(summary: &mut Summary) {
    eprintln!("{CROWD} workloads at once, {CROWD_S} s");
    let token = Shimmed::new();
    let names: Vec<(String, u32)> = (0..CROWD)
        .map(|number| (format!("w{number}"), CROWD_UID + number as u32))
        .collect();
    let sections: Vec<(&str, u32, &str)> = names
        .iter()
        .map(|(name, uid)| (name.as_str(), *uid, ""))
        .collect();
    let mut config = Config::default().keystore(KEYSTORE, &token, "signers = 1\n");
    config = config.with(&format!(
        "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"w*\"]\n\
         keystore = \"{KEYSTORE}\"\nalg = \"ES256\"\n"
    ));
    for (name, uid, extra) in sections {
        config = config
            .workload(name, uid, &format!("{NO_LIMIT}\n{extra}"))
            .with(&format!(
                "[workload.{name}.target.all]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"{name}\"\naudience = \"sts.amazonaws.com\"\nreuse = false\n"
            ));
    }
    let daemon = Daemon::with_keys(config);
    token.rules(&format!("C_Sign * delay:{CROWD_SIGNATURE_MS}\n"));
    let script = A_CROWD
        .replace("FIRST", &CROWD_UID.to_string())
        .replace("SECONDS", &CROWD_S.to_string());
    let mut crowd = caller(&daemon, 0, &script, CROWD, "all");
    let served = numbers(&crowd.line());
    assert_eq!(served.len(), CROWD);
    let least = served.iter().copied().fold(f64::INFINITY, f64::min);
    let most = served.iter().copied().fold(0.0, f64::max);
    summary.push("crowd_1000_served_least", least, "");
    summary.push("crowd_1000_served_most", most, "");
    summary.push(
        "crowd_1000_rate",
        served.iter().sum::<f64>() / f64::from(CROWD_S),
        "1/s",
    );
}

/// The numbers in a line.
fn numbers(line: &str) -> Vec<f64> {
    let numbers = line.split_whitespace();
    numbers.map(|it| it.parse().expect("a number")).collect()
}
