//! A private key on its way into a TPM, as somebody with the keystore's memory sees it afterwards.

use crate::program::{self, charter};
use crate::world::{SECRET, World};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use harness::DEADLINE;
use keystore::client::Client;
use keystore::privatekey::Parts;
use keystore::protocol::{Condition, Reply, Request};
use keystore::{Alg, Charter, KeyFile, KeyId, PrivateKey};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use zeroize::Zeroizing;

/// Everything that a process has written in memory.
fn memory(pid: u32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (begin, end) = (number(begin), number(end));
        let mut region = vec![0; (end - begin) as usize];
        if memory.read_exact_at(&mut region, begin).is_ok() {
            all.extend(region);
        }
    }
    all
}

fn times(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|it| *it == needle)
        .count()
}

#[test]
fn nothing_of_an_imported_key_stays_in_the_process() {
    for (alg, algorithm, option) in [
        (Alg::ES256, "EC", "ec_paramgen_curve:P-256"),
        (Alg::RS256, "RSA", "rsa_keygen_bits:2048"),
    ] {
        let world = World::new();
        let running = program::start(&world, "", &SECRET);
        program::health(&world);
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", algorithm, "-pkeyopt", option])
            .args(["-outform", "DER"])
            .output()
            .unwrap();
        let private_key = PrivateKey::new(Zeroizing::new(made.stdout.clone())).unwrap();
        let (public_key, parts) = private_key.read().unwrap();
        let secret = match parts {
            Parts::P256(number) => number.to_vec(),
            Parts::Rsa(numbers) => numbers.prime_1.to_vec(),
        };
        let socket = world.dir.path().join("socket");
        let mut client = Client::connect(&socket, DEADLINE).unwrap();
        let key: KeyId = "payments/bank.1".parse().unwrap();
        let import = Request::Import {
            key: key.clone(),
            charter: Charter { alg, ..charter() },
            private_key: KeyFile::new(Zeroizing::new(made.stdout.clone())).unwrap(),
        };
        assert!(!format!("{import:?}").contains(&BASE64.encode(&made.stdout)[..40]));
        let entry = match client.call(&import).unwrap() {
            Reply::Made { key, created: true } => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(entry.public_key, public_key);
        assert_eq!(entry.condition, Condition::Usable {});
        assert!(entry.evidence.imported);
        program::mint(&mut client, &key).unwrap();
        let memory = memory(running.id());
        // What is looked for is in it where it must be.
        assert!(times(&memory, key.to_string().as_bytes()) > 0);
        assert_eq!(times(&memory, &secret), 0, "{algorithm}: the secret itself");
        assert_eq!(
            times(&memory, &secret[..16]),
            0,
            "{algorithm}: its first half"
        );
        let base64 = BASE64.encode(&made.stdout);
        let half = &base64.as_bytes()[base64.len() / 4..][..32];
        assert_eq!(times(&memory, half), 0, "{algorithm}: the frame it came in");
    }
}
