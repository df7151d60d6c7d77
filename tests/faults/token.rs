//! PKCS#11 tokens that do what tokens do: reliability §5, rows 1 to 13, each test named after its
//! row's promise. assertd, its keystore and SoftHSM are real; between the last two stands the shim,
//! whose counters say that the fault was there, and what was asked of the token meanwhile.
//!
//! `tests/faults/defences` has, for each row, a patch that takes the defence away; with it the test
//! fails.

mod contents;
mod pin;
mod place;
mod process;
mod removal;
mod room;
mod session;
mod signature;
mod vanished;
