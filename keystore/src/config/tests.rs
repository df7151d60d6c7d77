//! What a section may say, and how it is told what it may not.

use super::*;

fn error(text: &str) -> String {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("assertd.toml");
    std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .unwrap();
    let shown = load(&path, "hsm").unwrap_err().to_string();
    shown.replace(&format!("{}/", tmp.path().display()), "")
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_a_suggestion() {
    assert_eq!(
        error("[keystore.hsm]\nbackend = \"pkcs11\"\nmodul = \"/x\"\n"),
        "assertd.toml:3:1: unknown key `modul`\n    3 | modul = \"/x\"\n      | ^~~~~ did you mean `module`?"
    );
}

#[test]
fn an_unknown_backend_is_an_error() {
    let shown = error("[keystore.hsm]\nbackend = \"memory\"\n");
    assert!(
        shown.starts_with("assertd.toml:2:11: unknown value `memory`"),
        "{shown}"
    );
}

#[test]
fn a_pin_in_the_file_is_refused() {
    let shown = error("[keystore.hsm]\nbackend = \"pkcs11\"\npin = { value = \"1234\" }\n");
    assert!(shown.contains("a secret is not written here"), "{shown}");
    assert!(!shown.contains("1234"), "{shown}");
}

#[test]
fn what_is_missing_is_named() {
    let head = "[keystore.hsm]\nbackend = \"pkcs11\"\n";
    assert!(error(head).contains("`module` is missing"));
    let head = format!("{head}module = \"/usr/lib/x.so\"\n");
    assert!(error(&head).contains("`token` is missing"));
    let head = format!("{head}token = {{ label = \"a\" }}\n");
    assert!(error(&head).contains("`pin` is missing"));
    assert!(error("").contains("no section [keystore.hsm]"));
}

#[test]
fn a_tpm_needs_nothing_but_its_name() {
    let section = |more: &str| {
        let text = format!("backend = \"tpm\"\n{more}");
        let section: Section = toml::from_str(&text).map_err(|error| error.to_string())?;
        section.check().map_err(|mistake| mistake.to_string())
    };
    for more in [
        "",
        "tcti = \"device:/dev/tpm0\"\n",
        "tcti = \"swtpm:host=127.0.0.1,port=2321\"\nsessions = \"encrypted\"\n",
        "auth = { credential = \"tpm.auth\" }\nhang_limit_s = 90\n",
        "auth = { file = \"/etc/assertd/tpm.auth\" }\nsessions = \"password\"\n",
    ] {
        assert_eq!(section(more), Ok(()), "{more}");
    }
    for (more, part) in [
        ("module = \"/usr/lib/x.so\"\n", "`module` is for backend"),
        ("pin = { credential = \"x.pin\" }\n", "a TPM has `auth`"),
        ("network = true\n", "`network` is for backend"),
        ("signers = 2\n", "`signers` is for backend"),
        ("auth = { credential = \"a/b\" }\n", "`auth` takes the name"),
        ("auth = { file = \"a\" }\n", "`auth` takes an absolute path"),
        ("tcti = \"tabrmd:\"\n", "`tcti`"),
        ("hang_limit_s = 0\n", "`hang_limit_s`"),
    ] {
        let error = section(more).unwrap_err();
        assert!(error.contains(part), "{more}: {error}");
    }
    assert!(
        error("[keystore.hsm]\nbackend = \"tpm\"\nsession = \"password\"\n")
            .contains("did you mean `sessions`?")
    );
    assert!(error("[keystore.hsm]\nbackend = \"tpm2\"\n").contains("did you mean `tpm`?"));
}

#[test]
fn what_is_a_tpms_is_not_for_a_module() {
    let base = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/usr/lib/x.so\"\n\
                token = { label = \"a\" }\npin = { file = \"/p\" }\n";
    for more in [
        "tcti = \"device:/dev/tpm0\"",
        "auth = { file = \"/p\" }",
        "sessions = \"password\"",
    ] {
        let shown = error(&format!("{base}{more}\n"));
        assert!(shown.contains("is for backend = \"tpm\" alone"), "{shown}");
    }
}

#[test]
fn module_state_is_never_the_whole_machine() {
    let base = "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"/usr/lib/x.so\"\n\
                token = { label = \"a\" }\npin = { file = \"/p\" }\n";
    for path in ["", "/", "tokens", "/tmp/..", "//", "/."] {
        let shown = error(&format!(
            "{base}module_state = [\"/srv/tokens\", \"{path}\"]\n"
        ));
        assert!(shown.contains("`module_state`"), "{path}: {shown}");
    }
    let section = toml::from_str::<Section>(
        "backend = \"pkcs11\"\nmodule = \"/usr/lib/x.so\"\ntoken = { label = \"a\" }\n\
         pin = { file = \"/p\" }\nmodule_state = [\"/srv/tokens\"]\nnetwork = true\n",
    );
    assert_eq!(section.unwrap().check(), Ok(()));
}

#[test]
fn nothing_but_a_file_is_read_and_nobody_waits_for_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, text) in [
        (pipe.as_path(), "is a pipe or a device"),
        (Path::new("/dev/zero"), "is a pipe or a device"),
        (dir.path(), "is a directory"),
    ] {
        let refused = read_text(path).unwrap_err().to_string();
        assert!(refused.contains(text), "{refused}");
    }
}
