//! Keys that sign in some states of the host alone. PCRs are extended by tpm2-tools, states are approved by a
//! key of openssl's: nothing of ours makes what is to be refused or taken here.

use crate::tools::{read, write};
use crate::world::{How, World, make, object, refusal, sign};
use keystore::backend::{Backend, Testimony};
use keystore::config::{Healthy, Sessions};
use keystore::evidence::bundle::{PcrIndex, PcrValue, PolicyStep, hex};
use keystore::evidence::healthy::{Approval, Authority, Generation, State, digest_of, steps};
use keystore::evidence::public::PublicArea;
use keystore::survey::Verdict;
use keystore::{Alg, Error, Kind};
use keystore_tpm::TpmBackend;
use std::fs;

const BOTH: [Sessions; 2] = [Sessions::Password, Sessions::Encrypted];
const ES256: Alg = Alg::ES256;

/// Bound to PCR 7 and 14.
fn plain(sessions: Sessions) -> How {
    How {
        sessions: Some(sessions),
        healthy: Some(Healthy {
            pcrs: vec![7, 14],
            authority: None,
            approvals: None,
            generation: None,
        }),
        ..How::default()
    }
}

/// The same, by what `approver` approves.
fn approved(world: &World, sessions: Sessions) -> How {
    fs::create_dir_all(world.dir.path().join("approvals")).unwrap();
    if !world.dir.path().join("approver.pem").exists() {
        new_authority(world, "approver");
    }
    How {
        healthy: Some(Healthy {
            pcrs: vec![7, 14],
            authority: Some(world.dir.path().join("approver.pem")),
            approvals: Some(world.dir.path().join("approvals")),
            generation: None,
        }),
        ..plain(sessions)
    }
}

fn new_authority(world: &World, name: &str) {
    let (key, public) = (format!("{name}.key"), format!("{name}.pem"));
    let generate = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ];
    world.tool("openssl", &[&generate[..], &[&key]].concat());
    world.tool(
        "openssl",
        &["pkey", "-in", &key, "-pubout", "-out", &public],
    );
}

/// What the TPM shows of these PCRs, by tpm2-tools.
fn values(world: &World, pcrs: &[u8]) -> State {
    let list: Vec<String> = pcrs.iter().map(u8::to_string).collect();
    let shown = world.tool("tpm2_pcrread", &[&format!("sha256:{}", list.join(","))]);
    let value = |index: &u8| {
        let line = shown.lines().find_map(|line| {
            let (number, value) = line.split_once(':')?;
            (number.trim() == index.to_string()).then(|| value.trim().trim_start_matches("0x"))
        });
        let value = hex(&line.unwrap().to_lowercase()).unwrap();
        (PcrIndex::new(*index).unwrap(), PcrValue::new(&value))
    };
    State::new(pcrs.iter().map(value).collect()).unwrap()
}

fn extend(world: &World, pcr: u8) {
    let digest = "ab".repeat(32);
    world.tool("tpm2_pcrextend", &[&format!("{pcr}:sha256={digest}")]);
}

/// Has an authority approve a state, with openssl.
fn sign_approval(world: &World, authority: &str, state: State, generation: u32) -> Approval {
    let draft = Approval::draft(state, Generation(generation));
    write(world, "tbs", &draft.to_be_signed());
    let key = format!("{authority}.key");
    world.tool(
        "openssl",
        &["dgst", "-sha256", "-sign", &key, "-out", "sig", "tbs"],
    );
    let pem = String::from_utf8(read(world, &format!("{authority}.pem"))).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    draft.signed(&read(world, "sig"), &authority).unwrap()
}

fn put(world: &World, name: &str, approval: &Approval) {
    write(
        world,
        &format!("approvals/{name}"),
        approval.to_json().as_bytes(),
    );
}

fn take_away(world: &World, name: &str) {
    fs::remove_file(world.dir.path().join("approvals").join(name)).unwrap();
}

#[track_caller]
fn is_unhealthy(error: &Error, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Unhealthy, "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_key_signs_in_the_state_that_it_was_made_in_and_in_no_other() {
    for sessions in BOTH {
        let mut world = World::new();
        let unbound = make(&world.open(), 2, ES256);
        let backend = world.open_as(&plain(sessions)).unwrap();
        let key = make(&backend, 1, ES256);
        for _ in 0..5 {
            sign(&backend, 1, &key, ES256);
        }
        extend(&world, 8); // which is nobody's business
        sign(&backend, 1, &key, ES256);
        let was = values(&world, &[14]).to_string();
        extend(&world, 14);
        let is = values(&world, &[14]).to_string();
        for _ in 0..3 {
            let (was, is) = (was.trim_start_matches("14="), is.trim_start_matches("14="));
            let now = format!("PCR 14 is {is}, and {was} when it was made");
            is_unhealthy(
                &refusal(&backend, 1, &key, ES256),
                &[&now, "keys replace-lost"],
            );
        }
        assert!(
            !refusal(&backend, 1, &key, ES256)
                .to_string()
                .contains("PCR 7")
        );
        sign(&backend, 2, &unbound, ES256); // made before, and as it was
        // Another is for the state that the host is in now.
        let next = make(&backend, 3, ES256);
        sign(&backend, 3, &next, ES256);
        for (n, key) in [(1, &key), (3, &next)] {
            assert!(
                backend.attest(object(n), key, &[1; 32]).is_ok(),
                "{sessions:?} {n}"
            );
        }
        sign(&backend, 3, &next, ES256);
        let ours = 2; // at most: the kept one, and the one for keys with a policy
        assert!(world.handles("loaded-session") <= ours, "{sessions:?}");
        world.swtpm.restart();
        sign(&backend, 1, &key, ES256);
        is_unhealthy(&refusal(&backend, 3, &next, ES256), &["PCR 14"]);
        drop(backend);
        let backend = world.open(); // what a key is bound to is no matter of the configuration
        sign(&backend, 1, &key, ES256);
        extend(&world, 7);
        is_unhealthy(&refusal(&backend, 1, &key, ES256), &["PCR 7 is"]);
        drop(backend);
        assert_eq!(world.handles("loaded-session"), 0);
        assert_eq!(world.handles("transient"), 0);
    }
}

#[test]
fn every_algorithm_and_more_keys_than_places() {
    for sessions in BOTH {
        let world = World::new();
        let how = approved(&world, sessions);
        put(
            &world,
            "now.json",
            &sign_approval(&world, "approver", values(&world, &[7, 14]), 1),
        );
        let backend = world.open_as(&how).unwrap();
        let algs = [Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256, Alg::ES256];
        let made: Vec<_> = (1..)
            .zip(algs)
            .map(|(n, alg)| (n, make(&backend, n, alg), alg))
            .collect();
        for _ in 0..2 {
            for (n, key, alg) in &made {
                sign(&backend, *n, key, *alg);
            }
            take_away(&world, "now.json"); // and another in its place: it is shown to the TPM anew
            put(
                &world,
                "now.json",
                &sign_approval(&world, "approver", values(&world, &[7, 14]), 1),
            );
        }
        backend.destroy(object(1), &made[0].1).unwrap();
        assert_eq!(
            backend
                .sign(object(1), &made[0].1, ES256, b"x")
                .unwrap_err()
                .kind(),
            Kind::NotFound
        );
    }
}

#[test]
fn a_state_that_is_approved_needs_no_new_key() {
    for sessions in BOTH {
        let mut world = World::new();
        let how = approved(&world, sessions);
        let backend = world.open_as(&how).unwrap();
        // None is made that could not sign.
        let none = backend
            .generate(object(1), "assertd/test/key1/1", ES256)
            .unwrap_err();
        is_unhealthy(
            &none,
            &["no approval is there", "assertctl approve request"],
        );
        assert!(!world.key_file(object(1)).exists());
        put(
            &world,
            "old.json",
            &sign_approval(&world, "approver", values(&world, &[7, 14]), 1),
        );
        let key = make(&backend, 1, ES256);
        sign(&backend, 1, &key, ES256);

        extend(&world, 7);
        let text = ["PCR 7 is", "in old.json", "assertctl approve request"];
        is_unhealthy(&refusal(&backend, 1, &key, ES256), &text);
        let now = values(&world, &[7, 14]);
        put(
            &world,
            "new.json",
            &sign_approval(&world, "approver", now.clone(), 1),
        );
        sign(&backend, 1, &key, ES256);
        assert_eq!(backend.inspect(object(1)).unwrap().public_key, key);
        drop(backend);
        let backend = world.open_as(&how).unwrap();
        sign(&backend, 1, &key, ES256);
        // An old approval holds until it is taken away.
        world.swtpm.restart();
        sign(&backend, 1, &key, ES256);
        take_away(&world, "old.json");
        is_unhealthy(&refusal(&backend, 1, &key, ES256), &["in new.json"]);
        extend(&world, 7);
        assert_eq!(values(&world, &[7, 14]), now);
        sign(&backend, 1, &key, ES256);
        drop(backend);
        // Without the section there are no approvals for it.
        let without = world.open();
        is_unhealthy(&refusal(&without, 1, &key, ES256), &["into [healthy]"]);
    }
}

#[test]
fn what_the_authority_has_not_approved_is_refused_and_said() {
    let world = World::new();
    let how = approved(&world, Sessions::Password);
    new_authority(&world, "stranger");
    put(
        &world,
        "now.json",
        &sign_approval(&world, "approver", values(&world, &[7, 14]), 1),
    );
    let backend = world.open_as(&how).unwrap();
    let key = make(&backend, 1, ES256);
    extend(&world, 7);
    let now = values(&world, &[7, 14]);
    let right = sign_approval(&world, "approver", now.clone(), 1);
    let refused = |bytes: &[u8], why: &str| {
        write(&world, "approvals/x.json", bytes);
        is_unhealthy(
            &refusal(&backend, 1, &key, ES256),
            &["PCR 7 is", "in now.json", "x.json", why],
        );
        take_away(&world, "x.json");
    };
    let of = |approval: &Approval| approval.to_json().into_bytes();
    let foreign = sign_approval(&world, "stranger", now.clone(), 1);
    refused(&of(&foreign), "is not signed by the authority");
    let whole = of(&right);
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..end], "is no approval, or not a whole one");
    }
    for pcrs in [&[7][..], &[14], &[7, 8, 14]] {
        let other = sign_approval(&world, "approver", values(&world, pcrs), 1);
        refused(&of(&other), "is about other PCRs");
    }
    let other = sign_approval(&world, "approver", now.clone(), 2);
    refused(&of(&other), "is of generation 2, and the key takes 1");
    refused(
        &of(&Approval::draft(now.clone(), Generation(1))),
        "is not signed yet",
    );
    let moved = Approval {
        signature: sign_approval(&world, "approver", values(&world, &[14]), 1).signature,
        ..right.clone()
    };
    refused(&of(&moved), "or was changed");
    refused(&vec![b' '; 20_000], "is longer than");
    fs::create_dir(world.dir.path().join("approvals/d.json")).unwrap();
    is_unhealthy(&refusal(&backend, 1, &key, ES256), &["d.json is no file"]);
    fs::remove_dir(world.dir.path().join("approvals/d.json")).unwrap();
    // And what it has is taken, beside what is wrong.
    put(&world, "y.json", &foreign);
    put(&world, "z.json", &right);
    sign(&backend, 1, &key, ES256);
    drop(backend);

    // Who approves by another key approves other keys.
    for file in ["approver.key", "approver.pem"] {
        fs::rename(
            world.dir.path().join(file.replace("approver", "stranger")),
            world.dir.path().join(file),
        )
        .unwrap();
    }
    let backend = world.open_as(&how).unwrap();
    sign(&backend, 1, &key, ES256); // of the key's own authority; that file is still there
    take_away(&world, "z.json");
    is_unhealthy(
        &refusal(&backend, 1, &key, ES256),
        &["y.json is not signed by the authority"],
    );
    let next = make(&backend, 2, ES256);
    sign(&backend, 2, &next, ES256);
    drop(backend);
    write(&world, "approver.pem", b"no key");
    let backend = world.open_as(&how).unwrap();
    sign(&backend, 2, &next, ES256);
    let none = backend
        .generate(object(3), "assertd/test/key3/1", ES256)
        .unwrap_err();
    assert_eq!(none.kind(), Kind::Refused, "{none}");
    assert!(
        none.to_string().contains("has no P-256 public key in PEM"),
        "{none}"
    );
}

#[test]
fn a_key_whose_file_says_another_state_is_not_used() {
    let world = World::new();
    let backend = world.open_as(&plain(Sessions::Password)).unwrap();
    let key = make(&backend, 1, ES256);
    extend(&world, 7);
    let path = world.key_file(object(1));
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().nth(1).unwrap();
    assert!(line.starts_with("bound to {"), "{text}");
    let now = values(&world, &[7, 14]);
    let forged = format!(
        "bound to {{\"state\":{}}}",
        serde_json::to_string(&now).unwrap()
    );
    let put = |text: String| {
        write(
            &world,
            &format!("state/keys/{}.pem", object(1)),
            text.as_bytes(),
        )
    };
    put(text.replace(line, &forged));
    drop(backend);
    let backend = world.open();
    let wrong = refusal(&backend, 1, &key, ES256);
    assert_eq!(wrong.kind(), Kind::Mismatch, "{wrong}");
    assert!(
        wrong
            .to_string()
            .contains("another policy than its file says"),
        "{wrong}"
    );
    // Without the line it is no key of ours at all.
    put(text.replace(&format!("{line}\n"), ""));
    let wrong = refusal(&backend, 1, &key, ES256);
    assert_eq!(wrong.kind(), Kind::Mismatch, "{wrong}");
}

/// Other tools read the file, and its policy is what they compute.
#[test]
fn the_tpm_holds_the_key_to_the_policy_that_is_shown() {
    let world = World::new();
    let how = approved(&world, Sessions::Password);
    put(
        &world,
        "now.json",
        &sign_approval(&world, "approver", values(&world, &[7, 14]), 1),
    );
    let backend = world.open_as(&how).unwrap();
    let key = make(&backend, 1, ES256);
    extend(&world, 14); // it is certified in any state
    let policy = |backend: &TpmBackend, n: u8, key| match backend.attest(object(n), key, &[1; 32]) {
        Ok(Testimony::Certified { public, policy, .. }) => {
            let area = PublicArea::parse(public.as_slice()).unwrap();
            (area.auth_policy, policy.unwrap())
        }
        other => panic!("{other:?}"),
    };
    let (digest, steps) = policy(&backend, 1, &key);
    assert_eq!(
        keystore::evidence::healthy::digest_of(&steps).to_vec(),
        digest
    );
    let [
        PolicyStep::Authorize { reference, .. },
        PolicyStep::AuthValue {},
    ] = &steps[..]
    else {
        panic!("{steps:?}");
    };
    write(&world, "reference", reference.as_slice());
    let pem = String::from_utf8(read(&world, "approver.pem")).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    write(&world, "name", authority.name().as_slice());
    drop(backend);
    let shown = world.public_pem(&world.key_file(object(1)).display().to_string());
    assert_eq!(Authority::from_pem(&shown).unwrap().key(), &key);
    world.tool("tpm2_startauthsession", &["-S", "trial.ctx"]);
    // What was approved is no matter of a trial.
    let arguments = [
        "-S",
        "trial.ctx",
        "-q",
        "reference",
        "-n",
        "name",
        "-i",
        "reference",
    ];
    world.tool("tpm2_policyauthorize", &arguments);
    world.tool("tpm2_policyauthvalue", &["-S", "trial.ctx", "-L", "policy"]);
    world.tool("tpm2_flushcontext", &["trial.ctx"]);
    assert_eq!(read(&world, "policy"), digest);

    let backend = world.open_as(&plain(Sessions::Password)).unwrap();
    let key = make(&backend, 2, ES256);
    let (digest, _) = policy(&backend, 2, &key);
    drop(backend);
    world.tool("tpm2_startauthsession", &["-S", "trial.ctx"]);
    world.tool("tpm2_policypcr", &["-S", "trial.ctx", "-l", "sha256:7,14"]);
    world.tool("tpm2_policyauthvalue", &["-S", "trial.ctx", "-L", "policy"]);
    world.tool("tpm2_flushcontext", &["trial.ctx"]);
    assert_eq!(read(&world, "policy"), digest);
}

#[test]
fn a_look_says_how_the_host_is_and_which_keys_are_bound() {
    let world = World::new();
    make(&world.open(), 2, ES256);
    let backend = world.open_as(&plain(Sessions::Password)).unwrap();
    make(&backend, 1, ES256);
    let said = |backend: &TpmBackend, words: &str| {
        let lines = backend.survey();
        let line = lines.iter().find(|line| line.text.contains(words));
        line.unwrap_or_else(|| panic!("{words}: {lines:?}")).verdict
    };
    assert_eq!(said(&backend, "14=0000"), Verdict::Ok);
    assert_eq!(said(&backend, "1 of 2 keys is bound"), Verdict::Warn);
    drop(backend);
    let how = approved(&world, Sessions::Password);
    let backend = world.open_as(&how).unwrap();
    assert_eq!(said(&backend, "no approval is there"), Verdict::Warn);
    assert_eq!(backend.state().unwrap(), values(&world, &[7, 14]));
    drop(backend);
    assert_eq!(world.open().state().unwrap_err().kind(), Kind::Unsupported);
}

/// Why `assertctl approve bytes` makes what is signed where it is signed, and why that key may sign nothing else.
/// Nothing of ours uses the key here: root on a host would not.
#[test]
fn a_signature_over_no_policy_at_all_would_free_a_key_from_every_state() {
    let world = World::new();
    new_authority(&world, "approver");
    let pem = String::from_utf8(read(&world, "approver.pem")).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    let generation = Generation::FIRST;
    let bound = steps(&values(&world, &[7]), Some((&authority, generation)));
    write(&world, "key.policy", &digest_of(&bound));
    let area = authority.area().as_slice();
    let length = u16::try_from(area.len()).unwrap().to_be_bytes();
    write(&world, "authority.pub", &[&length[..], area].concat());
    let tool = |program: &str, arguments: &str| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let said = world.tool(program, &arguments);
        world.tool("tpm2_flushcontext", &["-t"]); // there is no resource manager
        said
    };
    tool("tpm2_createprimary", "-C o -g sha256 -G ecc -c primary");
    tool(
        "tpm2_create",
        "-C primary -g sha256 -G ecc256:ecdsa-sha256 -L key.policy -p secret -u key.pub -r key.priv \
         -a fixedtpm|fixedparent|sensitivedataorigin|sign",
    );
    tool("tpm2_load", "-C primary -u key.pub -r key.priv -c key");

    let reference = generation.reference();
    write(&world, "tbs", &[[0; 32], reference].concat());
    tool("openssl", "dgst -sha256 -sign approver.key -out sig tbs");
    write(&world, "none", &[0; 32]);
    write(&world, "reference", &reference);
    write(&world, "message", b"anything");
    let free = || {
        tool(
            "tpm2_loadexternal",
            "-C o -u authority.pub -c authority -n authority.name",
        );
        tool(
            "tpm2_verifysignature",
            "-c authority -g sha256 -m tbs -s sig -f ecdsa -t ticket",
        );
        tool("tpm2_startauthsession", "--policy-session -S session");
        tool(
            "tpm2_policyauthorize",
            "-S session -i none -q reference -n authority.name -t ticket",
        );
        tool("tpm2_policyauthvalue", "-S session");
        tool(
            "tpm2_sign",
            "-c key -p session:session+secret -g sha256 -o signature message",
        );
        tool("tpm2_flushcontext", "session");
    };
    free();
    extend(&world, 7);
    free();
    // No approval that says something has this signature, and so none that the keystore takes.
    let draft = Approval::draft(values(&world, &[7]), generation);
    assert_ne!(draft.to_be_signed()[..32], [0; 32]);
    let refused = draft.signed(&read(&world, "sig"), &authority).unwrap_err();
    assert!(
        refused.contains("is not signed by the authority"),
        "{refused}"
    );
}
