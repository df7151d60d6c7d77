//! What a module may do: while init asks it for its tokens, and in the unit that init has set up.

use super::{CONFIGURATION, DROP_IN, PIN, TOKEN, demand, init};
use crate::boxed::SysBox;

/// Another instance of the keystore's unit, with the drop-in that was written and another program:
/// what it has copied to the tokens' directory it cannot start there.
pub fn nothing_to_execute(boxed: &SysBox) -> Result<(), String> {
    const SERVICE: &str = "assertd-keystore-pkcs11@tried.service";
    const TOKENS: &str = "/var/lib/softhsm/tokens";
    let program = format!(
        "[Service]\nType=oneshot\nStandardInput=null\nRestart=no\nWatchdogSec=0\nExecStart=\n\
         ExecPaths=/usr/bin\n\
         ExecStart=/usr/bin/dash -c 'cp /usr/bin/true {TOKENS}/copy && {TOKENS}/copy; code=$$?; \
         rm -f {TOKENS}/copy; exit $$code'\n"
    );
    let ended = |more: &str| {
        let drop_ins = format!("/run/systemd/system/{SERVICE}.d");
        boxed
            .sh(&format!("install -D -t {drop_ins} {DROP_IN}"))
            .success()?;
        boxed.write(&format!("{drop_ins}/try.conf"), format!("{program}{more}"))?;
        let started = boxed.sh(&format!(
            "systemctl daemon-reload; systemctl start {SERVICE}"
        ));
        let code = boxed
            .run(&[
                "systemctl",
                "show",
                "--value",
                "--property=ExecMainStatus",
                SERVICE,
            ])
            .success()?;
        boxed
            .sh(&format!(
                "rm -r {drop_ins}; systemctl stop assertd-keystore-pkcs11@tried.socket {SERVICE}
                 systemctl reset-failed; systemctl daemon-reload"
            ))
            .success()?;
        Ok::<_, String>((started.code, code.trim().to_owned()))
    };
    // As the drop-in would be without its NoExecPaths=.
    let control = ended(&format!(
        "NoExecPaths=\nNoExecPaths=/\nReadWritePaths={TOKENS}\n"
    ))?;
    demand(control == (Some(0), "0".to_owned()), || {
        format!("the control ended so: {control:?}")
    })?;
    let sealed = ended("")?;
    // dash says 126 of what it may not execute.
    demand(sealed == (Some(1), "126".to_owned()), || {
        format!("it ended so: {sealed:?}")
    })
}

/// In place of the program that loads modules, one that notes as whom and with which capabilities.
pub fn asked_as(boxed: &SysBox) -> Result<(), String> {
    const PROGRAM: &str = "/usr/bin/assertd-keystore-pkcs11";
    const OWN: &str = "assertd-pkcs11 0000000000000000";
    const READER: &str = "root 0000000000000004"; // CAP_DAC_READ_SEARCH is bit 2
    let noting = format!(
        "#!/bin/sh\necho \"$(id -un) $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)\" \
         >>/tmp/asked\nexec {PROGRAM}.real \"$@\"\n"
    );
    boxed
        .sh(&format!(
            "mv {PROGRAM} {PROGRAM}.real; mv {CONFIGURATION} /root/away"
        ))
        .success()?;
    boxed.write(PROGRAM, noting)?;
    let asked = |owner: &str| {
        let prepare = format!(
            "chmod 755 {PROGRAM}; install -m 666 /dev/null /tmp/asked
             chown -R {owner} /var/lib/softhsm/tokens/*"
        );
        boxed.sh(&prepare).success()?;
        let said = init(boxed, PIN, &format!("--yes --token '{TOKEN}'"));
        // The token was seen, since what is in the way is looked at only then.
        demand(
            said.code == Some(1) && said.stderr.contains("is there already"),
            || format!("{said:?}"),
        )?;
        boxed.run(&["cat", "/tmp/asked"]).success()
    };
    let outcomes = (asked("assertd-pkcs11"), asked("root"));
    boxed
        .sh(&format!(
            "mv {PROGRAM}.real {PROGRAM}; mv /root/away {CONFIGURATION}; rm /tmp/asked
             chown -R assertd-pkcs11 /var/lib/softhsm/tokens/*"
        ))
        .success()?;
    let (own, roots) = (outcomes.0?, outcomes.1?);
    demand(
        !own.is_empty() && own.lines().all(|line| line == OWN),
        || format!("the keystore's token was asked for as {own}"),
    )?;
    let expected = roots.lines().all(|line| line == OWN || line == READER);
    demand(expected && roots.contains(READER), || {
        format!("root's token was asked for as {roots}")
    })
}
