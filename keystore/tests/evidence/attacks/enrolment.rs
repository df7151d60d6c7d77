//! Who is not even challenged: what a registry would have to believe otherwise.

use crate::Party;
use crate::fixture::{Authority, KEY, NOW, World, area, bytes, secret};
use keystore::evidence::bundle::{Host, Text};
use keystore::evidence::enrolment::approval::Approved;
use keystore::evidence::enrolment::registry::Enrolled;
use keystore::evidence::enrolment::vetting::{Rules, vet};
use keystore::evidence::enrolment::{Request, RequestType, VERSION};
use keystore::evidence::policy::Policy;
use std::collections::BTreeSet;
use std::path::Path;

/// One who enrols: knows a host, and by default nobody else.
struct Desk {
    party: Party,
    approved: Option<String>,
    replaced: BTreeSet<Host>,
}

impl Desk {
    fn of(world: &World) -> Desk {
        Desk {
            party: Party::of(world),
            approved: None,
            replaced: BTreeSet::new(),
        }
    }

    fn asks(&self, request: &Request) -> Result<Enrolled, String> {
        let policy = Policy::parse(Path::new("policy.toml"), &self.party.policy);
        let approved = self.approved.as_deref().map(Approved::parse);
        let approved = approved.transpose().expect("it is a list");
        let rules = Rules {
            policy: &policy.unwrap_or_else(|wrong| panic!("{wrong}")),
            roots: &self.party.roots,
            approved: approved.as_ref(),
            registry: &self.party.registry,
            replaced: &self.replaced,
            now: NOW,
        };
        vet(request, &rules).map(|(enrolled, _)| enrolled)
    }

    #[track_caller]
    fn refuses(&self, request: &Request, why: &str) {
        let refused = self.asks(request).expect_err(why);
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

fn request(world: &World) -> Request {
    Request {
        r#type: RequestType::Request,
        version: VERSION,
        host: world.host.clone(),
        keystore: Text::cut("tpm"),
        tpm: world.tpm(),
    }
}

/// A genuine TPM that wants to be this host.
fn new(host: &str) -> World {
    World {
        host: host.parse().expect("it is a name"),
        ek: secret(80),
        ak: secret(81),
        ..World::new()
    }
}

#[test]
fn a_genuine_tpm_that_nobody_knows_is_not_enrolled() {
    let world = new("web-2");
    let ek = world.enrolled().ek;
    let mut desk = Desk::of(&World::new());
    desk.refuses(
        &request(&world),
        "nobody has said that it is the one of web-2",
    );
    // By a list, as whoever it says; by a list, as one host; by the policy.
    desk.approved = Some(format!("{ek}\n"));
    let enrolled = desk.asks(&request(&world)).unwrap();
    assert_eq!((enrolled.ek, enrolled.host), (ek, world.host.clone()));
    assert_eq!(enrolled.manufacturer, Some(Text::cut("IBM")));
    desk.approved = Some(format!("{ek} web-3\n"));
    desk.refuses(&request(&world), "is that of web-3");
    desk.approved = Some(format!("{}\n", "01".repeat(32)));
    desk.refuses(&request(&world), "not on the list");
    desk.approved = None;
    desk.party.policy += &format!("[host.web-2]\nek = [\"{ek}\"]\n");
    assert!(desk.asks(&request(&world)).is_ok());
    desk.refuses(&request(&new("web-3")), "is that of web-2");
    let mut desk = Desk::of(&World::new());
    desk.party.policy += &format!("[host.web-2]\nek = [\"{}\"]\n", "01".repeat(32));
    desk.refuses(&request(&world), "is not the one of web-2");
    // In words.
    let mut desk = Desk::of(&World::new());
    desk.party.policy = desk
        .party
        .policy
        .replace("[ek]", "[ek]\nenroll = \"any-certified\"");
    assert!(desk.asks(&request(&world)).is_ok());
    // Which makes no host another's, by whatever name its keystore goes.
    let mut known = request(&new("web-1"));
    desk.refuses(&known, "--replace web-1");
    known.keystore = Text::cut("tpm2");
    desk.refuses(&known, "--replace web-1");
    desk.replaced = BTreeSet::from(["web-2".parse().unwrap()]);
    desk.refuses(&known, "--replace web-1");
    desk.replaced = BTreeSet::from(["web-1".parse().unwrap()]);
    assert!(desk.asks(&known).is_ok());
    // Nor does it vouch for one without a certificate.
    let mut uncertified = request(&world);
    uncertified.tpm.ek.certificate = None;
    desk.refuses(&uncertified, "there is none");
    desk.party.policy = desk
        .party
        .policy
        .replace("[ek]", "[ek]\ncertificate = \"optional\"");
    desk.refuses(&uncertified, "nobody vouches for its TPM");
    desk.approved = Some(format!("{ek} web-2\n"));
    assert_eq!(desk.asks(&uncertified).unwrap().manufacturer, None);
}

#[test]
fn a_software_key_is_not_enrolled() {
    let world = World::new();
    let desk = Desk::of(&world);
    let with = |attributes| {
        let attacker = World {
            ak_attributes: attributes,
            ..world.clone()
        };
        request(&attacker)
    };
    desk.refuses(&with(KEY), "restricted is not set");
    desk.refuses(&with(crate::fixture::AK & !2), "fixedTPM is not set");
    let mut none = request(&world);
    none.tpm.ak.public = bytes(&area(&world.ak, KEY, &[], true));
    assert!(desk.asks(&none).is_err());
    let unknown = World {
        root: Authority::new(82, "Root"),
        ..world.clone()
    };
    desk.refuses(&request(&unknown), "does not lead to a root");
}

#[test]
fn an_attestation_key_of_another_hierarchy_is_not_enrolled() {
    for hierarchy in [0x4000_0001, 0x4000_0007] {
        let world = World {
            hierarchy,
            ..World::new()
        };
        let mut desk = Desk::of(&World::new());
        desk.approved = Some(format!("{} web-1\n", world.enrolled().ek));
        desk.refuses(&request(&world), "endorsement hierarchy");
        // It says that it is of the right one. Then no statement of its TPM has it as its signer.
        let mut lying = request(&world);
        lying.tpm.ak.qualified_name = bytes(&World::new().ak_qn());
        let enrolled = desk.asks(&lying).unwrap();
        assert_ne!(enrolled.ak_qualified_name.as_slice(), world.ak_qn());
    }
}

#[test]
fn a_copied_identity_is_not_enrolled() {
    let world = World::new();
    let mut desk = Desk::of(&world);
    desk.party.policy = desk
        .party
        .policy
        .replace("[ek]", "[ek]\nenroll = \"any-certified\"");
    let second = World {
        host: "web-2".parse().unwrap(),
        ..world.clone()
    };
    desk.refuses(&request(&second), "its TPM is enrolled as that of web-1");
    let cloned = World {
        ek: secret(83),
        ..second
    };
    desk.refuses(&request(&cloned), "one of them is a copy");
    // The same host again: its TPM was cleared, or it has a new attestation key.
    let again = World {
        ak: secret(84),
        ..world
    };
    assert!(desk.asks(&request(&again)).is_ok());
}
