use super::*;
use keystore::protocol::{decode, encode};
use proptest::prelude::*;

fn executable(place: Place) -> Attestation {
    let identity = Inode {
        dev: 0x801,
        ino: 131_072,
        size: 4096,
        mtime_ns: 1_763_758_255_123_456_789,
        ctime_ns: i64::MIN,
    };
    Attestation::Executable(Executable {
        place,
        sha256: Sha256::of(b"it"),
        identity,
    })
}

fn back(attestation: &Attestation) -> Result<Attestation, Error> {
    let frame = encode(attestation)?;
    Attestation::decode(&frame[4..])
}

#[test]
fn what_is_sent_arrives() {
    for attestation in [
        executable(Place::At("/usr/bin/payments".to_owned())),
        executable(Place::At("/a \"b\"\n\u{1}é".to_owned())),
        executable(Place::Unproven(Unproven::Deleted)),
        executable(Place::Unproven(Unproven::ForeignMountNamespace)),
        executable(Place::Unproven(Unproven::Unsearchable)),
        executable(Place::Unproven(Unproven::NotText)),
        Attestation::NotAttestable("it has ended".to_owned()),
        Attestation::NotNow("ask again".to_owned()),
    ] {
        assert_eq!(back(&attestation).unwrap(), attestation);
    }
}

#[test]
fn limits_hold_at_their_borders() {
    let at = |length: usize| executable(Place::At("/".repeat(length)));
    assert!(back(&at(PATH_LEN_MAX - 1)).is_ok());
    assert!(back(&at(PATH_LEN_MAX)).is_ok());
    assert!(back(&at(PATH_LEN_MAX + 1)).is_err());
    let reason = |length: usize| Attestation::NotAttestable("r".repeat(length));
    assert!(back(&reason(REASON_LEN_MAX - 1)).is_ok());
    assert!(back(&reason(REASON_LEN_MAX)).is_ok());
    assert!(back(&reason(REASON_LEN_MAX + 1)).is_err());
    assert!(back(&Attestation::NotNow("r".repeat(REASON_LEN_MAX))).is_ok());
    assert!(back(&Attestation::NotNow("r".repeat(REASON_LEN_MAX + 1))).is_err());
    let long = "é".repeat(REASON_LEN_MAX);
    for doubt in [Doubt::Lasting(long.clone()), Doubt::Passing(long)] {
        let cut = Attestation::from(doubt);
        assert_eq!(back(&cut).unwrap(), cut);
    }
    // The longest path there is still fits a frame, however it is written.
    let worst = executable(Place::At(format!("/{}", "\u{1}".repeat(PATH_LEN_MAX - 1))));
    assert_eq!(back(&worst).unwrap(), worst);
}

#[test]
fn a_path_that_is_none_is_no_answer() {
    for path in ["", "usr/bin/payments", "/usr\0/bin", " /usr/bin"] {
        assert!(
            back(&executable(Place::At(path.to_owned()))).is_err(),
            "{path:?}"
        );
    }
}

#[test]
fn what_is_unknown_is_no_answer() {
    let good = encode(&executable(Place::At("/a".to_owned()))).unwrap();
    let good = String::from_utf8(good[4..].to_vec()).unwrap();
    assert!(Attestation::decode(good.as_bytes()).is_ok());
    for (from, to) in [
        ("\"sha256\":\"", "\"sha256\":\"0"),
        ("\"sha256\":\"", "\"sha256\":\"AA"),
        ("\"size\":4096", "\"size\":-1"),
        ("\"size\":4096", "\"size\":4096.0"),
        ("\"size\":4096", "\"size\":4096,\"uid\":0"),
        ("\"size\":4096", "\"size\":4096,\"size\":4096"),
        ("\"place\"", "\"path\""),
        ("\"at\"", "\"near\""),
        ("\"executable\"", "\"attested\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(Attestation::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Attestation::decode(&bytes);
    }

    #[test]
    fn nor_does_an_answer_with_bytes_changed(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = encode(&executable(Place::At("/usr/bin/é".to_owned()))).unwrap()[4..].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(attestation) = Attestation::decode(&bytes) {
            // Whatever it is taken for keeps the limits.
            prop_assert_eq!(back(&attestation).unwrap(), attestation);
        }
    }

    #[test]
    fn every_path_and_reason_within_the_limits_arrives(path in "/\\PC{0,100}", why in "\\PC{0,100}") {
        let at = executable(Place::At(path));
        prop_assert_eq!(back(&at).unwrap(), at);
        for not in [Attestation::NotAttestable(why.clone()), Attestation::NotNow(why)] {
            prop_assert_eq!(decode::<Attestation>(&encode(&not).unwrap()[4..]).unwrap(), not);
        }
    }
}
