//! Rows 14 to 20 of the fault matrix: what befalls a TPM, between the real daemon, its real keystore
//! process and swtpm, with the proxy in between where the fault needs it. Every test says by a counter
//! that its fault was there. While it lasts nothing is released that does not verify; afterwards
//! service is back with the same keys, and nobody has done anything for it.

mod away;
mod busy;
mod gap;
mod garbage;
mod long;
mod neighbour;
mod node;
mod others;
mod scene;
mod signing;
