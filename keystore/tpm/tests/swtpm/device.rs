//! The device TCTI, by a pseudo terminal in place of the kernel's TPM.

use crate::world::{How, SECRET, make, object, sign};
use harness::swtpm::Device;
use keystore::backend::Backend;
use keystore::config::Sessions;
use keystore::statefile::StateDir;
use keystore::tcti::Tcti;
use keystore::{Alg, PublicKey};
use keystore_tpm::{Secrets, Settings, TpmBackend};
use std::path::Path;
use std::str::FromStr;
use tss_esapi::Context;
use tss_esapi::constants::CapabilityType;
use tss_esapi::constants::tss::TPM2_TRANSIENT_FIRST;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{CapabilityData, HandleList, RsaExponent, SymmetricDefinitionObject};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::utils::create_restricted_decryption_rsa_public;

fn open(node: &Path, dir: &Path, sessions: Sessions) -> TpmBackend {
    let settings = Settings {
        tcti: Tcti::Device(node.to_owned()),
        secrets: Secrets::new(&SECRET),
        sessions: Some(sessions),
        healthy: None,
        state: StateDir::lock(&dir.join("state")).unwrap(),
    };
    TpmBackend::open(settings).unwrap()
}

#[test]
fn keys_work_through_a_device_node() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let tmp = tempfile::tempdir().unwrap();
        let algs = [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256];
        let device = Device::start(tmp.path());
        let backend = open(device.node(), tmp.path(), sessions);
        assert!(backend.describe().contains("device:/dev/pts/"));
        let keys: Vec<PublicKey> = (1..)
            .zip(algs)
            .map(|(n, alg)| make(&backend, n, alg))
            .collect();
        for _ in 0..3 {
            for ((n, alg), key) in (1..).zip(algs).zip(&keys) {
                sign(&backend, n, key, alg);
            }
        }
        drop(backend);
        drop(device);
        let device = Device::start(tmp.path());
        let backend = open(device.node(), tmp.path(), sessions);
        for ((n, alg), key) in (1..).zip(algs).zip(&keys) {
            assert_eq!(backend.inspect(object(n)).unwrap().public_key, *key);
            sign(&backend, n, key, alg);
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_absent() {
    let world = crate::world::World::new();
    let how = How {
        tcti: Some(Tcti::Device("/dev/tpm-that-is-not-there".into())),
        ..How::default()
    };
    let error = world.open_as(&how).err().unwrap();
    assert_eq!(error.kind(), keystore::Kind::Absent, "{error}");
    assert!(error.to_string().contains("group tss"), "{error}");
}

/// The kernel's resource manager gives each its own objects and so needs no help. Ours does not
/// look behind it: by its name alone a device is taken for one that others use too.
#[test]
fn behind_a_resource_manager_nothing_of_others_is_flushed_and_one_slot_is_enough() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let tmp = tempfile::tempdir().unwrap();
        let device = Device::start(tmp.path());
        let managed = tmp.path().join("tpmrm0");
        std::os::unix::fs::symlink(device.node(), &managed).unwrap();
        let name = format!("device:{}", device.node().display());
        let mut other = Context::new(TctiNameConf::from_str(&name).unwrap()).unwrap();
        let public = create_restricted_decryption_rsa_public(
            SymmetricDefinitionObject::AES_128_CFB,
            RsaKeyBits::Rsa2048,
            RsaExponent::default(),
        );
        let public = public.unwrap();
        let made = other.execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(Hierarchy::Null, public, None, None, None, None)
        });
        let theirs = made.unwrap().key_handle;
        let backend = open(&managed, tmp.path(), sessions);
        let described = backend.describe();
        assert!(described.contains("key slots: 1"), "{described}");
        let keys = [1, 2, 3].map(|n| make(&backend, n, Alg::ES256));
        for _ in 0..3 {
            for (n, key) in (1..).zip(&keys) {
                sign(&backend, n, key, Alg::ES256);
            }
        }
        drop(backend);
        assert!(other.read_public(theirs).is_ok(), "it was flushed");
        other.flush_context(theirs.into()).unwrap();
        let (left, _) = other
            .get_capability(CapabilityType::Handles, TPM2_TRANSIENT_FIRST, 8)
            .unwrap();
        let CapabilityData::Handles(left) = left else {
            panic!("{left:?}");
        };
        assert_eq!(left, HandleList::new(), "ours were left");
    }
}
