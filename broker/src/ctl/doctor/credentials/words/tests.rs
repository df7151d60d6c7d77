use super::*;

pub fn pin() -> Noun {
    Noun {
        keystore: "hsm".into(),
        kind: BackendKind::Pkcs11,
        keys: Keys::None,
    }
}

pub fn auth(keys: Keys) -> Noun {
    Noun {
        keystore: "tpm".into(),
        kind: BackendKind::Tpm,
        keys,
    }
}

#[test]
fn no_remedy_makes_a_new_secret_where_keys_depend_on_the_old_one() {
    let with_keys = || auth(Keys::In("/var/lib/assertd-keystore/tpm".into()));
    let place = place("tpm.auth");
    for remedy in [
        with_keys().give("tpm.auth", &place),
        with_keys().mend("tpm.auth", &place),
    ] {
        let (first, lost) = remedy
            .split_once("If none of them is needed any more")
            .unwrap();
        assert!(first.contains("from a backup of this host"), "{remedy}");
        assert!(!first.contains("assertctl init"), "{remedy}");
        let away = "mv /var/lib/assertd-keystore/tpm /var/lib/assertd-keystore/tpm.old";
        // Nothing is ever made in the place of a key that assertd has recorded.
        let order = [
            "another name",
            away,
            "assertctl init",
            "systemctl restart",
            "apply`",
        ];
        let places = order.map(|part| lost.find(part));
        assert!(places.iter().all(Option::is_some), "{remedy}");
        assert!(places.is_sorted(), "{remedy}");
    }
    let file = with_keys().write_file("assertd-tpm", "/f");
    assert!(!file.contains("urandom"), "{file}");
    let none = || auth(Keys::None);
    let made = none().give("tpm.auth", &place);
    assert!(
        made.contains("`assertctl init --yes --name tpm`, then `systemctl"),
        "{made}"
    );
    let mended = none().mend("tpm.auth", &place);
    assert!(
        mended.starts_with("run `mv /etc/credstore.encrypted/"),
        "{mended}"
    );
    let other = none().give("own", Path::new("/etc/credstore.encrypted/own"));
    assert!(
        other.contains("--name=own - /etc/credstore.encrypted/own"),
        "{other}"
    );
    assert!(
        none()
            .write_file("assertd-tpm", "/f")
            .contains("head -c 32 /dev/urandom")
    );
}

#[test]
fn what_a_secret_holds_is_kept_when_it_is_encrypted() {
    let auth = auth(Keys::None);
    for remedy in [
        auth.encrypt("tpm.auth"),
        auth.encrypt_file("/etc/assertd/tpm.auth"),
    ] {
        assert!(!remedy.contains("urandom"), "{remedy}");
        assert!(remedy.contains("assertd-keystore-tpm@tpm`"), "{remedy}");
    }
}
