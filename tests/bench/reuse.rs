//! What is handed out again, beside an HTTP server that does nothing but answer: each request is attested,
//! decided and durably recorded, and none is signed but the first.

use crate::echo::Echo;
use crate::load::{self, Next};
use crate::site::NO_LIMIT;
use crate::summary::Summary;
use crate::window::{Cpu, rate, run, together};
use harness::fault::{Function, Shimmed};
use harness::{Config, Daemon};

/// Turns of both.
const ROUNDS: usize = 5;

/// Connections that ask.
const CONNECTIONS: usize = 64;

/// Measures both in turns.
pub fn report(summary: &mut Summary) {
    let token = Shimmed::new();
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::new(&token)
        .with(
            "[issuer.prod]\nurl = \"https://id.example.com/prod\"\nsubjects = [\"bench\"]\n\
             keystore = \"hsm\"\nalg = \"ES256\"",
        )
        .workload("bench", uid, NO_LIMIT)
        .with(
            "[workload.bench.target.aws]\nprofile = \"aws-oidc\"\nissuer = \"prod\"\n\
             subject = \"bench\"\naudience = \"sts.amazonaws.com\"\nlifetime = 3600\n",
        );
    let daemon = Daemon::with_keys(config);
    let request = load::request("aws");
    let mut answer_len = 0;
    load::ask(&daemon.socket(), 1, &request, |answer| {
        answer_len = answer.body.len();
        Next::Stop
    })
    .expect("assertd answers");
    let echo = Echo::start(&daemon.site().runtime_dir(), answer_len);
    let signed = token.calls(Function::C_Sign);
    let (mut echoed, mut reused) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("handed out again, round {round} of {ROUNDS}");
        echoed.push(run(&echo.socket, CONNECTIONS, &request, Cpu::default));
        let cpu = || Cpu::so_far(daemon.pid(), daemon.keystore_pid());
        reused.push(run(&daemon.socket(), CONNECTIONS, &request, cpu));
    }
    assert_eq!(token.calls(Function::C_Sign), signed, "one was enough");
    let (times, _, cpu) = together(&reused);
    summary.push("reuse_echo_rate_c64", rate(&echoed), "1/s");
    summary.push("reuse_assertion_rate_c64", rate(&reused), "1/s");
    summary.push("reuse_p50_us_c64", times.percentile_us(50.0), "us");
    summary.push("reuse_p99_us_c64", times.percentile_us(99.0), "us");
    cpu.report("_reuse_c64", times.count(), summary);
    summary.push("reuse_rate_c64", rate(&reused) / rate(&echoed), "of echo");
}
