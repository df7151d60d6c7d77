//! What init says is to be done next. Words only.

use super::Sockets;
use super::host;
use super::modules::Reach;
use super::text::{Backend, Keystore, Secret};
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
fn how_to_give_the_secret(keystore: &Keystore, owner: &str) -> Option<String> {
    let Secret::File(path) = &keystore.secret else {
        return None;
    };
    let install = format!("install -m 0400 -o {owner} /dev/stdin {}", path.display());
    Some(match keystore.kind() {
        BackendKind::Pkcs11 => format!("{install}    # then type the PIN, Enter, Ctrl-D"),
        BackendKind::Tpm => {
            format!("head -c 32 /dev/urandom | {install}    # once: keys are lost with it")
        }
    })
}
