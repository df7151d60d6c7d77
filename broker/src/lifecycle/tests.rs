//! The life of keys, tried in every way there is.

mod enumeration;
mod steps;
mod world;
