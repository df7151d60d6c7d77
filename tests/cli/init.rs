//! `assertctl init` for an assertd that somebody starts by hand: what it finds, what it writes, and
//! that assertd runs with it. The host's own setup is tried under a systemd, in tests/units.

use harness::process::Process;
use harness::programs::Programs;
use harness::softhsm::MODULE;
use harness::swtpm::{Device, Swtpm};
use harness::{SoftHsm, public_dir};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory for a configuration, a token, and the programs.
struct Place {
    dir: TempDir,
    token: SoftHsm,
    programs: Programs,
}

impl Place {
    fn new() -> Place {
        harness::user::need_root();
        Place {
            dir: public_dir(),
            token: SoftHsm::labelled("a \"try\""),
            programs: Programs::installed(),
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("assertd.toml")
    }

    fn assertctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.programs.assertctl());
        command.arg("-c").arg(self.config()).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// `init` with this module and these variables beside the token's own.
    fn init(&self, module: &Path, variables: &[String], words: &[&str]) -> Output {
        let conf = format!("SOFTHSM2_CONF={}", self.token.conf().display());
        let mut all = vec!["init", "--module", module.to_str().unwrap()];
        for variable in variables.iter().chain([&conf]) {
            all.extend(["--environment", variable]);
        }
        self.assertctl(&[&all, words].concat())
    }
}

#[track_caller]
fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_it_writes_is_what_assertd_runs_with() {
    let place = Place::new();
    let (said, _) = ended(&place.init(Path::new(MODULE), &[], &["--yes"]), 0);
    assert!(said.contains("\"a \"try\"\""), "{said}");
    assert_eq!(names(place.dir.path()), ["assertd.toml"]);
    let mode = fs::metadata(place.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    ended(&place.assertctl(&["config", "check"]), 0);
    // And what an editor knows, which is told where to look.
    let text = fs::read_to_string(place.config()).unwrap();
    assert!(
        text.starts_with("#:schema /usr/share/assertd/assertd.schema.json\n"),
        "{text}"
    );
    crate::schema::takes(&[("init".to_owned(), text)]);

    // What it says is next: the PIN, a workload, assertd.
    let mut pin = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(place.dir.path().join("hsm.pin"))
        .unwrap();
    pin.write_all(place.token.pin().as_bytes()).unwrap();
    works(&place);
}

/// assertd runs with what was written, and a workload gets an assertion.
fn works(place: &Place) {
    fs::create_dir(place.dir.path().join("conf.d")).unwrap();
    let workload = "[workload.w]\nmatch = { uid = 0 }\n[workload.w.target.bank]\n\
                    profile = \"rfc7523\"\nauthorization_server = \"https://as.example\"\n\
                    client_id = \"w\"\n";
    fs::write(place.dir.path().join("conf.d/w.toml"), workload).unwrap();
    let mut assertd = Command::new(place.programs.assertd());
    let assertd = Process::start(assertd.arg("-c").arg(place.config()));
    assertd.wait_for_stderr("assertd: ready");
    ended(&place.assertctl(&["apply"]), 0);
    let (assertion, _) = ended(&place.assertctl(&["assertion", "--target", "bank"]), 0);
    assert_eq!(assertion.trim_end().split('.').count(), 3, "{assertion}");
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let place = Place::new();
    ended(&place.init(Path::new(MODULE), &[], &["--yes"]), 0);
    let written = fs::read(place.config()).unwrap();
    let (said, _) = ended(&place.init(Path::new(MODULE), &[], &["--yes"]), 0);
    assert!(said.contains("nothing to write"), "{said}");
    assert_eq!(fs::read(place.config()).unwrap(), written);

    let (_, said) = ended(&place.assertctl(&["init", "--yes", "--token", "other"]), 1);
    assert!(said.contains("is for another token than `other`"), "{said}");
    fs::write(place.config(), "[keystore.hsm\n").unwrap();
    let (_, said) = ended(&place.assertctl(&["init", "--yes"]), 78);
    assert!(said.contains("assertd.toml:1:"), "{said}");
    assert_eq!(fs::read(place.config()).unwrap(), b"[keystore.hsm\n");
}

#[test]
fn a_program_reads_what_was_done() {
    let place = Place::new();
    let output = place.init(
        Path::new(MODULE),
        &[],
        &["--yes", "--json", "--name", "edge"],
    );
    let report: Value = serde_json::from_str(&ended(&output, 0).0).unwrap();
    assert_eq!(report["keystore"], "edge");
    assert_eq!(report["written"][0], place.config().to_str().unwrap());
    assert_eq!(report["sockets"], "off");
    let (_, said) = ended(&place.init(Path::new(MODULE), &[], &["--json"]), 1);
    assert!(said.contains("say --yes"), "{said}");
}

#[test]
fn a_module_that_crashes_costs_one_line_and_nothing_is_written() {
    let place = Place::new();
    let (variables, shim) = shimmed(&place, "C_GetSlotList 1 abort\n");
    let (_, said) = ended(&place.init(&shim, &variables, &["--yes"]), 69);
    let shim = shim.display();
    assert!(
        said.contains(&format!("{shim}")) && said.contains("crashed (SIGABRT)"),
        "{said}"
    );
    assert!(said.contains("softhsm2-util --init-token"), "{said}");
    assert!(!place.config().exists());
}

#[test]
fn a_pin_that_the_next_mistake_locks_is_not_offered() {
    // CKF_USER_PIN_FINAL_TRY and CKF_USER_PIN_LOCKED (PKCS#11 v3.1, CK_TOKEN_INFO).
    for (flag, reason) in [
        ("0x20000", "one try left, which is not spent here"),
        (
            "0x40000",
            "the user PIN is locked; unlock it with the SO PIN",
        ),
    ] {
        let place = Place::new();
        let rules = format!("C_GetTokenInfo * flags:{flag}\n");
        let (variables, shim) = shimmed(&place, &rules);
        let (_, said) = ended(&place.init(&shim, &variables, &["--yes"]), 69);
        assert!(said.contains(reason), "{said}");
        assert!(!place.config().exists());
    }
}

#[test]
fn looking_sends_no_pin() {
    // Whoever opened a session or logged in would die of it.
    let place = Place::new();
    let (variables, shim) = shimmed(&place, "C_OpenSession * abort\nC_Login * abort\n");
    ended(&place.init(&shim, &variables, &["--yes"]), 0);
    let place = Place::new();
    let (variables, shim) = shimmed(&place, "C_GetTokenInfo * abort\n"); // which looking does
    ended(&place.init(&shim, &variables, &["--yes"]), 69);
}

#[test]
fn a_module_that_is_only_looked_at_can_write_start_and_reach_nothing() {
    let place = Place::new();
    let at = |name: &str| place.dir.path().join(name);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let orders = format!(
        "write {}\nexec {}\ntcp {}",
        at("written").display(),
        at("program").display(),
        listener.local_addr().unwrap()
    );
    fs::write(at("orders"), orders).unwrap();
    let mut program = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(at("program"))
        .unwrap();
    write!(program, "#!/bin/sh\ntouch {}\n", at("started").display()).unwrap();
    drop(program);
    let (mut variables, shim) = shimmed(&place, "C_GetSlotList 1 probe\n");
    variables.push(format!("P11SHIM_PROBE={}", at("orders").display()));
    variables.push(format!("P11SHIM_REPORT={}", at("report").display()));
    // Having tried it all, the module cannot even write its report, and dies of that.
    let (_, said) = ended(&place.init(&shim, &variables, &["--yes"]), 69);
    assert!(said.contains("crashed (SIGABRT)"), "{said}");
    for name in ["written", "started", "report"] {
        assert!(!at(name).exists(), "{name} is there");
    }
    let reached = listener.accept().map(drop);
    assert_eq!(reached.unwrap_err().kind(), ErrorKind::WouldBlock);

    // The same module in a process that is not closed in does all of it.
    let mut tool = Command::new("pkcs11-tool");
    tool.arg("--module").arg(&shim).arg("--list-slots");
    tool.env("SOFTHSM2_CONF", place.token.conf());
    tool.envs(variables.iter().filter_map(|pair| pair.split_once('=')));
    let listed = tool.output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    for name in ["written", "started", "report"] {
        assert!(at(name).exists(), "{name} is not there");
    }
    listener.accept().unwrap();
}

#[test]
fn two_tokens_of_one_label_are_told_apart_by_their_serial_numbers() {
    let place = Place::new();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", place.token.label()])
        .args(["--pin", "1234", "--so-pin", "87654321"])
        .env("SOFTHSM2_CONF", place.token.conf())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let module = Path::new(MODULE);
    let (out, said) = ended(&place.init(module, &[], &["--yes"]), 1);
    assert!(said.contains("2 tokens could be used"), "{said}");
    let serial = out
        .split_whitespace()
        .skip_while(|word| *word != "serial")
        .nth(1)
        .unwrap();
    ended(&place.init(module, &[], &["--yes", "--token", serial]), 0);
    let text = fs::read_to_string(place.config()).unwrap();
    let selector = format!("{{ label = \"a \\\"try\\\"\", serial = \"{serial}\" }}");
    assert!(text.contains(&selector), "{text}");
    ended(&place.assertctl(&["config", "check"]), 0);
}

#[test]
fn a_tpm_is_set_up_as_a_token_is_and_its_secret_is_made_by_what_it_says() {
    let place = Place::new();
    let swtpm = Swtpm::start(place.dir.path());
    let tcti = swtpm.tcti().to_string();
    let (said, _) = ended(&place.assertctl(&["init", "--yes", "--tcti", &tcti]), 0);
    let text = fs::read_to_string(place.config()).unwrap();
    assert!(
        text.contains("an emulator, which protects nothing"),
        "{text}"
    );
    let make = said.lines().find(|line| line.contains("urandom")).unwrap();
    let made = Command::new("/bin/sh")
        .args(["-euc", make])
        .status()
        .unwrap();
    assert!(made.success(), "{make}");
    let secret = place.dir.path().join("tpm.auth");
    let metadata = fs::metadata(&secret).unwrap();
    assert_eq!(metadata.len(), 32);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o400);
    works(&place);

    // Keys depend on it now: init again, with the configuration away, makes no other.
    fs::rename(place.config(), place.dir.path().join("away.toml")).unwrap();
    let (said, _) = ended(&place.assertctl(&["init", "--yes", "--tcti", &tcti]), 0);
    assert!(!said.contains("urandom"), "{said}");
    fs::rename(&secret, place.dir.path().join("away.auth")).unwrap();
    let refused = |place: &Place| {
        let (out, why) = ended(&place.assertctl(&["init", "--yes", "--tcti", &tcti]), 1);
        assert!(!out.contains("urandom"), "{out}");
        assert!(why.contains("Bring it back from a backup"), "{why}");
    };
    refused(&place);
    fs::remove_file(place.config()).unwrap();
    refused(&place);
    assert!(!place.config().exists());
}

#[test]
fn a_token_and_a_tpm_are_two_keystores() {
    let place = Place::new();
    let device = Device::start(place.dir.path());
    let tcti = device.tcti().to_string();
    let wishes = ["--yes", "--json", "--tcti", &tcti];
    let output = place.init(Path::new(MODULE), &[], &wishes);
    let report: Value = serde_json::from_str(&ended(&output, 0).0).unwrap();
    assert_eq!(report["keystores"], serde_json::json!(["hsm", "tpm"]));
    ended(&place.assertctl(&["config", "check"]), 0);
    let text = fs::read_to_string(place.config()).unwrap();
    assert!(text.contains("does not show as a TPM 2.0"), "{text}");

    let other = place.assertctl(&["init", "--yes", "--tcti", "device:/dev/tpmrm7"]);
    let (_, said) = ended(&other, 1);
    let lines = "[keystore.tpm]\nbackend = \"tpm\"\ntcti    = \"device:/dev/tpmrm7\"\n";
    assert!(said.contains(lines), "{said}");
    let twice = ["--yes", "--name", "tpm", "--tcti", &tcti];
    fs::remove_file(place.config()).unwrap();
    let (_, said) = ended(&place.init(Path::new(MODULE), &[], &twice), 1);
    assert!(said.contains("give the token another --name"), "{said}");
    assert!(!place.config().exists());
}

#[test]
fn without_a_tpm_it_says_why_and_what_is_no_tpm_is_refused() {
    let place = Place::new();
    let refused = |tcti: &str| {
        let (_, said) = ended(&place.assertctl(&["init", "--yes", "--tcti", tcti]), 69);
        assert!(said.contains("no TPM that could be used: "), "{said}");
        assert!(!place.config().exists());
        said
    };
    let said = refused("device:/dev/tpm-that-is-not-there");
    assert!(
        said.contains("/dev/tpm-that-is-not-there is not there"),
        "{said}"
    );
    assert!(refused("device:/etc/passwd").contains("is no character device"));
}

/// The module that misbehaves so, and the variables that it needs.
fn shimmed(place: &Place, rules: &str) -> (Vec<String>, PathBuf) {
    let path = place.dir.path().join("rules");
    fs::write(&path, rules).unwrap();
    let variables = vec![
        format!("P11SHIM_REAL={MODULE}"),
        format!("P11SHIM_RULES={}", path.display()),
    ];
    (variables, pkcs11_shim::module_path())
}
