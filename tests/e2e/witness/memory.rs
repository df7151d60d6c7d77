//! Contents that change while all of the file's times and its length stay: a digest that was remembered
//! would be of what was there before.

use super::files::report_of;
use super::{DEADLINE, Running, Witness, bytes_read, public_dir, sha256, sleeper};
use harness::user::{ALICE, as_uid, give_to, python_as};
use harness::wait_until;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Runs a program from a directory, on tmpfs if the fourth argument says so, and asks about it until
/// it is old enough to be remembered, and once more. Then, when it runs no more, writes into it by a
/// shared mapping whose pages were read before, and runs it again. Prints what was answered of it, its
/// true digest, and whether its times are what they were.
const MAPPED: &str = "
import hashlib, mmap, subprocess
dir, witness, program, kind = sys.argv[1:5]
if kind == 'tmpfs':
    subprocess.check_call(['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', dir])
path, payments = dir + '/witness.sock', dir + '/payments'
subprocess.check_call(['cp', program, payments])
subprocess.Popen([witness, '--socket', path])
s = connect_soon(path)
def looks():
    status = os.stat(payments)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
def asked():
    running = subprocess.Popen([payments, '60'])
    wait_until(lambda: os.readlink('/proc/%d/exe' % running.pid) == payments, 'it runs')
    old = os.stat(payments).st_ctime + 3.5
    while True:
        settled = time.time() > old
        answer = ask(s, running.pid)
        if settled:
            break
    again = ask(s, running.pid)
    running.kill()
    running.wait()
    digest = hashlib.sha256(open(payments, 'rb').read()).hexdigest()
    return [answer['executable']['sha256'], again['executable']['sha256'], digest]
before, first = looks(), asked()
with open(payments, 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    assert sum(mapped[::512]) > 0 # each page
    mapped[-1] ^= 1
after = looks()
print(json.dumps([first, asked(), before == after]))
";

#[test]
fn what_is_written_to_tmpfs_by_a_mapping_that_was_read_before_is_in_the_digest() {
    let files = public_dir();
    let program = files.path().join("payments");
    sleeper(&program, "1");
    let report = |kind| {
        let report = public_dir();
        let said = report_of(MAPPED, &report, &program, &[kind]);
        let [first, second, same] = said[0].as_array().unwrap().clone().try_into().unwrap();
        for asked in [&first, &second] {
            assert_eq!(asked[0], asked[2], "{kind}: {said:?}");
            assert_eq!(asked[1], asked[2], "{kind}: {said:?}");
        }
        assert_ne!(first[2], second[2], "{kind}: its content is another");
        same
    };
    assert_eq!(report("tmpfs"), Value::Bool(true), "nothing shows it");
    // The control: where digests are remembered, it shows.
    if statfs(files.path()).unwrap().filesystem_type() == EXT4_SUPER_MAGIC {
        assert_eq!(report("disk"), Value::Bool(false));
    }
}

/// Exchanges blocks of two files for defragmentation (EXT4_IOC_MOVE_EXT of the kernel's fs/ext4/ext4.h),
/// behind the content of the first, which must be on the disk for that. Its owner may.
const EXCHANGE: &str = "
import errno, fcntl, os, struct, sys, time
donor, other, start, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def on_disk(path):
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd
donor, other = on_disk(donor), on_disk(other)
for _ in range(1000):
    moved = bytearray(struct.pack('=IIQQQQ', 0, donor, start, start, count, 0))
    try:
        fcntl.ioctl(other, 0xc028660f, moved)
        break
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    time.sleep(0.01) # the journal has the blocks still
assert struct.unpack('=IIQQQQ', moved)[5] == count, moved
os.posix_fadvise(donor, 0, 0, os.POSIX_FADV_DONTNEED)
";

/// A program with two of the file system's blocks behind it, at a block's border; and where they are, in
/// blocks.
fn padded(path: &Path, with: u8) -> u64 {
    let mut bytes = std::fs::read("/bin/sleep").unwrap();
    let block = statfs(path.parent().unwrap()).unwrap().block_size() as usize;
    let blocks = bytes.len().div_ceil(block);
    bytes.resize((blocks + 2) * block, with);
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    blocks as u64
}

fn alices(program: &Path) -> Running {
    Running::start(as_uid(ALICE, program).arg("60"))
}

/// How many bytes the witness reads for an answer.
fn cost(witness: &mut Witness, running: &Running) -> u64 {
    let before = bytes_read(witness.process.pid());
    witness.executable(running.pid());
    bytes_read(witness.process.pid()) - before
}

#[test]
fn a_program_that_others_than_root_may_write_is_hashed_whenever_it_is_asked_for() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let [roots, hers, other] = ["roots", "hers", "other"].map(|name| dir.path().join(name));
    padded(&roots, 1);
    let start = padded(&hers, 1);
    padded(&other, 2);
    give_to(&hers, ALICE);
    give_to(&other, ALICE);
    let size = hers.metadata().unwrap().size();
    let is_old = || {
        let changed = u64::try_from(hers.metadata().unwrap().ctime()).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(changed + 4);
        SystemTime::now() > old
    };
    assert!(wait_until(DEADLINE, is_old));
    let running = alices(&hers);
    for _ in 0..3 {
        assert!(cost(&mut witness, &running) >= size, "it was remembered");
    }
    drop(running);
    if statfs(dir.path()).unwrap().filesystem_type() != EXT4_SUPER_MAGIC {
        return; // what follows is about ext4
    }
    let running = alices(&roots);
    let known = wait_until(DEADLINE, || cost(&mut witness, &running) < size);
    assert!(known, "it is never remembered");
    // Why hers is not: she exchanges what is in it, and nothing shows that.
    let looks = |of: std::fs::Metadata| (of.ino(), of.size(), of.mtime_nsec(), of.ctime_nsec());
    let (before, content) = (looks(hers.metadata().unwrap()), sha256(&hers));
    let mut exchange = python_as(ALICE, EXCHANGE);
    exchange
        .args([&hers, &other])
        .args([&start.to_string(), "2"]);
    let exchanged = exchange.output().unwrap();
    assert!(exchanged.status.success(), "{exchanged:?}");
    assert_eq!(looks(hers.metadata().unwrap()), before);
    assert_ne!(sha256(&hers), content, "its content is another");
    let running = alices(&hers);
    assert_eq!(witness.executable(running.pid())["sha256"], sha256(&hers));
}
