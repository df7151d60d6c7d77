//! Callers by unit: who is recognised, who is refused, and what the audit log has about them
//! (architecture.md, main request, step 4).

use super::caller::{Answer, ask_as, decision, run_as, whoami};
use super::site::{USER, USER_ID, workload};
use super::units::{demand, show, until};
use crate::boxed::SysBox;
use crate::installed::{WITNESS_SOCKET, WITNESS_UNIT};
use crate::suite::Suite;
use serde_json::Value;

/// Moves the shell into a cgroup below its own (cgroups(7): 0 is whoever writes it).
const NEST: &str = "C=/sys/fs/cgroup`sed -n s/^0:://p /proc/self/cgroup`; mkdir $C/NAME; \
                    echo 0 >$C/NAME/cgroup.procs; ";

/// As a container engine runs one: namespaces of its own, its own /proc.
const CONTAIN: &str = "exec unshare --pid --fork --mount-proc --net --uts --ipc ";

/// A team's file that is only there while one check runs.
const EXECUTABLES: &str = "/etc/assertd/conf.d/executables.toml";

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
        "identity: a user's own unit is matched by `user_unit`, and another of hers is not",
        || own_unit(boxed),
    );
    suite.check(
        "identity: who has logged in is interactive, with a terminal and without one",
        || session(boxed),
    );
    suite.check(
        "identity: by `exe` a unit that runs that executable is served, and no other of its user",
        || {
            let result = executable(boxed);
            result.and(without_a_witness(boxed))
        },
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

/// Of the user's own manager, which starts and ends here.
fn own_unit(boxed: &SysBox) -> Result<(), String> {
    for name in ["own", "other"] {
        let unit = format!(
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'asker once own >%t/{name}-answer'\n"
        );
        let path = format!("/home/{USER}/.config/systemd/user/{name}.service");
        boxed.write(&path, unit)?;
    }
    let script = format!(
        "chown -R {USER}: /home/{USER}
         systemctl start user@{USER_ID}.service
         setpriv --reuid={USER} --regid={USER} --init-groups \
           env XDG_RUNTIME_DIR=/run/user/{USER_ID} systemctl --user start own.service other.service
         cat /run/user/{USER_ID}/own-answer /run/user/{USER_ID}/other-answer
         systemctl stop user@{USER_ID}.service"
    );
    let said = boxed.sh(&script).success()?;
    let (own, other) = said.split_once('\n').ok_or("no answer")?;
    let manager = format!("/user.slice/user-{USER_ID}.slice/user@{USER_ID}.service");
    recorded(boxed, Answer::parse(own)?, &manager, true)?;
    Answer::parse(other)?.must_be(403)?;
    // A system unit of that name is another one.
    let user = format!("--property=User={USER}");
    ask_as(boxed, &["--unit=own.service", &user], "own")?
        .must_be(403)
        .map(drop)
}

/// A session is systemd-logind's, for pam_systemd(8); the terminal is one that script(1) makes.
fn session(boxed: &SysBox) -> Result<(), String> {
    let options = ["--unit=desk.service", &format!("--property=User={USER}")];
    let none = ask_as(boxed, &options, "desk")?;
    recorded(boxed, none, "/system.slice/desk.service", false)?;
    let explained = |answer: Answer, why: &str| {
        let id = answer.must_be(403)?.id;
        let said = boxed.run(&["assertctl", "explain", &id]).success()?;
        demand(said.contains(why), || format!("no {why:?} in: {said}"))
    };
    let command = ["script", "-qec", "asker once desk", "/dev/null"];
    let terminal = Answer::parse(&run_as(boxed, &options, &command)?)?;
    explained(terminal, "it is true: it has a terminal")?;
    let script = format!("su -l {USER} -c 'cat /proc/self/cgroup; asker once desk'");
    let said = boxed.sh(&script).success()?;
    let (cgroup, answer) = said.trim().rsplit_once('\n').ok_or("no answer")?;
    let scope = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .and_then(|path| path.rsplit_once('/'))
        .map(|(_, unit)| unit)
        .unwrap_or_default();
    demand(
        scope.starts_with("session-") && scope.ends_with(".scope"),
        || format!("no session, is libpam-systemd installed? {cgroup}"),
    )?;
    explained(Answer::parse(answer)?, &format!("it belongs to {scope}"))
}

/// The unit runs a program of its own; the user of both is the same.
fn executable(boxed: &SysBox) -> Result<(), String> {
    let matches = format!(r#"{{ user = "{USER}", exe = "/usr/bin/payroll" }}"#);
    boxed.write(EXECUTABLES, workload("payroll", &matches, ""))?;
    boxed
        .sh("install -m 755 /usr/bin/asker /usr/bin/payroll")
        .success()?;
    let refused = boxed.run(&["assertctl", "reload"]);
    let told = "systemctl enable --now assertd-witness.socket";
    demand(
        refused.code == Some(1) && refused.stderr.contains(told),
        || format!("without a witness: {refused:?}"),
    )?;
    boxed
        .run(&["systemctl", "enable", "--now", "--quiet", WITNESS_SOCKET])
        .success()?;
    until("the configuration comes into force with a witness", || {
        boxed.run(&["assertctl", "reload"]).code == Some(0)
    })?;
    boxed.run(&["assertctl", "apply", "--yes"]).success()?;
    let user = format!("--property=User={USER}");
    let ask = |unit: &str, program: &str| {
        let options = [unit, user.as_str()];
        Answer::parse(&run_as(boxed, &options, &[program, "once", "payroll"])?)
    };
    let answer = ask("--unit=payroll.service", "payroll")?;
    let record = recorded(boxed, answer, "/system.slice/payroll.service", false)?;
    let digest = boxed.run(&["sha256sum", "/usr/bin/payroll"]).success()?;
    let digest = digest.split(' ').next().unwrap_or_default();
    demand(record["exe_sha256"] == *digest, || {
        format!("{digest} is recorded as {record}")
    })?;
    // The same bytes elsewhere, in the same unit and by the same user.
    ask("--unit=payroll.service", "asker")?.must_be(403)?;
    let uid = show(boxed, WITNESS_UNIT, "User");
    demand(uid == "assertd-witness", || {
        format!("the witness is {uid:?}")
    })?;
    // Another user's process of that executable.
    run_as(
        boxed,
        &["--unit=payroll.service"],
        &["payroll", "once", "payroll"],
    )
    .and_then(|answer| Answer::parse(&answer))?
    .must_be(403)
    .map(drop)
}

/// As it was before.
fn without_a_witness(boxed: &SysBox) -> Result<(), String> {
    let script = format!(
        "rm -f {EXECUTABLES} /usr/bin/payroll
         assertctl reload
         systemctl disable --now --quiet {WITNESS_SOCKET}
         systemctl stop {WITNESS_UNIT}"
    );
    boxed.sh(&script).success().map(drop)
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
