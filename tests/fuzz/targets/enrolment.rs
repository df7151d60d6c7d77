//! The files of an enrolment, and what a relying party keeps: requests, challenges, responses, what is pending of
//! them, the registry, the list of approved TPMs, open challenges.
//!
//! Asserted: what is read comes back as it was written; who is challenged is a TPM whose certificate the maker has
//! signed, as the one host that it is enrolled as, with an attestation key of the endorsement hierarchy; a registry
//! that is read has no copy in it; an answer is right only by its secret; a list permits only what stands in it.

use super::fixture::{ENDORSEMENT, NOW, World};
use super::input::Input;
use keystore::evidence::bundle::{Bytes, Nonce};
use keystore::evidence::enrolment::approval::Approved;
use keystore::evidence::enrolment::registry::{EkFingerprint, Registry, Replacing};
use keystore::evidence::enrolment::vetting::{Rules, vet};
use keystore::evidence::enrolment::{
    Challenge, File, Pending, Request, Response, ResponseType, VERSION,
};
use keystore::evidence::hash::Hash;
use keystore::evidence::nonces::{NonceUse, Nonces, OPEN_MAX};
use keystore::evidence::policy::Policy;
use keystore::evidence::public::PublicArea;
use keystore::evidence::verify::CertificateDer;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::LazyLock;

/// What was in a challenge.
const SECRET: [u8; 32] = [9; 32];

struct Desk {
    world: World,
    policy: Policy,
    roots: [CertificateDer<'static>; 1],
    registry: Registry,
}

static DESK: LazyLock<Desk> = LazyLock::new(|| {
    let world = World::new();
    let policy = world.policy();
    let policy = policy.replace("[ek]", "[ek]\nenroll = \"any-certified\"");
    Desk {
        policy: Policy::parse(Path::new("policy.toml"), &policy).expect("it is one"),
        roots: [CertificateDer::from(world.root.certificate())],
        registry: world.registry(),
        world,
    }
});

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut input = Input::of(data);
    match input.choice(7) {
        0 => request(input.rest()),
        1 => drop(comes_back::<Challenge>(input.rest())),
        2 => drop(comes_back::<Response>(input.rest())),
        3 => pending(input.rest()),
        4 => registry(input.rest()),
        5 => approved(input.rest()),
        _ => nonces(input.rest()),
    }
}

fn comes_back<T: File + PartialEq + Debug>(json: &[u8]) -> Option<T> {
    let file = match T::parse(json) {
        Ok(file) => file,
        Err(why) => {
            assert!(why.len() < 4000, "{why}");
            return None;
        }
    };
    let again = T::parse(file.to_json().as_bytes());
    assert_eq!(again.as_ref(), Ok(&file));
    Some(file)
}

fn request(json: &[u8]) {
    let Some(request) = comes_back::<Request>(json) else {
        return;
    };
    let desk = &*DESK;
    let rules = Rules {
        policy: &desk.policy,
        roots: &desk.roots,
        approved: None,
        registry: &desk.registry,
        replaced: &BTreeSet::new(),
        now: NOW,
    };
    let (enrolled, ek) = match vet(&request, &rules) {
        Ok(vetted) => vetted,
        Err(why) => return assert!(why.len() < 4000, "{why}"),
    };
    let known = desk.world.enrolled();
    assert_eq!(Ok(known.ek), EkFingerprint::of(&ek));
    assert_eq!(
        (enrolled.ek, &enrolled.host, &enrolled.manufacturer),
        (known.ek, &known.host, &known.manufacturer)
    );
    let area = |bytes: &[u8]| PublicArea::parse(bytes).expect("it was vetted");
    let ak = area(request.tpm.ak.public.as_slice());
    let parent = area(request.tpm.ak.parent.as_slice());
    assert_eq!(enrolled.ak_name.as_slice(), ak.name());
    let below = |above: &[u8], area: &PublicArea| {
        let digest = area.name_alg.of(&[above, area.name()]);
        [&area.name_alg.id().to_be_bytes()[..], &digest].concat()
    };
    let parent = below(&ENDORSEMENT.to_be_bytes(), &parent);
    assert_eq!(enrolled.ak_qualified_name.as_slice(), below(&parent, &ak));
    let mut registry = desk.registry.clone();
    assert_eq!(registry.record(enrolled, Replacing::Refused), Ok(()));
}

fn pending(json: &[u8]) {
    let Some(pending) = comes_back::<Pending>(json) else {
        return;
    };
    let response = Response {
        r#type: ResponseType::Response,
        version: VERSION,
        id: pending.id,
        host: pending.enrolled.host.clone(),
        secret: Bytes::new(SECRET.to_vec()).expect("it is short"),
    };
    let is_right = pending.secret_digest.as_slice() == Hash::Sha256.of(&[&SECRET]);
    let is_proven = pending.proven(&response, NOW).is_ok();
    assert_eq!(is_proven, is_right && NOW <= pending.expires_at);
}

fn registry(json: &[u8]) {
    let registry = match Registry::parse(json) {
        Ok(registry) => registry,
        Err(why) => return assert!(why.len() < 4000, "{why}"),
    };
    let again = Registry::parse(registry.to_json().as_bytes());
    assert_eq!(again.as_ref(), Ok(&registry));
    for enrolled in &registry.enrolled {
        assert_eq!(registry.check(enrolled, Replacing::Refused), Ok(()));
        let found = registry.find(&enrolled.host, enrolled.keystore.as_str());
        assert_eq!(found, Some(enrolled));
    }
}

fn approved(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let known = DESK.world.enrolled();
    match Approved::parse(text) {
        Ok(list) if list.permits(&known.ek, &known.host).is_ok() => {
            assert!(text.contains(&known.ek.to_string()));
        }
        Ok(_) => {}
        Err((line, _)) => assert!((1..=text.lines().count()).contains(&line)),
    }
}

fn nonces(json: &[u8]) {
    let Ok(mut nonces) = Nonces::parse(json) else {
        return;
    };
    assert!(nonces.open.len() <= OPEN_MAX);
    assert_eq!(
        Nonces::parse(nonces.to_json().as_bytes()).as_ref(),
        Ok(&nonces)
    );
    let nonce = Nonce([7; 32]);
    let before = nonces.open.len();
    let was_open = nonces.find(&nonce) != NonceUse::NotOpen;
    nonces.close(&nonce);
    assert_eq!(nonces.find(&nonce), NonceUse::NotOpen);
    assert_eq!(nonces.open.len() + usize::from(was_open), before);
}
