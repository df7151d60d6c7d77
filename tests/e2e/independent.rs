//! What a TPM signs for a bundle is understood by others: a parser that nobody here wrote reads the statements, a
//! library that nobody here wrote verifies them, and what they are about is computed from our documents
//! (tests/peers/statement.py). Each damage is found by the check that it is for, and by no other.

use crate::world::us;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use harness::{Config, Daemon, Tpm, peers, public_dir};
use serde_json::{Value, json};

const NONCE: &str = "0707070707070707070707070707070707070707070707070707070707070707";

const BANK: &str = "ours/bank.1";

/// Where a TPMS_ATTEST of TPM2_Certify has what, where names and what it is about are SHA-256 (Part 2, 10.12.12).
const TYPE: usize = 5;
const SIGNER: usize = 20;
const ABOUT: usize = 60;
const ATTESTED: usize = 110;

/// The bundle of four keys, two of which are of one kind.
fn attested(tpm: &Tpm) -> Value {
    let tmp = public_dir();
    let config = Config::new(tpm)
        .with("[attest]\nhost = \"web-1\"\npcrs = [0, 4, 7]\nbank = \"sha256\"")
        .workload("ours", us(), "")
        .target("ours", "bank", "")
        .target("ours", "club", "")
        .target("ours", "post", "alg = \"PS256\"")
        .target("ours", "shop", "alg = \"RS256\"");
    let daemon = Daemon::with_keys(config);
    let file = tmp.path().join("evidence.json");
    let shown = file.display().to_string();
    let output = daemon.assertctl(&["attest", "--nonce", NONCE, "--all", "-o", &shown]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The names of the checks of one object that say anything.
fn wrong<'a>(verdict: &'a Value, of: &str) -> Vec<&'a str> {
    let checks = verdict[of]
        .as_object()
        .unwrap_or_else(|| panic!("{verdict:#}"));
    let is_wrong = |(name, why): &(&String, &Value)| *name != "scheme" && *why != "";
    let wrong = checks.iter().filter(is_wrong);
    wrong.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn what_a_tpm_says_is_understood_and_verified_by_others() {
    let tpm = Tpm::new();
    let bundle = attested(&tpm);
    let asked = |bundle: &Value, nonce: &str, host: &str| {
        json!({ "bundle": bundle, "nonce": nonce, "host": host }).to_string()
    };
    let sound = peers::statements(&[asked(&bundle, NONCE, "web-1")]).remove(0);
    let names: Vec<&String> = sound.as_object().unwrap().keys().collect();
    let keys = [BANK, "ours/club.1", "ours/post.1", "ours/shop.1"];
    let quote = names.iter().find(|it| it.ends_with(" quote")).unwrap();
    assert!(
        names.len() == 5 && keys.iter().all(|it| sound[it].is_object()),
        "{names:?}"
    );
    for name in &names {
        assert_eq!(wrong(&sound, name), [""; 0], "{name}: {sound:#}");
    }
    // Decision 0025: with its scheme, and for nothing else, its reader refuses the public area. That of RSA keys
    // knows schemes, and reads on as if they had no hash.
    for (key, why) in keys.into_iter().zip([
        "scheme is expected to be NULL",
        "scheme is expected to be NULL",
        "there should not be any data left in buffer",
        "there should not be any data left in buffer",
    ]) {
        assert_eq!(sound[key]["scheme"], why, "{key}");
    }

    // What is damaged, and which checks of the first key say so.
    type Damage = (&'static str, fn(&mut Value), &'static [&'static str]);
    let damages: [Damage; 9] = [
        (
            "type",
            |it| flip(&mut it["attest"], TYPE),
            &["context", "name", "signature", "signer", "statement"],
        ),
        (
            "signer",
            |it| flip(&mut it["attest"], SIGNER),
            &["signature", "signer"],
        ),
        (
            "about",
            |it| flip(&mut it["attest"], ABOUT),
            &["context", "signature"],
        ),
        (
            "attested",
            |it| flip(&mut it["attest"], ATTESTED),
            &["name", "signature"],
        ),
        (
            "longer",
            |it| change(&mut it["attest"], |bytes| bytes.push(0)),
            &["signature", "statement"],
        ),
        (
            "signature",
            |it| {
                change(&mut it["signature"], |bytes| {
                    *bytes.last_mut().unwrap() ^= 1
                })
            },
            &["signature"],
        ),
        (
            "attributes",
            |it| change(&mut it["public"], |bytes| bytes[7] ^= 0x40),
            &["name"],
        ),
        ("id", |it| it["key"] = json!("ours/bank.2"), &["context"]),
        (
            "purpose",
            |it| it["purpose"] = json!("federation"),
            &["context"],
        ),
    ];
    let mut lines = Vec::new();
    for (_, damage, _) in &damages {
        let mut damaged = bundle.clone();
        damage(&mut damaged["keystores"][0]["keys"][0]);
        lines.push(asked(&damaged, NONCE, "web-1"));
    }
    for (verdict, (what, _, expected)) in peers::statements(&lines).iter().zip(&damages) {
        let bank = if *what == "id" { "ours/bank.2" } else { BANK };
        assert_eq!(wrong(verdict, bank), *expected, "{what}: {verdict:#}");
        for other in &keys[1..] {
            assert_eq!(wrong(verdict, other), [""; 0], "{what}: {verdict:#}");
        }
        // The quote is bound to every byte of the statements, and to nothing else of keys.
        let is_of_statement = ["type", "signer", "about", "attested", "longer"].contains(what);
        let expected: &[&str] = if is_of_statement { &["context"] } else { &[] };
        assert_eq!(wrong(verdict, quote), expected, "{what}: {verdict:#}");
    }

    // Of the whole: another nonce, another host, another parent, one key registered in place of another, a
    // key that was left out.
    let (mut below, mut swapped, mut fewer) = (bundle.clone(), bundle.clone(), bundle.clone());
    flip(&mut below["keystores"][0]["tpm"]["ak"]["parent"], 7);
    let of = &mut swapped["keystores"][0]["keys"];
    of[0]["jwk"] = bundle["keystores"][0]["keys"][1]["jwk"].clone();
    fewer["keystores"][0]["keys"].as_array_mut().unwrap().pop();
    let lines = [
        asked(&bundle, &NONCE.replace('7', "8"), "web-1"),
        asked(&bundle, NONCE, "web-2"),
        asked(&below, NONCE, "web-1"),
        asked(&swapped, NONCE, "web-1"),
        asked(&fewer, NONCE, "web-1"),
    ];
    let expected: [(&[&str], &[&str]); 5] = [
        (&["context"], &["context"]),
        (&["context"], &["context"]),
        (&["signer"], &["signer"]),
        (&["context", "key"], &[]),
        (&[], &["context"]),
    ];
    for (verdict, (of_bank, of_quote)) in peers::statements(&lines).iter().zip(expected) {
        assert_eq!(wrong(verdict, BANK), of_bank, "{verdict:#}");
        assert_eq!(wrong(verdict, quote), of_quote, "{verdict:#}");
    }
}

fn flip(text: &mut Value, index: usize) {
    change(text, |bytes| bytes[index] ^= 1);
}

fn change(text: &mut Value, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = BASE64URL.decode(text.as_str().unwrap()).unwrap();
    change(&mut bytes);
    *text = json!(BASE64URL.encode(bytes));
}
