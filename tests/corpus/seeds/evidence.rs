//! Evidence of a host: the structures of its TPM, its logs, and bundles of them, whole and damaged.

#[path = "../../../keystore/tests/evidence/fixture.rs"]
mod fixture;

use super::Corpus;
use fixture::{EK, KEY, World, area, logs};
use keystore::evidence::bundle::{Bank, KeystoreEvidence, TpmEvidence};

/// Writes them.
pub fn write(corpus: &Corpus) {
    let mut world = World::new();
    world.keys.truncate(1); // a bundle is to be small
    let evidence = world.evidence();
    structures(corpus, &world, &evidence);
    let log = world.event_log.clone();
    corpus.put("event_log", "whole", &log);
    corpus.put("event_log", "begun", &logs::begun());
    corpus.put("event_log", "cut", &log[..log.len() - 3]);
    let late = [&log[..], &logs::event(0, 8, b"version")].concat();
    corpus.put("event_log", "late", &late);
    let locality = logs::event(0, 3, b"StartupLocality\0\x03");
    corpus.put(
        "event_log",
        "locality",
        &[&logs::begun()[..], &locality, &log[logs::begun().len()..]].concat(),
    );
    let ima = world.ima.clone();
    corpus.put("ima_list", "whole", &ima);
    corpus.put("ima_list", "cut", &ima[..ima.len() - 3]);
    let mut violation = ima.clone();
    violation[4..24].fill(0);
    corpus.put("ima_list", "violation", &violation);
    let bundle = world.bundle();
    let json = bundle.to_json();
    corpus.put("bundle", "whole", json.as_bytes());
    corpus.put("bundle", "spaced", json.replace(',', " ,\n").as_bytes());
    corpus.put(
        "bundle",
        "newer",
        json.replace("\"version\":1", "\"version\":2").as_bytes(),
    );
    let mut other = bundle.clone();
    if let KeystoreEvidence::Tpm(tpm) = &mut other.keystores[0] {
        tpm.quote = None;
        tpm.keys[0].imported = true;
    }
    corpus.put("bundle", "no-quote", other.to_json().as_bytes());
    other.keystores.clear();
    corpus.put("bundle", "empty", other.to_json().as_bytes());
}

fn structures(corpus: &Corpus, world: &World, evidence: &TpmEvidence) {
    let put = |name: &str, kind: u8, bytes: &[u8]| {
        corpus.put("evidence_structures", name, &[&[kind], bytes].concat());
    };
    put("ak", 0, &world.ak_area());
    put("ek", 0, &world.ek_area());
    put(
        "bound",
        0,
        &area(&world.ek, KEY & !(1 << 6), &[1; 32], false),
    );
    put("parent", 0, &area(&world.ak, EK, &[], true));
    let head = b"\x00\x01\x00\x0b\x00\x04\x04\x72\0\0\x00\x10\x00\x14\x00\x0b\x08\0\0\0\0\0\x01\0";
    put("rsa", 0, &[&head[..], &[0xc1; 256]].concat());
    let key = &evidence.keys[0];
    put("certify", 1, key.attest.as_slice());
    put("signature", 2, key.signature.as_slice());
    let rsa = [&b"\x00\x14\x00\x0b\x01\0"[..], &[1; 256]].concat();
    put("rsa-signature", 2, &rsa);
    if let Some(quote) = &evidence.quote {
        put("quote", 1, quote.attest.as_slice());
    }
    put(
        "selection",
        3,
        b"\0\0\0\x02\x00\x04\x03\0\0\0\x00\x0b\x03\x81\0\x80",
    );
    put("no-selection", 3, b"\0\0\0\0");
    assert!(world.pcrs.contains_key(&Bank::Sha256));
}
