//! The tables: which directive refuses what. Each probe reaches for something that would be open
//! without it.

use super::fixtures::{Fixtures, PROGRAM_32, SUID_PROBE};
use crate::installed::KEYSTORE_UNIT;

/// As whom control and single directive are tried. Root where the unit's user would be refused by
/// file modes or for want of capabilities anyway.
#[derive(Clone, Copy)]
pub enum Who {
    Root,
    Own,
}

/// Something a directive (or some that belong together) refuses.
pub struct Case {
    pub name: String,
    pub directives: &'static [&'static str],
    pub who: Who,
    pub probe: String,
}

const USER: &[&str] = &["User", "Group", "SupplementaryGroups"];
const CALLS: &[&str] = &["SystemCallFilter", "SystemCallErrorNumber"];
const EXEC: &[&str] = &["NoExecPaths", "ExecPaths"];
const HIDDEN: &[&str] = &["InaccessiblePaths"];
const CAPABILITIES: &[&str] = &["CapabilityBoundingSet"];

fn case(
    name: &str,
    directives: &'static [&'static str],
    who: Who,
    probe: impl Into<String>,
) -> Case {
    Case {
        name: name.to_string(),
        directives,
        who,
        probe: probe.into(),
    }
}

/// All units set these, each on its own line; all are tried.
#[rustfmt::skip]
fn of_all(fixtures: &Fixtures) -> Vec<Case> {
    use Who::{Own, Root};
    let shm = format!("shared-memory:{}", fixtures.shared_memory);
    let mounts = format!("mount-namespace:{}", fixtures.mount_namespace);
    let suid = format!("become-root-by-suid:{SUID_PROBE}");
    let mut cases = vec![
        case("TCP to this host", &["RestrictAddressFamilies"], Own, "tcp:127.0.0.1:7777"),
        case("a netlink socket", &["RestrictAddressFamilies"], Own, "netlink"),
        case("a packet socket", &["RestrictAddressFamilies"], Root, "packet"),
        case("a vsock socket", &["RestrictAddressFamilies"], Own, "vsock"),
        case("UDP to this host", &["IPAddressDeny"], Own, "udp:127.0.0.1:7777"),
        case("TCP to this host", &["PrivateNetwork"], Own, "tcp:127.0.0.1:7777"),
        case("an abstract socket", &["PrivateNetwork"], Own, "abstract:assertd-probe"),
        case("a home directory", &["ProtectHome"], Own, "read:/home/assertd-probe/secret"),
        case("root's home directory", &["ProtectHome"], Root, "read:/root/assertd-probe/secret"),
        case("others' files in /tmp", &["PrivateTmp"], Own, "read:/tmp/assertd-probe"),
        case("writing to /etc", &["ProtectSystem"], Root, "write:/etc/assertd-probe"),
        case("writing to /usr", &["ProtectSystem"], Root, "write:/usr/assertd-probe"),
        case("writing to /var", &["ProtectSystem"], Root, "write:/var/assertd-probe"),
        case("another's mounts", &["PrivateMounts"], Own, mounts),
        case("another's shared memory", &["PrivateIPC"], Own, shm),
        case("a device", &["PrivateDevices"], Own, "open-to-write:/dev/assertd-probe"),
        case("a device", &["DevicePolicy"], Own, "open-to-write:/dev/assertd-probe"),
        case("a device of its own making", CAPABILITIES, Root, "make-device:/tmp"),
        case("a kernel setting", &["ProtectKernelTunables"], Root,
            "open-to-write:/proc/sys/net/ipv4/ip_forward"),
        case("kernel modules", &["ProtectKernelModules"], Root,
            "read:/usr/lib/modules/assertd-probe/secret"),
        case("the kernel's log", &["ProtectKernelLogs"], Root, "open-to-write:/dev/kmsg"),
        case("a cgroup", &["ProtectControlGroups"], Root,
            "make-directory:/sys/fs/cgroup"),
        case("the clock", &["ProtectClock"], Root, "clock"),
        case("the host's name", &["ProtectHostname"], Root, "set-host-name"),
        case("executing a shell", EXEC, Own, "exec:/bin/sh"),
        case("executing a shell as root", EXEC, Root, "exec:/bin/sh"),
        case("executing what it wrote to /tmp", EXEC, Own, "exec-a-copy:/tmp"),
        case("executing what it wrote to /dev/shm", EXEC, Own, "exec-a-copy:/dev/shm"),
        case("executing what it wrote to /var/tmp", EXEC, Own, "exec-a-copy:/var/tmp"),
        case("executing what is in memory alone", CALLS, Own, "exec-from-memory"),
        case("root by a set-user-ID program", &["NoNewPrivileges"], Own, suid),
        case("making a set-user-ID file", &["RestrictSUIDSGID"], Own, "make-suid-file"),
        case("a file that others may read", &["UMask"], Own, "make-file-for-others"),
        case("a core dump", &["LimitCORE"], Own, "core-dump"),
        case("a user namespace", &["RestrictNamespaces"], Own, "user-namespace"),
        case("a mount namespace", &["RestrictNamespaces"], Root, "mount-namespace-of-its-own"),
        case("real-time scheduling", &["RestrictRealtime"], Root, "real-time"),
        case("another personality", &["LockPersonality"], Own, "personality"),
        case("memory to write and execute", &["MemoryDenyWriteExecute"], Own, "writable-code"),
        case("making data executable", &["MemoryDenyWriteExecute"], Own, "executable-data"),
        case("mount", CALLS, Root, "mount"),
        case("chroot", CALLS, Root, "chroot"),
        case("setuid", CALLS, Root, "set-user"),
        case("ptrace", CALLS, Own, "trace"),
        case("process_vm_readv", CALLS, Own, "read-process-memory"),
        case("pidfd_getfd", CALLS, Own, "take-descriptor"),
        case("kcmp", CALLS, Own, "compare-processes"),
        case("keyctl", CALLS, Own, "keyring"),
        case("aio", CALLS, Own, "aio"),
        case("io_uring", CALLS, Own, "io-uring"),
        case("bpf", CALLS, Root, "bpf"),
        case("userfaultfd", CALLS, Root, "page-faults"),
        case("setpriority", CALLS, Own, "priority"),
        case("stored credentials", HIDDEN, Root, "read:/etc/credstore.encrypted/assertd.hsm.pin"),
        case("plain credentials", HIDDEN, Root, "read:/etc/credstore/probe"),
        case("D-Bus", HIDDEN, Own, "unix:/run/dbus/assertd-probe"),
        case("systemd-resolved", HIDDEN, Own, "unix:/run/systemd/resolve/assertd-probe"),
        case("the shadow file", USER_OF_ALL, Root, "read:/etc/shadow"),
    ];
    if fixtures.runs_32_bit {
        let exec = format!("exec-32:{PROGRAM_32}");
        cases.push(case(
            "a 32-bit program",
            &["SystemCallArchitectures"],
            Own,
            exec,
        ));
    }
    cases
}

const USER_OF_ALL: &[&str] = &["User", "Group"];

/// What the broker must not.
#[rustfmt::skip]
pub fn broker(fixtures: &Fixtures) -> Vec<Case> {
    use Who::Root;
    let state = "read:/var/lib/assertd-keystore/hsm/probe";
    let pin = format!("read:/run/credentials/{KEYSTORE_UNIT}/hsm.pin");
    let mut cases = of_all(fixtures);
    cases.extend([
        case("executing what it wrote to its state", EXEC, Who::Own, "exec-a-copy:/var/lib/assertd"),
        case("the keystore's state", HIDDEN, Root, state),
        case("the keystore's state", USER_OF_ALL, Root, state),
        case("the keystore's PIN", &["PrivateMounts"], Root, pin.clone()),
        case("the keystore's PIN", USER_OF_ALL, Root, pin),
        case("the encrypted PIN", USER_OF_ALL, Root,
            "read:/etc/credstore.encrypted/assertd.hsm.pin"),
    ]);
    cases
}

/// What the broker needs.
pub fn left_to_broker(fixtures: &Fixtures) -> Vec<(String, String)> {
    let (pid, uid) = fixtures.caller;
    let caller = format!("identity:{pid},{uid},probe-caller.service");
    let root = format!("identity:{},0,probe-listener.service", fixtures.listener);
    named(&[
        ("who calls: another user in a user namespace", &caller),
        ("who calls: root", &root),
        ("writing its state", "write:/var/lib/assertd/probe"),
        ("reading its audit log", "read:/var/lib/assertd/audit/probe"),
        (
            "reading its configuration",
            "read:/etc/assertd/assertd.toml",
        ),
        (
            "connecting to a keystore",
            "unix:/run/assertd/keystore-hsm.sock",
        ),
        ("its own programs", "read:/usr/bin/assertctl"),
        (
            "connecting to its admin socket, to reload",
            "unix:/run/assertd/admin.sock",
        ),
        ("closing itself off further", "landlock"),
        (
            "asking the witness what another user's process executes",
            &format!("witness:{pid}"),
        ),
    ])
}

/// Found by trying, which is what this repeats. Older versions warn about what they do not know, and go on
/// without it.
pub fn harmful_to_broker(fixtures: &Fixtures, systemd: u32) -> Vec<(&'static str, String)> {
    let (pid, uid) = fixtures.caller;
    let caller = format!("identity:{pid},{uid},probe-caller.service");
    let mut harmful = vec![
        ("PrivateUsers=yes", caller.clone()),
        ("ProtectProc=invisible", caller.clone()),
    ];
    if systemd >= 257 {
        harmful.push(("ProtectControlGroups=strict", caller.clone()));
        harmful.push(("PrivatePIDs=yes", caller));
    }
    harmful
}

/// What a keystore must not.
#[rustfmt::skip]
pub fn keystore(fixtures: &Fixtures) -> Vec<Case> {
    use Who::{Own, Root};
    let audit = "read:/var/lib/assertd/audit/probe";
    let other = "read:/run/credentials/probe-credential.service/other.pin";
    let admin = "unix:/run/assertd/admin.sock";
    let mut cases = of_all(fixtures);
    cases.extend([
        case("executing what it wrote to its state", EXEC, Own,
            "exec-a-copy:/var/lib/assertd-keystore/hsm"),
        case("the audit log", HIDDEN, Root, audit),
        case("the audit log", USER, Root, audit),
        case("the administrators' socket", HIDDEN, Root, admin),
        case("the administrators' socket", USER, Root, admin),
        case("the workloads' socket", HIDDEN, Own, "unix:/run/assertd/assertd.sock"),
        case("another instance's PIN", &["LoadCredentialEncrypted", "PrivateMounts"], Own, other),
        case("another instance's state", &["StateDirectory", "TemporaryFileSystem", "BindPaths"], Own,
            "read:/var/lib/assertd-keystore/other/secret"),
        case("another user's process", &["ProtectProc"], Own, format!("process:{}",
            fixtures.listener)),
        case("what is no process in /proc", &["ProcSubset"], Own, "read:/proc/meminfo"),
    ]);
    cases
}

/// What a keystore needs.
pub fn left_to_keystore() -> Vec<(String, String)> {
    named(&[
        ("reading its PIN", "credential:hsm.pin"),
        (
            "writing its state",
            "write:/var/lib/assertd-keystore/hsm/probe-written",
        ),
        (
            "reading its configuration",
            "read:/etc/assertd/assertd.toml",
        ),
        (
            "reading its module's configuration",
            "read:/etc/assertd/softhsm2.conf",
        ),
        ("connecting to pcscd", "unix:/run/pcscd/assertd-probe"),
        ("locking memory", "lock-memory"),
        ("closing itself off further", "landlock"),
    ])
}

/// What the witness must not, and what its capability does not open to it.
#[rustfmt::skip]
pub fn witness(fixtures: &Fixtures) -> Vec<Case> {
    use Who::{Own, Root};
    let audit = "read:/var/lib/assertd/audit/probe";
    let (of_root, caller) = (fixtures.listener, fixtures.caller.0);
    let mut cases = of_all(fixtures);
    cases.extend([
        case("the audit log", HIDDEN, Root, audit),
        case("the audit log", USER_OF_ALL, Root, audit),
        case("the keystore's state", HIDDEN, Root, "read:/var/lib/assertd-keystore/hsm/probe"),
        case("the configuration", HIDDEN, Root, "read:/etc/assertd/assertd.toml"),
        case("the administrators' socket", HIDDEN, Root, "unix:/run/assertd/admin.sock"),
        case("D-Bus by way of process 1's root", CALLS, Root,
            "unix:/proc/1/root/run/dbus/assertd-probe"),
        case("the administrators' socket by way of process 1's root", CALLS, Root,
            "unix:/proc/1/root/run/assertd/admin.sock"),
        case("what is no process in /proc", &["ProcSubset"], Own, "read:/proc/meminfo"),
        case("root's environment", USER_OF_ALL, Root, format!("read:/proc/{of_root}/environ")),
        case("root's memory", USER_OF_ALL, Root, format!("open-to-write:/proc/{of_root}/mem")),
        case("another's environment", USER_OF_ALL, Root, format!("read:/proc/{caller}/environ")),
        case("another's descriptors", USER_OF_ALL, Root, format!("list:/proc/{caller}/fd")),
    ]);
    cases
}

/// What the witness needs.
pub fn left_to_witness(fixtures: &Fixtures) -> Vec<(String, String)> {
    let of = |pid: u32| format!("executable:{pid}");
    named(&[
        (
            "the executable of another user in a user namespace",
            &of(fixtures.caller.0),
        ),
        ("the executable of root", &of(fixtures.listener)),
        (
            "the host's files as process 1 has them",
            "list:/proc/1/root/usr/bin",
        ),
        ("the mounts of process 1", "read:/proc/1/mountinfo"),
    ])
}

/// Found by trying; without the capability too, so that it is known what shows the others.
pub fn harmful_to_witness(fixtures: &Fixtures, systemd: u32) -> Vec<(&'static str, String)> {
    let probe = format!("executable:{}", fixtures.caller.0);
    let mut harmful = vec![
        ("AmbientCapabilities=", probe.clone()),
        ("PrivateUsers=yes", probe.clone()),
    ];
    if systemd >= 257 {
        harmful.push(("PrivatePIDs=yes", probe));
    }
    harmful
}

fn named(table: &[(&str, &str)]) -> Vec<(String, String)> {
    let row = |(name, probe): &(&str, &str)| (name.to_string(), probe.to_string());
    table.iter().map(row).collect()
}
