//! Wire types of assertd's two sockets, and the Rust client.
//!
//! ```no_run
//! let mut client = assertd_client::Client::connect(assertd_client::SOCKET.as_ref())?;
//! let answer = client.assertion("bank", None)?;
//! println!("{}", answer.assertion);
//! # Ok::<(), assertd_client::Error>(())
//! ```
//!
//! The types in [`api`] are what the server uses too, so the two cannot drift.
#![forbid(unsafe_code)]

pub mod api;
mod client;

pub use client::{Client, Error};

/// Where workloads ask.
pub const SOCKET: &str = "/run/assertd/assertd.sock";

/// Where administrators ask.
pub const ADMIN_SOCKET: &str = "/run/assertd/admin.sock";
