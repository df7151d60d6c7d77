use super::*;
use keystore::charter::{SubjectPattern, Typ};
use keystore::protocol::{Evidence, EvidenceLevel};
use keystore::{CertificateUse, Kid, KidMember, Kind, PublicKey};
use proptest::prelude::*;

fn charter(aud: &str, lifetime_max_s: u32) -> Charter {
    let (iss, sub) = ("client".to_owned(), "client".to_owned());
    let purpose = Purpose::ClientAuthentication {
        iss,
        sub,
        aud: aud.to_owned(),
    };
    Charter {
        purpose,
        alg: Alg::ES256,
        typ: Typ::ClientAuthentication,
        kid: KidMember::Thumbprint,
        lifetime_max_s,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn issuer_charter(subjects: &[&str]) -> Charter {
    let pattern = |subject: &&str| SubjectPattern::try_from((*subject).to_owned()).unwrap();
    let subjects = subjects.iter().map(pattern).collect();
    let purpose = Purpose::Federation {
        iss: "https://id.example".into(),
        subjects,
    };
    Charter {
        purpose,
        alg: Alg::ES256,
        typ: Typ::Jwt,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 3600,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn kid(text: &str) -> Kid {
    serde_json::from_value(serde_json::json!(text)).unwrap()
}

fn entry(key: &str, charter: Charter) -> KeyEntry {
    KeyEntry {
        key: key.parse().unwrap(),
        kid: kid(&format!("kid-of-{key}")),
        public_key: PublicKey::Ed25519 { x: [7; 32] },
        charter,
        evidence: Evidence {
            level: EvidenceLevel::Asserted,
            imported: false,
        },
        condition: Condition::Usable {},
        certificate: None,
    }
}

fn record(key: &str, keystore: &str) -> Recorded {
    Recorded {
        key: key.parse().unwrap(),
        keystore: keystore.into(),
        kid: format!("kid-of-{key}"),
        suspended: None,
        use_of: Use::Signs,
    }
}

/// `payments/bank` is wanted in keystore `hsm`; `tpm` is there too.
fn world(shown: Vec<KeyEntry>, recorded: Vec<Recorded>) -> World {
    let wanted = Wanted {
        keystore: "hsm".into(),
        charter: charter("https://as.example", 60),
        key_from: KeyFrom::Make,
        certificate_s: None,
    };
    World {
        wanted: BTreeMap::from([("payments/bank".parse().unwrap(), wanted)]),
        keystores: BTreeMap::from([
            ("hsm".into(), Shown::Keys(shown)),
            ("tpm".into(), Shown::Keys(Vec::new())),
        ]),
        recorded,
        making: Vec::new(),
    }
}

fn lines(world: &World) -> Vec<String> {
    plan(world)
        .iter()
        .map(|step| step.row().join(" | "))
        .collect()
}

#[test]
fn a_recorded_key_that_is_lost_is_named_and_never_made_anew() {
    let steps = plan(&world(Vec::new(), vec![record("payments/bank.1", "hsm")]));
    let [Step::Failed { key, keystore, why }] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(
        (key.to_string().as_str(), keystore.as_str()),
        ("payments/bank.1", "hsm")
    );
    assert!(why.contains("kid-of-payments/bank.1"), "{why}");
}

#[test]
fn a_failed_key_is_named_and_neither_recorded_nor_made_anew() {
    let mut failed = entry("payments/bank.1", charter("https://as.example", 60));
    failed.condition = Condition::Failed {
        kind: Kind::Mismatch,
        why: "extractable".into(),
    };
    for recorded in [vec![], vec![record("payments/bank.1", "hsm")]] {
        let shown = lines(&world(vec![failed.clone()], recorded));
        assert_eq!(shown, ["! payments → bank | version 1 in hsm: extractable"]);
    }
}

#[test]
fn a_key_with_another_kid_than_recorded_is_a_failure() {
    let mut other = entry("payments/bank.1", charter("https://as.example", 60));
    other.kid = kid("another");
    let shown = lines(&world(vec![other], vec![record("payments/bank.1", "hsm")]));
    assert!(
        shown[0].contains("but the keystore shows kid another"),
        "{shown:?}"
    );
    assert_eq!(shown.len(), 1);
}

#[test]
fn a_suspended_key_is_not_replaced() {
    let shown = entry("payments/bank.1", charter("https://as.example", 60));
    let mut suspended = record("payments/bank.1", "hsm");
    suspended.suspended = Some("a signature did not verify".into());
    assert_eq!(
        lines(&world(vec![shown], vec![suspended])),
        ["! payments → bank | version 1 in hsm: a signature did not verify"]
    );
}

#[test]
fn an_unreachable_keystore_is_not_an_empty_one() {
    let mut world = world(Vec::new(), Vec::new());
    world
        .keystores
        .insert("hsm".into(), Shown::Unreachable("PIN is locked".into()));
    assert_eq!(
        lines(&world),
        ["! keystore hsm | nothing can be said about 1 key: PIN is locked"]
    );
}

#[test]
fn a_keystore_that_was_not_asked_gets_no_key() {
    let mut world = world(Vec::new(), Vec::new());
    world.keystores.clear();
    assert_eq!(plan(&world), []);
}

#[test]
fn a_key_in_another_keystore_is_a_conflict_whoever_knows_it() {
    let there = entry("payments/bank.1", charter("https://as.example", 60));
    let mut shown = world(Vec::new(), Vec::new());
    shown
        .keystores
        .insert("tpm".into(), Shown::Keys(vec![there.clone()]));
    let recorded = world(Vec::new(), vec![record("payments/bank.1", "tpm")]);
    let mut both = world(Vec::new(), vec![record("payments/bank.1", "tpm")]);
    both.keystores
        .insert("tpm".into(), Shown::Keys(vec![there]));
    for world in [shown, recorded, both] {
        let lines = lines(&world);
        let expected = "! payments → bank | the key is in keystore tpm and cannot move to hsm";
        assert!(
            lines.len() == 1 && lines[0].starts_with(expected),
            "{lines:?}"
        );
    }
}

#[test]
fn an_algorithm_or_a_purpose_never_changes() {
    let mut rsa = charter("https://as.example", 60);
    rsa.alg = Alg::RS256;
    for (has, words) in [
        (rsa, "the key is for RS256 and cannot become one for ES256"),
        (
            issuer_charter(&["a"]),
            "the key is for federation and cannot become one for client",
        ),
    ] {
        let shown = lines(&world(vec![entry("payments/bank.1", has)], Vec::new()));
        assert!(shown.len() == 1 && shown[0].contains(words), "{shown:?}");
    }
}

#[test]
fn a_new_key_is_made_where_it_is_wanted() {
    assert_eq!(
        lines(&world(Vec::new(), Vec::new())),
        ["+ payments → bank | new ES256 key in hsm, lifetime 60 s"]
    );
}

#[test]
fn a_changed_charter_shows_every_member_that_changes() {
    let has = entry("payments/bank.1", charter("https://old.example", 30));
    assert_eq!(
        lines(&world(vec![has], vec![record("payments/bank.1", "hsm")])),
        [
            "~ payments → bank | aud: https://old.example → https://as.example; lifetime_max_s: 30 → 60"
        ]
    );
    let mut wider = world(
        vec![entry("issuer/prod.1", issuer_charter(&["a"]))],
        Vec::new(),
    );
    let charter = issuer_charter(&["a", "b-*"]);
    let wanted = Wanted {
        keystore: "hsm".into(),
        charter,
        key_from: KeyFrom::Make,
        certificate_s: None,
    };
    wider.wanted = BTreeMap::from([("issuer/prod".parse().unwrap(), wanted)]);
    wider.recorded = vec![record("issuer/prod.1", "hsm")];
    assert_eq!(lines(&wider), ["~ issuer prod | subjects: a → a, b-*"]);
}

#[test]
fn a_key_that_a_crash_left_unrecorded_is_adopted() {
    let has = entry("payments/bank.1", charter("https://as.example", 60));
    assert_eq!(
        lines(&world(vec![has], Vec::new())),
        ["+ payments → bank | record version 1 that hsm has already, kid kid-of-payments/bank.1"]
    );
}

#[test]
fn a_key_nobody_asks_for_is_told_and_kept() {
    let mut world = world(
        vec![
            entry("old/x.1", charter("a", 60)),
            entry("old/y.1", charter("a", 60)),
        ],
        vec![record("old/x.1", "hsm"), record("gone/z.1", "sold")],
    );
    world.wanted.clear();
    assert_eq!(
        lines(&world),
        [
            "? gone → z | version 1 in sold is not asked for; it is kept",
            "? old → x | version 1 in hsm is not asked for; it is kept",
            "? old → y | version 1 in hsm is not asked for and is not recorded; it is kept",
        ]
    );
}

#[test]
fn json_names_the_step_and_the_conflict() {
    let recorded = world(Vec::new(), vec![record("payments/bank.1", "tpm")]);
    assert_eq!(
        serde_json::to_value(plan(&recorded)).unwrap(),
        serde_json::json!([{
            "step": "conflict", "name": "payments/bank",
            "conflict": "keystore", "has": "tpm", "wanted": "hsm",
        }])
    );
}

/// Any world of few names, keystores and charters, so that they meet.
fn worlds() -> impl Strategy<Value = World> {
    let name = || prop::sample::select(vec!["a/x", "a/y", "issuer/i"]);
    let keystore = || prop::sample::select(vec!["hsm", "tpm"]);
    let any_charter = || {
        prop_oneof![
            Just(charter("https://one", 60)),
            Just(charter("https://two", 30)),
            Just(issuer_charter(&["s"])),
            Just(Charter {
                alg: Alg::RS256,
                ..charter("https://one", 60)
            }),
        ]
    };
    let certificate_s = prop::option::weighted(0.3, Just(86_400));
    let wanted = (keystore(), any_charter(), any::<bool>(), certificate_s).prop_map(
        |(keystore, charter, made, certificate_s)| Wanted {
            keystore: keystore.into(),
            charter,
            key_from: if made { KeyFrom::Make } else { KeyFrom::Import },
            certificate_s,
        },
    );
    let version = 1..3u32;
    let entry = (name(), version.clone(), any_charter(), any::<bool>()).prop_map(
        |(name, version, charter, usable)| {
            let mut entry = entry(&format!("{name}.{version}"), charter);
            if !usable {
                entry.condition = Condition::Failed {
                    kind: Kind::NotFound,
                    why: "lost".into(),
                };
            }
            entry
        },
    );
    let entries = || {
        prop::collection::vec(entry.clone(), 0..4).prop_map(|mut entries| {
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            entries.dedup_by(|a, b| a.key == b.key);
            entries
        })
    };
    let shown = prop_oneof![
        4 => entries().prop_map(Shown::Keys),
        1 => Just(Shown::Unreachable("it sleeps".into())),
    ];
    let recorded = (name(), version, keystore())
        .prop_map(|(name, version, keystore)| record(&format!("{name}.{version}"), keystore));
    (
        prop::collection::btree_map(name().prop_map(|name| name.parse().unwrap()), wanted, 0..3),
        prop::collection::btree_map(keystore().prop_map(str::to_owned), shown, 0..3),
        prop::collection::vec(recorded, 0..3),
    )
        .prop_map(|(wanted, keystores, mut recorded)| {
            recorded.sort_by(|a, b| a.key.cmp(&b.key));
            recorded.dedup_by(|a, b| a.key == b.key);
            World {
                wanted,
                keystores,
                recorded,
                making: Vec::new(),
            }
        })
}

fn certificate() -> keystore::Certificate {
    let json = r#"{"der":"AA==","validity":{"not_before":1,"not_after":2}}"#;
    serde_json::from_str(json).unwrap()
}

/// What `apply` makes of a world.
fn applied(mut world: World, steps: &[Step]) -> World {
    for step in steps {
        match step {
            Step::Create {
                key,
                keystore,
                charter,
                certificate_s,
            } => {
                let Some(Shown::Keys(entries)) = world.keystores.get_mut(keystore) else {
                    panic!("a key cannot be made in {keystore}")
                };
                let mut made = entry(&key.to_string(), charter.clone());
                made.certificate = certificate_s.map(|_| certificate());
                entries.push(made);
                world.recorded.push(record(&key.to_string(), keystore));
            }
            Step::Adopt { key, keystore, .. } => {
                world.recorded.push(record(&key.to_string(), keystore));
            }
            Step::Amend {
                name,
                keystore,
                charter,
                ..
            } => {
                let Some(Shown::Keys(entries)) = world.keystores.get_mut(keystore) else {
                    panic!("a charter cannot be amended in {keystore}")
                };
                for entry in entries.iter_mut().filter(|entry| entry.key.name == *name) {
                    assert_eq!(
                        unlike(&entry.charter, charter),
                        None,
                        "the keystore refuses this"
                    );
                    entry.charter = charter.clone();
                }
            }
            Step::Certify { key, keystore, .. } => {
                let Some(Shown::Keys(entries)) = world.keystores.get_mut(keystore) else {
                    panic!("a key cannot be certified in {keystore}")
                };
                let entry = entries.iter_mut().find(|entry| entry.key == *key);
                entry.unwrap().certificate = Some(certificate());
            }
            Step::Import { .. }
            | Step::Conflict { .. }
            | Step::Failed { .. }
            | Step::Unreachable { .. }
            | Step::Orphan { .. } => {}
        }
    }
    world
}

proptest! {
    #[test]
    fn applying_a_plan_leaves_nothing_to_do(world in worlds()) {
        let steps = plan(&world);
        let rest: Vec<Step> = steps
            .iter()
            .filter(|step| step.effect() != Effect::Change)
            .cloned()
            .collect();
        prop_assert_eq!(plan(&applied(world, &steps)), rest);
    }

    #[test]
    fn a_plan_that_broke_off_anywhere_is_finished_by_the_next(world in worlds(), at in 0..4usize) {
        let steps = plan(&world);
        let done = applied(world.clone(), &steps[..at.min(steps.len())]);
        let again = plan(&done);
        let twice = applied(done, &again);
        prop_assert!(plan(&twice).iter().all(|step| step.effect() != Effect::Change));
    }

    #[test]
    fn no_key_is_made_where_one_of_its_name_is_known(world in worlds()) {
        for step in plan(&world) {
            let Step::Create { key, .. } = step else { continue };
            let shown = world.keystores.values().any(|shown| matches!(
                shown, Shown::Keys(entries) if entries.iter().any(|e| e.key.name == key.name)
            ));
            let recorded = world.recorded.iter().any(|recorded| recorded.key.name == key.name);
            let awaited = world.making.contains(&key);
            prop_assert!(!shown && (!recorded || awaited), "{key}");
        }
    }

    #[test]
    fn every_wanted_key_is_accounted_for(world in worlds()) {
        let steps = plan(&world);
        let fine = world.wanted.keys().filter(|name| !steps.iter().any(|step| match step {
            Step::Create { key, .. } | Step::Adopt { key, .. } | Step::Failed { key, .. } =>
                key.name == **name,
            Step::Amend { name: n, .. } | Step::Import { name: n, .. } | Step::Conflict { name: n, .. } => n == *name,
            Step::Unreachable { .. } | Step::Orphan { .. } | Step::Certify { .. } => false,
        }));
        for name in fine {
            let wanted = &world.wanted[name];
            if let Some(Shown::Keys(entries)) = world.keystores.get(&wanted.keystore) {
                let good = |e: &KeyEntry| e.key.name == *name && e.charter == wanted.charter;
                prop_assert!(entries.iter().any(good), "{name}");
            }
        }
    }
}

#[test]
fn a_version_that_signs_no_more_is_not_missed_and_not_made_anew() {
    let mut gone = record("payments/bank.1", "hsm");
    gone.use_of = Use::Over;
    let has = entry("payments/bank.2", charter("https://as.example", 60));
    let recorded = vec![gone, record("payments/bank.2", "hsm")];
    assert_eq!(lines(&world(vec![has], recorded)), [""; 0]);
}

#[test]
fn what_a_keystore_has_lost_and_somebody_has_given_up_is_made_under_the_next_number() {
    let mut lost = record("payments/bank.1", "hsm");
    lost.use_of = Use::Over;
    let mut world = world(vec![], vec![lost]);
    assert_eq!(lines(&world), [""; 0], "nobody waits for another");
    world.making = vec!["payments/bank.2".parse().unwrap()];
    let steps = plan(&world);
    let [Step::Create { key, keystore, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!(
        (key.to_string().as_str(), keystore.as_str()),
        ("payments/bank.2", "hsm")
    );
    // A keystore that shows an older version has what the broker needs.
    let shown = entry("payments/bank.1", charter("https://as.example", 60));
    world
        .keystores
        .insert("hsm".into(), Shown::Keys(vec![shown]));
    assert_eq!(lines(&world), [""; 0]);
}

#[test]
fn a_key_that_is_brought_in_is_not_made() {
    let mut world = world(Vec::new(), Vec::new());
    let name: KeyName = "payments/bank".parse().unwrap();
    world.wanted.get_mut(&name).unwrap().key_from = KeyFrom::Import;
    let [step] = &plan(&world)[..] else {
        panic!("{:?}", plan(&world))
    };
    assert_eq!(step.effect(), Effect::Blocked);
    let said = step.what();
    assert!(
        said.contains("`assertctl keys import payments/bank FILE`"),
        "{said}"
    );
    // It is there: nobody asks how it came.
    let has = entry("payments/bank.1", charter("https://as.example", 60));
    world.keystores.insert("hsm".into(), Shown::Keys(vec![has]));
    world.recorded = vec![record("payments/bank.1", "hsm")];
    assert_eq!(lines(&world), [""; 0]);
}

#[test]
fn what_shall_have_a_certificate_and_has_none_is_given_one() {
    let mut bare = entry("payments/bank.1", charter("https://as.example", 60));
    let mut world = world(vec![bare.clone()], vec![record("payments/bank.1", "hsm")]);
    let name: KeyName = "payments/bank".parse().unwrap();
    world.wanted.get_mut(&name).unwrap().certificate_s = Some(86_400);
    let line = "+ payments → bank | a certificate of version 1 in hsm, valid for 1d";
    assert_eq!(lines(&world), [line]);
    bare.certificate = Some(certificate());
    world
        .keystores
        .insert("hsm".into(), Shown::Keys(vec![bare]));
    assert_eq!(lines(&world), [""; 0]);
}

#[test]
fn a_kid_that_was_assigned_stays_with_its_version() {
    let named = |kid: &str| Charter {
        kid: KidMember::Assigned(kid.into()),
        ..charter("https://as.example", 60)
    };
    let (first, second) = (
        entry("payments/bank.1", named("a")),
        entry("payments/bank.2", named("b")),
    );
    let recorded = vec![
        record("payments/bank.1", "hsm"),
        record("payments/bank.2", "hsm"),
    ];
    let mut world = world(vec![first, second], recorded);
    let name: KeyName = "payments/bank".parse().unwrap();
    world.wanted.get_mut(&name).unwrap().charter = named("b");
    assert_eq!(lines(&world), [""; 0]);
    world.wanted.get_mut(&name).unwrap().charter = named("c");
    let of_whom = " (of the newest version there is; another key comes by `assertctl keys import`)";
    assert_eq!(
        lines(&world),
        [format!("~ payments → bank | kid: b → c{of_whom}")]
    );
}
