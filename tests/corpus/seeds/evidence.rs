//! Evidence of a host: the structures of its TPM, its logs, bundles of them, whole and damaged; certificates, files of an
//! enrolment, and policies.

#[path = "../../../keystore/tests/evidence/fixture.rs"]
mod fixture;

use super::Corpus;
use super::messages::stream;
use fixture::{EK, KEY, World, area, logs};
use keystore::der::{Elements, SEQUENCE, element};
use keystore::evidence::bundle::{Bank, KeystoreEvidence, Nonce, Text, TpmEvidence};
use keystore::evidence::enrolment::registry::{Counters, Enrolled};
use keystore::evidence::enrolment::{
    Challenge, ChallengeType, EnrolmentId, File as _, Pending, PendingType, Request, RequestType,
    Response, ResponseType, VERSION,
};
use keystore::evidence::nonces::Nonces;
use keystore::protocol::{Attested, Credential, Identity, Reply, Request as Ask};
use std::collections::BTreeMap;

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
    conversation(corpus, &world, &evidence);
    certificates(corpus, &world);
    enrolments(corpus, &world);
    policies(corpus, &world);
}

/// What a broker asks a keystore for evidence, and what it is told.
fn conversation(corpus: &Corpus, world: &World, evidence: &TpmEvidence) {
    let (nonce, host) = (Nonce([7; 32]), world.host.clone());
    let quote = evidence.quote.clone().expect("this world quotes");
    let requests = [
        (
            "attest",
            Ask::Attest {
                nonce,
                host: host.clone(),
                key: evidence.keys[0].key.clone(),
            },
        ),
        (
            "quote",
            Ask::Quote {
                nonce,
                host,
                selection: [(
                    Bank::Sha256,
                    world.pcrs[&Bank::Sha256].keys().copied().collect(),
                )]
                .into(),
            },
        ),
        ("identity", Ask::Identity {}),
        ("state", Ask::State {}),
        (
            "activate",
            Ask::Activate {
                credential: Credential {
                    blob: fixture::bytes(&[1; 68]),
                    secret: fixture::bytes(&[2; 68]),
                },
            },
        ),
    ];
    for (name, request) in &requests {
        corpus.put("protocol", &format!("request-{name}"), &stream(&[request]));
    }
    let state = [("7".to_owned(), "00".repeat(32))];
    let state = serde_json::to_value(BTreeMap::from(state)).unwrap();
    let secret = fixture::bytes(&[9; 32]);
    let replies = [
        (
            "attested",
            Reply::Attested(Box::new(Attested::Certified(evidence.keys[0].clone()))),
        ),
        ("quoted", Reply::Quoted(Box::new(quote))),
        (
            "identity",
            Reply::Identity(Box::new(Identity::Tpm(evidence.tpm.clone()))),
        ),
        (
            "state",
            Reply::State(serde_json::from_value(state).unwrap()),
        ),
        ("activated", Reply::Activated { secret }),
    ];
    for (name, reply) in &replies {
        corpus.put("protocol", &format!("reply-{name}"), &stream(&[reply]));
    }
}

/// What a certificate's signature is over.
fn content(certificate: &[u8]) -> Vec<u8> {
    let mut whole = Elements::of(certificate);
    let mut certificate = Elements::of(whole.take(SEQUENCE).unwrap());
    element(SEQUENCE, certificate.take(SEQUENCE).unwrap())
}

fn certificates(corpus: &Corpus, world: &World) {
    let put = |name: &str, kind: u8, bytes: &[u8]| {
        corpus.put("ekcert", name, &[&[kind], bytes].concat());
    };
    let whole = world.ek_certificate();
    put("whole", 0, &whole);
    put("padded", 0, &[&whole[..], &[0xff; 20]].concat());
    put("root", 0, &world.root.certificate());
    put("content", 1, &content(&whole));
    let issuer = fixture::Authority::new(10, "Issuer");
    let above = world.root.certifies(&issuer);
    put("issuer", 2, &content(&above));
    let spki = fixture::public(&world.ek).spki();
    let other = world
        .root
        .ek_certificate(&spki, &[0x55, 0x1d, 0x25, 0x00], fixture::NOW);
    put("another-usage", 1, &content(&other));
    let over = world
        .root
        .ek_certificate(&spki, &[0x67, 0x81, 0x05, 0x08, 0x01], 0);
    put("over", 1, &content(&over));
}

fn enrolments(corpus: &Corpus, world: &World) {
    let put = |name: &str, kind: u8, text: &str| {
        corpus.put("enrolment", name, &[&[kind], text.as_bytes()].concat());
    };
    let request = Request {
        r#type: RequestType::Request,
        version: VERSION,
        host: world.host.clone(),
        keystore: Text::cut("tpm"),
        tpm: world.tpm(),
    };
    put("request", 0, &request.to_json());
    let mut other = request.clone();
    other.keystore = Text::cut("tpm2");
    other.tpm.ek.certificate = None;
    put("request-uncertified", 0, &other.to_json());
    let id = EnrolmentId([3; 16]);
    let challenge = Challenge {
        r#type: ChallengeType::Challenge,
        version: VERSION,
        id,
        host: world.host.clone(),
        keystore: Text::cut("tpm"),
        ak_name: world.enrolled().ak_name,
        expires_at: fixture::NOW + 300,
        credential: fixture::bytes(&[1; 68]),
        secret: fixture::bytes(&[2; 68]),
    };
    put("challenge", 1, &challenge.to_json());
    let response = Response {
        r#type: ResponseType::Response,
        version: VERSION,
        id,
        host: world.host.clone(),
        secret: fixture::bytes(&[9; 32]),
    };
    put("response", 2, &response.to_json());
    let mut pending = Pending {
        r#type: PendingType::Pending,
        version: VERSION,
        id,
        expires_at: fixture::NOW + 300,
        enrolled: world.enrolled(),
        secret_digest: fixture::bytes(&Bank::Sha256.of(&[&[9; 32]])),
    };
    put("pending", 3, &pending.to_json());
    pending.expires_at = 1;
    put("pending-over", 3, &pending.to_json());
    let mut registry = world.registry();
    put("registry", 4, &registry.to_json());
    let second = registry.enrolled[0].clone();
    registry.enrolled.push(Enrolled {
        keystore: Text::cut("tpm2"),
        counters: Some(Counters {
            reset: 1,
            restart: 2,
        }),
        manufacturer: None,
        ..second.clone()
    });
    put("registry-two", 4, &registry.to_json());
    registry.enrolled[0].host = "web-2".parse().unwrap();
    put("registry-copy", 4, &registry.to_json());
    let ek = second.ek;
    put("approved", 5, &format!("# rack 4\n{ek} web-1\n"));
    put("approved-any", 5, &format!("{ek}\n{}\n", "01".repeat(32)));
    put("approved-twice", 5, &format!("{ek}\n{ek}\n"));
    let mut nonces = Nonces::new();
    put("nonces-none", 6, &nonces.to_json());
    nonces.keep(&Nonce([7; 32]), fixture::NOW);
    nonces.keep(&Nonce([8; 32]), fixture::NOW + 1);
    put("nonces", 6, &nonces.to_json());
}

fn policies(corpus: &Corpus, world: &World) {
    let put = |name: &str, text: &str| corpus.put("policy", name, text.as_bytes());
    let whole = world.policy();
    put("whole", &whole);
    put("least", "minimum = \"none\"\n");
    put(
        "any",
        "minimum = \"tpm-certified\"\nimported = \"allow\"\nmax_age_s = 600\n\
         [ek]\nroots = [\"r.pem\"]\nenroll = \"any-certified\"\n\
         [quote]\nselect = { sha256 = [0, 4, 7], sha384 = [] }\nany = true\n",
    );
    let ek = world.enrolled().ek;
    put(
        "hosts",
        &format!(
            "minimum = \"asserted\"\nregistry = \"registry.json\"\n\
             [ek]\ncertificate = \"optional\"\n\
             [host.web-1]\nek = [\"{ek}\"]\ncounters = {{ reset = 12, restart = 0 }}\n\
             [host.\"web 2\"]\n\
             [[firmware.deny]]\nmanufacturer = \"STM\"\nto = \"0049000800000000\"\nreason = \"CVE\"\n\
             [[firmware.allow]]\nmanufacturer = \"IBM\"\nfrom = \"0000000000000001\"\n"
        ),
    );
    put("rules", &whole.replace("none =", "only = []\nnone ="));
    // Rules that no event breaks.
    put("nothing", &whole.replace("none =", "# none ="));
    let (digest, longer) = ("00".repeat(32), "00".repeat(48));
    put("other-hash", &whole.replace(&digest, &longer));
    put("no-log", &whole.replace("pcr = 4", "pcr = 10"));
    put(
        "healthy-imported",
        &format!("imported = \"allow\"\n{whole}[healthy]\n[[healthy.state]]\n7 = \"{digest}\"\n"),
    );
    put("mistake", &whole.replace("roots", "rots"));
    put("sha1", &whole.replace("sha256 = [0,", "sha1 = [0,"));
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
