//! A host with a TPM: from nothing to an assertion by its key, without a question; and what becomes of
//! the secret on which all its keys depend.

use super::terminal::Terminal;
use super::{CONFIGURATION, TOKEN, demand, init};
use crate::boxed::{Outcome, SysBox};
use crate::chip::{Chip, NODE};
use crate::suite::Suite;
use harness::{DEADLINE, wait_for};

const SECRET: &str = "/etc/credstore.encrypted/assertd.tpm.auth";
const SOCKET: &str = "assertd-keystore-tpm@tpm.socket";

/// One after the other: an assertd that is still ending would start its keystore anew by the socket,
/// which would keep the TPM that is about to go. The next request starts both.
const STOP: &str = "systemctl stop assertd.service
                    systemctl stop assertd-keystore-tpm@tpm.socket
                    systemctl stop assertd-keystore-tpm@tpm.service";

/// A target with a key in the only keystore there is.
const WORKLOAD: &str = r#"
[workload.second]
match = { unit = "second.service" }

[workload.second.target.vault]
profile = "rfc7523"
authorization_server = "https://as.vault.example"
client_id = "second"
"#;

/// The names of all checks here begin so.
pub const CHECKS: &str = "init: tpm: ";

/// After all others, on what they have left.
pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    if !suite.wants_below(&[CHECKS]) {
        return;
    }
    suite.check(
        "init: tpm: without one that could be used it says why, and nothing is written",
        || without(boxed),
    );
    let mut chip = match Chip::start(boxed) {
        Ok(chip) => chip,
        Err(why) => return suite.require("init: tpm: there is one in the box", why),
    };
    suite.check(
        "init: tpm: one that its keystore may not open is refused with the rule for udev",
        || closed(boxed, &chip),
    );
    suite.check(
        "init: tpm: --yes takes it where no token was initialised, and a unit gets an assertion",
        || from_nothing(boxed, &chip),
    );
    suite.check("init: tpm: a second run changes nothing", || again(boxed));
    suite.check(
        "init: tpm: its secret is never made anew while there are keys, and never replaced",
        || secret_stays(boxed, &mut chip),
    );
    suite.check(
        "init: tpm: at the terminal it is one more to choose, or a second keystore",
        || asked(boxed),
    );
    suite.check(
        "init: tpm: beside a token it is a comment, which the next run makes a keystore of",
        || beside_a_token(boxed, &mut chip),
    );
    let stop = "systemctl stop 'assertd*.socket' 'assertd*.service'";
    let _ = boxed.sh(stop); // so that nothing waits for a TPM that goes
}

/// The package's files, and whatever tokens there are.
fn bare(boxed: &SysBox) -> Result<(), String> {
    let script = "systemctl disable --now assertd.socket assertd-admin.socket \
                    'assertd-keystore-pkcs11@first.socket' assertd-keystore-tpm@tpm.socket \
                    2>/dev/null || true
                  systemctl stop 'assertd*.socket' 'assertd*.service'
                  rm -rf /etc/assertd/* /etc/credstore.encrypted/* /etc/systemd/system/assertd-*@* \
                    /var/lib/assertd /var/lib/assertd-keystore/*
                  mkdir /etc/assertd/conf.d; systemctl daemon-reload";
    boxed.sh(script).success().map(drop)
}

/// Away with SoftHSM's tokens, and back.
fn tokens(boxed: &SysBox, there: Tokens) -> Result<(), String> {
    let (from, to) = match there {
        Tokens::Away => ("/var/lib/softhsm/tokens", "/root/tokens"),
        Tokens::There => ("/root/tokens", "/var/lib/softhsm/tokens"),
    };
    let script = format!(
        "mkdir -p {from} {to}; find {from} -mindepth 1 -maxdepth 1 -exec mv -t {to} {{}} +"
    );
    boxed.sh(&script).success().map(drop)
}

enum Tokens {
    Away,
    There,
}

/// What `init` says, which reads nothing.
fn unasked(boxed: &SysBox, options: &str) -> Outcome {
    boxed.sh(&format!("assertctl init {options} </dev/null"))
}

/// It ended so, and standard error has all of these.
fn refused(said: &Outcome, code: i32, parts: &[&str]) -> Result<(), String> {
    let missing = parts.iter().find(|part| !said.stderr.contains(*part));
    demand(said.code == Some(code) && missing.is_none(), || {
        format!("no {missing:?}: {said:?}")
    })
}

fn nothing_written(boxed: &SysBox) -> Result<(), String> {
    let script = "find /etc/assertd /etc/credstore.encrypted -type f 2>/dev/null || true";
    let written = boxed.sh(script).success()?;
    demand(written.is_empty(), || format!("written: {written}"))
}

fn without(boxed: &SysBox) -> Result<(), String> {
    bare(boxed)?;
    tokens(boxed, Tokens::Away)?;
    let missing = format!("{NODE} is not there");
    let said = unasked(boxed, "--yes --backend tpm");
    refused(&said, 69, &["no TPM that could be used", &missing])?;
    let said = unasked(boxed, "--yes");
    refused(
        &said,
        69,
        &["no token that could be used", "nor a TPM", &missing],
    )?;
    boxed.run(&["touch", NODE]).success()?;
    let said = unasked(boxed, "--yes --backend tpm");
    boxed.run(&["rm", NODE]).success()?;
    refused(&said, 69, &["/dev/tpmrm0 is no character device"])?;
    nothing_written(boxed)
}

fn closed(boxed: &SysBox, chip: &Chip<'_>) -> Result<(), String> {
    let rule = "KERNEL==\"tpmrm[0-9]*\", GROUP=\"tss\", MODE=\"0660\"";
    for (owner, mode) in [("root:root", "600"), ("root:root", "660")] {
        chip.open_to(owner, mode)?;
        let said = unasked(boxed, "--yes");
        let why = format!("user assertd-tpm may not open {NODE} (root:root, mode 0{mode})");
        refused(&said, 1, &[&why, rule, "No file was written"])?;
        nothing_written(boxed)?;
    }
    Ok(())
}

fn from_nothing(boxed: &SysBox, chip: &Chip<'_>) -> Result<(), String> {
    chip.open_to("root:tss", "660")?; // as udev does
    let said = unasked(boxed, "--yes").success()?;
    demand(
        said.contains(SECRET) && said.contains("32 random bytes"),
        || format!("not shown what: {said}"),
    )?;
    let files = ["stat", "-c", "%a %U:%G %n", CONFIGURATION, SECRET];
    let shown = boxed.run(&files).success()?;
    let wanted = format!("640 root:assertd {CONFIGURATION}\n600 root:root {SECRET}\n");
    demand(shown == wanted, || format!("{shown}instead of\n{wanted}"))?;
    let opened = format!("systemd-creds decrypt --name=tpm.auth {SECRET} - | wc -c");
    let len = boxed.sh(&opened).success()?;
    demand(len.trim() == "32", || format!("{len} bytes"))?;
    let on = ["systemctl", "is-enabled", "assertd.socket", SOCKET];
    boxed.run(&on).success()?;
    boxed.write("/etc/assertd/conf.d/second.toml", WORKLOAD)?;
    boxed.run(&["assertctl", "config", "check"]).success()?;
    boxed.run(&["assertctl", "apply", "--yes"]).success()?;
    assertion(boxed)?;
    let keys = boxed.run(&["assertctl", "keys"]).success()?;
    let of_tpm = |line: &str| line.contains("second/vault.1") && line.contains(" tpm ");
    demand(keys.lines().any(of_tpm), || keys.clone())
}

fn assertion(boxed: &SysBox) -> Result<(), String> {
    let asked = [
        "systemd-run",
        "-q",
        "--wait",
        "--pipe",
        "--collect",
        "--unit=second.service",
        "assertctl",
        "assertion",
        "--target",
        "vault",
    ];
    // 69: its keystore has just been started, and has not said yet that it is usable.
    let answer = || Some(boxed.run(&asked)).filter(|said| said.code != Some(69));
    let said = wait_for(DEADLINE, answer).ok_or("its keystore does not become usable")?;
    let said = said.success()?;
    let parts = said.trim_end().split('.').count();
    demand(parts == 3, || format!("no assertion: {said:?}"))
}

fn again(boxed: &SysBox) -> Result<(), String> {
    let before = super::everything(boxed)?;
    let said = unasked(boxed, "--yes").success()?;
    demand(said.contains("nothing to write"), || said.clone())?;
    let after = super::everything(boxed)?;
    demand(before == after, || format!("{before}\nbecame\n{after}"))
}

fn secret_stays(boxed: &SysBox, chip: &mut Chip<'_>) -> Result<(), String> {
    let digest = || boxed.run(&["sha256sum", SECRET]).success();
    let before = digest()?;
    // It is gone, and there are keys.
    boxed.run(&["mv", SECRET, "/root/secret"]).success()?;
    let said = unasked(boxed, "--yes");
    let lost = "/var/lib/assertd-keystore/tpm/keys has keys, and the secret";
    refused(&said, 1, &[lost, "Bring it back from a backup"])?;
    // The configuration is gone too, or instead.
    boxed
        .run(&["mv", CONFIGURATION, "/root/configuration"])
        .success()?;
    refused(&unasked(boxed, "--yes"), 1, &[lost])?;
    boxed.sh(&format!("echo other >{SECRET}")).success()?;
    let said = unasked(boxed, "--yes");
    refused(
        &said,
        1,
        &["cannot be opened here", "init never replaces it"],
    )?;
    boxed.run(&["mv", "/root/secret", SECRET]).success()?;
    let said = unasked(boxed, "--yes").success()?;
    demand(said.contains(&format!("keep   {SECRET}")), || said.clone())?;
    let after = digest()?;
    demand(before == after, || "the secret is another".to_owned())?;
    let compare = ["cmp", CONFIGURATION, "/root/configuration"];
    boxed.run(&compare).success()?;
    boxed.run(&["rm", "/root/configuration"]).success()?;
    boxed.sh(STOP).success()?;
    chip.power_cycle()?;
    boxed.run(&["systemctl", "start", SOCKET]).success()?;
    assertion(boxed)
}

fn asked(boxed: &SysBox) -> Result<(), String> {
    tokens(boxed, Tokens::There)?;
    boxed.run(&["mv", CONFIGURATION, "/root/away"]).success()?;
    let mut terminal = Terminal::start(boxed, &["assertctl", "init"])?;
    terminal.expect(NODE)?;
    terminal.expect("which token? [1-2] ")?;
    terminal.enter("2")?;
    terminal.expect("do this? [y/N] ")?;
    terminal.enter("n")?;
    let code = terminal.ended()?;
    let said = terminal.transcript();
    demand(code == Some(1) && !said.contains("PIN of"), || said.clone())?;
    let mut terminal = Terminal::start(boxed, &["assertctl", "init"])?;
    terminal.expect("which token? [1-2] ")?;
    terminal.enter("1")?;
    terminal.expect("and as a second keystore")?;
    terminal.expect("[y/N] ")?;
    terminal.enter("y")?;
    terminal.expect("user PIN of token")?;
    terminal.send("\u{3}")?;
    let code = terminal.ended()?;
    demand(code == Some(1), || terminal.transcript())?;
    boxed
        .run(&["mv", "/root/away", CONFIGURATION])
        .success()
        .map(drop)
}

fn beside_a_token(boxed: &SysBox, chip: &mut Chip<'_>) -> Result<(), String> {
    boxed
        .run(&["mv", CONFIGURATION, "/root/with-the-tpm-alone"])
        .success()?;
    init(boxed, super::PIN, &format!("--yes --token '{TOKEN}'")).success()?;
    let written = boxed.run(&["cat", CONFIGURATION]).success()?;
    demand(written.contains("\n# [keystore.tpm]\n"), || written.clone())?;
    let said = unasked(boxed, "--yes --backend tpm");
    let lines = "[keystore.tpm]\nbackend = \"tpm\"\nsocket  = \"/run/assertd/keystore-tpm.sock\"\n";
    refused(&said, 1, &["add these lines to it", lines])?;
    // As the comment says, to the end of the file: other sections follow it there.
    let uncomment = format!(
        "sed -i 's/^# \\(\\[keystore.tpm\\]\\)/\\1/; s/^# \\(backend = \"tpm\"\\)/\\1/
                 s/^# \\(socket .*keystore-tpm.sock\"\\)/\\1/' {CONFIGURATION}
         sed -i '/^profile/a keystore = \"tpm\"' /etc/assertd/conf.d/second.toml
         assertctl config check"
    );
    boxed.sh(&uncomment).success()?;
    boxed.sh(STOP).success()?;
    boxed.run(&["systemctl", "disable", SOCKET]).success()?;
    chip.power_cycle()?;
    let said = unasked(boxed, "--yes --name tpm").success()?;
    demand(said.contains("sockets listen"), || said.clone())?;
    boxed.run(&["systemctl", "is-active", SOCKET]).success()?;
    boxed.run(&["assertctl", "apply", "--yes"]).success()?;
    assertion(boxed)
}
