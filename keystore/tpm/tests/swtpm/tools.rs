//! tpm2-tools and openssl: another program's view of the TPM, and what others do with it.

use crate::world::World;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

impl World {
    /// Runs a program on this TPM, in the test's directory.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("TPM2TOOLS_TCTI", self.swtpm.tcti().to_string())
            .env("TPM2OPENSSL_TCTI", self.swtpm.tcti().to_string())
            .env("TSS2_LOG", "all+NONE")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}, from `make setup`: {error}"))
    }

    /// Runs one that must succeed; its standard output.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {shown}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The public key of one of our key files, as tpm2-openssl reads it. That loads the key and wants
    /// a passphrase before it knows that none is needed.
    pub fn public_pem(&self, key_file: &str) -> String {
        let mut arguments = vec!["pkey", "-provider", "tpm2", "-provider", "default"];
        arguments.extend(["-propquery", "?provider=tpm2", "-pubout"]);
        arguments.extend(["-passin", "pass:any", "-in", key_file]);
        self.tool("openssl", &arguments)
    }

    /// A number that the TPM shows of itself.
    pub fn property(&self, name: &str) -> u32 {
        let shown = self.tool("tpm2_getcap", &["properties-variable"]);
        let line = shown
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name}: {shown}"));
        let value = value.trim_start_matches(':').trim();
        match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => value.parse().unwrap(),
        }
    }

    /// How many handles of a kind are in use: `transient`, `loaded-session`, `persistent`.
    pub fn handles(&self, kind: &str) -> usize {
        let shown = self.tool("tpm2_getcap", &[&format!("handles-{kind}")]);
        shown.lines().filter(|line| line.contains("0x")).count()
    }
}

/// The bytes of a file in the test's directory.
pub fn read(world: &World, name: &str) -> Vec<u8> {
    let path: &Path = world.dir.path();
    std::fs::read(path.join(name)).unwrap()
}

/// A file in the test's directory that is not there yet, or replaced.
pub fn write(world: &World, name: &str, bytes: &[u8]) {
    let path = world.dir.path().join(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).open(path);
    file.unwrap().write_all(bytes).unwrap();
}
