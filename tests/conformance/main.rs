//! Conformance of keystores: one list of promises ([`promises`]) that every backend keeps, on every
//! token and TPM there is for tests, and by hand on real ones ([`under_test`]). Besides, what is
//! special about PKCS#11 tokens: keys do not leave ([`leaving`]), PINs are tried once and faults of
//! a module are survived ([`faults`]).
//!
//! A test is called KEYSTORE::PROMISE, so that `-E 'test(/^nss::/)'` tries one keystore and
//! `-E 'test(take_turns)'` one promise on all of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod leaving;
mod process;
mod promises;
mod subject;
mod token;
mod tpm;
mod under_test;

use promises::promises;
use subject::Promise;
use token::{Module, with_token};

/// Makes a module of tests, one for each promise, that `$run` tries. With a reason they are for
/// `make test-long` alone.
macro_rules! suite {
    (($keystore:ident $run:expr) $($promise:ident)*) => {
        mod $keystore {
            $(
                #[test]
                fn $promise() {
                    let test = concat!(stringify!($keystore), "::", stringify!($promise));
                    ($run)(test, crate::promises::$promise);
                }
            )*
        }
    };
    (($keystore:ident $run:expr, $why:literal) $($promise:ident)*) => {
        mod $keystore {
            $(
                #[test]
                #[ignore = $why]
                fn $promise() {
                    let test = concat!(stringify!($keystore), "::", stringify!($promise));
                    ($run)(test, crate::promises::$promise);
                }
            )*
        }
    };
}

fn softhsm(test: &str, promise: Promise) {
    on_token(test, Module::SoftHsm, promise);
}

/// SoftHSM through the shim without rules: what the shim changes by being there is nothing.
fn shim(test: &str, promise: Promise) {
    on_token(test, Module::Shim, promise);
}

fn nss(test: &str, promise: Promise) {
    on_token(test, Module::Nss, promise);
}

fn kryoptic(test: &str, promise: Promise) {
    on_token(test, Module::Kryoptic, promise);
}

fn on_token(test: &str, module: Module, promise: Promise) {
    with_token(test, module, |token| token.subject().keeps(promise));
}

promises!(suite!(softhsm crate::softhsm));
promises!(suite!(shim crate::shim));
promises!(suite!(nss crate::nss));
promises!(suite!(swtpm crate::tpm::bare));
promises!(suite!(device crate::tpm::device));
promises!(suite!(
    kryoptic
    crate::kryoptic,
    "make test-long: needs kryoptic, which takes minutes to build (2026-11-22)"
));
