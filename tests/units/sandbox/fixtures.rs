//! What the probes reach for: files, devices, listeners, callers and another instance's credential,
//! each with modes that let everybody in, so that only the sandbox can refuse it.

use crate::boxed::{BUILD, SysBox};

/// Below /usr/lib, from where the units may execute (the dynamic linker is there).
pub const PROBE: &str = "/usr/lib/assertd-probe/sandbox-probe";

/// The same with the set-user-ID bit, and a 32-bit program.
pub const SUID_PROBE: &str = "/usr/lib/assertd-probe/suid-probe";
pub const PROGRAM_32: &str = "/usr/lib/assertd-probe/exit-32";

/// One unit that listens, one unit of another user that does nothing, one with a credential.
const LISTENER: &str = "[Service]
Type=notify
ExecStart=/usr/lib/assertd-probe/sandbox-probe --listen
";
const CALLER: &str = "[Service]
Type=exec
DynamicUser=yes
PrivateUsers=yes
PrivateTmp=yes
ExecStart=/usr/bin/sleep infinity
";
const OTHER_INSTANCE: &str = "[Service]
Type=exec
User=assertd-pkcs11
SetCredential=other.pin:24680
ExecStart=/usr/bin/sleep infinity
";
/// Sockets that are open to everybody, as these services have them; nothing answers.
const SOCKETS: &str = "[Socket]
ListenStream=/run/dbus/assertd-probe
ListenStream=/run/systemd/resolve/assertd-probe
ListenStream=/run/pcscd/assertd-probe
SocketMode=0666
Service=probe-silent.service
";
const SILENT: &str = "[Service]
Type=exec
ExecStart=/usr/bin/sleep infinity
";

/// Where they are.
pub struct Fixtures {
    /// PID and uid of the caller; it is `probe-caller.service`.
    pub caller: (u32, u32),
    /// PID of a process of root, of `probe-listener.service`.
    pub listener: u32,
    /// Inode of the mount namespace that everybody is in.
    pub mount_namespace: String,
    /// Id of a System V shared memory segment.
    pub shared_memory: String,
    /// Whether this machine runs 32-bit programs at all.
    pub runs_32_bit: bool,
}

impl Fixtures {
    /// Makes them all.
    pub fn make(boxed: &SysBox) -> Result<Fixtures, String> {
        install_probe(boxed)?;
        let script = "
            for dir in /home/assertd-probe /root/assertd-probe /usr/lib/modules/assertd-probe \
                /var/lib/assertd-keystore/other /srv/assertd-probe /mnt/assertd-probe; do
              install -d -m 755 $dir; echo secret >$dir/secret; chmod 644 $dir/secret
            done
            chown -R assertd-pkcs11: /var/lib/assertd-keystore/other
            install -d -m 755 /etc/credstore; echo secret >/etc/credstore/probe
            echo secret >/tmp/assertd-probe; chmod 644 /tmp/assertd-probe
            echo secret >/var/lib/assertd-keystore/hsm/probe
            echo secret >/var/lib/assertd/audit/probe
            chown assertd: /var/lib/assertd/audit/probe
            # 1:11 is /dev/kmsg, which every kernel has and no sandbox leaves.
            mknod -m 666 /dev/assertd-probe c 1 11
            [ -e /dev/kmsg ] || mknod -m 666 /dev/kmsg c 1 11
            ip link set lo up";
        boxed
            .sh(script)
            .success()
            .map_err(|why| format!("fixtures: {why}"))?;
        for (name, text) in [
            ("probe-listener", LISTENER),
            ("probe-caller", CALLER),
            ("probe-credential", OTHER_INSTANCE),
            ("probe-silent", SILENT),
        ] {
            boxed.write(&format!("/run/systemd/system/{name}.service"), text)?;
        }
        boxed.write("/run/systemd/system/probe-silent.socket", SOCKETS)?;
        boxed
            .sh("systemctl daemon-reload
                 systemctl start probe-listener probe-caller probe-credential probe-silent.socket \
                     assertd-witness.socket ||
                   { journalctl --no-pager --output=cat --unit='probe-*'; exit 1; }")
            .success()
            .map_err(|why| format!("fixtures: {why}"))?;
        let said = |script: &str| boxed.sh(script).success().map(|out| out.trim().to_string());
        let number = |script: &str| -> Result<u32, String> {
            let text = said(script)?;
            text.parse().map_err(|_| format!("{script}: {text:?}"))
        };
        let pid = number("systemctl show --property=MainPID --value probe-caller")?;
        Ok(Fixtures {
            caller: (pid, number(&format!("stat --format=%u /proc/{pid}"))?),
            listener: number("systemctl show --property=MainPID --value probe-listener")?,
            mount_namespace: said("stat --dereference --format=%i /proc/1/ns/mnt")?,
            shared_memory: said("ipcmk --shmem 4096 --mode 0666 | grep -oE '[0-9]+$'")?,
            runs_32_bit: boxed.run(&[PROGRAM_32]).code == Some(0),
        })
    }
}

fn install_probe(boxed: &SysBox) -> Result<(), String> {
    boxed.write(PROGRAM_32, exit_program_32())?;
    let script = format!(
        "install -m 755 {BUILD}/sandbox-probe {PROBE}
         install -m 4755 {BUILD}/sandbox-probe {SUID_PROBE}
         chmod 755 {PROGRAM_32} {dir}",
        dir = "/usr/lib/assertd-probe"
    );
    boxed.sh(&script).success().map(drop)
}

/// The smallest ELF program for i386: `exit(0)` by interrupt 0x80 (elf(5)).
fn exit_program_32() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    // mov eax, 1 (exit); xor ebx, ebx; int 0x80
    const CODE: [u8; 9] = [0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80];
    let size = HEADERS + 9;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |elf: &mut Vec<u8>, values: &[u16]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let word = |elf: &mut Vec<u8>, values: &[u32]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    half(&mut elf, &[2, 3]); // executable, i386
    word(&mut elf, &[1, BASE + HEADERS, 52, 0, 0]);
    half(&mut elf, &[52, 32, 1, 0, 0, 0]);
    word(&mut elf, &[1, 0, BASE, BASE, size, size, 5, 0x1000]);
    elf.extend(CODE);
    elf
}
