use super::*;

fn enrolled(host: &str, ek: u8, ak: u8) -> Enrolled {
    Enrolled {
        host: host.parse().unwrap(),
        keystore: Text::cut("tpm"),
        ek: EkFingerprint([ek; 32]),
        manufacturer: None,
        ak_name: Bytes::new(vec![ak; 34]).unwrap(),
        ak_qualified_name: Bytes::new(vec![ak; 34]).unwrap(),
        enrolled_at: 1_800_000_000,
        counters: None,
    }
}

fn host(name: &str) -> Host {
    name.parse().unwrap()
}

#[test]
fn a_copied_identity_is_refused() {
    let mut registry = Registry::new();
    let mut record = |it| registry.record(it, Replacing::Refused);
    assert_eq!(record(enrolled("a", 1, 1)), Ok(()));
    assert_eq!(
        record(enrolled("b", 1, 2)),
        Err(Conflict::SameEk(host("a")))
    );
    assert_eq!(
        record(enrolled("b", 2, 1)),
        Err(Conflict::SameAk(host("a")))
    );
    assert_eq!(
        record(enrolled("b", 1, 1)),
        Err(Conflict::SameEk(host("a")))
    );
    let other = Conflict::OtherEk(host("a"), EkFingerprint([1; 32]));
    assert_eq!(record(enrolled("a", 3, 3)), Err(other.clone()));
    let beside = Enrolled {
        keystore: Text::cut("tpm2"),
        ..enrolled("a", 3, 3)
    };
    assert_eq!(record(beside), Err(other), "another TPM by another name");
    assert_eq!(record(enrolled("b", 2, 2)), Ok(()));
    // Even where a TPM was replaced on purpose.
    let replaced = registry.record(enrolled("a", 2, 5), Replacing::Meant);
    assert_eq!(replaced, Err(Conflict::SameEk(host("b"))));
}

#[test]
fn a_tpm_that_is_enrolled_again_counts_anew() {
    let mut registry = Registry::new();
    registry
        .record(enrolled("a", 1, 1), Replacing::Refused)
        .unwrap();
    let counters = Counters {
        reset: 7,
        restart: 1,
    };
    registry.count(&host("a"), "tpm", counters);
    registry
        .record(enrolled("a", 1, 2), Replacing::Refused)
        .unwrap();
    let found = registry.find(&host("a"), "tpm").unwrap();
    assert_eq!((found.counters, found.ak_name.as_slice()[0]), (None, 2));
    registry
        .record(enrolled("a", 3, 3), Replacing::Meant)
        .unwrap();
    assert_eq!(registry.find(&host("a"), "tpm").unwrap().counters, None);
    assert_eq!(Registry::parse(registry.to_json().as_bytes()), Ok(registry));
}

/// With all its keystores: none of them is in the TPM that is gone.
#[test]
fn a_tpm_that_was_replaced_is_forgotten() {
    let mut registry = Registry::new();
    let beside = |ek, ak| Enrolled {
        keystore: Text::cut("tpm2"),
        ..enrolled("a", ek, ak)
    };
    for it in [enrolled("a", 1, 1), beside(1, 2), enrolled("b", 2, 3)] {
        registry.record(it, Replacing::Refused).unwrap();
    }
    registry.record(beside(3, 4), Replacing::Meant).unwrap();
    assert!(registry.find(&host("a"), "tpm").is_none());
    assert_eq!(registry.enrolled.len(), 2);
    let again = registry.record(enrolled("a", 3, 5), Replacing::Refused);
    assert_eq!(again, Ok(()));
    assert_eq!(Registry::parse(registry.to_json().as_bytes()), Ok(registry));
}

#[test]
fn a_file_with_a_copy_in_it_is_wrong() {
    let named = |name: &str| Enrolled {
        keystore: Text::cut(name),
        ..enrolled("a", 1, 9)
    };
    for (second, why) in [
        (enrolled("a", 1, 2), "tpm of a twice"),
        (enrolled("b", 1, 2), "as two hosts"),
        (enrolled("b", 2, 1), "in two TPMs"),
        (
            Enrolled {
                ek: EkFingerprint([2; 32]),
                ..named("tpm2")
            },
            "a with two TPMs",
        ),
        (named(""), "a name is letters"),
        (named("a/b"), "a name is letters"),
        (named("tpm\n"), "a name is letters"),
    ] {
        let mut registry = Registry::new();
        registry.enrolled = vec![enrolled("a", 1, 1), second];
        let wrong = Registry::parse(registry.to_json().as_bytes()).unwrap_err();
        assert!(wrong.contains(why), "{why}: {wrong}");
    }
}
