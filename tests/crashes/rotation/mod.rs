//! A rotation that is cut off, and what must hold of it: for `make crashes`, and a few points of it for
//! `make test`.

pub mod all;
mod disk;
pub mod durable;
pub mod points;
pub mod program;
mod promises;
pub mod world;
