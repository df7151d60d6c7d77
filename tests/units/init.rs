//! From an installed package to the first assertion by `assertctl init` alone, and what it does
//! when it is run again. In a box of its own, where at first even the users are missing.

mod modules;
mod terminal;
mod tpm;

use crate::boxed::{Outcome, SysBox};
use crate::suite::Suite;
use std::process::Command;
use terminal::Terminal;

/// The keystore and its token, and a PIN that nobody may find in a file.
const NAME: &str = "first";
const TOKEN: &str = "first try";
const PIN: &str = "746382915";

const CONFIGURATION: &str = "/etc/assertd/assertd.toml";
const CREDENTIAL: &str = "/etc/credstore.encrypted/assertd.first.pin";
const DROP_IN: &str =
    "/etc/systemd/system/assertd-keystore-pkcs11@first.service.d/module-state.conf";

const WORKLOAD: &str = r#"
[workload.first]
match = { unit = "first.service" }

[workload.first.target.bank]
profile = "rfc7523"
authorization_server = "https://as.bank.example"
client_id = "first"
"#;

/// What the box has written, over the tree below.
const WRITTEN: &str = "/run/layers/upper";

/// The names of all checks here begin so.
const CHECKS: &str = "init: ";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    if !suite.wants_below(&[CHECKS]) {
        return;
    }
    suite.check("init: without a token it says how to make one", || {
        without_a_token(boxed)
    });
    suite.check(
        "init: asks at the terminal, shows no PIN, and does nothing that is not agreed to",
        || not_agreed(boxed),
    );
    suite.check(
        "init: Ctrl-C at the PIN ends it, and the terminal echoes again",
        || interrupted(boxed),
    );
    suite.check(
        "init: a token that the keystore cannot use is refused before a file is written",
        || not_visible(boxed),
    );
    suite.check(
        "init: makes users, directories, configuration, credential and drop-in",
        || from_nothing(boxed),
    );
    suite.check("init: the PIN stands in no file", || pin_in_no_file(boxed));
    suite.check("init: a unit gets an assertion by what it wrote", || {
        first_assertion(boxed)
    });
    suite.check(
        "init: what the module writes where its tokens are cannot be executed",
        || modules::nothing_to_execute(boxed),
    );
    suite.check("init: a second run changes nothing", || again(boxed));
    suite.check(
        "init: what a crash left out is made by the next run",
        || completed(boxed),
    );
    suite.check(
        "init: the next run writes a drop-in for groups alone, and refuses a path it cannot write",
        || groups_alone(boxed),
    );
    suite.check(
        "init: modules are asked as the keystore's user, and as root without its rights where they \
         must",
        || modules::asked_as(boxed),
    );
    suite.check("init: a file in the way is named and stays", || {
        in_the_way(boxed)
    });
    tpm::run(suite, boxed);
}

/// What `init` says, with this on its standard input.
fn init(boxed: &SysBox, input: &str, options: &str) -> Outcome {
    boxed.sh(&format!(
        "printf %s '{input}' | assertctl init --name {NAME} {options}"
    ))
}

fn demand(what: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if what { Ok(()) } else { Err(otherwise()) }
}

/// The machine whose tree this is may have tokens and an assertd of its own.
fn without_a_token(boxed: &SysBox) -> Result<(), String> {
    let script = "rm -rf /var/lib/softhsm/tokens/* /etc/assertd/* /etc/credstore.encrypted/* \
                  /etc/systemd/system/assertd-* /var/lib/assertd
                  mkdir /etc/assertd/conf.d; systemctl daemon-reload";
    boxed.sh(script).success()?;
    let said = init(boxed, "", "--yes");
    demand(said.code == Some(69), || format!("{said:?}"))?;
    for part in [
        "libsofthsm2.so: no initialised token",
        "softhsm2-util --init-token",
    ] {
        demand(said.stderr.contains(part), || {
            format!("no {part:?}: {said:?}")
        })?;
    }
    Ok(())
}

/// As after the command that init itself recommends: a token of root's. And neither users nor
/// directories.
fn not_agreed(boxed: &SysBox) -> Result<(), String> {
    bare(boxed)?;
    boxed
        .sh(&format!(
            "softhsm2-util --init-token --free --label '{TOKEN}' --pin {PIN} --so-pin 12345678"
        ))
        .success()?;
    let mut terminal = Terminal::start(boxed, &["assertctl", "init"])?;
    terminal.expect("which token? [1]")?;
    terminal.enter("")?;
    terminal.expect("user PIN of token")?;
    terminal.enter(PIN)?;
    terminal.expect("the same again: ")?;
    terminal.enter("4711")?;
    terminal.expect("these two differ")?;
    terminal.expect("user PIN of token")?;
    terminal.enter(PIN)?;
    terminal.expect("the same again: ")?;
    terminal.enter(PIN)?;
    terminal.expect("do this? [y/N] ")?;
    terminal.enter("n")?;
    let code = terminal.ended()?;
    let said = terminal.transcript();
    demand(code == Some(1) && said.contains("nothing was done"), || {
        said.clone()
    })?;
    demand(said.contains(CONFIGURATION), || {
        format!("not shown what: {said}")
    })?;
    demand(!said.contains(PIN), || format!("the PIN is shown: {said}"))?;
    nothing_there(boxed)
}

fn interrupted(boxed: &SysBox) -> Result<(), String> {
    let mut terminal = Terminal::start(boxed, &["assertctl", "init", "--token", TOKEN])?;
    terminal.expect("user PIN of token")?;
    demand(!terminal.echoes()?, || {
        "the terminal echoes a PIN".to_owned()
    })?;
    terminal.send("12\u{3}")?;
    let code = terminal.ended()?;
    demand(code == Some(1), || terminal.transcript())?;
    demand(terminal.echoes()?, || {
        "the terminal stays silent".to_owned()
    })?;
    nothing_there(boxed)
}

fn nothing_there(boxed: &SysBox) -> Result<(), String> {
    let script = "ls -d /etc/assertd /etc/credstore.encrypted/* 2>/dev/null || true
                  getent passwd assertd assertd-pkcs11 || true";
    let there = boxed.sh(script).success()?;
    demand(there.is_empty(), || format!("there is {there}"))
}

/// A token of somebody else's, whom nothing may be taken from.
fn not_visible(boxed: &SysBox) -> Result<(), String> {
    let give = |user: &str| {
        let script = format!("chown -R {user} /var/lib/softhsm/tokens/*");
        boxed.sh(&script).success()
    };
    give("daemon")?;
    let said = init(boxed, PIN, &format!("--yes --token '{TOKEN}'"));
    give("root")?;
    let why = said.stderr.contains("assertd-pkcs11 does not see it");
    demand(said.code == Some(1) && why, || format!("{said:?}"))?;
    let script = "find /etc/assertd /etc/credstore.encrypted -type f 2>/dev/null || true";
    let written = boxed.sh(script).success()?;
    demand(written.is_empty(), || format!("written: {written}"))
}

/// Neither users nor directories: the package's files alone.
fn bare(boxed: &SysBox) -> Result<(), String> {
    let script = "userdel assertd-pkcs11; userdel assertd; rmdir /etc/assertd/conf.d /etc/assertd";
    boxed.sh(script).success().map(drop)
}

fn from_nothing(boxed: &SysBox) -> Result<(), String> {
    bare(boxed)?;
    let said = init(boxed, PIN, &format!("--yes --token '{TOKEN}'"));
    demand(said.code == Some(0), || format!("{said:?}"))?;
    let shown = boxed
        .run(&[
            "stat",
            "-c",
            "%a %U:%G %n",
            "/etc/assertd",
            CONFIGURATION,
            CREDENTIAL,
            DROP_IN,
        ])
        .success()?;
    let wanted = format!(
        "750 root:assertd /etc/assertd\n640 root:assertd {CONFIGURATION}\n\
         600 root:root {CREDENTIAL}\n644 root:root {DROP_IN}\n"
    );
    demand(shown == wanted, || format!("{shown}instead of\n{wanted}"))?;
    let beside = boxed
        .run(&[
            "find",
            "/etc/assertd",
            "/etc/credstore.encrypted",
            "-name",
            "*.new",
        ])
        .success()?;
    demand(beside.is_empty(), || format!("left behind: {beside}"))
}

/// Of all files that the box has written since it was booted, only the one of this check holds it.
fn pin_in_no_file(boxed: &SysBox) -> Result<(), String> {
    boxed.write("/root/control", PIN)?;
    let search = |places: [&str; 2]| {
        let found = Command::new("grep")
            .args(["-rlaF", PIN])
            .args(places)
            .output();
        let found = found.map_err(|e| format!("grep: {e}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&found.stdout).into_owned())
    };
    let run = boxed.root().join("run");
    let found = search([WRITTEN, run.to_str().unwrap_or("/run")])?;
    let control = format!("{WRITTEN}/root/control\n");
    demand(found == control, || format!("it is in\n{found}"))?;
    boxed.run(&["rm", "/root/control"]).success().map(drop)
}

fn first_assertion(boxed: &SysBox) -> Result<(), String> {
    boxed.write("/etc/assertd/conf.d/first.toml", WORKLOAD)?;
    boxed.run(&["assertctl", "config", "check"]).success()?;
    boxed.run(&["assertctl", "apply", "--yes"]).success()?;
    assertion(boxed)
}

fn assertion(boxed: &SysBox) -> Result<(), String> {
    let said = boxed
        .run(&[
            "systemd-run",
            "-q",
            "--wait",
            "--pipe",
            "--collect",
            "--unit=first.service",
            "assertctl",
            "assertion",
            "--target",
            "bank",
        ])
        .success()?;
    let parts = said.trim_end().split('.').count();
    demand(parts == 3, || format!("no assertion: {said:?}"))
}

/// Names, content, modes and times of all that init could have touched.
fn everything(boxed: &SysBox) -> Result<String, String> {
    let script = "cd /etc; places='assertd credstore.encrypted systemd/system'
                  find $places -printf '%p %m %u %g %T@\\n'
                  find $places -type f -exec sha256sum {} +";
    boxed.sh(script).success()
}

fn again(boxed: &SysBox) -> Result<(), String> {
    let before = everything(boxed)?;
    let said = init(boxed, "", "--yes").success()?;
    demand(said.contains("nothing to write"), || {
        format!("it said {said}")
    })?;
    let after = everything(boxed)?;
    demand(before == after, || format!("{before}\nbecame\n{after}"))
}

fn completed(boxed: &SysBox) -> Result<(), String> {
    boxed.run(&["rm", CREDENTIAL, DROP_IN]).success()?;
    let configuration = boxed.run(&["cat", CONFIGURATION]).success()?;
    init(boxed, PIN, "--yes").success()?;
    let still = boxed.run(&["cat", CONFIGURATION]).success()?;
    demand(configuration == still, || {
        format!("{CONFIGURATION} has changed")
    })?;
    boxed
        .sh("systemctl daemon-reload
             systemctl restart 'assertd-keystore-pkcs11@*.service' assertd")
        .success()?;
    assertion(boxed)
}

/// The configuration without its `module_state`: SoftHSM's files still want its group.
fn groups_alone(boxed: &SysBox) -> Result<(), String> {
    let change = |expression: &str| {
        boxed
            .sh(&format!(
                "rm {DROP_IN}; sed -i.before '{expression}' {CONFIGURATION}"
            ))
            .success()
    };
    let back = || boxed.run(&["mv", &format!("{CONFIGURATION}.before"), CONFIGURATION]);
    let whole = boxed.run(&["cat", DROP_IN]).success()?;
    change("/^module_state/d")?;
    let said = init(boxed, "", "--yes");
    let written = boxed.run(&["cat", DROP_IN]);
    back().success()?;
    said.success()?;
    let written = written.success()?;
    let groups = written.ends_with("[Service]\nSupplementaryGroups=softhsm\n");
    demand(groups, || format!("it wrote {written}"))?;
    change("s|^module_state.*|module_state = [\"/srv/a %i\"]|")?;
    let said = init(boxed, "", "--yes");
    back().success()?;
    boxed.write(DROP_IN, whole)?;
    demand(
        said.code == Some(1) && said.stderr.contains("/srv/a %i: a path of a unit must be"),
        || format!("{said:?}"),
    )
}

fn in_the_way(boxed: &SysBox) -> Result<(), String> {
    boxed.run(&["mv", CONFIGURATION, "/root/away"]).success()?;
    let before = everything(boxed)?;
    let said = init(boxed, PIN, &format!("--yes --token '{TOKEN}'"));
    let named = said.stderr.contains(CREDENTIAL) || said.stderr.contains(DROP_IN);
    demand(said.code == Some(1) && named, || format!("{said:?}"))?;
    let after = everything(boxed)?;
    demand(before == after, || format!("{before}\nbecame\n{after}"))?;
    boxed
        .run(&["mv", "/root/away", CONFIGURATION])
        .success()
        .map(drop)
}
