//! A token that takes 2 ms for a signature, as fast hardware does: what is lost on the way to it. With
//! one signer, beside one raw session, so that nothing but waiting for each other could be lost.

use crate::load;
use crate::raw;
use crate::site::{NO_LIMIT, RAW_KEY_ID, make_raw_key};
use crate::summary::{Summary, median};
use crate::window::{Cpu, WINDOW, rate, run};
use harness::fault::Shimmed;
use harness::token::KEYSTORE;
use harness::{Config, Daemon};

/// Turns of both. The ratio is the median of theirs: what disturbs the machine disturbs two that are
/// measured one after the other alike.
const ROUNDS: usize = 9;

const SIGNATURE_MS: u32 = 2;

/// Connections that ask.
const CONNECTIONS: usize = 8;

/// Measures both in turns.
pub fn report(summary: &mut Summary) {
    let token = Shimmed::new();
    make_raw_key(token.token());
    let uid = nix::unistd::geteuid().as_raw();
    let config = Config::default()
        .keystore(KEYSTORE, &token, "signers = 1\n")
        .workload("bench", uid, NO_LIMIT)
        .target("bench", "bank", "");
    let daemon = Daemon::with_keys(config);
    token.rules(&format!("C_Sign * delay:{SIGNATURE_MS}\n"));
    let environment = token.environment().into_iter();
    let environment: Vec<_> = environment
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let request = load::request("bank");
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("a token with {SIGNATURE_MS} ms a signature, round {round} of {ROUNDS}");
        let behind = raw::Token {
            module: pkcs11_shim::module_path(),
            environment: environment.clone(),
            label: token.token().label().to_owned(),
            pin: token.token().pin().to_owned(),
        };
        raw.push(raw::raw(&behind, &RAW_KEY_ID, 1, WINDOW).rate);
        ours.push(rate(&[run(
            &daemon.socket(),
            CONNECTIONS,
            &request,
            Cpu::default,
        )]));
    }
    let ratios = ours.iter().zip(&raw).map(|(ours, raw)| ours / raw);
    let ratio = median(ratios.collect());
    summary.push("slow_token_raw_rate", median(raw), "1/s");
    summary.push("slow_token_rate_c8", median(ours), "1/s");
    summary.push("slow_token_ratio", ratio, "");
}
