//! Callers by unit: who is recognised, who is refused, and what the audit log has about them
//! (architecture.md, main request, step 4).

use super::caller::{Answer, ask_as, decision, run_as, whoami};
use super::site::{USER, USER_ID};
use super::units::{demand, show};
use crate::boxed::SysBox;
use crate::suite::Suite;
use serde_json::Value;

/// Moves the shell into a cgroup below its own (cgroups(7): 0 is whoever writes it).
const NEST: &str = "C=/sys/fs/cgroup`sed -n s/^0:://p /proc/self/cgroup`; mkdir $C/NAME; \
                    echo 0 >$C/NAME/cgroup.procs; ";

/// As a container engine runs one: namespaces of its own, its own /proc.
const CONTAIN: &str = "exec unshare --pid --fork --mount-proc --net --uts --ipc ";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    suite.check(
        "identity: a service is recognised, recorded with its invocation, and another is refused",
        || service(boxed),
    );
    suite.check(
        "identity: a unit named by its path is that path alone",
        || by_path(boxed),
    );
    suite.check(
        "identity: one instance of a template is not another",
        || template(boxed),
    );
    suite.check(
        "identity: a scope is recognised, and is no service of its name",
        || scope(boxed),
    );
    suite.check(
        "identity: a DynamicUser= service is recognised, with the uid it really has",
        || dynamic_user(boxed),
    );
    suite.check(
        "identity: a user's own unit with the name of a system unit is refused",
        || user_unit(boxed),
    );
    suite.check(
        "identity: a nested cgroup with the name of a system unit is its outer unit",
        || nested_name(boxed),
    );
    suite.check(
        "identity: a delegated sub-cgroup is still its unit, recorded as nested",
        || delegated(boxed),
    );
    suite.check(
        "identity: a container is served where `container = true` says so, and nowhere else",
        || container(boxed),
    );
}

/// A granted request as the log has it: by this unit, nested or not, proved by the kernel.
fn recorded(boxed: &SysBox, answer: Answer, unit: &str, nested: bool) -> Result<Value, String> {
    let answer = answer.must_be(200)?;
    let record = decision(boxed, &answer.id)?;
    let as_wanted =
        record["unit"] == unit && record["nested"] == nested && record["peer_proof"] == "pidfd";
    demand(as_wanted, || {
        format!("nested {nested} in {unit} is recorded as {record}")
    })?;
    Ok(record)
}

fn service(boxed: &SysBox) -> Result<(), String> {
    let started = boxed.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=payments.service",
        "--property=Type=oneshot",
        "--property=RemainAfterExit=yes",
        "--property=StandardOutput=file:/run/payments",
        "asker",
        "once",
        "bank",
    ]);
    started.success()?;
    let invocation = show(boxed, "payments.service", "InvocationID");
    let answer = boxed.run(&["cat", "/run/payments"]).success();
    // Whatever came of it: the name is everybody's.
    boxed
        .run(&["systemctl", "stop", "payments.service"])
        .success()?;
    let answer = answer?;
    let path = "/system.slice/payments.service";
    let record = recorded(boxed, Answer::parse(&answer)?, path, false)?;
    demand(
        record["invocation"] == *invocation && invocation.len() == 32,
        || format!("invocation {invocation:?} is recorded as {record}"),
    )?;
    ask_as(boxed, &["--unit=others.service"], "bank")?
        .must_be(403)
        .map(drop)
}

fn by_path(boxed: &SysBox) -> Result<(), String> {
    let unit = "--unit=by-path.service";
    let answer = ask_as(boxed, &[unit], "by-path")?;
    recorded(boxed, answer, "/system.slice/by-path.service", false)?;
    ask_as(boxed, &[unit, "--slice=elsewhere.slice"], "by-path")?
        .must_be(403)
        .map(drop)
}

fn template(boxed: &SysBox) -> Result<(), String> {
    let unit = "[Service]\nType=oneshot\nExecStart=/usr/bin/asker once instance\n\
                StandardOutput=file:/run/app-%i\n";
    boxed.write("/etc/systemd/system/app@.service", unit)?;
    boxed
        .sh("systemctl daemon-reload; systemctl start app@1.service app@2.service")
        .success()?;
    let answer = |file: &str| Answer::parse(&boxed.run(&["cat", file]).success()?);
    let (one, two) = (answer("/run/app-1")?, answer("/run/app-2")?);
    let path = "/system.slice/system-app.slice/app@1.service";
    recorded(boxed, one, path, false)?;
    two.must_be(403).map(drop)
}

fn scope(boxed: &SysBox) -> Result<(), String> {
    let answer = ask_as(boxed, &["--scope", "--unit=batch.scope"], "scope")?;
    recorded(boxed, answer, "/system.slice/batch.scope", false)?;
    ask_as(boxed, &["--unit=batch.service"], "scope")?.must_be(403)?;
    ask_as(boxed, &["--scope", "--unit=payments.scope"], "bank")?
        .must_be(403)
        .map(drop)
}

/// Also one that is in a user namespace of its own, where it is somebody else.
fn dynamic_user(boxed: &SysBox) -> Result<(), String> {
    let options = ["--unit=dynamic.service", "--property=DynamicUser=yes"];
    dynamic_user_of(boxed, &options)?;
    dynamic_user_of(
        boxed,
        &[&options[..], &["--property=PrivateUsers=yes"]].concat(),
    )
}

fn dynamic_user_of(boxed: &SysBox, options: &[&str]) -> Result<(), String> {
    let script = "id -u; asker once dynamic";
    let said = run_as(boxed, options, &["sh", "-c", script])?;
    let (uid, answer) = said.split_once('\n').ok_or("no uid")?;
    let answer = Answer::parse(answer)?;
    let record = recorded(boxed, answer, "/system.slice/dynamic.service", false)?;
    let uid: u32 = uid.parse().map_err(|_| format!("no uid: {uid}"))?;
    // systemd.exec(5): DynamicUser= takes one of these.
    let dynamic = (61_184..=65_519).contains(&uid);
    demand(dynamic && record["uid"] == uid, || {
        format!("uid {uid} is recorded as {record}")
    })
}

fn user_unit(boxed: &SysBox) -> Result<(), String> {
    let unit = "[Service]\nType=oneshot\n\
                ExecStart=/bin/sh -c 'asker once bank >%t/answer; assertctl whoami --json >%t/who'\n";
    let path = format!("/home/{USER}/.config/systemd/user/payments.service");
    boxed.write(&path, unit)?;
    let manager = format!("user@{USER_ID}.service");
    let script = format!(
        "chown -R {USER}: /home/{USER}
         systemctl start {manager}
         setpriv --reuid={USER} --regid={USER} --init-groups \
           env XDG_RUNTIME_DIR=/run/user/{USER_ID} systemctl --user start payments.service
         cat /run/user/{USER_ID}/answer /run/user/{USER_ID}/who
         systemctl stop {manager}"
    );
    let said = boxed.sh(&script).success()?;
    let (answer, who) = said.split_once('\n').ok_or("no answer")?;
    Answer::parse(answer)?.must_be(403)?;
    // The control: the same user in the system's unit of that name is served.
    let user = format!("--property=User={USER}");
    ask_as(boxed, &["--unit=payments.service", &user], "bank")?.must_be(200)?;
    let who = whoami(who)?;
    let path = format!("/user.slice/user-{USER_ID}.slice/{manager}");
    demand(
        who["unit"] == *path && who["nested"] == true && who["uid"] == USER_ID,
        || format!("whoami says {who}"),
    )
}

fn nested_name(boxed: &SysBox) -> Result<(), String> {
    let options = ["--unit=outer.service", "--property=Delegate=yes"];
    let script = NEST.replace("NAME", "payments.service") + "asker once bank; asker once outer";
    let said = run_as(boxed, &options, &["sh", "-c", &script])?;
    let (bank, outer) = said.split_once('\n').ok_or("no answer")?;
    Answer::parse(bank)?.must_be(403)?;
    recorded(
        boxed,
        Answer::parse(outer)?,
        "/system.slice/outer.service",
        true,
    )
    .map(drop)
}

fn delegated(boxed: &SysBox) -> Result<(), String> {
    let options = ["--unit=payments.service", "--property=Delegate=yes"];
    let script = NEST.replace("NAME", "worker") + "asker once bank";
    let answer = Answer::parse(&run_as(boxed, &options, &["sh", "-c", &script])?)?;
    recorded(boxed, answer, "/system.slice/payments.service", true).map(drop)
}

fn container(boxed: &SysBox) -> Result<(), String> {
    let contained = NEST.replace("NAME", "libpod-payload") + CONTAIN;
    let ask = |unit: &str, script: &str, target: &str| {
        let options = [unit, "--property=Delegate=yes"];
        let script = format!("{script}asker once {target}");
        Answer::parse(&run_as(boxed, &options, &["sh", "-c", &script])?)
    };
    let pod = ask("--unit=pod.service", &contained, "pod")?;
    let record = recorded(boxed, pod, "/system.slice/pod.service", true)?;
    demand(record["container"] == true, || {
        format!("recorded as {record}")
    })?;
    ask("--unit=pod.service", "", "pod")?.must_be(403)?;
    ask("--unit=payments.service", "", "bank")?.must_be(200)?;
    ask("--unit=payments.service", &contained, "bank")?
        .must_be(403)
        .map(drop)
}
