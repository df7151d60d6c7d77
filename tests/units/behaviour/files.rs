//! A service that gets its assertion as a file, by the drop-in that `assertctl env` prints: before it
//! starts, anew while it runs, and not a moment longer.

use super::site::{BROKER_UNIT, CONFIGURATION, USER, with_configuration};
use super::units::{demand, is, show, until};
use crate::boxed::SysBox;
use crate::suite::Suite;

const UNIT: &str = "filed.service";
const FILE: &str = "/run/assertions-filed/aws.jwt";
const DROP_IN: &str = "/etc/systemd/system/filed.service.d/assertd-aws.conf";

/// What the service found when it started.
const FOUND: &str = "/run/filed-found";

/// It lives so long that one refresh is seen.
const LIFETIME_S: u32 = 8;

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "files: by the drop-in of `assertctl env` a service has its file before it starts, anew while it \
         runs, and nothing is left when it has stopped",
        || {
            let added = |old: &str| format!("{old}\n{}", sections());
            let result = with_configuration(boxed, added, || whole_life(boxed));
            let script = format!("rm -rf {DROP_IN} /etc/systemd/system/{UNIT} {FOUND}; systemctl daemon-reload");
            result.and(boxed.sh(&script).success().map(drop))
        },
    );
}

fn sections() -> String {
    format!(
        "[issuer.filed]\nurl = \"https://id.example.com/filed\"\nsubjects = [\"filed\"]\n\
         keystore = \"hsm\"\nalg = \"ES256\"\n\n[workload.filed]\n\
         match = {{ unit = \"{UNIT}\", user = \"{USER}\" }}\n\n[workload.filed.target.aws]\n\
         profile = \"aws-oidc\"\nissuer = \"filed\"\nsubject = \"filed\"\n\
         audience = \"sts.amazonaws.com\"\nlifetime = {LIFETIME_S}\n"
    )
}

fn whole_life(boxed: &SysBox) -> Result<(), String> {
    let unit = format!(
        "[Service]\nUser={USER}\nStandardOutput=file:{FOUND}\n\
         ExecStart=/bin/sh -c 'cat \"$$AWS_WEB_IDENTITY_TOKEN_FILE\"; exec sleep infinity'\n"
    );
    boxed.write(&format!("/etc/systemd/system/{UNIT}"), unit)?;
    let script = format!(
        "systemctl restart {BROKER_UNIT} && assertctl -c {CONFIGURATION} apply --yes &&
         mkdir -p `dirname {DROP_IN}` &&
         assertctl env filed/aws --part unit --set role_arn=arn:aws:iam::123456789012:role/filed >{DROP_IN} &&
         systemctl daemon-reload && systemd-analyze verify {UNIT} && systemctl start {UNIT}"
    );
    let started = boxed.sh(&script);
    let said = format!("{}{}", started.stdout, started.stderr);
    started.success()?;
    demand(!said.contains(UNIT), || {
        format!("systemd-analyze verify: {said}")
    })?;
    let result = while_it_runs(boxed);
    boxed.run(&["systemctl", "stop", UNIT]).success()?;
    result?;
    is(boxed, UNIT, "inactive")?;
    let ended = show(boxed, UNIT, "Result");
    demand(ended == "success", || format!("it ended with {ended}"))?;
    let left = "ls -d /run/assertions-filed /sys/fs/cgroup/system.slice/filed.service 2>/dev/null";
    let left = boxed.sh(left).stdout;
    demand(left.is_empty(), || format!("left behind: {left}"))
}

fn while_it_runs(boxed: &SysBox) -> Result<(), String> {
    let text = |file: &str| boxed.run(&["cat", file]).stdout;
    let mut found = String::new();
    until("the service has read its file", || {
        found = text(FOUND);
        !found.is_empty()
    })?;
    let whole = found.split('.').count() == 3 && !found.contains(char::is_whitespace);
    demand(whole, || format!("when it started it found {found:?}"))?;
    let owner = boxed.run(&["stat", "-c", "%U %a", FILE]).success()?;
    let only_its_own = format!("{USER} 600");
    demand(owner.trim() == only_its_own, || {
        format!("{FILE} is of {owner}")
    })?;
    let members = boxed.run(&[
        "cat",
        "/sys/fs/cgroup/system.slice/filed.service/cgroup.procs",
    ]);
    let members = members.success()?;
    demand(members.lines().count() == 2, || {
        format!("the service and who keeps its file are not both in the unit: {members}")
    })?;
    let mut now = String::new();
    until("the file is replaced", || {
        now = text(FILE);
        !now.is_empty() && now != found
    })?;
    let whole = now.split('.').count() == 3 && !now.contains(char::is_whitespace);
    demand(whole, || format!("it was replaced by {now:?}"))
}
