//! What the fuzz targets check: one function over bytes for each, which panics where a promise is
//! broken. Two programs call them: libFuzzer's (tests/fuzz/entry) and, for every input that was
//! kept, the ordinary tests (tests/corpus). None of them reads a clock, a random number or a file
//! that is not its own, so that an input does the same again.

pub mod bundle;
pub mod claims;
pub mod ecpoint;
pub mod ekcert;
pub mod enrolment;
pub mod event_log;
pub mod evidence_structures;
#[path = "../../../keystore/tests/evidence/fixture.rs"]
mod fixture;
pub mod ima_list;
pub mod input;
pub mod policy;
pub mod protocol;
pub mod readback;
pub mod signature;
pub mod state_file;
pub mod tpm_response;
pub mod tpm_structures;
