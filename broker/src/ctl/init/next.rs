//! What init says is to be done next. Words only.

use super::Sockets;
use super::host::{self, KEYSTORE_USER};
use super::modules::Reach;
use super::text::{Keystore, Pin};
use crate::ctl::out::clean;
use std::path::Path;

/// After the host's own assertd is set up.
pub fn on_host(keystore: &Keystore, sockets: Sockets) -> Vec<String> {
    let name = &keystore.name;
    let mut next = Vec::new();
    if let Some(line) = how_to_give_the_pin(&keystore.pin, KEYSTORE_USER) {
        next.push(line);
    }
    if keystore.reach == Reach::Network {
        next.push(format!(
            "install -D -m 0644 -t /etc/systemd/system/assertd-keystore-pkcs11@{name}.service.d \
             /usr/share/assertd/drop-ins/network-hsm.conf"
        ));
        next.push(
            "    and write the HSM's address into it: its module may talk to no other".to_owned(),
        );
    }
    if sockets == Sockets::Off {
        next.push(format!(
            "systemctl enable --now {}",
            host::sockets(name).join(" ")
        ));
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
pub fn by_hand(path: &Path, keystore: &Keystore) -> Vec<String> {
    let path = path.display();
    let mut next = Vec::new();
    if let Some(line) = how_to_give_the_pin(&keystore.pin, "root") {
        next.push(line);
    }
    next.push(format!("a [workload.NAME] in {path}; see assertd.toml(5)"));
    next.push(format!("assertd -c {path}"));
    next.push(format!("assertctl -c {path} apply"));
    next.iter().map(|line| clean(line)).collect()
}

/// A PIN that systemd does not keep encrypted is in the clear on disk, so people write it there.
fn how_to_give_the_pin(pin: &Pin, owner: &str) -> Option<String> {
    match pin {
        Pin::Credential(..) => None,
        Pin::File(path) => Some(format!(
            "install -m 0400 -o {owner} /dev/stdin {}    # then type the PIN, Enter, Ctrl-D",
            path.display()
        )),
    }
}
