//! `assertd-publish`: shows the documents that [`crate::publication`] has written to whoever asks by
//! HTTP, and nothing else. It has no key, no policy and no state, and writes nothing.
//!
//! [`program`] is arguments and start; [`routes`] a table from paths to files, made once of the
//! configuration; [`serve`] accepts connections and bounds them; [`answer`] is what one request gets.
//! A path is looked up and never taken apart into names of files, but for those of client keys, whose
//! two parts are names as the configuration allows them.

pub mod answer;
pub mod program;
pub mod routes;
pub mod serve;
