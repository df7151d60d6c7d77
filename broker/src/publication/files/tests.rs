use super::*;
use crate::publication::documents::{COPIES, Spiffe};
use crate::publication::fixtures::{issuer, set};
use crate::publication::{KeySet, render};
use keystore::Alg;
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

const SPIFFE: Spiffe = Spiffe {
    sequence_min: 100,
    refresh_hint_s: 300,
};

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

/// An issuer with a trust domain, and a client.
fn documents(of_issuer: &KeySet, of_client: &KeySet) -> Documents {
    let mut documents = Documents::default();
    let issuer = issuer("prod", "https://id.example.com/prod", Some("example.com"));
    documents.add_issuer(&issuer, of_issuer, SPIFFE);
    documents.add_client(&name("payments/bank"), of_client);
    documents
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("published");
    (tmp, dir)
}

/// Every file below, by its path.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, root, all),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                    all.insert(name.to_owned(), fs::read(&path).unwrap());
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all
}

/// Without the copies.
fn by_name(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(dir);
    all.retain(|name, _| !name.contains(COPIES));
    all
}

#[test]
fn everything_is_where_it_is_looked_for_and_everybody_may_read_it() {
    let (_tmp, dir) = place();
    let (of_issuer, of_client) = (set(&[1, 2]), set(&[1]));
    umask(Mode::S_IRWXG | Mode::S_IRWXO); // as assertd's is; each test is a process
    let outcome = publish(&dir, &documents(&of_issuer, &of_client)).unwrap();
    assert_eq!(outcome.change, Change::Changed);
    assert!(
        outcome.failed.is_empty() && outcome.left_over.is_empty(),
        "{outcome:?}"
    );
    let written = by_name(&dir);
    assert_eq!(
        written.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "client/payments/bank/jwks.json",
            "issuer/prod/.well-known/openid-configuration",
            "issuer/prod/bundle.json",
            "issuer/prod/jwks.json",
            "issuer/prod/jwks.upload.json",
            "published",
        ]
    );
    assert_eq!(written["issuer/prod/jwks.json"], render::jwks(&of_issuer));
    assert_eq!(
        written["client/payments/bank/jwks.json"],
        render::jwks(&of_client)
    );
    // jwks.json and jwks.upload.json are the same bytes, and one copy.
    for (name, bytes) in files(&dir) {
        if let Some((_, copy)) = name.split_once("by-sha256/") {
            assert_eq!(copy, format!("{}.json", Sha256::of(&bytes)));
        }
    }
    assert_eq!(files(&dir).len(), written.len() + 4);
    let mode = |path: &str| fs::symlink_metadata(dir.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode(""), 0o755);
    assert_eq!(mode("issuer/prod/.well-known"), 0o755);
    assert_eq!(mode("issuer/prod/jwks.json"), 0o644);
    assert_eq!(mode("published"), 0o644);
}

#[test]
fn what_did_not_change_is_not_touched() {
    let (_tmp, dir) = place();
    let (of_issuer, of_client) = (set(&[1]), set(&[1]));
    let before = documents(&of_issuer, &of_client);
    publish(&dir, &before).unwrap();
    let inode = |path: &str| fs::metadata(dir.join(path)).unwrap().ino();
    let watched = [
        "published",
        "issuer/prod/jwks.json",
        "client/payments/bank/jwks.json",
    ];
    let old = watched.map(inode);
    assert_eq!(publish(&dir, &before).unwrap().change, Change::Unchanged);
    assert_eq!(watched.map(inode), old);
    let after = documents(&set(&[1, 2]), &of_client);
    assert_eq!(publish(&dir, &after).unwrap().change, Change::Changed);
    let new = watched.map(inode);
    assert!(
        new[0] != old[0] && new[1] != old[1],
        "the stamp and what changed are new"
    );
    assert_eq!(new[2], old[2], "and the other is not");
}

#[test]
fn what_somebody_changed_is_put_right() {
    let (_tmp, dir) = place();
    let documents = documents(&set(&[1]), &set(&[1]));
    publish(&dir, &documents).unwrap();
    let good = by_name(&dir);
    let document = dir.join("issuer/prod/jwks.json");
    for spoilt in [&b""[..], b"{}", &[b' '; 100_000]] {
        put(&document, spoilt);
        assert_eq!(publish(&dir, &documents).unwrap().change, Change::Changed);
        assert_eq!(by_name(&dir), good);
    }
    fs::remove_file(dir.join("published")).unwrap();
    assert_eq!(publish(&dir, &documents).unwrap().change, Change::Changed);
    assert_eq!(by_name(&dir), good);
}

fn put(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

#[test]
fn the_last_sixteen_copies_are_kept_and_the_current_ones_always() {
    let (_tmp, dir) = place();
    let client = name("payments/bank");
    let mut last = Vec::new();
    for _ in 0..COPIES_MAX + 5 {
        let mut documents = Documents::default();
        let set = set(&[1]);
        documents.add_client(&client, &set);
        last.push(format!("{}.json", Sha256::of(&render::jwks(&set))));
        publish(&dir, &documents).unwrap();
    }
    let mut copies: Vec<String> = fs::read_dir(dir.join("client/payments/bank/by-sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    copies.sort();
    let mut expected = last[5..].to_vec();
    expected.sort();
    assert_eq!(copies, expected);
}

#[test]
fn what_is_not_published_any_more_stays_and_is_reported() {
    let (_tmp, dir) = place();
    publish(&dir, &documents(&set(&[1]), &set(&[1]))).unwrap();
    let before = by_name(&dir);
    let mut fewer = Documents::default();
    let without_domain = issuer("prod", "https://id.example.com/prod", None);
    fewer.add_issuer(&without_domain, &set(&[1]), SPIFFE);
    fewer.add_client(&name("payments/other"), &set(&[1]));
    fs::create_dir(dir.join("issuer/what.is.this")).unwrap();
    let outcome = publish(&dir, &fewer).unwrap();
    assert_eq!(
        outcome.left_over,
        [
            "issuer/prod/bundle.json",
            "issuer/what.is.this",
            "client/payments/bank"
        ]
    );
    let after = by_name(&dir);
    for kept in ["issuer/prod/bundle.json", "client/payments/bank/jwks.json"] {
        assert_eq!(after[kept], before[kept]);
    }
    let nothing = publish(&dir, &Documents::default()).unwrap();
    assert_eq!(nothing.left_over.len(), 4);
}

#[test]
fn a_link_is_never_followed_and_keeps_no_other_key_from_being_published() {
    let (tmp, dir) = place();
    let elsewhere = tmp.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("prod")).unwrap();
    put(&elsewhere.join("secret"), b"secret");
    // In the place of a directory …
    fs::create_dir_all(dir.join("issuer")).unwrap();
    symlink(elsewhere.join("prod"), dir.join("issuer/prod")).unwrap();
    let documents = documents(&set(&[1]), &set(&[1]));
    let outcome = publish(&dir, &documents).unwrap();
    let failed = &outcome.failed[&name("issuer/prod")];
    assert_eq!(failed.kind(), Kind::Corrupt);
    assert!(failed.to_string().contains("symbolic link"), "{failed}");
    assert_eq!(fs::read_dir(elsewhere.join("prod")).unwrap().count(), 0);
    assert!(dir.join("client/payments/bank/jwks.json").exists());
    // … and of a document, which it is not any more afterwards.
    fs::remove_file(dir.join("issuer/prod")).unwrap();
    for link in ["jwks.json", "jwks.json.new", "bundle.json"] {
        let link = dir.join("client/payments/bank").join(link);
        let _ = fs::remove_file(&link);
        symlink(elsewhere.join("secret"), &link).unwrap();
    }
    assert!(publish(&dir, &documents).unwrap().failed.is_empty());
    assert_eq!(fs::read(elsewhere.join("secret")).unwrap(), b"secret");
    let document = dir.join("client/payments/bank/jwks.json");
    assert!(document.symlink_metadata().unwrap().is_file());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test makes the mode wrong")]
fn where_others_may_write_nothing_is_published() {
    use std::os::unix::fs::PermissionsExt;
    let (_tmp, dir) = place();
    let documents = documents(&set(&[1]), &set(&[1]));
    publish(&dir, &documents).unwrap();
    let open =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let below = dir.join("client/payments");
    open(&below, 0o775);
    let outcome = publish(&dir, &documents).unwrap();
    assert_eq!(outcome.failed[&name("payments/bank")].kind(), Kind::Corrupt);
    open(&below, 0o755);
    open(&dir, 0o777);
    let error = publish(&dir, &documents).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("chmod"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (tmp, _) = place();
    let error = publish(&tmp.path().join("no/such"), &Documents::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("no/such"), "{error}");
}

/// Where it may end: before each call that changes something. And what may fail.
const ENDS_AT: [&str; 6] = [
    "mkdirat", "fchmod", "write", "fsync", "renameat", "unlinkat",
];
const FAILS_AT: [&str; 6] = ["openat", "mkdirat", "fchmod", "write", "fsync", "renameat"];

/// Where [`publishes_what_it_is_told`] publishes; its parent sets it.
const CHILDS_DIR: &str = "ASSERTD_TEST_PUBLISHES";

/// Fixed keys, so that another process publishes the same.
fn of_rfc_8037(more: &[u8]) -> KeySet {
    let one = |n: &u8| {
        // Any 32 bytes that are a point; found by trying.
        let point = (0..=u8::MAX).find_map(|at| {
            let mut x = [*n; 32];
            x[0] = at;
            keystore::PublicKey::from_ed25519(&x).ok()
        });
        let version = keystore::keyid::KeyVersion::new(u32::from(*n)).unwrap();
        crate::publication::Key::new(version, point.unwrap(), Alg::EdDSA).unwrap()
    };
    KeySet::new(one(&1), more.iter().map(one)).unwrap()
}

#[test]
#[ignore = "the child of another test, which runs it under strace (2026-11-23)"]
#[expect(clippy::disallowed_methods, reason = "its parent tells it where")]
fn publishes_what_it_is_told() {
    let dir = PathBuf::from(std::env::var_os(CHILDS_DIR).unwrap());
    let outcome = publish(&dir, &documents(&of_rfc_8037(&[2]), &of_rfc_8037(&[2]))).unwrap();
    assert!(outcome.failed.is_empty(), "{outcome:?}");
}

/// Runs that test with `inject` (strace(1)), and says whether it came to its end.
fn another_process_publishes(dir: &Path, call: &str, inject: &str) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["--follow-forks", "--seccomp-bpf", "--output=/dev/null"]);
    strace.arg(format!("--trace={call}"));
    strace.arg(format!("--inject={call}:{inject}"));
    strace.arg(std::env::current_exe().unwrap());
    strace.args([
        "--exact",
        "--ignored",
        "publication::files::tests::publishes_what_it_is_told",
    ]);
    strace.env(CHILDS_DIR, dir).env("RUST_BACKTRACE", "0");
    let output = strace.output().expect("strace(1) is on the machine");
    output.status.success()
}

/// Every call once with SIGKILL and once with an error.
#[test]
fn a_crash_or_an_error_at_any_call_leaves_old_or_new_and_the_next_publication_ends_it() {
    let before = documents(&of_rfc_8037(&[]), &of_rfc_8037(&[]));
    let after = documents(&of_rfc_8037(&[2]), &of_rfc_8037(&[2]));
    let (_tmp, dir) = place();
    publish(&dir, &before).unwrap();
    let old = by_name(&dir);
    publish(&dir, &after).unwrap();
    let new = by_name(&dir);
    let mut points = 0;
    for (calls, injected) in [(ENDS_AT, "signal=KILL"), (FAILS_AT, "error=ENOSPC")] {
        for call in calls {
            for when in 1.. {
                let (_tmp, dir) = place();
                publish(&dir, &before).unwrap();
                let inject = format!("{injected}:when={when}");
                let ended = another_process_publishes(&dir, call, &inject);
                let found = by_name(&dir);
                // With what failed for one key alone, the stamp is that of the others.
                for (name, bytes) in old.iter().filter(|(name, _)| *name != STAMP) {
                    let is_whole = found[name] == *bytes || found[name] == new[name];
                    assert!(is_whole, "{call} {injected} {when}: {name} is torn");
                }
                if found[STAMP] == new[STAMP] {
                    for (name, bytes) in &new {
                        assert_eq!(&found[name], bytes, "{call} {injected} {when}: {name}");
                    }
                }
                assert!(publish(&dir, &after).unwrap().failed.is_empty());
                assert_eq!(by_name(&dir), new, "{call} {injected} {when}");
                let half = files(&dir).into_keys().find(|name| name.ends_with(NEW));
                assert_eq!(half, None, "{call} {injected} {when}");
                if ended && found == new {
                    break;
                }
                points += 1;
            }
        }
    }
    println!("{points} crashes and errors");
    assert!(points > 50, "{points}");
}
