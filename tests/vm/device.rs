//! The device: whose it is, that the keystore's unit reaches it and no other, and that nothing of ours
//! is left in the TPM's few slots. And limits on memory and processes, which bite only where systemd
//! has the controllers: not in the box of `units`.

use crate::installed::KEYSTORE_UNIT;
use crate::machine::Machine;
use crate::request;
use harness::suite::{INDENT, Site, Suite};

/// What an administrator may give a keystore; it has to do with it.
const MEMORY_MIB: u64 = 64;
const TASKS: u64 = 16;

pub fn run(suite: &mut Suite<'_>, machine: &Machine) {
    let mut facts = String::new();
    suite.check(
        "device: group tss may open /dev/tpmrm0, others may not",
        || {
            facts = whose_it_is(machine)?;
            Ok(())
        },
    );
    suite.check(
        "device: assertctl keystore check finds nothing that fails",
        || {
            facts += &machine.insist("assertctl keystore check tpm").success()?;
            Ok(())
        },
    );
    for line in facts.lines() {
        println!("{INDENT}{line}");
    }
    suite.check(
        "device: the keystore runs as assertd-tpm and sees /dev/tpmrm0 alone",
        || sees_one_device(machine),
    );
    suite.check(
        "device: systemd's device filter lets the unit open /dev/tpmrm0 and not /dev/tpm0",
        || device_filter(machine),
    );
    suite.check(
        "device: after signing, nothing is loaded and no session is held",
        || nothing_left(machine),
    );
    let mut used = String::new();
    suite.check(
        "device: a keystore with little memory and few processes signs",
        || {
            used = limited(machine)?;
            Ok(())
        },
    );
    print!("{used}");
}

/// Returns which kernel says so.
fn whose_it_is(machine: &Machine) -> Result<String, String> {
    let script = "stat -c '%U %G %a' /dev/tpmrm0; id -nG assertd-tpm; uname -sr";
    let shown = machine.sh(script).success()?;
    let mut lines = shown.lines();
    let owners = lines.next().unwrap_or_default();
    let groups = lines.next().unwrap_or_default();
    match owners == "tss tss 660" && groups.split(' ').any(|group| group == "tss") {
        true => Ok(lines.map(|line| format!("{line}\n")).collect()),
        false => Err(format!(
            "the device is of {owners}, assertd-tpm in {groups}"
        )),
    }
}

fn main_pid(machine: &Machine) -> Result<String, String> {
    let shown = machine.run(&["systemctl", "show", "-P", "MainPID", KEYSTORE_UNIT]);
    match shown.success()?.trim() {
        "0" | "" => Err(format!("{KEYSTORE_UNIT} does not run")),
        pid => Ok(pid.to_string()),
    }
}

fn sees_one_device(machine: &Machine) -> Result<(), String> {
    let pid = main_pid(machine)?;
    let script = format!("ps -o user= -p {pid}; ls /proc/{pid}/root/dev | grep -E 'tpm|nvme|vd'");
    let shown = machine.sh(&script).success()?;
    match shown.split_whitespace().collect::<Vec<_>>()[..] {
        ["assertd-tpm" | "assertd+", "tpmrm0"] => Ok(()),
        _ => Err(shown),
    }
}

/// A shell of root's in the unit's cgroup: no file mode and no missing node is in its way, only the
/// filter. Outside, it opens both.
fn device_filter(machine: &Machine) -> Result<(), String> {
    let script = format!(
        "opens() {{ (exec 3<>$1) 2>&1 && echo opened || true; }}
         group=/sys/fs/cgroup$(systemctl show -P ControlGroup {KEYSTORE_UNIT})
         opens /dev/tpm0
         echo $$ >$group/cgroup.procs
         opens /dev/tpm0
         opens /dev/tpmrm0"
    );
    let shown = machine.sh(&script).success()?;
    let lines: Vec<&str> = shown.lines().collect();
    match lines[..] {
        ["opened", refused, "opened"] if refused.ends_with("Operation not permitted") => Ok(()),
        _ => Err(shown),
    }
}

/// Through the resource manager each user sees his own objects, so root looks past it.
fn nothing_left(machine: &Machine) -> Result<(), String> {
    request::assertion(machine)?;
    let script = "for kind in transient loaded-session persistent; do
           echo $kind $(tpm2_getcap -T device:/dev/tpm0 handles-$kind)
         done";
    let shown = machine.sh(script).success()?;
    match shown.split_whitespace().collect::<Vec<_>>()[..] {
        ["transient", "loaded-session", "persistent"] => Ok(()),
        _ => Err(shown),
    }
}

fn limited(machine: &Machine) -> Result<String, String> {
    let script = format!(
        "systemctl set-property --runtime {KEYSTORE_UNIT} MemoryMax={MEMORY_MIB}M TasksMax={TASKS}
         systemctl restart {KEYSTORE_UNIT}"
    );
    machine.sh(&script).success()?;
    request::assertion(machine)?;
    let script = format!(
        "cd /sys/fs/cgroup$(systemctl show -P ControlGroup {KEYSTORE_UNIT})
         cat memory.max pids.max memory.peak pids.peak
         sed -n 's/^oom_kill //p' memory.events"
    );
    let shown = machine.sh(&script).success()?;
    let numbers: Vec<u64> = shown
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [memory_max, tasks_max, memory, tasks, 0] = numbers[..] else {
        return Err(shown);
    };
    if (memory_max, tasks_max) != (MEMORY_MIB << 20, TASKS) {
        return Err(format!("the limits are not in force: {shown}"));
    }
    Ok(format!(
        "{INDENT}it used {} MiB and {tasks} tasks at most\n",
        memory >> 20
    ))
}
