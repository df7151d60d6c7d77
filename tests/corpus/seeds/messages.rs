//! The keystore's protocol, and claims under a charter.

use super::{Corpus, sized};
use keystore::backend::Existing;
use keystore::certificate::{Certificate, Der, Validity};
use keystore::charter::{PurposeKind, SubjectPattern};
use keystore::protocol::{
    self, CertificateForm, Condition, Counter, CounterPlace, Evidence, EvidenceLevel, KeyEntry,
    Reply, Request,
};
use keystore::protocol::{VERSION, Welcome};
use keystore::survey::{Line, Subject};
use keystore::{
    Alg, CertificateUse, Charter, Claims, KeyFile, KeyId, KidMember, Kind, PublicKey, Purpose, Typ,
};
use serde::Serialize;
use zeroize::Zeroizing;

pub fn write(corpus: &Corpus) {
    let requests = requests();
    for (name, request) in &requests {
        corpus.put("protocol", &format!("request-{name}"), &stream(&[request]));
    }
    let all: Vec<&Request> = requests.iter().map(|(_, request)| request).collect();
    corpus.put("protocol", "requests", &stream(&all));
    let replies = replies();
    for (name, reply) in &replies {
        corpus.put("protocol", &format!("reply-{name}"), &stream(&[reply]));
    }
    let all: Vec<&Reply> = replies.iter().map(|(_, reply)| reply).collect();
    corpus.put("protocol", "replies", &stream(&all));
    let issuer = &replies[2].1; // says that more follow, and is all that follows
    corpus.put(
        "protocol",
        "replies-standing-still",
        &stream(&[issuer, issuer, issuer]),
    );
    let cut = stream(&all);
    corpus.put("protocol", "cut-off", &cut[..cut.len() - 7]);
    corpus.put("protocol", "no-frame", &[0xff; 9]);
    let bare = serde_json::to_vec(&requests[1].1).unwrap();
    corpus.put("protocol", "bare", &[&[0][..], &bare].concat());
    // As health came over the wire of the first release that had it.
    let health = br#"{"health":{"condition":{"usable":{}},"token":"SoftHSM v2, token workloads","algs":["ES256"],"strange":["assertd/a/b/1"],"minted":3,"failed":0}}"#;
    let frame = [&(health.len() as u32).to_be_bytes(), &health[..]].concat();
    corpus.put("protocol", "reply-health", &[&[0xff][..], &frame].concat());
    claims(corpus);
    states(corpus);
}

/// What one side sends, in pieces of 256 bytes.
pub fn stream<M: Serialize>(messages: &[&M]) -> Vec<u8> {
    let frames = messages.iter().map(|it| protocol::encode(it).unwrap());
    [&[0xff][..], &frames.collect::<Vec<_>>().concat()].concat()
}

fn key(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn client() -> Charter {
    Charter {
        purpose: Purpose::ClientAuthentication {
            iss: "payments-prod".into(),
            sub: "payments-prod".into(),
            aud: "https://as.bank.example".into(),
        },
        alg: Alg::ES256,
        typ: Typ::ClientAuthentication,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 60,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn federation() -> Charter {
    let pattern = |text: &str| SubjectPattern::try_from(text.to_owned()).unwrap();
    Charter {
        purpose: Purpose::Federation {
            iss: "https://id.example.com/prod".into(),
            subjects: vec![pattern("payments"), pattern("reports-*")],
        },
        alg: Alg::RS256,
        typ: Typ::Jwt,
        kid: KidMember::Thumbprint,
        lifetime_max_s: 3600,
        backdate_s: 0,
        certificate: CertificateUse::None,
    }
}

fn asked() -> Claims {
    Claims {
        iss: "payments-prod".into(),
        sub: Some("payments-prod".into()),
        aud: Some("https://as.bank.example".into()),
        scope: None,
        jti: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
        iat: 1_800_000_000,
        nbf: Some(1_800_000_000),
        exp: 1_800_000_060,
    }
}

const YEAR: Validity = Validity {
    not_before: 1_800_000_000,
    not_after: 1_831_536_000,
};

/// An empty sequence: nobody reads it.
fn der() -> Der {
    Der::try_from("MAA=".to_owned()).unwrap()
}

fn requests() -> Vec<(&'static str, Request)> {
    let purpose = PurposeKind::ClientAuthentication;
    let (id, issuer) = (key("payments/bank.1"), key("issuer/prod.1"));
    vec![
        ("hello", Request::Hello { version: VERSION }),
        (
            "mint",
            Request::Mint {
                key: id.clone(),
                purpose,
                claims: asked(),
            },
        ),
        ("list", Request::List { after: None }),
        (
            "list-on",
            Request::List {
                after: Some(id.clone()),
            },
        ),
        ("health", Request::Health {}),
        ("check", Request::Check {}),
        (
            "make",
            Request::Make {
                key: issuer,
                charter: federation(),
            },
        ),
        (
            "import",
            Request::Import {
                key: key("payments/bank.1"),
                charter: client(),
                private_key: KeyFile::new(Zeroizing::new(vec![0x30, 0])).unwrap(),
            },
        ),
        (
            "adopt-id",
            Request::Adopt {
                key: key("payments/bank.1"),
                charter: client(),
                object: Existing::Id("00ff".to_owned().try_into().unwrap()),
            },
        ),
        (
            "adopt-label",
            Request::Adopt {
                key: key("payments/bank.1"),
                charter: client(),
                object: Existing::Label("theirs".to_owned().try_into().unwrap()),
            },
        ),
        (
            "next",
            Request::Next {
                key: key("payments/bank.2"),
            },
        ),
        (
            "certify",
            Request::Certify {
                key: key("payments/bank.2"),
                form: CertificateForm::SelfSigned(YEAR),
            },
        ),
        (
            "certify-request",
            Request::Certify {
                key: key("payments/bank.2"),
                form: CertificateForm::Request {},
            },
        ),
        (
            "amend",
            Request::Amend {
                name: id.name.clone(),
                charter: client(),
            },
        ),
        ("destroy", Request::Destroy { key: id }),
        ("counter", Request::Counter {}),
        ("advance", Request::Advance { to: 41 }),
    ]
}

/// Keys that are published somewhere: RFC 7638 §3.1, RFC 8037 §A.2, RFC 7517 §A.1.
pub const JWKS: [&str; 3] = [
    r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB"}"#,
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
    r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
];

fn entry(id: &str, jwk: &str, charter: Charter, condition: Condition) -> KeyEntry {
    let public_key: PublicKey = serde_json::from_str(jwk).unwrap();
    let (level, imported) = (EvidenceLevel::Asserted, false);
    KeyEntry {
        key: key(id),
        kid: public_key.kid(),
        public_key,
        charter,
        evidence: Evidence { level, imported },
        condition,
        certificate: None,
    }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let usable = || Condition::Usable {};
    let (kind, why) = (
        Kind::Mismatch,
        "object 00 has another public key".to_owned(),
    );
    let issuer = || entry("issuer/prod.1", JWKS[0], federation(), usable());
    let bank = || {
        entry(
            "payments/bank.1",
            JWKS[2],
            client(),
            Condition::Failed { kind, why },
        )
    };
    let welcome = Welcome {
        version: VERSION,
        keystore: "hsm".into(),
        parallelism: 4,
        pid: 4711,
    };
    let (kind, message) = (
        Kind::Refused,
        "this verb is for the broker alone".to_owned(),
    );
    vec![
        ("welcome", Reply::Welcome(welcome)),
        (
            "minted",
            Reply::Minted {
                jws: "eyJhbGciOiJFUzI1NiJ9.e30.AAAA".into(),
            },
        ),
        (
            "keys",
            Reply::Keys {
                keys: vec![issuer()],
                more: true,
            },
        ),
        (
            "keys-on",
            Reply::Keys {
                keys: vec![bank()],
                more: false,
            },
        ),
        (
            "checked",
            Reply::Checked {
                lines: vec![Line::ok(Subject::Keystore, "hsm: usable")],
            },
        ),
        (
            "made",
            Reply::Made {
                key: issuer(),
                created: true,
            },
        ),
        (
            "certified",
            Reply::Certified {
                key: KeyEntry {
                    certificate: Some(Certificate::new(der(), YEAR)),
                    ..issuer()
                },
            },
        ),
        (
            "certificate-request",
            Reply::CertificateRequest { der: der() },
        ),
        ("done", Reply::Done {}),
        ("refused", Reply::Refused { kind, message }),
        (
            "counter",
            Reply::Counter(Counter {
                value: Some(41),
                place: CounterPlace::Tpm,
            }),
        ),
    ]
}

/// What is asked for, beside a charter: as the target takes it from an input.
struct Ask {
    iss: Vec<u8>,
    sub: Vec<u8>,
    aud: Vec<u8>,
    /// Direction and seconds from now; 1 is back, 2 is ahead.
    iat: [u8; 2],
    /// Seconds from `iat`.
    exp: u8,
    nbf: Vec<u8>,
    kind: u8,
}

/// The charter's own value; that and more; another; the pattern with this for its star.
const OWN: [u8; 1] = [3];
fn more(text: &str) -> Vec<u8> {
    [&[2][..], &sized(text.as_bytes())].concat()
}
fn other(text: &str) -> Vec<u8> {
    [&[0][..], &sized(text.as_bytes())].concat()
}
fn star(text: &str) -> Vec<u8> {
    [&[1][..], &sized(text.as_bytes())].concat()
}

impl Ask {
    /// What every charter of ours permits.
    fn good() -> Ask {
        let own = || OWN.to_vec();
        Ask {
            iss: own(),
            sub: own(),
            aud: own(),
            iat: [2, 0],
            exp: 60,
            nbf: vec![2],
            kind: 7,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let jti = [1, b'x'];
        let iat = match self.iat {
            [1, back] => vec![1, back],
            [_, ahead] => vec![2, 0, 0, ahead],
        };
        let exp = [2, 0, 0, self.exp];
        let parts: [&[u8]; 8] = [
            &self.iss,
            &self.sub,
            &self.aud,
            &jti,
            &iat,
            &exp,
            &self.nbf,
            &[self.kind],
        ];
        parts.concat()
    }
}

/// At every edge of a charter, and one step beyond.
fn claims(corpus: &Corpus) {
    let text = |text: &str| sized(text.as_bytes());
    let now = 1_800_000_000u64.to_be_bytes()[3..].to_vec();
    let party = |iss: &str, sub: &str, aud: &str| {
        let members = [
            vec![0],
            text(iss),
            text(sub),
            text(aud),
            vec![0, 0, 0, 0, 60],
        ];
        [members.concat(), now.clone()].concat()
    };
    let bank = party("payments-prod", "payments-prod", "https://as.bank.example");
    let put = |name: &str, charter: &[u8], ask: &Ask| {
        corpus.put("claims", name, &[charter, &ask.bytes()].concat());
    };
    let good = Ask::good;
    for (name, ask) in [
        ("client", good()),
        (
            "iss-other",
            Ask {
                iss: other("reports"),
                ..good()
            },
        ),
        (
            "sub-other",
            Ask {
                sub: other("reports"),
                ..good()
            },
        ),
        (
            "aud-other",
            Ask {
                aud: other("https://as.example"),
                ..good()
            },
        ),
        (
            "aud-more",
            Ask {
                aud: more("/"),
                ..good()
            },
        ),
        (
            "aud-empty",
            Ask {
                aud: other(""),
                ..good()
            },
        ),
        (
            "iat-1-ahead",
            Ask {
                iat: [2, 1],
                exp: 59,
                ..good()
            },
        ),
        (
            "iat-2-ahead",
            Ask {
                iat: [2, 2],
                exp: 58,
                ..good()
            },
        ),
        (
            "iat-10-ago",
            Ask {
                iat: [1, 10],
                ..good()
            },
        ),
        (
            "iat-11-ago",
            Ask {
                iat: [1, 11],
                ..good()
            },
        ),
        ("lifetime-0", Ask { exp: 0, ..good() }),
        ("lifetime-61", Ask { exp: 61, ..good() }),
        (
            "nbf-is-iat",
            Ask {
                nbf: vec![0],
                ..good()
            },
        ),
        (
            "nbf-later",
            Ask {
                nbf: vec![1, 0, 0, 0, 0, 0, 0, 0, 1],
                ..good()
            },
        ),
        ("kind-other", Ask { kind: 0, ..good() }),
    ] {
        put(name, &bank, &ask);
    }
    let federation = [
        vec![1],
        text("https://id.example.com/prod"),
        vec![2],
        text("reports-*"),
        text("payments"),
        vec![2, 1, 0, 14, 16],
        now.clone(),
        text("sts.amazonaws.com"),
    ];
    let federation = federation.concat();
    for (name, sub) in [
        ("prefix-itself", star("")),
        ("prefix-and-1", star("x")),
        ("prefix-less", other("reports")),
        ("subject", other("payments")),
        ("subject-more", other("payments2")),
    ] {
        put(
            &format!("federation-{name}"),
            &federation,
            &Ask { sub, ..good() },
        );
    }
    // Every byte a quotation mark, which JSON doubles: the longest assertion there may be.
    for (name, length) in [("quotes-512", 512), ("quotes-1024", 1024)] {
        let quotes = "\"".repeat(length);
        put(name, &party(&quotes, &quotes, &quotes), &good());
    }
}

/// State files as they lie there, and what becomes of one.
fn states(corpus: &Corpus) {
    let recorded = include_bytes!("../../fuzz/recorded/state/tpm.v1");
    corpus.put("state_file", "tpm", &[&[0], &recorded[..]].concat());
    for (name, damage) in [
        ("cut", &[0, 40, 0][..]),
        ("grown", &[0, 40, 1, 1, 0, b'x']),
        ("shrunk", &[0, 40, 2, 3]),
        ("longer", &[0, 0, 3, 1, 0, b'\n']),
        ("flipped", &[0, 40, 4, 1, 0, 0, 0]),
        ("number-of-two-forms", &[0, 16, 1, 1, 0, b'0']),
        ("length-another", &[0, 19, 4, 1, 0, 0, 0]),
        ("unharmed", &[0, 0, 4]),
    ] {
        let values = [sized(br#"{"a":1}"#), sized(br#"{"a":1,"b":[null,"text"]}"#)].concat();
        let input = [&[1, 1], &values[..], damage].concat();
        corpus.put("state_file", name, &input);
    }
}
