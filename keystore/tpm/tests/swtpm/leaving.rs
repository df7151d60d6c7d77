//! A private key cannot be taken out of the TPM, nor be used for anything but its signatures, by
//! somebody who has its file and its auth value. Each attempt is made twice with tpm2-tools: on a
//! key of ours, where it must fail, and on a control key that was made for it, where it must
//! succeed, or the attempt would prove nothing.

use crate::foreign::{auth_bytes, auth_of, pem_path};
use crate::tools::write;
use crate::world::{SECRET, World, make, object, sign};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use keystore::Alg;
use keystore::backend::Backend;
use std::str::FromStr;
use tss_esapi::Context;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::TpmHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, Digest, HashScheme, HashcheckTicket, Signature, SignatureScheme,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// A TPM with one key of ours, which is closed, so that the slots are the tools'.
fn world_with(alg: Alg) -> World {
    let world = World::new();
    make(&world.open(), 1, alg);
    world
}

/// Loads our key; how the tools name it and its auth value.
fn ours(world: &World) -> Key {
    let path = pem_path(world, 1);
    world.tool("tpm2_load", &["-r", &path, "-c", "ours.ctx"]);
    world.tool("tpm2_flushcontext", &["-t"]);
    Key {
        context: "ours.ctx",
        auth: format!("hex:{}", auth_of(&SECRET, 1)),
    }
}

/// Makes the control key, with these arguments of tpm2_create, under a primary of its own.
fn control(world: &World, arguments: &[&str]) -> Key {
    world.tool(
        "tpm2_createprimary",
        &["-C", "o", "-G", "ecc", "-c", "parent.ctx"],
    );
    let mut all = vec![
        "-C",
        "parent.ctx",
        "-u",
        "control.pub",
        "-r",
        "control.priv",
    ];
    all.extend(["-p", "control", "-c", "control.ctx"]);
    all.extend(arguments);
    world.tool("tpm2_create", &all);
    world.tool("tpm2_flushcontext", &["-t"]);
    Key {
        context: "control.ctx",
        auth: "control".to_owned(),
    }
}

struct Key {
    context: &'static str,
    auth: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Refused(String),
}

/// Runs a tool on a key, as the last step of an attempt.
fn outcome(world: &World, program: &str, arguments: &[&str]) -> Outcome {
    world.tool("tpm2_flushcontext", &["-t"]);
    let output = world.run(program, arguments);
    match output.status.success() {
        true => Outcome::Succeeded,
        false => Outcome::Refused(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Tries it on both, and that ours signs afterwards. `because` is what the TPM says of ours.
fn attempt_on_both(
    alg: Alg,
    because: &str,
    arguments: &[&str],
    attempt: impl Fn(&World, &Key) -> Outcome,
) {
    let world = world_with(alg);
    write(&world, "message", b"message");
    let control = control(&world, arguments);
    assert_eq!(attempt(&world, &control), Outcome::Succeeded, "control");
    match attempt(&world, &ours(&world)) {
        Outcome::Refused(why) => assert!(why.contains(because), "{why}"),
        Outcome::Succeeded => panic!("our key was taken"),
    }
    world.tool("tpm2_flushcontext", &["-t"]);
    let backend = world.open();
    let key = backend.inspect(object(1)).unwrap();
    sign(&backend, 1, &key.public_key, alg);
}

/// A policy session in which the TPM may duplicate, and that policy in `duplicate.policy`.
fn duplication(world: &World, arguments: &[&str]) {
    let mut all = vec!["-S", "session.ctx"];
    all.extend(arguments);
    world.tool("tpm2_startauthsession", &all);
    let policy = ["-S", "session.ctx", "-L", "duplicate.policy"];
    let command = "TPM2_CC_Duplicate";
    world.tool(
        "tpm2_policycommandcode",
        &[&policy[..], &[command]].concat(),
    );
}

#[test]
fn a_key_cannot_be_duplicated() {
    let world = world_with(Alg::ES256);
    duplication(&world, &[]);
    world.tool("tpm2_flushcontext", &["session.ctx"]);
    let attributes = "sensitivedataorigin|userwithauth|sign";
    let arguments = ["-G", "ecc", "-L", "duplicate.policy", "-a", attributes];
    let control = control(&world, &arguments);
    let duplicate = |key: &Key| {
        duplication(&world, &["--policy-session"]);
        let mut all = vec!["-C", "null", "-G", "null", "-p", "session:session.ctx"];
        all.extend(["-r", "out.priv", "-s", "out.seed", "-c", key.context]);
        let outcome = outcome(&world, "tpm2_duplicate", &all);
        world.tool("tpm2_flushcontext", &["session.ctx"]);
        outcome
    };
    assert_eq!(duplicate(&control), Outcome::Succeeded, "control");
    match duplicate(&ours(&world)) {
        Outcome::Refused(why) => assert!(why.contains("Esys_Duplicate"), "{why}"),
        Outcome::Succeeded => panic!("our key was taken"),
    }
}

/// TPM2B_PRIVATE of our P-256 key: the last octet string of its file.
fn private_part(world: &World) -> Vec<u8> {
    const LEN: usize = 128;
    let pem = std::fs::read_to_string(pem_path(world, 1)).unwrap();
    let (_label, body) = pem.split_once('\n').unwrap();
    let base64: String = body.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(base64).unwrap();
    let (rest, private) = der.split_at(der.len() - LEN);
    assert!(rest.ends_with(&[0x04, 0x81, LEN as u8]), "{rest:02x?}");
    private.to_vec()
}

#[test]
fn a_key_is_loaded_under_its_own_parent_alone() {
    let world = world_with(Alg::ES256);
    control(&world, &["-G", "ecc"]);
    let load = |parts: &[&str]| {
        let mut all = vec!["-C", "parent.ctx", "-c", "loaded.ctx"];
        all.extend(parts);
        outcome(&world, "tpm2_load", &all)
    };
    let its_own = load(&["-u", "control.pub", "-r", "control.priv"]);
    assert_eq!(its_own, Outcome::Succeeded, "control");
    world.tool("tpm2_flushcontext", &["-t"]);
    let shown = ["-c", ours(&world).context, "-o", "ours.pub"];
    world.tool("tpm2_readpublic", &shown);
    write(&world, "ours.priv", &private_part(&world));
    match load(&["-u", "ours.pub", "-r", "ours.priv"]) {
        Outcome::Refused(why) => assert!(why.contains("integrity"), "{why}"),
        Outcome::Succeeded => panic!("it was loaded"),
    }
}

#[test]
fn an_rsa_key_does_not_decrypt() {
    let arguments = [
        "-G",
        "rsa2048",
        "-a",
        "sensitivedataorigin|userwithauth|decrypt",
    ];
    attempt_on_both(Alg::RS256, "attributes", &arguments, |world, key| {
        // Without padding it is raw signing.
        write(world, "block", &[2; 256]);
        let mut all = vec!["-c", key.context, "-p", &key.auth, "-s", "null"];
        all.extend(["-o", "out", "block"]);
        outcome(world, "tpm2_rsadecrypt", &all)
    });
}

#[test]
fn an_ec_key_derives_no_secret() {
    let arguments = [
        "-G",
        "ecc",
        "-a",
        "sensitivedataorigin|userwithauth|decrypt",
    ];
    attempt_on_both(Alg::ES256, "attributes", &arguments, |world, key| {
        let of_another = ["-C", "o", "-G", "ecc", "-c", "point.ctx"];
        world.tool("tpm2_createprimary", &of_another);
        world.tool(
            "tpm2_ecdhkeygen",
            &["-c", "point.ctx", "-u", "point", "-o", "shared"],
        );
        let mut all = vec!["-c", key.context, "-p", &key.auth];
        all.extend(["-u", "point", "-o", "out"]);
        outcome(world, "tpm2_ecdhzgen", &all)
    });
}

/// The TPM's own word, since tpm2_sign does not even ask it.
#[test]
fn an_rsa_key_signs_nothing_but_rs256() {
    let arguments = [
        "-G",
        "rsa2048",
        "-a",
        "sensitivedataorigin|userwithauth|sign",
    ];
    attempt_on_both(Alg::RS256, "scheme", &arguments, |world, key| {
        let place = ["-C", "o", "-c", key.context, "0x81010001"];
        world.tool("tpm2_evictcontrol", &place);
        world.tool("tpm2_flushcontext", &["-t"]);
        let signed = sign_pss(world, 0x8101_0001, &key.auth);
        world.tool("tpm2_evictcontrol", &["-C", "o", "-c", "0x81010001"]);
        match signed {
            Ok(_) => Outcome::Succeeded,
            Err(error) => Outcome::Refused(error.to_string()),
        }
    });
}

fn sign_pss(world: &World, handle: u32, auth: &str) -> tss_esapi::Result<Signature> {
    let name = TctiNameConf::from_str(&world.swtpm.tcti().to_string())?;
    let mut context = Context::new(name)?;
    let handle = TpmHandle::try_from(handle)?;
    let object = context.execute_without_session(|c| c.tr_from_tpm_public(handle))?;
    let auth = match auth.strip_prefix("hex:") {
        Some(_) => auth_bytes(&SECRET, 1),
        None => auth.as_bytes().to_vec(),
    };
    context.tr_set_auth(object, Auth::try_from(auth)?)?;
    let scheme = SignatureScheme::RsaPss {
        hash_scheme: HashScheme::new(HashingAlgorithm::Sha256),
    };
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })?;
    let digest = Digest::try_from(vec![7; 32])?;
    context.execute_with_session(Some(AuthSession::Password), |c| {
        c.sign(object.into(), digest, scheme, ticket)
    })
}

#[test]
fn a_key_is_nothing_that_could_be_unsealed() {
    attempt_on_both(Alg::ES256, "type", &["-i", "message"], |world, key| {
        let all = ["-c", key.context, "-p", &key.auth, "-o", "out"];
        outcome(world, "tpm2_unseal", &all)
    });
}

/// The TPM's own encrypted copy of a loaded key, as our slots keep it in memory.
#[test]
fn a_saved_context_is_worth_nothing_after_a_restart_or_in_another_tpm() {
    let mut world = world_with(Alg::ES256);
    let key = ours(&world);
    let read = |world: &World| outcome(world, "tpm2_readpublic", &["-c", key.context]);
    assert_eq!(read(&world), Outcome::Succeeded, "control");
    let other = World::new();
    let paths = [&world, &other].map(|world| world.dir.path().join(key.context));
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    assert_ne!(read(&other), Outcome::Succeeded);
    world.swtpm.restart();
    assert_ne!(read(&world), Outcome::Succeeded);
}
