//! How long a stolen assertion could be used.

use super::super::finding::{Finding, LONG_ASSERTION, LONG_TOKEN};
use crate::config::Target;
use keystore::charter::PurposeKind;

/// Lifetime in seconds that is enough for a federation token from the socket; longer ones are for
/// files, which SDKs cache for 10 minutes.
const FEDERATION_LIFETIME_S: u32 = 600;

/// Lifetime in seconds that is enough for an assertion that is redeemed at once; Keycloak takes no
/// longer one.
const CLIENT_LIFETIME_S: u32 = 60;

pub fn findings(target: &Target, found: &mut Vec<Finding>) {
    let object = || format!("[workload.{}.target.{}]", target.workload, target.name);
    let lifetime_s = target.lifetime_s;
    match target.charter.purpose.kind() {
        PurposeKind::Federation if lifetime_s > FEDERATION_LIFETIME_S => {
            found.push(LONG_TOKEN.at(
                object(),
                &target.place,
                format!("a stolen assertion can be used for {lifetime_s} s"),
                "write lifetime = 600 or less, unless it is delivered as a file that an SDK caches",
            ));
        }
        PurposeKind::ClientAuthentication if lifetime_s > CLIENT_LIFETIME_S => {
            found.push(LONG_ASSERTION.at(
                object(),
                &target.place,
                format!(
                    "a stolen assertion can be used for {lifetime_s} s, though it is redeemed within \
                     a second of its minting"
                ),
                "write lifetime = 60, or leave it out: a workload asks anew for each redemption",
            ));
        }
        _ => {}
    }
}
