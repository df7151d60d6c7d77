//! Executables that are not where their path says, or not only there: replaced, deleted, never named,
//! on an overlay, in somebody else's mounts. The digest is always that of the file that runs.

use super::{DEADLINE, Running, Witness, public_dir, python, sha256, sleep, sleeper};
use harness::process::Process;
use harness::programs::Programs;
use harness::rootspace::below_own_root;
use harness::user::need_root;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[test]
fn a_program_that_was_replaced_is_attested_by_the_digest_of_what_runs_and_by_no_path() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let (program, new) = (dir.path().join("payments"), dir.path().join("new"));
    sleeper(&program, "1");
    sleeper(&new, "2");
    let running = Running::start(&mut sleep(&program));
    let before = witness.executable(running.pid());
    std::fs::rename(&new, &program).unwrap();
    let named = program.metadata().unwrap();
    assert_ne!(before["identity"]["ino"], named.ino(), "it was replaced");
    let after = witness.executable(running.pid());
    assert_eq!(after["sha256"], before["sha256"]);
    assert_ne!(after["sha256"], sha256(&program));
    assert_eq!(after["place"]["unproven"], "deleted");
    // Somebody makes a file of the name that the kernel shows for it.
    let shown = running.link();
    assert!(shown.to_str().unwrap().ends_with("payments (deleted)"));
    sleeper(&shown, "3");
    let after = witness.executable(running.pid());
    assert_eq!(after["place"]["unproven"], "deleted");
    assert_eq!(after["sha256"], before["sha256"]);
    // And one that is called so is called so.
    let called_so = Running::start(&mut sleep(&shown));
    let executable = witness.executable(called_so.pid());
    assert_eq!(executable["place"]["at"], shown.to_str().unwrap());
}

#[test]
fn a_program_that_was_deleted_is_attested_by_its_digest_alone() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let (program, copy) = (dir.path().join("payments"), dir.path().join("copy"));
    sleeper(&program, "1");
    sleeper(&copy, "1");
    let running = Running::start(&mut sleep(&program));
    std::fs::remove_file(&program).unwrap();
    let executable = witness.executable(running.pid());
    assert_eq!(executable["place"]["unproven"], "deleted");
    assert_eq!(executable["sha256"], sha256(&copy));
}

#[test]
fn a_program_in_memory_alone_has_a_digest_and_no_path() {
    let mut witness = Witness::start();
    let dir = public_dir();
    let program = dir.path().join("payments");
    sleeper(&program, "1");
    let script = "
fd = os.memfd_create('payments', 0)
os.write(fd, open(sys.argv[1], 'rb').read())
os.execve(fd, ['payments', '60'], {})
";
    let mut command = python(0, script);
    let child = command.arg(&program).stdin(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    running.wait_for(Path::new("/memfd:payments (deleted)"));
    let executable = witness.executable(running.pid());
    assert_eq!(executable["place"]["unproven"], "deleted");
    assert_eq!(executable["sha256"], sha256(&program));
}

/// Runs a program in a mount namespace of its own, after a script there.
fn elsewhere(script: &str, program: &Path) -> Running {
    let mut unshare = Command::new("unshare");
    // Not --propagation private: `/` is no mount point where tests run in a tree.
    unshare.args(["--mount", "--propagation", "unchanged", "sh", "-ec"]);
    unshare.arg(format!(
        "mount --make-rprivate / 2>/dev/null || true; {script}\nexec \"$0\" 60"
    ));
    let child = unshare.arg(program).stdin(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    running.wait_for(program);
    let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let theirs = std::fs::read_link(format!("/proc/{}/ns/mnt", running.pid())).unwrap();
    assert_ne!(ours, theirs, "it has mounts of its own");
    running
}

#[test]
fn a_path_in_another_mount_namespace_counts_if_it_is_that_file_here() {
    below_own_root(|| {
        let mut witness = Witness::start();
        let dir = public_dir();
        let program = dir.path().join("payments");
        sleeper(&program, "1");
        // As every unit with PrivateTmp= or ProtectSystem= has.
        let running = elsewhere("", &program);
        let executable = witness.executable(running.pid());
        assert_eq!(executable["place"]["at"], program.to_str().unwrap());
        assert_eq!(executable["sha256"], sha256(&program));
    });
}

#[test]
fn another_file_at_the_right_path_in_another_mount_namespace_is_not_that_path() {
    below_own_root(|| {
        let mut witness = Witness::start();
        let (dir, evil) = (public_dir(), public_dir());
        let (program, other) = (dir.path().join("payments"), evil.path().join("payments"));
        sleeper(&program, "good");
        sleeper(&other, "evil");
        let (over, from) = (dir.path().display(), evil.path().display());
        for script in [
            // Another file system, and the same: there numbers of inodes alone tell files apart.
            format!(
                "mount -t tmpfs -o mode=755 tmpfs /mnt; cp -p {from}/payments /mnt; mount --bind /mnt {over}"
            ),
            format!("mount --bind {from} {over}"),
        ] {
            let running = elsewhere(&script, &program);
            assert_eq!(
                running.link(),
                program,
                "the kernel's text is the right path"
            );
            let executable = witness.executable(running.pid());
            assert_eq!(executable["place"]["unproven"], "foreign_mount_namespace");
            assert_eq!(executable["sha256"], sha256(&other));

            // And from our mounts: executed through the other's root.
            let through = format!("/proc/{}/root{}", running.pid(), program.display());
            let child = sleep(Path::new(&through)).spawn().unwrap();
            let here = Running(child);
            here.wait_for(&program);
            let ours = std::fs::read_link("/proc/self/ns/mnt").unwrap();
            let its = std::fs::read_link(format!("/proc/{}/ns/mnt", here.pid())).unwrap();
            assert_eq!(ours, its, "it has our mounts");
            let executable = witness.executable(here.pid());
            assert_eq!(executable["place"]["unproven"], "foreign_mount_namespace");
            assert_eq!(executable["sha256"], sha256(&other));
        }
    });
}

/// Mounts the `/proc` of the pid namespace, and nothing outside of this mount namespace, then runs
/// its arguments.
pub const OWN_PROC: &str = r#"mount --make-rprivate / 2>/dev/null
mount --make-private /proc && mount -t proc proc /proc && exec "$@""#;

/// A script as process 1 of pid and mount namespaces of its own, in which the witness runs too.
pub fn inside(script: &str) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount"]);
    unshare.args(["--propagation", "unchanged", "sh", "-c", OWN_PROC, "sh"]);
    let python = python(0, script);
    unshare.arg(python.get_program()).args(python.get_args());
    unshare.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    unshare
}

/// Prints an answer for a program below another root, in which the witness is too.
const CHROOT: &str = "
import subprocess
dir, witness, program = sys.argv[1:4]
subprocess.check_call(['mount', '-t', 'tmpfs', 'tmpfs', dir])
for name in ['usr', 'bin', 'lib', 'lib64', 'proc']:
    if os.path.islink('/' + name):
        os.symlink(os.readlink('/' + name), dir + '/' + name)
    elif os.path.isdir('/' + name):
        os.mkdir(dir + '/' + name)
        subprocess.check_call(['mount', '--rbind', '/' + name, dir + '/' + name])
subprocess.check_call(['cp', '-p', witness, dir + '/witness'])
subprocess.check_call(['cp', '-p', program, dir + '/payments'])
subprocess.Popen(['/witness', '--socket', '/witness.sock'], preexec_fn=lambda: os.chroot(dir))
running = subprocess.Popen(['/payments', '60'], preexec_fn=lambda: os.chroot(dir))
wait_until(lambda: os.readlink('/proc/%d/exe' % running.pid) == dir + '/payments', 'it runs')
s = connect_soon(dir + '/witness.sock')
print(json.dumps(ask(s, running.pid)))
";

#[test]
fn below_another_root_paths_are_those_of_that_root() {
    let files = public_dir();
    let program = files.path().join("payments");
    sleeper(&program, "1");
    let said = report_of(CHROOT, &files, &program, &[]);
    let executable = &said[0]["executable"];
    assert_eq!(executable["place"]["at"], "/payments");
    assert_eq!(executable["sha256"], sha256(&program));
}

/// Prints an answer for a program on an overlay: as it was found below, and once it was replaced.
const OVERLAY: &str = "
import subprocess
dir, witness, program = sys.argv[1:4]
subprocess.check_call(['mount', '-t', 'tmpfs', 'tmpfs', dir])
for name in ['lower', 'upper', 'work', 'merged']:
    os.mkdir(dir + '/' + name)
subprocess.check_call(['cp', '-p', program, dir + '/lower/payments'])
layers = 'lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work' % (dir, dir, dir)
subprocess.check_call(['mount', '-t', 'overlay', '-o', layers, 'overlay', dir + '/merged'])
path = dir + '/witness.sock'
subprocess.Popen([witness, '--socket', path])
merged = dir + '/merged/payments'
running = subprocess.Popen([merged, '60'])
wait_until(lambda: os.readlink('/proc/%d/exe' % running.pid) == merged, 'it runs')
s = connect_soon(path)
print(json.dumps(ask(s, running.pid)))
with open(dir + '/new', 'wb') as new:
    new.write(open(program, 'rb').read() + b'2')
os.chmod(dir + '/new', 0o755)
subprocess.check_call(['cp', '-p', dir + '/new', merged + '.new'])
os.rename(merged + '.new', merged)
print(json.dumps(ask(s, running.pid)))
second = subprocess.Popen([merged, '60'])
wait_until(lambda: os.readlink('/proc/%d/exe' % second.pid) == merged, 'it runs')
print(json.dumps(ask(s, second.pid)))
print(json.dumps(merged))
def mounts(pid):
    return os.readlink('/proc/%d/ns/mnt' % pid)
def in_mounts_of_its_own(before, program):
    script = before + '; exec ' + program + ' 60'
    running = subprocess.Popen(['unshare', '--mount', '--propagation', 'unchanged', 'sh', '-ec', script])
    wait_until(lambda: os.readlink('/proc/%d/exe' % running.pid) == program, 'it runs')
    assert mounts(running.pid) != mounts(os.getpid())
    return ask(s, running.pid)
print(json.dumps(in_mounts_of_its_own('true', merged)))
for name in ['empty', 'there']:
    os.mkdir(dir + '/' + name)
there = 'mount -t overlay -o lowerdir=%s/lower:%s/empty overlay %s/there' % (dir, dir, dir)
print(json.dumps(in_mounts_of_its_own(there, dir + '/there/payments')))
";

/// An overlay is attested if it is mounted among the mounts of process 1: there nobody but root mounts.
/// A container's program has it in mounts of its own as well.
#[test]
fn a_program_on_an_overlay_is_the_file_that_runs() {
    below_own_root(|| {
        let files = public_dir();
        let (program, new) = (files.path().join("payments"), files.path().join("new"));
        sleeper(&program, "1");
        sleeper(&new, "12");
        let said = report_of(OVERLAY, &files, &program, &[]);
        let [first, replaced, second, merged, contained, there] = &said[..] else {
            panic!("{said:?}");
        };
        assert_eq!(&first["executable"]["place"]["at"], merged);
        assert_eq!(first["executable"]["sha256"], sha256(&program));
        assert_eq!(replaced["executable"]["place"]["unproven"], "deleted");
        assert_eq!(replaced["executable"]["sha256"], sha256(&program));
        for here in [second, contained] {
            assert_eq!(&here["executable"]["place"]["at"], merged);
            assert_eq!(here["executable"]["sha256"], sha256(&new));
        }
        let why = there["not_attestable"].as_str().unwrap_or_default();
        assert!(why.contains("lies on an overlay"), "{there}");
    });
}

/// What a script says of a program, [`inside`]: a line of JSON each.
pub fn report_of(script: &str, files: &TempDir, program: &Path, arguments: &[&str]) -> Vec<Value> {
    need_root();
    let (programs, dir) = (Programs::installed(), public_dir());
    let mut command = inside(script);
    command.arg(dir.path());
    command.arg(programs.path("assertd-witness")).arg(program);
    command.args(arguments);
    let mut process = Process::start(command.stdout(Stdio::from(reporting(files.path()))));
    let ended = process.wait(DEADLINE);
    assert!(ended.success(), "{}", process.stderr());
    let report = std::fs::read_to_string(files.path().join("report")).unwrap();
    let lines = report.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A file for what a script prints.
pub fn reporting(dir: &Path) -> std::fs::File {
    std::fs::File::create_new(dir.join("report")).unwrap()
}
