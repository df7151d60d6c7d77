//! `assertctl check` against planted faults: each is found by its id, with a remedy that says the
//! right thing; and the remedy is done, word for word where it is a command, after which the
//! finding is gone.

use crate::boxed::{Outcome, SysBox};
use crate::installed::{PIN, TOKEN};
use crate::suite::Suite;
use harness::wait_until;
use serde_json::Value;
use std::time::Duration;

/// A keystore opens its token anew, assertd looks at it again, on a machine that is busy.
const SETTLED: Duration = Duration::from_secs(30);

/// What the remedies ask of a person; here the PIN is typed by the test.
const ASK_PIN: &str = "systemd-ask-password -n 'user PIN:'";

/// A fault, how it is found, and how it goes away.
struct Fault {
    name: &'static str,
    /// A script that plants it.
    plant: &'static str,
    id: &'static str,
    severity: &'static str,
    /// What its remedy must say.
    phrase: &'static str,
    mend: Mend,
    /// A script that takes away what the fault and its remedy have left.
    restore: &'static str,
}

enum Mend {
    /// The commands of the remedy, as they stand there.
    Remedy,
    /// What the remedy tells a person to write, by this script; then its commands.
    WriteThenRemedy(&'static str),
    /// This script, where the remedy leaves the choice to a person.
    Person(&'static str),
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "the configuration can be written by others",
        plant: "chmod 0666 /etc/assertd/assertd.toml",
        id: "D14",
        severity: "fail",
        phrase: "chmod go-w /etc/assertd/assertd.toml",
        mend: Mend::Remedy,
        restore: "chmod 0644 /etc/assertd/assertd.toml",
    },
    Fault {
        name: "the drop-ins belong to assertd",
        plant: "chown assertd /etc/assertd/conf.d",
        id: "D14",
        severity: "fail",
        phrase: "chown root /etc/assertd/conf.d",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the configuration cannot be read by assertd",
        plant: "chmod 0600 /etc/assertd/assertd.toml",
        id: "D15",
        severity: "fail",
        phrase: "chown root:assertd /etc/assertd/assertd.toml && chmod 0640",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the configuration has a mistake",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                echo 'modul = \"/m.so\"' >> /etc/assertd/assertd.toml",
        id: "D12",
        severity: "fail",
        phrase: "assertctl config check",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "the PIN's credential is missing",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D20",
        severity: "fail",
        phrase: "--name=hsm.pin - /etc/credstore.encrypted/assertd.hsm.pin",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the keystore has no PIN",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D71",
        severity: "fail",
        phrase: "systemctl restart assertd-keystore-pkcs11@hsm",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the PIN's credential was made for another name",
        plant: "rm /etc/credstore.encrypted/assertd.hsm.pin
                printf 1 | systemd-creds encrypt --name=pin - \
                  /etc/credstore.encrypted/assertd.hsm.pin",
        id: "D21",
        severity: "fail",
        phrase: "--name=hsm.pin - /etc/credstore.encrypted/assertd.hsm.pin",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the PIN is wrong",
        plant: "printf 1111 | systemd-creds encrypt --name=hsm.pin - \
                  /etc/credstore.encrypted/assertd.hsm.pin
                systemctl restart assertd-keystore-pkcs11@hsm",
        id: "D72",
        severity: "fail",
        phrase: "with the right PIN, then run `systemctl restart assertd-keystore-pkcs11@hsm`",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a PIN file can be read by others",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^pin = .*|pin = { file = \"/etc/assertd/pin\" }|' /etc/assertd/assertd.toml
                echo 1 > /etc/assertd/pin; chmod 0644 /etc/assertd/pin",
        id: "D23",
        severity: "fail",
        phrase: "chown assertd-pkcs11 /etc/assertd/pin && chmod 0400 /etc/assertd/pin",
        mend: Mend::Remedy,
        restore: "rm /etc/assertd/pin; cp -p /tmp/good.toml /etc/assertd/assertd.toml",
    },
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
        restore: "",
    },
    Fault {
        name: "its unit lets nothing be written there",
        plant: "true",
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
        name: "a file is where the socket belongs",
        plant: "rm /run/assertd/assertd.sock; touch /run/assertd/assertd.sock",
        id: "D41",
        severity: "fail",
        phrase: "mv /run/assertd/assertd.sock /run/assertd/assertd.sock.aside",
        mend: Mend::Remedy,
        restore: "rm /run/assertd/assertd.sock.aside",
    },
    Fault {
        name: "another process listens where workloads ask",
        plant: "rm /run/assertd/assertd.sock
                systemd-run --quiet --unit=thief \
                  systemd-socket-activate --listen=/run/assertd/assertd.sock /bin/cat
                until [ -S /run/assertd/assertd.sock ]; do sleep 0.02; done",
        id: "D41",
        severity: "fail",
        phrase: "and end it (`kill ",
        mend: Mend::Remedy,
        restore: "systemctl stop thief 2>/dev/null || systemctl reset-failed thief 2>/dev/null || true",
    },
    Fault {
        name: "a socket is gone",
        plant: "rm /run/assertd/admin.sock",
        id: "D40",
        severity: "fail",
        phrase: "systemctl restart assertd-admin.socket",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "workloads may not connect",
        plant: "chmod 0600 /run/assertd/assertd.sock",
        id: "D42",
        severity: "fail",
        phrase: "chmod 0666 /run/assertd/assertd.sock",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "everybody may administer",
        plant: "chmod 0666 /run/assertd/admin.sock",
        id: "D42",
        severity: "fail",
        phrase: "chmod 0600 /run/assertd/admin.sock",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the keystore's user is not in the group",
        plant: "gpasswd --delete assertd-pkcs11 assertd >/dev/null",
        id: "D11",
        severity: "warn",
        phrase: "usermod -aG assertd assertd-pkcs11",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a user is missing",
        plant: "cp -p /etc/passwd /tmp/passwd; cp -p /etc/shadow /tmp/shadow
                sed -i '/^assertd-pkcs11:/d' /etc/passwd /etc/shadow",
        id: "D10",
        severity: "fail",
        phrase: "systemd-sysusers assertd.conf",
        mend: Mend::Remedy,
        restore: "cp -p /tmp/passwd /etc/passwd; cp -p /tmp/shadow /etc/shadow",
    },
    Fault {
        name: "a unit is not installed",
        plant: "mv /usr/lib/systemd/system/assertd-admin.socket /tmp; systemctl daemon-reload",
        id: "D31",
        severity: "fail",
        phrase: "install assertd's package again",
        mend: Mend::Person(
            "mv /tmp/assertd-admin.socket /usr/lib/systemd/system; systemctl daemon-reload",
        ),
        restore: "",
    },
    Fault {
        name: "a socket's unit is masked",
        plant: "systemctl --quiet mask --now assertd-admin.socket",
        id: "D32",
        severity: "fail",
        phrase: "systemctl unmask assertd-admin.socket && systemctl enable --now",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "a keystore's socket is not enabled",
        plant: "systemctl --quiet disable assertd-keystore-pkcs11@hsm.socket",
        id: "D33",
        severity: "fail",
        phrase: "systemctl enable --now assertd-keystore-pkcs11@hsm.socket",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "a socket's unit does not listen",
        plant: "systemctl stop assertd.socket",
        id: "D34",
        severity: "fail",
        phrase: "systemctl restart assertd.socket",
        mend: Mend::Remedy,
        restore: "systemctl start assertd",
    },
    Fault {
        name: "a drop-in hides from assertd who is calling",
        plant: "mkdir -p /etc/systemd/system/assertd.service.d
                printf '[Service]\\nPrivateUsers=yes\\n' \
                  > /etc/systemd/system/assertd.service.d/doctor.conf
                systemctl daemon-reload",
        id: "D35",
        severity: "fail",
        phrase: "remove `PrivateUsers=yes` from /etc/systemd/system/assertd.service.d/doctor.conf",
        mend: Mend::Person(
            "sed -i /PrivateUsers=yes/d /etc/systemd/system/assertd.service.d/doctor.conf
             systemctl daemon-reload; systemctl restart assertd",
        ),
        restore: "rm /etc/systemd/system/assertd.service.d/doctor.conf; systemctl daemon-reload",
    },
    Fault {
        name: "a drop-in takes protection away",
        plant: "mkdir -p /etc/systemd/system/assertd-keystore-pkcs11@.service.d
                printf '[Service]\\nNoNewPrivileges=no\\n' \
                  > /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
                systemctl daemon-reload",
        id: "D36",
        severity: "fail",
        phrase: "remove `NoNewPrivileges=no` from \
                 /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf",
        mend: Mend::Person(
            "sed -i /NoNew/d /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
             systemctl daemon-reload; systemctl restart assertd-keystore-pkcs11@hsm",
        ),
        restore: "rm /etc/systemd/system/assertd-keystore-pkcs11@.service.d/doctor.conf
                  systemctl daemon-reload",
    },
    Fault {
        name: "a drop-in was written and not read",
        plant: "mkdir -p /etc/systemd/system/assertd.service.d
                printf '[Service]\\nNice=1\\n' > /etc/systemd/system/assertd.service.d/doctor.conf",
        id: "D37",
        severity: "warn",
        phrase: "systemctl daemon-reload",
        mend: Mend::Remedy,
        restore: "rm /etc/systemd/system/assertd.service.d/doctor.conf; systemctl daemon-reload",
    },
    Fault {
        name: "a keystore has no unit of its own",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i '/^socket = /d' /etc/assertd/assertd.toml",
        id: "D38",
        severity: "warn",
        phrase: "write `socket = \"/run/assertd/keystore-hsm.sock\"` in [keystore.hsm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "assertd looks for a keystore where its unit does not listen",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                sed -i 's|^socket = .*|socket = \"/run/assertd/typo.sock\"|' /etc/assertd/assertd.toml",
        id: "D39",
        severity: "fail",
        phrase: "write `socket = \"/run/assertd/keystore-hsm.sock\"` in [keystore.hsm]",
        mend: Mend::Person("cp -p /tmp/good.toml /etc/assertd/assertd.toml"),
        restore: "",
    },
    Fault {
        name: "the state can be read by others",
        plant: "chmod 0755 /var/lib/assertd",
        id: "D50",
        severity: "fail",
        phrase: "chown -R assertd: /var/lib/assertd && chmod 0700 /var/lib/assertd",
        mend: Mend::Remedy,
        restore: "",
    },
    Fault {
        name: "the audit log's disk is nearly full",
        plant: "cp -p /etc/assertd/assertd.toml /tmp/good.toml
                systemctl stop assertd
                install -d -m 0700 -o assertd -g assertd /srv/audit
                mount -t tmpfs -o size=2m,mode=0700,uid=$(id -u assertd) tmpfs /srv/audit
                printf '[audit]\\ndir = \"/srv/audit\"\\nsegment_bytes = 65536\\n' \
                  >> /etc/assertd/assertd.toml
                head -c 2064384 /dev/zero > /srv/audit/other",
        id: "D51",
        severity: "fail",
        phrase: "df -h /srv/audit",
        mend: Mend::Person("rm /srv/audit/other"),
        restore: "umount /srv/audit; cp -p /tmp/good.toml /etc/assertd/assertd.toml
                  systemctl start assertd",
    },
    Fault {
        name: "assertd does not run",
        plant: "systemctl stop assertd",
        id: "D60",
        severity: "warn",
        phrase: "systemctl start assertd",
        mend: Mend::Person("systemctl start assertd"),
        restore: "",
    },
    Fault {
        name: "a changed configuration was not reloaded",
        plant: "echo '# changed' >> /etc/assertd/conf.d/payments.toml",
        id: "D61",
        severity: "warn",
        phrase: "assertctl reload",
        mend: Mend::Person("assertctl reload"),
        restore: "sed -i '/^# changed/d' /etc/assertd/conf.d/payments.toml; assertctl reload",
    },
    Fault {
        name: "an older program runs than is installed",
        plant: "cp -p /usr/bin/assertd /usr/bin/assertd.new
                mv /usr/bin/assertd.new /usr/bin/assertd",
        id: "D62",
        severity: "warn",
        phrase: "systemctl restart assertd",
        mend: Mend::Remedy,
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
    Fault {
        name: "a record of the audit log was changed",
        plant: "systemctl stop assertd
                log=$(ls /var/lib/assertd/audit/audit-*.log | tail -n 1)
                sed -i '0,/opened/s//opemed/' $log",
        id: "D91",
        severity: "fail",
        phrase: "run `mv /var/lib/assertd/audit /var/lib/assertd/audit.evidence`",
        mend: Mend::Person(
            "mv /var/lib/assertd/audit /var/lib/assertd/audit.evidence; systemctl start assertd",
        ),
        restore: "systemctl start assertd",
    },
];

/// What one run of the doctor said.
struct Report {
    exit: Option<i32>,
    findings: Vec<Value>,
}

/// All of it.
pub fn run(suite: &mut Suite, boxed: &SysBox) {
    if !suite.wants_below(&["doctor: "]) {
        return;
    }
    suite.check("doctor: a site as installed has none of the faults", || {
        healthy(boxed)?;
        let report = examine(boxed)?;
        let there = |fault: &&Fault| report.find(fault.id, fault.severity).is_some();
        match FAULTS.iter().find(there) {
            Some(fault) => Err(format!("{} is there: {}", fault.id, report.bad())),
            None => Ok(()),
        }
    });
    suite.check("doctor: text has columns, and a count at the end", || {
        text(boxed)
    });
    for fault in FAULTS {
        suite.check(&format!("doctor: {}", fault.name), || {
            let done = find_and_mend(boxed, fault);
            let restored = boxed.sh(&spelled(fault.restore)).success();
            done?;
            restored.map_err(|why| format!("restoring: {why}"))?;
            Ok(())
        });
    }
    suite.check("doctor: a clock that may not be asked about", || {
        clock_not_to_be_asked(boxed)
    });
    suite.check("doctor: looking starts nothing", || starts_nothing(boxed));
    suite.check("doctor: after all of it nothing fails", || healthy(boxed));
}

fn examine(boxed: &SysBox) -> Result<Report, String> {
    parse(&boxed.run(&["assertctl", "check", "--json"]))
}

fn parse(said: &Outcome) -> Result<Report, String> {
    let report: Value = serde_json::from_str(&said.stdout)
        .map_err(|e| format!("{e}: {}{}", said.stdout, said.stderr))?;
    let findings = report["findings"].as_array().ok_or("no findings")?.clone();
    let fails = findings.iter().any(|it| it["severity"] == "fail");
    if report["ok"] != !fails || said.code != Some(i32::from(fails)) {
        return Err(format!("ok and exit code {:?} differ: {report}", said.code));
    }
    Ok(Report {
        exit: said.code,
        findings,
    })
}

impl Report {
    fn find(&self, id: &str, severity: &str) -> Option<&Value> {
        self.findings
            .iter()
            .find(|it| it["id"] == id && it["severity"] == severity)
    }

    /// What is not ok, for messages.
    fn bad(&self) -> String {
        let bad = self.findings.iter().filter(|it| it["severity"] != "ok");
        bad.map(|it| format!("\n{it}")).collect()
    }
}

fn healthy(boxed: &SysBox) -> Result<(), String> {
    boxed.sh("systemctl start assertd").success()?;
    let mut last = String::new();
    let well = wait_until(SETTLED, || match examine(boxed) {
        Ok(report) => {
            last = report.bad();
            report.exit == Some(0)
                && report.find("D70", "ok").is_some()
                && report.find("D81", "ok").is_some()
        }
        Err(why) => {
            last = why;
            false
        }
    });
    if well { Ok(()) } else { Err(last) }
}

fn find_and_mend(boxed: &SysBox, fault: &Fault) -> Result<(), String> {
    let planted = boxed.sh(&spelled(fault.plant)).success();
    planted.map_err(|why| format!("planting: {why}"))?;
    let mut last = String::new();
    let mut found = None;
    let seen = wait_until(SETTLED, || {
        match examine(boxed) {
            Ok(report) => {
                found = report.find(fault.id, fault.severity).cloned();
                last = report.bad();
            }
            Err(why) => last = why,
        }
        found.is_some()
    });
    let Some(found) = found.filter(|_| seen) else {
        return Err(format!("{} not found; but: {last}", fault.id));
    };
    let remedy = found["remedy"].as_str().ok_or("no remedy")?;
    if !remedy.contains(fault.phrase) {
        return Err(format!("another remedy: {found}"));
    }
    let script = match fault.mend {
        Mend::Remedy => commands(remedy),
        Mend::WriteThenRemedy(write) => format!("{write}\n{}", commands(remedy)),
        Mend::Person(script) => script.to_owned(),
    };
    let mended = boxed.sh(&spelled(&script)).success();
    mended.map_err(|why| format!("mending by\n{script}\n{why}"))?;
    let gone = wait_until(SETTLED, || match examine(boxed) {
        Ok(report) => {
            last = report.bad();
            report.find(fault.id, fault.severity).is_none()
        }
        Err(why) => {
            last = why;
            false
        }
    });
    if gone {
        Ok(())
    } else {
        Err(format!("still there after\n{script}\n{last}"))
    }
}

/// The commands of a remedy: what stands between backticks and is no line of a configuration.
fn commands(remedy: &str) -> String {
    let quoted = remedy.split('`').skip(1).step_by(2);
    let commands: Vec<&str> = quoted.filter(|text| !text.contains(" = ")).collect();
    commands.join("\n")
}

/// A script with the PIN typed and the token's label.
fn spelled(script: &str) -> String {
    let typed = format!("printf %s {PIN}");
    script.replace(ASK_PIN, &typed).replace("TOKEN", TOKEN)
}

fn text(boxed: &SysBox) -> Result<(), String> {
    let said = boxed.run(&["assertctl", "check"]).success()?;
    let last = said.lines().last().unwrap_or_default();
    let columns = said
        .lines()
        .any(|line| line == "ok    kernel      SO_PEERPIDFD present");
    let counted = last.contains(" ok, ") && last.ends_with(" 0 FAIL");
    if columns && counted {
        Ok(())
    } else {
        Err(said)
    }
}

/// As in a container that forbids it; whether the kernel's clock is kept right is nothing that the
/// box could change.
fn clock_not_to_be_asked(boxed: &SysBox) -> Result<(), String> {
    let said = boxed.run(&[
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "--property=SystemCallFilter=~adjtimex clock_adjtime",
        "--property=SystemCallErrorNumber=EPERM",
        "assertctl",
        "check",
        "--json",
    ]);
    let report = parse(&said)?;
    let remedy = report
        .find("D05", "warn")
        .and_then(|it| it["remedy"].as_str());
    match remedy {
        Some(remedy) if remedy.contains("timedatectl show -p NTPSynchronized") => Ok(()),
        _ => Err(report.bad()),
    }
}

fn starts_nothing(boxed: &SysBox) -> Result<(), String> {
    boxed
        .sh("systemctl stop assertd; systemctl stop assertd-keystore-pkcs11@hsm")
        .success()?;
    let report = examine(boxed)?;
    let states = boxed.run(&[
        "systemctl",
        "is-active",
        "assertd.service",
        "assertd-keystore-pkcs11@hsm.service",
    ]);
    if report.find("D60", "warn").is_none() || states.stdout != "inactive\ninactive\n" {
        return Err(format!("{}{}", states.stdout, report.bad()));
    }
    Ok(())
}
