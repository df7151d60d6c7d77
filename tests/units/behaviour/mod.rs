//! What the units do: activation, callers by unit, the PIN's way, reload, watchdog, kills, restarts.
//! Each check leaves the standard site as it found it, serving.

use crate::boxed::SysBox;
use crate::suite::Suite;

mod activation;
pub mod caller;
mod credential;
mod files;
mod identity;
mod kills;
mod load;
mod publish;
mod reload;
mod restart;
pub mod site;
mod tpm;
pub mod units;
mod watchdog;

/// Runs all of these checks.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    if let Err(why) = site::add(boxed) {
        suite.check("behaviour: its workloads are added to the site", || {
            Err(why)
        });
        return;
    }
    activation::run(suite, boxed);
    identity::run(suite, boxed);
    credential::run(suite, boxed);
    files::run(suite, boxed);
    tpm::run(suite, boxed);
    reload::run(suite, boxed);
    publish::run(suite, boxed);
    restart::run(suite, boxed);
    kills::run(suite, boxed);
    watchdog::run(suite, boxed);
}
