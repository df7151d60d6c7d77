//! What is published: assertd writes where it may, `assertd-publish` shows it on the socket that systemd
//! listens at, and `assertd-ship` runs the site's command when it changes. The documents are put there
//! by hand.

use super::site::BROKER_UNIT;
use super::units::{demand, journal_end, journal_since, main_pid};
use crate::boxed::SysBox;
use crate::installed::{PUBLISH_SOCKET, PUBLISH_UNIT, SHIP_PATH, SHIP_UNIT};
use crate::suite::Suite;
use harness::{DEADLINE, wait_until};

const CONFIG: &str = "/etc/assertd/assertd.toml";

const DROP_IN: &str = "/etc/systemd/system/assertd-ship.service.d/command.conf";

/// Sections that are added, and taken away again.
const SECTIONS: &str = "
[publication]
directory = \"/var/lib/assertd-published\"

[issuer.prod]
url = \"https://id.example.com/prod\"
subjects = [\"payments\"]
keystore = \"hsm\"
";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check("publish: assertd may write there, in its sandboxes", || {
        with_sections(boxed, assertd_may_write)
    });
    suite.check(
        "publish: a document is shown on systemd's socket, and no other file",
        || with_sections(boxed, shown),
    );
    suite.check(
        "publish: the site's command runs when something changes, and not before there is one",
        || shipped(boxed),
    );
}

fn with_sections(
    boxed: &SysBox,
    check: impl Fn(&SysBox) -> Result<(), String>,
) -> Result<(), String> {
    let before = boxed.run(&["cat", CONFIG]).success()?;
    boxed.write(CONFIG, format!("{before}{SECTIONS}"))?;
    let checked = check(boxed);
    boxed.write(CONFIG, before)?;
    let stop = ["systemctl", "stop", PUBLISH_SOCKET, PUBLISH_UNIT];
    boxed.run(&stop).success()?;
    let restarted = boxed.run(&["systemctl", "restart", BROKER_UNIT]).success();
    checked.and(restarted.map(drop))
}

/// It looks at the directory at its start, and says what is wrong with it. By its process's root are its
/// own mounts, which is what `ReadWritePaths=` is about.
fn assertd_may_write(boxed: &SysBox) -> Result<(), String> {
    let cursor = journal_end(boxed)?;
    boxed
        .run(&["systemctl", "restart", BROKER_UNIT])
        .success()?;
    let said = journal_since(boxed, &cursor, BROKER_UNIT);
    demand(!said.contains("publication:"), || said.clone())?;
    let pid = main_pid(boxed, BROKER_UNIT)?;
    let touch = |place: &str| {
        let file = format!("/proc/{pid}/root/var/lib/{place}probe");
        boxed.run(&["touch", &file]).code == Some(0) && boxed.run(&["rm", &file]).code == Some(0)
    };
    demand(!touch(""), || "everything is writable".to_owned())?;
    demand(touch("assertd-published/"), || "it is read-only".to_owned())
}

fn shown(boxed: &SysBox) -> Result<(), String> {
    boxed
        .sh("ip link set lo up
             install -d -o assertd -g assertd -m 755 /var/lib/assertd-published/issuer/prod
             echo '{\"keys\":[]}' >/var/lib/assertd-published/issuer/prod/jwks.json")
        .success()?;
    let cursor = journal_end(boxed)?;
    boxed
        .run(&["systemctl", "start", PUBLISH_SOCKET])
        .success()?;
    let get = |path: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/8462; printf 'GET {path} HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n' >&3; \
             timeout 15 cat <&3"
        );
        boxed.run(&["bash", "-c", &script]).success()
    };
    let answer = get("/prod/jwks.json")?;
    demand(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"keys\":[]}\n"),
        || answer.clone(),
    )?;
    let answer = get("/published")?;
    demand(answer.starts_with("HTTP/1.1 404 "), || answer.clone())?;
    let said = journal_since(boxed, &cursor, PUBLISH_UNIT);
    demand(said.contains("sandbox: fully enforced"), || said.clone())?;
    boxed
        .run(&["rm", "-r", "/var/lib/assertd-published/issuer"])
        .success()
        .map(drop)
}

fn shipped(boxed: &SysBox) -> Result<(), String> {
    let publish = |what: &str| {
        let script = format!(
            "echo {what} >/var/lib/assertd-published/published.new
             chown assertd: /var/lib/assertd-published/published.new
             mv /var/lib/assertd-published/published.new /var/lib/assertd-published/published"
        );
        boxed.sh(&script).success().map(drop)
    };
    publish("one")?;
    boxed.run(&["systemctl", "start", SHIP_UNIT]).success()?; // a command that is not there is no failure
    let shown = ["systemctl", "show", "--property=ConditionResult", SHIP_UNIT];
    let condition = boxed.run(&shown).success()?;
    demand(condition.trim() == "ConditionResult=no", || {
        condition.clone()
    })?;
    // A command that takes its time: what is published meanwhile is shipped all the same.
    let drop_in = "[Service]\nRestartSec=1s\nExecStart=\nExecStart=/usr/bin/cp -r /var/lib/assertd-published/published \
        /var/lib/assertd-ship/out\nExecStart=/usr/bin/sleep 1\n";
    boxed
        .run(&[
            "install",
            "-d",
            "/etc/systemd/system/assertd-ship.service.d",
        ])
        .success()?;
    boxed.write(DROP_IN, drop_in)?;
    boxed.sh("systemctl daemon-reload").success()?;
    let result = (|| {
        boxed.run(&["systemctl", "start", SHIP_PATH]).success()?;
        let out = |what: &str| {
            let there = wait_until(DEADLINE, || {
                boxed
                    .run(&["cat", "/var/lib/assertd-ship/out"])
                    .stdout
                    .trim()
                    == what
            });
            let journal = || {
                boxed
                    .run(&["journalctl", "--no-pager", "--unit=assertd-ship*"])
                    .stdout
            };
            demand(there, || format!("{what} was not shipped:\n{}", journal()))
        };
        out("one")?; // at the path unit's start
        publish("two")?;
        out("two")?;
        publish("three")?; // while the command sleeps
        out("three")
    })();
    boxed
        .sh(&format!(
            "systemctl stop {SHIP_PATH} {SHIP_UNIT}
             rm -r /etc/systemd/system/assertd-ship.service.d /var/lib/assertd-published/published
             systemctl daemon-reload"
        ))
        .success()?;
    result
}
