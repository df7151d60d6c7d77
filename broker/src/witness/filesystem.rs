//! What the file system of an executable is worth: whether what is read there is what is executed, and
//! for how long a digest of it holds. Owns the lists of both. Reads mount tables, and nothing of the
//! file but its status.

use super::Doubt;
use nix::sys::statfs::fstatfs;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// For how long a digest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// As long as the file's times are the same.
    Kept,
    /// No longer than it takes to answer: the content may change and the times stay.
    Anew,
}

/// File systems whose times tell of every write(2) and of every page that is written through a mapping
/// (their page_mkwrite calls file_update_time()). tmpfs has no such call, so that whoever reads a page
/// of a shared mapping first and then writes it leaves no trace; a memfd is on tmpfs. Those that are
/// not here were not looked at.
const TELLING: [i64; 3] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // Btrfs
];

/// File systems on which what is read is what a program, another machine or another file system says at
/// the moment, which may be another thing to whoever executes it, and whose times are theirs to set: no
/// digest holds there. Numbers from statfs(2) and the kernel's magic.h.
const SERVED_ELSEWHERE: [(i64, &str); 16] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786F_4256, "vboxsf"),
    (0xF15F, "eCryptfs"),
    (0x6A65_6A62, "shiftfs"),
    (0x6175_6673, "aufs"),
];

/// An overlay shows what its layers hold, and says of itself that it is an overlay, whatever they are
/// (fs/overlayfs/super.c). Every user may mount one, in a user namespace of his own, over FUSE too.
const OVERLAY: i64 = 0x794C_7630;

/// Most of a mount table that is looked through, in bytes: some ten thousand mounts, and overlays have
/// long lines. What comes after is not found.
const MOUNTS_LEN_MAX: u64 = 16 << 20;

/// What holds of an open file that process `pid` executes. That the process lives, and so that its
/// mounts were looked at and no other's, is to be asked afterwards.
///
/// # Errors
/// If nothing that is read there counts.
pub fn judge(pid: u32, file: &File, metadata: &Metadata) -> Result<Memory, Doubt> {
    let unclear = |why: String| {
        let why = format!("its executable's file system cannot be looked at: {why}; ask again");
        Doubt::Passing(why)
    };
    let statfs = fstatfs(file).map_err(|errno| unclear(errno.to_string()))?;
    let kind = statfs.filesystem_type().0;
    if let Some((_, name)) = SERVED_ELSEWHERE.iter().find(|(magic, _)| *magic == kind) {
        return Err(Doubt::Lasting(format!(
            "its executable lies on {name}, where a program or another machine decides what is read"
        )));
    }
    if kind == OVERLAY {
        let mount = mount_of(file).ok_or_else(|| unclear("it has no mount".to_owned()))?;
        let here = is_mounted_here(pid, mount).map_err(|error| unclear(error.to_string()))?;
        if !here {
            return Err(Doubt::Lasting(
                "its executable lies on an overlay that is not mounted in this host's mount \
                 namespace: any user can mount one, with layers that a program serves"
                    .to_owned(),
            ));
        }
        return Ok(Memory::Anew);
    }
    Ok(memory(kind, metadata.uid(), metadata.mode()))
}

/// Nobody but root may write a file that is remembered. Whoever may has calls that exchange its content
/// and leave its times, because they are for defragmentation: EXT4_IOC_MOVE_EXT, XFS_IOC_SWAPEXT.
fn memory(kind: i64, uid: u32, mode: u32) -> Memory {
    const OTHERS_WRITE: u32 = 0o022; // with an ACL the group's bits are its mask (acl(5))
    match TELLING.contains(&kind) && uid == 0 && mode & OTHERS_WRITE == 0 {
        true => Memory::Kept,
        false => Memory::Anew,
    }
}

/// The number of the mount through which a file was opened (`mnt_id` of proc_pid_fdinfo(5)). It is no
/// other's while the file is open.
fn mount_of(file: &File) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// Whether the overlay behind a mount is mounted among the mounts of process 1 too. What a user mounts
/// in namespaces of his own never gets there: mounts do not propagate to a mount namespace of more
/// privilege (mount_namespaces(7)). A process in mounts of its own, as a container's or a unit's, has
/// the same overlay under another mount's number, so it is the overlay's device that is looked for.
fn is_mounted_here(pid: u32, mount: u64) -> io::Result<bool> {
    let first = match File::open("/proc/1/mountinfo") {
        Ok(file) => file,
        Err(_) => File::open("/proc/self/mountinfo")?, // process 1 is hidden from us
    };
    let here: Vec<Mount> = overlays(first).collect::<io::Result<_>>()?;
    if here.iter().any(|one| one.id == mount) {
        return Ok(true);
    }
    for its in overlays(File::open(format!("/proc/{pid}/mountinfo"))?) {
        let its = its?;
        if its.id == mount {
            return Ok(here.iter().any(|one| one.device == its.device));
        }
    }
    Ok(false)
}

/// An overlay's line of a mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    /// Its own, whatever its files say theirs is.
    device: String,
}

/// The overlays of a mount table.
fn overlays(table: impl Read) -> impl Iterator<Item = io::Result<Mount>> {
    let lines = BufReader::new(table.take(MOUNTS_LEN_MAX)).split(b'\n');
    lines.filter_map(|line| match line {
        Ok(line) => overlay(&String::from_utf8_lossy(&line)).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

/// Number, parent's number, device, root, place, options and fields without number until a hyphen, then
/// the kind (proc_pid_mountinfo(5)). White space in names is escaped.
fn overlay(line: &str) -> Option<Mount> {
    let mut fields = line.split_ascii_whitespace();
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let kind = fields.skip(3).skip_while(|field| *field != "-").nth(1)?;
    (kind == "overlay").then_some(Mount { id, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_root_alone_may_write_where_every_write_shows_is_remembered() {
        const EXT4: i64 = TELLING[0];
        for (kind, uid, mode, kept) in [
            (EXT4, 0, 0o100_755, true),
            (TELLING[1], 0, 0o104_711, true),
            (TELLING[2], 0, 0o100_555, true),
            (EXT4, 1, 0o100_755, false),
            (EXT4, 65_534, 0o100_555, false),
            (EXT4, 0, 0o100_775, false),
            (EXT4, 0, 0o100_757, false),
            (0x0102_1994, 0, 0o100_755, false), // tmpfs
            (0x8584_58F6, 0, 0o100_755, false), // ramfs
            (OVERLAY, 0, 0o100_755, false),
            (0, 0, 0o100_755, false),
        ] {
            let expected = match kept {
                true => Memory::Kept,
                false => Memory::Anew,
            };
            assert_eq!(memory(kind, uid, mode), expected, "{kind:x} {uid} {mode:o}");
        }
    }

    #[test]
    fn overlays_are_found_in_a_mount_table_and_nothing_else_is_one() {
        let table = b"\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 36 0:51 / /a\\040-\\040overlay rw,relatime - overlay overlay rw,lowerdir=/l:/m,upperdir=/u
41 36 0:52 / /b rw shared:7 master:2 unbindable - overlay none ro,lowerdir=/x
42 36 0:53 / /c rw - tmpfs overlay rw
43 36 0:54 / /d rw - fuse.overlay overlay rw
44 36 0:55 / /\xff rw - overlay o rw
x 36 0:56 / /e rw - overlay overlay rw
45 36 0:57 / - overlay overlay rw
46 36
";
        let mount = |id, device: &str| Mount {
            id,
            device: device.to_owned(),
        };
        let found: Vec<Mount> = overlays(&table[..]).map(Result::unwrap).collect();
        let expected = [mount(40, "0:51"), mount(41, "0:52"), mount(44, "0:55")];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_files_mount_is_one_of_ours() {
        let file = File::open("/proc/self/mountinfo").unwrap();
        let mount = mount_of(&file).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("{mount} ")));
        assert!(
            line.is_some_and(|line| line.contains(" - proc ")),
            "{line:?}"
        );
    }
}
