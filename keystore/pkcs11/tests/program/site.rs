//! A token, a configuration, and the program running with both.

use keystore::client::Client;
use keystore::protocol::{Health, Reply, Request};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub const DEADLINE: Duration = Duration::from_secs(10);

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assertd-keystore-pkcs11"));
    command.env_remove("SOFTHSM2_CONF");
    command
}

pub fn write(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A user who is not root.
pub const NOBODY: u32 = 65534;

pub const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token "t" with PIN 123456 in `dir`, and a configuration that says `pin`.
pub fn prepare(dir: &Path, pin: &str) {
    prepare_with(dir, pin, Path::new(SOFTHSM));
}

pub fn prepare_with(dir: &Path, pin: &str, module: &Path) {
    let module = module.display();
    let dir_shown = dir.display();
    std::fs::create_dir(dir.join("tokens")).unwrap();
    write(
        &dir.join("softhsm2.conf"),
        &format!("directories.tokendir = {dir_shown}/tokens\nobjectstore.backend = file\n"),
    );
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "t",
            "--pin",
            "123456",
            "--so-pin",
            "87654321",
        ])
        .env("SOFTHSM2_CONF", dir.join("softhsm2.conf"))
        .stdout(Stdio::null())
        .status()
        .expect("softhsm2-util is installed by `make setup`");
    assert!(made.success());
    write(&dir.join("pin"), pin);
    write(
        &dir.join("assertd.toml"),
        &format!(
            "[keystore.hsm]\nbackend = \"pkcs11\"\nmodule = \"{module}\"\n\
             token = {{ label = \"t\" }}\npin = {{ file = \"{dir_shown}/pin\" }}\n\
             environment = {{ SOFTHSM2_CONF = \"{dir_shown}/softhsm2.conf\" }}\n\
             module_state = [\"{dir_shown}\"]\n"
        ),
    );
}

/// A running keystore that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn start(dir: &Path) -> Running {
    start_as(nix::unistd::geteuid().as_raw(), dir)
}

pub fn start_as(user: u32, dir: &Path) -> Running {
    start_told(user, dir, &[])
}

/// With variables of a service manager.
pub fn start_told(user: u32, dir: &Path, told: &[(&str, &str)]) -> Running {
    let socket = dir.join("socket");
    let _ = std::fs::remove_file(&socket); // an earlier one's
    let listener = UnixListener::bind(socket).unwrap();
    let mut command = program();
    if user != nix::unistd::geteuid().as_raw() {
        // The clone may be in a home that is nobody else's.
        let copy = dir.join("assertd-keystore-pkcs11");
        std::fs::copy(command.get_program(), &copy).unwrap();
        command = Command::new(copy);
        command.env_remove("SOFTHSM2_CONF").uid(user).gid(user);
    }
    // Without the shim as its module nobody reads these.
    command
        .env("P11SHIM_REAL", SOFTHSM)
        .env("P11SHIM_COUNTS", dir.join("counts"))
        .env("P11SHIM_RULES", dir.join("rules"))
        .envs(told.iter().copied());
    let child = command
        .args(["--name", "hsm", "--listen-stdin", "--config"])
        .arg(dir.join("assertd.toml"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .stdin(OwnedFd::from(listener))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Running(child)
}

pub fn health(dir: &Path) -> Health {
    let mut client = Client::connect(&dir.join("socket"), DEADLINE).unwrap();
    match client.call(&Request::Health {}).unwrap() {
        Reply::Health(health) => health,
        other => panic!("{other:?}"),
    }
}

pub fn run(arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}
