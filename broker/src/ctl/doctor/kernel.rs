//! What the kernel offers, and its clock. Pure findings about facts that [`look`] reads.

use super::finding::{
    CGROUP_V2, CLOCK_SANE, CLOCK_SYNCHRONISED, Finding, LANDLOCK, PEER_PIDFD, PROC_SHOWN, SWAP,
};
use super::host;
use crate::peer::{self, Proof};
use crate::sys::{self, ClockState};
use keystore::{Clock, Error};
use nix::errno::Errno;

/// What was seen.
pub struct Facts {
    /// How a peer can be proved.
    pub proof: Proof,
    /// `/proc/self/cgroup`
    pub cgroup: String,
    /// The version of Landlock.
    pub landlock: Result<u32, Errno>,
    /// Why the time cannot be trusted.
    pub clock: Result<(), Error>,
    /// Whether something keeps it right.
    pub clock_state: ClockState,
    /// `/proc/mounts`
    pub mounts: String,
    /// The groups of assertd, if it runs.
    pub groups: Option<Vec<String>>,
    /// `/proc/swaps`
    pub swaps: String,
    /// Keystores that run, and how many KiB of each may not be swapped out (`VmLck`). They lock all
    /// or, if a limit is in the way, nothing that lasts.
    pub locked_kib: Vec<(String, u64)>,
}

/// Looks. `assertd` and `keystores` are those that run, by number, and by name and number.
pub fn look(assertd: Option<u32>, keystores: &[(String, u32)]) -> Facts {
    let locked = |(name, pid): &(String, u32)| {
        let status = host::text(format!("/proc/{pid}/status"));
        Some((name.clone(), kib(&status, "VmLck:")?))
    };
    Facts {
        proof: peer::kernel_proof(),
        cgroup: host::text("/proc/self/cgroup"),
        landlock: sys::landlock_version(),
        clock: Clock::new().trusted().map(drop),
        clock_state: sys::clock_state(),
        mounts: host::text("/proc/mounts"),
        groups: assertd.map(groups),
        swaps: host::text("/proc/swaps"),
        locked_kib: keystores.iter().filter_map(locked).collect(),
    }
}

/// The groups of a process, supplementary ones too.
fn groups(pid: u32) -> Vec<String> {
    let status = host::text(format!("/proc/{pid}/status"));
    let lines = status.lines();
    let of = lines.filter(|line| line.starts_with("Gid:") || line.starts_with("Groups:"));
    of.flat_map(|line| line.split_ascii_whitespace().skip(1).map(str::to_owned))
        .collect()
}

/// A size of `/proc/PID/status`.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Judges.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![proof(facts.proof), cgroup(&facts.cgroup)];
    found.extend(proc_hidden(&facts.mounts, facts.groups.as_deref()));
    found.push(landlock(facts.landlock));
    found.push(clock(facts));
    found.extend(swap(&facts.swaps, &facts.locked_kib));
    found
}

fn proof(proof: Proof) -> Finding {
    match proof {
        Proof::Pidfd => PEER_PIDFD.ok("SO_PEERPIDFD present"),
        Proof::Pid => PEER_PIDFD.warn(
            "no SO_PEERPIDFD: this kernel names a caller by its pid alone, so that only workloads \
             that allow this are served; the others are denied, in the audit log as weak_proof",
            "boot Linux 6.5 or later, or write `allow_pid_fallback = true` in each \
             [workload.NAME] that is to be served here (assertd.toml(5) says what it costs)",
        ),
    }
}

fn cgroup(cgroup: &str) -> Finding {
    // A hybrid host has lines of version 1 too.
    if cgroup.lines().any(|line| line.starts_with("0::")) {
        return CGROUP_V2.ok("cgroup v2 present");
    }
    CGROUP_V2.fail(
        "no cgroup v2: no workload can be told by its unit, every request is denied",
        "add `systemd.unified_cgroup_hierarchy=1` to the kernel's command line and boot again",
    )
}

/// With `hidepid=` (proc(5)) assertd, which is not root, sees no process of another user, and refuses
/// whom it cannot look at. A group may be let in by `gid=`.
fn proc_hidden(mounts: &str, groups: Option<&[String]>) -> Option<Finding> {
    let proc = mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == "/proc" && words.next()? == "proc").then(|| words.next())?
    })?;
    let option = |name: &str| proc.split(',').find_map(|option| option.strip_prefix(name));
    let hidden = option("hidepid=").filter(|how| !matches!(*how, "0" | "off"))?;
    Some(match option("gid=") {
        None => PROC_SHOWN.fail(
            format!("/proc is mounted with hidepid={hidden}: assertd sees no caller, and refuses all"),
            "take `hidepid=` out of the line for /proc in /etc/fstab (or let a group of assertd's in \
             by `gid=`), then run `mount -o remount,hidepid=0 /proc`",
        ),
        Some(gid) if groups.is_some_and(|groups| groups.iter().any(|group| group == gid)) => {
            PROC_SHOWN.ok(format!("/proc shows processes to group {gid}, which assertd is in"))
        }
        Some(gid) => PROC_SHOWN.fail(
            format!(
                "/proc is mounted with hidepid={hidden},gid={gid}: assertd sees callers only as a \
                 member of group {gid}, and is not known to be one"
            ),
            format!(
                "write `SupplementaryGroups={gid}` under [Service] by `systemctl edit assertd`, or \
                 mount /proc without `hidepid=`"
            ),
        ),
    })
}

fn landlock(version: Result<u32, Errno>) -> Finding {
    match version {
        Ok(version) => LANDLOCK.ok(format!("Landlock present (version {version})")),
        Err(Errno::EOPNOTSUPP) => LANDLOCK.warn(
            "Landlock is switched off: keystores that are no units can write wherever their user \
             may",
            "put `landlock` first in the list after `lsm=` on the kernel's command line and boot \
             again (now: /sys/kernel/security/lsm)",
        ),
        Err(Errno::ENOSYS) => LANDLOCK.warn(
            "no Landlock: keystores that are no units can write wherever their user may",
            "boot a kernel with CONFIG_SECURITY_LANDLOCK=y (Linux 5.13 or later)",
        ),
        Err(errno) => LANDLOCK.warn(
            format!("whether there is Landlock cannot be asked here ({errno})"),
            "allow the system call landlock_create_ruleset in the container that this host is, or \
             ask on its host",
        ),
    }
}

/// One line for the clock: that it is wrong hides that nobody corrects it.
fn clock(facts: &Facts) -> Finding {
    let remedy = "run `timedatectl set-ntp true` (or start chronyd), and look again after a minute";
    if let Err(error) = &facts.clock {
        return CLOCK_SANE.fail(error.to_string(), remedy);
    }
    match facts.clock_state {
        ClockState::Synchronised => CLOCK_SYNCHRONISED.ok("synchronised"),
        ClockState::Unsynchronised => CLOCK_SYNCHRONISED.warn(
            "not synchronised: others refuse assertions that seem to be from the future or too old",
            remedy,
        ),
        ClockState::Unknown => CLOCK_SYNCHRONISED.warn(
            "whether it is synchronised cannot be asked here: the kernel refuses adjtimex(2)",
            "run `timedatectl show -p NTPSynchronized` on the host of this container",
        ),
    }
}

/// Nothing to say without swap, or where all of it is locked.
fn swap(swaps: &str, locked_kib: &[(String, u64)]) -> Option<Finding> {
    let areas: Vec<&str> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .collect();
    let loose: Vec<&str> = locked_kib
        .iter()
        .filter(|(_, kib)| *kib == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if areas.is_empty() || loose.is_empty() {
        return None;
    }
    Some(SWAP.warn(
        format!(
            "swap is on ({}), and the memory of {} is not locked: what the module keeps, the PIN \
             too, may reach the disk",
            areas.join(", "),
            loose.join(", ")
        ),
        "write `LimitMEMLOCK=infinity` below [Service] by `systemctl edit` of that unit and restart \
         it, or run `swapoff -a`",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use keystore::Kind;

    fn good() -> Facts {
        Facts {
            proof: Proof::Pidfd,
            cgroup: "12:pids:/\n0::/init.scope\n".into(),
            landlock: Ok(4),
            clock: Ok(()),
            clock_state: ClockState::Synchronised,
            mounts: "proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n".into(),
            groups: None,
            swaps: "Filename Type Size Used Priority\n".into(),
            locked_kib: vec![("keystore hsm".into(), 0)],
        }
    }

    /// The one finding that is not ok: its id, severity and remedy.
    fn bad(facts: &Facts) -> (&'static str, Severity, String) {
        let found = findings(facts);
        let mut bad = found.iter().filter(|it| it.severity != Severity::Ok);
        let one = bad.next().unwrap();
        assert_eq!(bad.next(), None);
        (one.id, one.severity, one.remedy.clone().unwrap())
    }

    #[test]
    fn a_good_kernel_has_nothing_but_ok() {
        let found = findings(&good());
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|it| it.severity == Severity::Ok));
    }

    #[test]
    fn a_kernel_without_peer_pidfd_is_warned_about() {
        let (id, severity, remedy) = bad(&Facts {
            proof: Proof::Pid,
            ..good()
        });
        assert_eq!((id, severity), ("D01", Severity::Warn));
        assert!(remedy.contains("allow_pid_fallback = true"), "{remedy}");
    }

    #[test]
    fn a_host_of_cgroup_v1_alone_fails() {
        let (id, severity, remedy) = bad(&Facts {
            cgroup: "12:pids:/\n1:name=systemd:/init.scope\n".into(),
            ..good()
        });
        assert_eq!((id, severity), ("D02", Severity::Fail));
        assert!(
            remedy.contains("systemd.unified_cgroup_hierarchy=1"),
            "{remedy}"
        );
    }

    #[test]
    fn a_proc_that_hides_processes_fails_unless_assertd_is_of_the_group_that_sees_them() {
        let facts = |options: &str, groups: &[&str]| Facts {
            mounts: format!("proc /proc proc rw,{options} 0 0\n"),
            groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
            ..good()
        };
        for (options, groups, phrase) in [
            ("hidepid=invisible", vec!["7"], "`hidepid=`"),
            ("hidepid=2", vec![], "`hidepid=`"),
            (
                "hidepid=invisible,gid=27",
                vec!["7"],
                "SupplementaryGroups=27",
            ),
        ] {
            let (id, severity, remedy) = bad(&facts(options, &groups));
            assert_eq!((id, severity), ("D07", Severity::Fail));
            assert!(remedy.contains(phrase), "{remedy}");
        }
        for seen in [
            facts("hidepid=invisible,gid=27", &["7", "27"]),
            facts("hidepid=0", &[]),
        ] {
            let found = findings(&seen);
            assert!(found.iter().all(|it| it.severity == Severity::Ok));
        }
    }

    #[test]
    fn no_landlock_and_landlock_off_have_different_remedies() {
        for (errno, phrase) in [
            (Errno::ENOSYS, "CONFIG_SECURITY_LANDLOCK=y"),
            (Errno::EOPNOTSUPP, "`lsm=`"),
            (Errno::EPERM, "landlock_create_ruleset"),
        ] {
            let (id, severity, remedy) = bad(&Facts {
                landlock: Err(errno),
                ..good()
            });
            assert_eq!((id, severity), ("D03", Severity::Warn));
            assert!(remedy.contains(phrase), "{remedy}");
        }
    }

    #[test]
    fn a_clock_that_nobody_keeps_right_is_warned_about_and_a_wrong_one_fails() {
        let (id, severity, remedy) = bad(&Facts {
            clock_state: ClockState::Unsynchronised,
            ..good()
        });
        assert_eq!((id, severity), ("D05", Severity::Warn));
        assert!(remedy.contains("timedatectl set-ntp true"), "{remedy}");
        let (id, severity, _) = bad(&Facts {
            clock_state: ClockState::Unknown,
            ..good()
        });
        assert_eq!((id, severity), ("D05", Severity::Warn));
        let (id, severity, remedy) = bad(&Facts {
            clock: Err(Error::new(Kind::Clock, "clock: shows 0 s since 1970")),
            clock_state: ClockState::Unsynchronised,
            ..good()
        });
        assert_eq!((id, severity), ("D04", Severity::Fail));
        assert!(remedy.contains("timedatectl set-ntp true"), "{remedy}");
    }

    #[test]
    fn swap_matters_where_memory_is_not_locked() {
        let swaps = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n";
        let (id, severity, remedy) = bad(&Facts {
            swaps: swaps.into(),
            ..good()
        });
        assert_eq!((id, severity), ("D06", Severity::Warn));
        assert!(remedy.contains("LimitMEMLOCK=infinity"), "{remedy}");
        assert_eq!(swap(swaps, &[("keystore hsm".into(), 4)]), None);
        assert_eq!(
            kib("VmPeak:\t  9 kB\nVmLck:\t  123 kB\n", "VmLck:"),
            Some(123)
        );
    }
}
