//! The PKCS#11 backend: keys that are made in a token and never leave it.
//!
//! From the outside there is [`Pkcs11Backend::open`] and [`keystore::backend::Backend`]; no type
//! of the binding appears in either. Inside, from the module outwards:
//! [`module`] (load, initialise) → [`token`] (choose, log in; [`pinmemory`] knows what it refused,
//! [`accepted`] what it took) → [`mechanism`] (what it can
//! sign) → [`object`], [`finder`] and [`attribute`] (find, read, make) → [`signer`] (sessions that
//! sign). [`strange`] is what status shows of objects that are nobody's.
//! [`inventory`] looks at a module's tokens without a login, [`survey`] at ours with one; [`trial`]
//! makes a key that lives as long as its session, [`import`] brings one in. [`pin`] reads the PIN from where the
//! configuration says.
//! [`errors`] turns every return value of a module into a [`keystore::Kind`] and a remedy.
//!
//! Unsafe code is two expressions in [`sys`]: a pointer of PKCS#11 that no safe call can pass, and
//! the call that keeps the PIN's page out of swap.

mod accepted;
mod attribute;
mod backend;
mod ecpoint;
mod errors;
mod finder;
mod import;
pub mod inventory;
mod mechanism;
mod module;
mod object;
mod pin;
mod pinmemory;
mod signer;
mod strange;
mod survey;
mod sys;
mod token;
mod trial;

pub use backend::{Pkcs11Backend, ReadPin, Settings};
pub use sys::step_back;

/// For tests/fuzz alone: it reads what a token gives, and a fuzz target is another crate. Nothing
/// here is promised to anybody.
#[doc(hidden)]
pub mod fuzzed {
    pub use crate::ecpoint::{Curve, parse};
}
