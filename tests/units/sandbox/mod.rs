//! What the sandboxes refuse, from inside them.

use crate::boxed::SysBox;
use crate::suite::Suite;

/// Runs all of these checks.
pub fn run(_suite: &mut Suite<'_>, _boxed: &SysBox) {}
