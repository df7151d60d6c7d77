//! Who may ask the keystore what (architecture.md): by the uid the kernel has for the peer.

use crate::protocol::Request;
use crate::{Error, Kind};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::unix::net::UnixStream;

/// What a peer may ask, by its uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The broker: mint, list, health, check.
    Broker,
    /// Root: keys and charters, list, health, check; not mint.
    Root,
    /// Our own uid could read our memory: everything. This is the unisolated case.
    Own,
}

/// The peer's role, by the uid the kernel has for it; `None`: hang up.
pub fn role(stream: &UnixStream, broker_uid: u32) -> Option<Role> {
    let uid = getsockopt(stream, PeerCredentials).ok()?.uid();
    role_of(uid, broker_uid, nix::unistd::geteuid().as_raw())
}

fn role_of(uid: u32, broker: u32, own: u32) -> Option<Role> {
    match uid {
        _ if uid == own => Some(Role::Own),
        _ if uid == broker => Some(Role::Broker),
        0 => Some(Role::Root),
        _ => None,
    }
}

/// Who may ask the keystore what (architecture.md).
pub fn allowed(role: Role, request: &Request) -> Result<(), Error> {
    let refuse = |who: &str| {
        Err(Error::new(
            Kind::Refused,
            format!("this verb is for {who} alone"),
        ))
    };
    match (request, role) {
        (
            Request::Hello { .. } | Request::Health {} | Request::List { .. } | Request::Check {},
            _,
        ) => Ok(()),
        (Request::Mint { .. }, Role::Root) => refuse("the broker"),
        (Request::Mint { .. }, Role::Broker | Role::Own) => Ok(()),
        (Request::Make { .. } | Request::Amend { .. } | Request::Destroy { .. }, Role::Broker) => {
            refuse("root (`assertctl apply`)")
        }
        (Request::Make { .. } | Request::Amend { .. } | Request::Destroy { .. }, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_one_role() {
        assert_eq!(role_of(0, 61001, 61002), Some(Role::Root));
        assert_eq!(role_of(61001, 61001, 61002), Some(Role::Broker));
        assert_eq!(role_of(61002, 61001, 61002), Some(Role::Own));
        assert_eq!(role_of(61003, 61001, 61002), None);
        assert_eq!(role_of(65534, 61001, 61002), None);
    }

    #[test]
    fn the_broker_cannot_widen_a_charter_and_root_cannot_mint() {
        let key: crate::KeyId = "a/b.1".parse().unwrap();
        let destroy = Request::Destroy { key };
        assert_eq!(
            allowed(Role::Broker, &destroy).unwrap_err().kind(),
            Kind::Refused
        );
        assert!(allowed(Role::Root, &destroy).is_ok());
        for looking in [Request::Health {}, Request::Check {}] {
            for role in [Role::Broker, Role::Root, Role::Own] {
                assert!(allowed(role, &looking).is_ok(), "{looking:?}");
            }
        }
    }
}
