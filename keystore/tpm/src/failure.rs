//! A failed step inside this crate: the error that is shown, and what may help against it.

use crate::codes::{Code, Cure, explain};
use keystore::Error;

/// Why a step failed.
#[derive(Debug)]
pub struct Failure {
    /// As it is shown if nothing helps.
    pub error: Error,
    /// What may help.
    pub cure: Cure,
}

impl Failure {
    /// Of a command: where, doing what, what came back.
    pub fn of(place: &str, doing: &str, error: &tss_esapi::Error) -> Failure {
        Failure {
            error: explain(place, doing, error),
            // Without a code it is the binding that cannot use what came.
            cure: Code::of(error).map_or(Cure::Reconnect, Code::cure),
        }
    }
}

/// One that no other connection cures.
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            error,
            cure: Cure::None,
        }
    }
}
