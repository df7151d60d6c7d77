//! Who may ask the keystore what (architecture.md): by the uid the kernel has for the peer.

use crate::protocol::Request;
use crate::records::Reach;
use crate::{Error, Kind};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::unix::net::UnixStream;

/// What a peer may ask, by its uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The broker: mint, list, health, check; the next version of a key, and destroying old ones.
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
            Request::Hello { .. }
            | Request::Health {}
            | Request::List { .. }
            | Request::Check {}
            | Request::Counter {}
            | Request::Identity {}
            | Request::State {},
            _,
        ) => Ok(()),
        (Request::Advance { .. }, Role::Root) => refuse("the broker"),
        (Request::Advance { .. }, Role::Broker | Role::Own) => Ok(()),
        (Request::Mint { .. }, Role::Root) => refuse("the broker"),
        (Request::Mint { .. }, Role::Broker | Role::Own) => Ok(()),
        // It has them in its audit log, and lets workloads go between them.
        (Request::Attest { .. } | Request::Quote { .. }, Role::Root) => {
            refuse("the broker (`assertctl attest` asks it)")
        }
        (Request::Attest { .. } | Request::Quote { .. }, Role::Broker | Role::Own) => Ok(()),
        // Who is let in by it stands for the host.
        (Request::Activate { .. }, Role::Broker) => refuse("root (`assertctl enroll respond`)"),
        (Request::Activate { .. }, Role::Root | Role::Own) => Ok(()),
        (Request::Make { .. } | Request::Amend { .. }, Role::Broker) => {
            refuse("root (`assertctl apply`)")
        }
        (Request::Import { .. } | Request::Adopt { .. }, Role::Broker) => {
            refuse("root (`assertctl keys`)")
        }
        (Request::Make { .. } | Request::Amend { .. }, _) => Ok(()),
        (Request::Import { .. } | Request::Adopt { .. }, _) => Ok(()),
        // Which versions each of them may destroy is a matter of what is recorded: [`reach`].
        (Request::Next { .. } | Request::Destroy { .. }, _) => Ok(()),
        // What it says is the keystore's, and whether it may be the charter's.
        (Request::Certify { .. }, _) => Ok(()),
    }
}

/// Which versions of a key it may destroy.
pub fn reach(role: Role) -> Reach {
    match role {
        Role::Broker => Reach::Superseded,
        Role::Root | Role::Own => Reach::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyFile;
    use crate::backend::Existing;
    use crate::charter::PurposeKind;
    use crate::evidence::bundle::{Bytes, Host, Nonce, Selection};
    use crate::protocol::Credential;
    use crate::{Alg, CertificateUse, Charter, Claims, KeyId, KidMember, Purpose, Typ};
    use zeroize::Zeroizing;

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
        let key: KeyId = "a/b.1".parse().unwrap();
        let (name, charter) = (key.name.clone(), charter());
        let make = Request::Make {
            key: key.clone(),
            charter: charter.clone(),
        };
        let import = Request::Import {
            key: key.clone(),
            charter: charter.clone(),
            private_key: KeyFile::new(Zeroizing::new(vec![0x30, 0])).unwrap(),
        };
        let adopt = Request::Adopt {
            key: key.clone(),
            charter: charter.clone(),
            object: Existing::Label("theirs".to_owned().try_into().unwrap()),
        };
        let amend = Request::Amend { name, charter };
        for widening in [make, import, adopt, amend] {
            let refused = allowed(Role::Broker, &widening).unwrap_err();
            assert_eq!(refused.kind(), Kind::Refused, "{widening:?}");
            for role in [Role::Root, Role::Own] {
                assert!(allowed(role, &widening).is_ok(), "{widening:?}");
            }
        }
        let mint = Request::Mint {
            key,
            purpose: PurposeKind::ClientAuthentication,
            claims: claims(),
        };
        assert!(allowed(Role::Root, &mint).is_err());
        for role in [Role::Broker, Role::Own] {
            assert!(allowed(role, &mint).is_ok());
        }
    }

    #[test]
    fn everybody_may_look_and_have_the_next_version_made() {
        let key: KeyId = "a/b.2".parse().unwrap();
        for request in [
            Request::Health {},
            Request::Check {},
            Request::List { after: None },
            Request::Next { key: key.clone() },
            Request::Destroy { key },
        ] {
            for role in [Role::Broker, Role::Root, Role::Own] {
                assert!(allowed(role, &request).is_ok(), "{request:?}");
            }
        }
    }

    #[test]
    fn evidence_is_the_brokers_and_enrolment_is_roots() {
        let (nonce, host): (Nonce, Host) = (Nonce([0; 32]), "a".parse().unwrap());
        let attest = Request::Attest {
            nonce,
            host: host.clone(),
            key: "a/b.1".parse().unwrap(),
        };
        let quote = Request::Quote {
            nonce,
            host,
            selection: Selection::new(),
        };
        let bytes = || Bytes::new(Vec::new()).unwrap();
        let activate = Request::Activate {
            credential: Credential {
                blob: bytes(),
                secret: bytes(),
            },
        };
        for (request, roles) in [
            (attest, [true, false, true]),
            (quote, [true, false, true]),
            (Request::Identity {}, [true, true, true]),
            (Request::State {}, [true, true, true]),
            (activate, [false, true, true]),
        ] {
            let may =
                [Role::Broker, Role::Root, Role::Own].map(|role| allowed(role, &request).is_ok());
            assert_eq!(may, roles, "{request:?}");
        }
    }

    #[test]
    fn the_broker_reaches_only_what_is_superseded() {
        assert_eq!(reach(Role::Broker), Reach::Superseded);
        assert_eq!(reach(Role::Root), Reach::Any);
        assert_eq!(reach(Role::Own), Reach::Any);
    }

    fn charter() -> Charter {
        Charter {
            purpose: Purpose::ClientAuthentication {
                iss: "a".into(),
                sub: "a".into(),
                aud: "b".into(),
            },
            alg: Alg::ES256,
            typ: Typ::ClientAuthentication,
            kid: KidMember::Thumbprint,
            lifetime_max_s: 60,
            backdate_s: 0,
            certificate: CertificateUse::None,
        }
    }

    fn claims() -> Claims {
        Claims {
            iss: "a".into(),
            sub: Some("a".into()),
            aud: Some("b".into()),
            scope: None,
            jti: None,
            iat: 1,
            nbf: None,
            exp: 2,
        }
    }
}
