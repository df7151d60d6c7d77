//! `assertctl approve`: how a state comes to be approved, from the request to the file that the keystore reads.
//! The approver is openssl, in a directory of theirs; no TPM is asked, since `--pcr` gives every value.

use harness::programs::Programs;
use keystore::evidence::healthy::{Approval, Authority, Generation};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A host with its configuration, and an approver who has the request and nothing else.
struct Desk {
    host: TempDir,
    approver: TempDir,
    programs: Programs,
}

#[track_caller]
fn done(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn value(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            host: tempfile::tempdir().unwrap(),
            approver: tempfile::tempdir().unwrap(),
            programs: Programs::installed(),
        };
        let curve = "ec_paramgen_curve:P-256";
        let generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", curve];
        desk.openssl(&[&generate[..], &["-out", "approver.key"]].concat());
        desk.openssl(&[
            "pkey",
            "-in",
            "approver.key",
            "-pubout",
            "-out",
            "approver.pem",
        ]);
        fs::copy(
            desk.of_approver("approver.pem"),
            desk.of_host("approver.pem"),
        )
        .unwrap();
        desk.configure(1);
        desk
    }

    fn configure(&self, generation: u32) {
        let dir = self.host.path().display();
        let text = format!(
            "[server]\nruntime_dir = \"{dir}/run\"\nstate_dir = \"{dir}/state\"\n\
             [keystore.tpm]\nbackend = \"tpm\"\nauth = {{ credential = \"tpm.auth\" }}\n\
             healthy = {{ pcrs = [7], authority = \"{dir}/approver.pem\", \
             approvals = \"{dir}/approvals\", generation = {generation} }}\n"
        );
        fs::write(self.of_host("assertd.toml"), text).unwrap();
    }

    fn of_host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn of_approver(&self, name: &str) -> PathBuf {
        self.approver.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        done(
            command
                .args(arguments)
                .current_dir(self.approver.path())
                .output()
                .unwrap(),
        );
    }

    /// On the host, with this umask.
    fn run(&self, umask: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &format!("umask {umask}; exec \"$0\" -c assertd.toml \"$@\""),
        ]);
        command.arg(self.programs.assertctl()).args(arguments);
        command.current_dir(self.host.path()).env_clear();
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Where the approver is: there is no configuration.
    fn bytes(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.assertctl());
        command.args(["approve", "bytes"]).args(arguments);
        command.current_dir(self.approver.path()).env_clear();
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn request(&self, file: &str, byte: u8) -> String {
        let pcr = format!("7={}", value(byte));
        done(self.run("022", &["approve", "request", "--pcr", &pcr, "-o", file]))
    }

    /// Carries a request to the approver, who signs what it says, and the signature back.
    fn sign(&self, file: &str) {
        fs::copy(self.of_host(file), self.of_approver(file)).unwrap();
        let (tbs, sig) = (format!("{file}.tbs"), format!("{file}.sig"));
        done(self.bytes(&[file, "-o", &tbs]));
        self.openssl(&[
            "dgst",
            "-sha256",
            "-sign",
            "approver.key",
            "-out",
            &sig,
            &tbs,
        ]);
        fs::copy(self.of_approver(&sig), self.of_host(&sig)).unwrap();
    }

    fn approve(&self, umask: &str, file: &str, byte: u8) -> Output {
        self.request(file, byte);
        self.sign(file);
        self.run(umask, &["approve", "finish", file, &format!("{file}.sig")])
    }

    fn authority(&self) -> Authority {
        Authority::from_pem(&fs::read_to_string(self.of_host("approver.pem")).unwrap()).unwrap()
    }

    fn approvals(&self) -> Vec<Approval> {
        let entries = fs::read_dir(self.of_host("approvals")).unwrap();
        let approvals = entries.map(|entry| {
            let path = entry.unwrap().path();
            assert_eq!(path.extension().unwrap(), "json", "{}", path.display());
            let approval = Approval::parse(&fs::read(path).unwrap()).unwrap();
            approval.check(&self.authority()).unwrap();
            approval
        });
        approvals.collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_signed_is_made_of_the_values_that_are_shown_where_it_is_signed() {
    let desk = Desk::new();
    let said = desk.request("today.json", 7);
    assert!(
        !desk.of_host("today.json.tbs").exists(),
        "who signs makes it"
    );
    for command in [
        "assertctl approve bytes today.json -o today.json.tbs",
        "openssl dgst -sha256 -sign KEY -out today.json.sig today.json.tbs",
        "assertctl approve finish today.json today.json.sig",
    ] {
        assert!(said.contains(command), "{command}: {said}");
    }
    // Whoever carries it has put beside it what would free all keys from every state: no policy at all.
    let nothing = [[0; 32], Generation(1).reference()].concat();
    fs::write(desk.of_approver("today.json.tbs"), &nothing).unwrap();
    fs::copy(desk.of_host("today.json"), desk.of_approver("today.json")).unwrap();
    let shown = [
        "today.json",
        "-o",
        "today.json.tbs",
        "--authority",
        "approver.pem",
    ];
    let said = done(desk.bytes(&shown));
    let authority = desk.authority();
    for line in [
        format!("authority {authority}"),
        format!("PCR 7 {}", value(7)),
        "generation 1".to_owned(),
    ] {
        assert!(said.lines().any(|it| it == line), "{line}: {said}");
    }
    let draft = Approval::parse(&fs::read(desk.of_approver("today.json")).unwrap()).unwrap();
    assert_eq!(draft.pcrs.to_string(), format!("7={}", value(7)));
    let bytes = fs::read(desk.of_approver("today.json.tbs")).unwrap();
    assert_eq!(bytes, draft.to_be_signed());
    let sign = ["dgst", "-sha256", "-sign", "approver.key", "-out", "sig"];
    desk.openssl(&[&sign[..], &["today.json.tbs"]].concat());
    let signature = fs::read(desk.of_approver("sig")).unwrap();
    assert!(draft.signed(&signature, &authority).is_ok());
}

#[test]
fn the_bytes_are_of_a_request_or_there_are_none() {
    let desk = Desk::new();
    let name = format!("authority {}\n", desk.authority());
    assert_eq!(done(desk.bytes(&["--authority", "approver.pem"])), name);
    fs::write(desk.of_approver("x.json"), "{}").unwrap();
    for (arguments, word) in [
        (["x.json", "-o", "x.tbs"], "is no approval"),
        (["gone.json", "-o", "x.tbs"], "gone.json: cannot be read"),
        (
            ["x.json", "--authority", "x.json"],
            "has no P-256 public key",
        ),
    ] {
        let refused = desk.bytes(&arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{said}");
    }
    assert!(!desk.of_approver("x.tbs").exists());
    let json = done(desk.bytes(&["--json", "--authority", "approver.pem"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["authority"], desk.authority().to_string());
}

#[test]
fn what_is_approved_replaces_nothing_and_the_keystores_user_can_read_it() {
    let desk = Desk::new();
    let first = desk.approve("077", "web.1", 1);
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    done(first);
    assert!(said.contains("approvals was not there"), "{said}");
    let approvals = desk.of_host("approvals");
    assert_eq!(mode(&approvals), 0o755);
    for entry in fs::read_dir(&approvals).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o644);
    }
    // Whatever the request is called, and whichever generation it is of.
    let again = desk.approve("022", "web.1", 2);
    assert_eq!(String::from_utf8_lossy(&again.stderr), "");
    done(again);
    desk.configure(2);
    done(desk.approve("022", "web.1", 1));
    let states = |desk: &Desk| {
        let approvals = desk.approvals();
        let mut states: Vec<(u32, String)> = approvals
            .iter()
            .map(|it| (it.generation.0, it.pcrs.to_string()))
            .collect();
        states.sort();
        states
    };
    let all = [(1, 1), (1, 2), (2, 1)]
        .map(|(generation, byte)| (generation, format!("7={}", value(byte))));
    assert_eq!(states(&desk), all);
    // The same once more is one.
    done(desk.approve("022", "web.2", 1));
    assert_eq!(states(&desk), all);
}
