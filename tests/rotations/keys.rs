//! The keys that rotate, and with which numbers: of issuers and of clients, by an operator's word and by time,
//! with assertions that are handed out again and with others. All times are real, and as short as they can be.

use std::fmt::Write;

/// From writing a document until everybody is served it (P): what the edge keeps.
pub const PUBLISH_S: u64 = 1;

/// The longest that a client keeps a set (C): the edge's `max-age`.
pub const CACHE_S: u64 = 2;

/// For how long a client accepts what has expired (V).
pub const LEEWAY_S: u64 = 1;

/// What assertd is told of P and C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// The truth.
    Published,
    /// That there is nothing to wait for: a version signs as soon as its documents are written.
    None,
}

/// Who begins the next version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// An operator: `assertctl keys rotate`.
    Word,
    /// assertd, each time that so many seconds are over.
    Period(u64),
}

/// One key, and the target whose assertions it signs.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The issuer's name, and its target's; of a client's key the target's.
    pub name: &'static str,
    pub of: Of,
    pub lifetime_s: u64,
    pub begins: Begins,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Assertions that live for 30 s and more are handed out again.
    Issuer,
    /// Each assertion is used once.
    Client,
}

/// Eight.
pub const KEYS: [Key; 8] = [
    Key::new("east", Of::Issuer, 30, Begins::Word),
    Key::new("west", Of::Issuer, 4, Begins::Word),
    Key::new("north", Of::Issuer, 30, Begins::Period(45)),
    Key::new("bank", Of::Client, 4, Begins::Word),
    Key::new("shop", Of::Client, 4, Begins::Word),
    Key::new("post", Of::Client, 4, Begins::Word),
    Key::new("mill", Of::Client, 4, Begins::Word),
    Key::new("farm", Of::Client, 4, Begins::Period(20)),
];

/// Whose workload asks for all of them.
pub const WORKLOAD: &str = "load";

impl Key {
    const fn new(name: &'static str, of: Of, lifetime_s: u64, begins: Begins) -> Key {
        Key {
            name,
            of,
            lifetime_s,
            begins,
        }
    }

    /// As assertd calls it.
    pub fn id(&self) -> String {
        match self.of {
            Of::Issuer => format!("issuer/{}", self.name),
            Of::Client => format!("{WORKLOAD}/{}", self.name),
        }
    }

    /// Its JWKS below the published directory.
    pub fn file(&self) -> String {
        match self.of {
            Of::Issuer => format!("issuer/{}/jwks.json", self.name),
            Of::Client => format!("client/{WORKLOAD}/{}/jwks.json", self.name),
        }
    }

    /// Where assertd-publish shows it.
    pub fn path(&self) -> String {
        match self.of {
            Of::Issuer => format!("/{}/jwks.json", self.name),
            Of::Client => format!("/client/{WORKLOAD}/{}/jwks.json", self.name),
        }
    }

    /// Its issuer's URL.
    pub fn url(&self) -> String {
        format!("https://id.example.com/{}", self.name)
    }

    /// Its sections, without the workload's.
    pub fn sections(&self, keystore: &str, lead: Lead) -> String {
        let (name, lifetime) = (self.name, self.lifetime_s);
        let rotation = self.rotation(lead);
        let mut text = String::new();
        let written = match self.of {
            Of::Issuer => write!(
                text,
                "[issuer.{name}]\nurl = \"{}\"\nsubjects = [\"{name}\"]\nkeystore = \"{keystore}\"\n\
                 lifetime_max = {lifetime}\n{rotation}\n\
                 [workload.{WORKLOAD}.target.{name}]\nprofile = \"vault-jwt\"\nissuer = \"{name}\"\n\
                 subject = \"{name}\"\naudience = \"https://vault.example\"\nlifetime = {lifetime}\n",
                self.url(),
            ),
            Of::Client => write!(
                text,
                "[workload.{WORKLOAD}.target.{name}]\nprofile = \"rfc7523\"\n\
                 authorization_server = \"https://as.example\"\nclient_id = \"{name}\"\n\
                 keystore = \"{keystore}\"\nlifetime = {lifetime}\n{rotation}\n"
            ),
        };
        written.expect("a String takes everything");
        text
    }

    fn rotation(&self, lead: Lead) -> String {
        let (publish, cache) = match lead {
            Lead::Published => (PUBLISH_S, CACHE_S),
            Lead::None => (0, 0),
        };
        let period = match self.begins {
            Begins::Word => String::new(),
            Begins::Period(seconds) => format!("period = \"{seconds}s\", "),
        };
        format!(
            "rotation = {{ {period}publish_latency = \"{publish}s\", verifier_cache = \"{cache}s\", \
             skew = \"0s\", leeway = \"{LEEWAY_S}s\", rollback = \"0s\", activation = \"time\" }}"
        )
    }
}
