//! What init says is to be done next. Words only. No line of it writes where something is: a TPM's
//! secret is nowhere else, and all keys are lost with it.

use super::Sockets;
use super::host;
use super::modules::Reach;
use super::text::{Backend, Keystore, Secret};
use crate::ctl::doctor::access::quoted;
use crate::ctl::out::clean;
use keystore::config::BackendKind;
use std::path::Path;

/// After the host's own assertd is set up. `stale` are units that run with what was there before.
pub fn on_host(keystores: &[Keystore], sockets: Sockets, stale: &[String]) -> Vec<String> {
    let mut next = Vec::new();
    for keystore in keystores {
        next.extend(how_to_give_the_secret(keystore, keystore.kind().user()));
        if let Backend::Pkcs11(token) = &keystore.backend
            && token.reach == Reach::Network
        {
            let service = keystore.kind().unit(&keystore.name, "service");
            next.push(format!(
                "install -D -m 0644 -t /etc/systemd/system/{service}.d \
                 /usr/share/assertd/drop-ins/network-hsm.conf"
            ));
            next.push(
                "    and write the HSM's address into it: its module may talk to no other"
                    .to_owned(),
            );
        }
    }
    if sockets == Sockets::Off {
        let units: Vec<String> = keystores.iter().map(Keystore::socket).collect();
        let all = host::sockets(&units).join(" ");
        next.push(format!("systemctl enable --now {all}"));
    }
    if !stale.is_empty() {
        next.push(format!("systemctl restart {}", stale.join(" ")));
    }
    next.push("assertctl check                    is everything as it must be?".to_owned());
    next.push(
        "/etc/assertd/conf.d/TEAM.toml      say who may ask for what; an example is there"
            .to_owned(),
    );
    next.push("assertctl reload && assertctl config diff".to_owned());
    next.push("assertctl apply                    makes the keys".to_owned());
    next
}

/// For an assertd that somebody starts.
pub fn by_hand(path: &Path, keystores: &[Keystore]) -> Vec<String> {
    let path = path.display();
    let mut next = Vec::new();
    for keystore in keystores {
        next.extend(how_to_give_the_secret(keystore, "root"));
    }
    next.push(format!("a [workload.NAME] in {path}; see assertd.toml(5)"));
    next.push(format!("assertd -c {path}"));
    next.push(format!("assertctl -c {path} apply"));
    next.iter().map(|line| clean(line)).collect()
}

/// A secret that systemd does not keep encrypted is in the clear on disk, so people write it there.
/// One that is there stays.
fn how_to_give_the_secret(keystore: &Keystore, owner: &str) -> Option<String> {
    let Secret::File(path) = &keystore.secret else {
        return None;
    };
    if path.symlink_metadata().is_ok() {
        return None;
    }
    let file = quoted(path);
    Some(match keystore.kind() {
        BackendKind::Pkcs11 => format!(
            "install -m 0400 -o {owner} /dev/stdin {file}    # then type the PIN, Enter, Ctrl-D"
        ),
        BackendKind::Tpm => {
            // Whoever runs it again later gets an error, not another secret: with -C the shell opens
            // no file that is there (POSIX, Shell Command Language §2.7.2).
            let make = format!("(umask 377; set -C; head -c 32 /dev/urandom >{file})");
            format!("{make} && chown {owner} {file}    # once: keys are lost with it")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::init::text::Runs;
    use keystore::config::Tcti;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn tpm(path: &Path) -> Keystore {
        Keystore {
            name: "tpm".into(),
            about: String::new(),
            secret: Secret::File(path.to_owned()),
            runs: Runs::Child("/run/try".into()),
            backend: Backend::Tpm(Tcti::Device("/dev/tpmrm0".into())),
        }
    }

    #[test]
    fn a_tpms_secret_is_made_once_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the tpm.auth");
        let uid = nix::unistd::geteuid().to_string();
        let line = how_to_give_the_secret(&tpm(&path), &uid).unwrap();
        let run = || {
            Command::new("/bin/sh")
                .args(["-c", &line])
                .output()
                .unwrap()
        };
        let made = run();
        assert!(made.status.success(), "{line}: {made:?}");
        let secret = std::fs::read(&path).unwrap();
        assert_eq!(secret.len(), 32);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o400);
        assert!(!run().status.success(), "{line}");
        assert_eq!(std::fs::read(&path).unwrap(), secret);
        // Init leaves out what is done.
        let next = by_hand(Path::new("/run/try/assertd.toml"), &[tpm(&path)]);
        assert!(
            next.iter().all(|line| !line.contains("urandom")),
            "{next:?}"
        );
    }
}
