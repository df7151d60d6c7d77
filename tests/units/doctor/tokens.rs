//! The module, the directories it writes to, the token it is to open, the keys in it.
//! Each is planted, found with its remedy, and gone once the remedy is done.

use super::fault::{Fault, Mend};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "the module's directory can be written by others",
        plant: "dir=$(dirname $(sed -n 's/^module = \"\\(.*\\)\"/\\1/p' /etc/assertd/assertd.toml))
                chmod o+w $dir",
        id: "D17",
        severity: "fail",
        phrase: "chmod go-w /usr/lib/",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the module is missing",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^module = .*|module = \"/usr/lib/no-such-module.so\"|' \
                  /etc/assertd/assertd.toml",
        id: "D16",
        severity: "fail",
        phrase: "correct `module` in [keystore.hsm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "a directory that the module writes to is missing",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i '/^socket = /a module_state = [\"/srv/tokens\"]' /etc/assertd/assertd.toml",
        id: "D18",
        severity: "fail",
        phrase: "install -d -o assertd-pkcs11 -g assertd-pkcs11 -m 0700 /srv/tokens",
        mend: Mend::Remedy,
        restore: "rm -rf /srv/tokens; cp -p /tmp/good.toml /etc/assertd/assertd.toml",
    },
    Fault {
        name: "its unit lets nothing be written where the module writes",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i '/^socket = /a module_state = [\"/srv/tokens\"]' /etc/assertd/assertd.toml
                install -d -o assertd-pkcs11 -g assertd-pkcs11 -m 0700 /srv/tokens",
        id: "D19",
        severity: "fail",
        phrase: "write `ReadWritePaths=/srv/tokens` and `NoExecPaths=/srv/tokens` below [Service]",
        mend: Mend::Person(
            "mkdir -p /etc/systemd/system/assertd-keystore-pkcs11@hsm.service.d
             printf '[Service]\\nReadWritePaths=/srv/tokens\\nNoExecPaths=/srv/tokens\\n' \
               > /etc/systemd/system/assertd-keystore-pkcs11@hsm.service.d/doctor.conf
             systemctl daemon-reload; systemctl restart assertd-keystore-pkcs11@hsm",
        ),
        restore: "rm -r /etc/systemd/system/assertd-keystore-pkcs11@hsm.service.d /srv/tokens
                  cp -p /tmp/good.toml /etc/assertd/assertd.toml; systemctl daemon-reload
                  systemctl restart assertd-keystore-pkcs11@hsm",
    },
    Fault {
        name: "two tokens have the label",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                ls /var/lib/assertd-keystore/hsm/tokens > /tmp/tokens
                setpriv --reuid=assertd-pkcs11 --regid=assertd-pkcs11 --init-groups \
                  env SOFTHSM2_CONF=/etc/assertd/softhsm2.conf softhsm2-util --init-token --free \
                  --label TOKEN --pin 55555555 --so-pin 66666666
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D74",
        severity: "fail",
        phrase: "write `token = { label = \"workloads\", serial = \"",
        // The serial is the end of the name of the token's directory.
        mend: Mend::WriteThenRemedy(
            "serial=$(tail -c 17 /tmp/tokens | tr -d -- '-\\n')
             sed -i \"s|^token = .*|token = { label = \\\"TOKEN\\\", serial = \\\"$serial\\\" }|\" \
               /etc/assertd/assertd.toml",
        ),
        restore: "cd /var/lib/assertd-keystore/hsm/tokens
                  for token in *; do grep -qx $token /tmp/tokens || rm -r $token; done
                  cp -p /tmp/good.toml /etc/assertd/assertd.toml
                  systemctl restart assertd-keystore-pkcs11@hsm assertd",
    },
    Fault {
        name: "no token has the label",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^token = .*|token = { label = \"typo\" }|' /etc/assertd/assertd.toml
                systemctl restart assertd-keystore-pkcs11@hsm assertd",
        id: "D75",
        severity: "fail",
        phrase: "correct `token` in [keystore.hsm]",
        mend: Mend::Person(
            "cp -p /tmp/good.toml /etc/assertd/assertd.toml
             systemctl restart assertd-keystore-pkcs11@hsm assertd",
        ),
        restore: "",
    },
    Fault {
        name: "a key is not made",
        plant: "cp -p /etc/assertd/conf.d/payments.toml /tmp/payments.toml
                sed 's/target.bank/target.doctor/; /^match/d; /^.workload.payments.$/d' \
                  /tmp/payments.toml >> /etc/assertd/conf.d/payments.toml
                assertctl reload",
        id: "D80",
        severity: "fail",
        phrase: "assertctl apply",
        mend: Mend::Remedy,
        restore: "cp -p /tmp/payments.toml /etc/assertd/conf.d/payments.toml; assertctl reload",
    },
];
