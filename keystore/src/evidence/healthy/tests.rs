//! Approvals: what is signed, what is read, and what is refused.

use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
}

fn authority(pair: &EcdsaKeyPair) -> Authority {
    let key = PublicKey::from_sec1(pair.public_key().as_ref()).unwrap();
    Authority::new(key).unwrap()
}

fn state(values: &[(u8, u8)]) -> State {
    let pcr = |n| PcrIndex::new(n).unwrap();
    let values = values
        .iter()
        .map(|(n, byte)| (pcr(*n), PcrValue::new(&[*byte; 32])));
    State::new(values.collect()).unwrap()
}

fn sign(pair: &EcdsaKeyPair, bytes: &[u8]) -> Vec<u8> {
    let signature = pair.sign(&SystemRandom::new(), bytes).unwrap();
    signature.as_ref().to_vec()
}

#[test]
fn an_approval_is_kept_by_a_name_that_is_its_own() {
    let (ours, theirs) = (authority(&pair()), authority(&pair()));
    let name = |state: State, generation: u32, whose: &Authority| {
        let name = Approval::draft(state, Generation(generation)).file_name(whose);
        assert!(name.ends_with(".json") && !name.contains('/'), "{name}");
        name
    };
    let one = name(state(&[(7, 1)]), 1, &ours);
    assert_eq!(one, name(state(&[(7, 1)]), 1, &ours));
    for other in [
        name(state(&[(7, 2)]), 1, &ours),
        name(state(&[(8, 1)]), 1, &ours),
        name(state(&[(7, 1), (8, 1)]), 1, &ours),
        name(state(&[(7, 1)]), 2, &ours),
        name(state(&[(7, 1)]), 1, &theirs),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn an_approval_is_its_authoritys_for_this_state_and_generation() {
    let (ours, theirs) = (pair(), pair());
    let draft = Approval::draft(state(&[(7, 1)]), Generation::FIRST);
    assert!(draft.check(&authority(&ours)).is_err(), "it is not signed");
    let der = sign(&ours, &draft.to_be_signed());
    let approval = draft.clone().signed(&der, &authority(&ours)).unwrap();
    assert_eq!(approval.check(&authority(&ours)), Ok(()));
    assert!(approval.check(&authority(&theirs)).is_err());
    assert!(draft.clone().signed(&der, &authority(&theirs)).is_err());
    for changed in [
        Approval {
            pcrs: state(&[(7, 2)]),
            ..approval.clone()
        },
        Approval {
            pcrs: state(&[(8, 1)]),
            ..approval.clone()
        },
        Approval {
            pcrs: state(&[(7, 1), (8, 1)]),
            ..approval.clone()
        },
        Approval {
            generation: Generation(2),
            ..approval.clone()
        },
    ] {
        assert!(changed.check(&authority(&ours)).is_err(), "{changed:?}");
    }
    let json = approval.to_json();
    assert_eq!(Approval::parse(json.as_bytes()), Ok(approval));
    for end in 0..json.len() {
        assert!(Approval::parse(&json.as_bytes()[..end]).is_err(), "{end}");
    }
}

#[test]
fn what_is_no_signature_is_none() {
    let pair = pair();
    let draft = Approval::draft(state(&[(7, 1)]), Generation::FIRST);
    let der = sign(&pair, &draft.to_be_signed());
    for length in 0..der.len() {
        assert!(
            draft
                .clone()
                .signed(&der[..length], &authority(&pair))
                .is_err(),
            "{length}"
        );
    }
    let longer = [&der[..], &[0]].concat();
    assert!(draft.signed(&longer, &authority(&pair)).is_err());
}

/// `tpm2_policypcr` over a file of 32 zero bytes, and TPM 2.0 Part 3, computed with Python's hashlib.
#[test]
fn a_policy_is_what_the_standard_says() {
    let zero = state(&[(7, 0)]);
    let selection = hex("00000001000b03800000").unwrap();
    let policy = sha256(&[
        &[0; 32],
        &0x17fu32.to_be_bytes(),
        &selection,
        &sha256(&[&[0; 32]]),
    ]);
    assert_eq!(zero.policy(), policy);
    let authority = authority(&pair());
    let named = sha256(&[
        &[0; 32],
        &0x16au32.to_be_bytes(),
        authority.name().as_slice(),
    ]);
    let reference = sha256(&[b"assertd-approval-v1\0\0\0\0\x02"]);
    let authorized = sha256(&[&named, &reference]);
    let with_auth = sha256(&[&authorized, &0x16bu32.to_be_bytes()]);
    assert_eq!(
        digest_of(&steps(&zero, Some((&authority, Generation(2))))),
        with_auth
    );
    let with_auth = sha256(&[&policy, &0x16bu32.to_be_bytes()]);
    assert_eq!(digest_of(&steps(&zero, None)), with_auth);
}

#[test]
fn an_authority_is_read_as_openssl_writes_it() {
    let key = authority(&pair());
    let body = BASE64.encode(key.key().spki());
    let (first, second) = body.split_at(64);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n");
    assert_eq!(Authority::from_pem(&pem), Ok(key.clone()));
    assert_eq!(Authority::from_area(key.area().as_slice()), Ok(key.clone()));
    assert_eq!(key.name().as_slice().len(), 34);
    let mut restricted = key.area().as_slice().to_vec();
    restricted[5] |= 1;
    assert!(Authority::from_area(&restricted).is_err());
    let named = AuthorityName::try_from(key.to_string());
    assert_eq!(named.as_ref(), Ok(key.name()));
    assert_ne!(AuthorityName::of(&restricted).as_ref(), Some(key.name()));
    for wrong in [
        "",
        "000b",
        &"00".repeat(34),
        &key.to_string().to_uppercase(),
    ] {
        assert!(
            AuthorityName::try_from(wrong.to_owned()).is_err(),
            "{wrong}"
        );
    }
    for wrong in [
        "",
        "-----BEGIN PUBLIC KEY-----",
        &pem[..60],
        &pem.replace(first, "AAAA"),
    ] {
        assert!(Authority::from_pem(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn states_that_say_nothing_are_none() {
    for unfit in [10, 16, 23, 24, 255] {
        assert!(check_index(unfit).is_err(), "{unfit}");
    }
    assert!(State::new(BTreeMap::new()).is_err());
    assert!(serde_json::from_str::<State>(r#"{"7":"00"}"#).is_err());
    assert!(serde_json::from_str::<State>(&format!(r#"{{"16":"{}"}}"#, "00".repeat(32))).is_err());
    let (here, there) = (
        state(&[(7, 1), (14, 1)]),
        state(&[(7, 2), (11, 1), (14, 1)]),
    );
    let differs: Vec<u8> = here
        .differs(&there)
        .iter()
        .map(|it| it.index.number())
        .collect();
    assert_eq!(differs, [7, 11]);
}
