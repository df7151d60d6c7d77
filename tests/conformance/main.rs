//! Conformance of keystores: one list of promises ([`promises`]) that every backend keeps, on every
//! token and TPM there is for tests, and by hand on real ones ([`under_test`]). Besides, what is
//! special about PKCS#11 tokens: keys do not leave ([`leaving`]), PINs are tried once and faults of
//! a module are survived ([`faults`]).
//!
//! A test is called KEYSTORE::PROMISE, so that `-E 'test(/^nss::/)'` tries one keystore and
//! `-E 'test(take_turns)'` one promise on all of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adoption;
mod certificates;
mod cut;
mod faults;
mod foreign;
mod leaving;
mod process;
mod promises;
mod rotation;
mod site;
mod subject;
mod token;
mod tpm;
mod under_test;

use promises::promises;
use subject::Promise;
use token::{Module, with_token};

/// Makes a module of tests, one for each `$case` of module `$cases`, that `$run` tries. With a
/// reason they are for `make test-long` alone.
macro_rules! suite {
    (($keystore:ident: $run:path, $cases:path) $($case:ident)*) => {
        mod $keystore {
            use $cases as cases;
            $(
                #[test]
                fn $case() {
                    $run(concat!(module_path!(), "::", stringify!($case)), cases::$case);
                }
            )*
        }
    };
    (($keystore:ident: $run:path, $cases:path, $why:literal) $($case:ident)*) => {
        mod $keystore {
            use $cases as cases;
            $(
                #[test]
                #[ignore = $why]
                fn $case() {
                    $run(concat!(module_path!(), "::", stringify!($case)), cases::$case);
                }
            )*
        }
    };
}
pub(crate) use suite;

fn on_softhsm(test: &str, promise: Promise) {
    on_token(test, Module::SoftHsm, promise);
}

/// SoftHSM through the shim without rules: what the shim changes by being there is nothing.
fn on_shim(test: &str, promise: Promise) {
    on_token(test, Module::Shim, promise);
}

fn on_nss(test: &str, promise: Promise) {
    on_token(test, Module::Nss, promise);
}

fn on_kryoptic(test: &str, promise: Promise) {
    on_token(test, Module::Kryoptic, promise);
}

fn on_token(test: &str, module: Module, promise: Promise) {
    with_token(test, module, |token| token.subject().keeps(promise));
}

promises!(suite!(softhsm: crate::on_softhsm, crate::promises));
promises!(suite!(shim: crate::on_shim, crate::promises));
promises!(suite!(nss: crate::on_nss, crate::promises));
promises!(suite!(swtpm: crate::tpm::on_swtpm, crate::promises));
promises!(suite!(device: crate::tpm::on_device, crate::promises));
promises!(suite!(
    kryoptic: crate::on_kryoptic,
    crate::promises,
    "make test-long: needs kryoptic, which takes minutes to build (2026-11-22)"
));
