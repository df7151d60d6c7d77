//! The parts of `make test-long` that want a kernel of their own: a Debian in a virtual machine, with a
//! TPM. Installs the built programs and units there as an administrator would, makes a key, and signs.
//!
//! `tpm`: reboots, and signs with the same key through `/dev/tpmrm0`.
//! `old-kernel`: who is calling, and who pretends to be, on a kernel without SO_PEERPIDFD.
//!
//! Prints one line for each check and at the end `N passed, M failed`. It changes nothing outside of
//! target/vm, and the machine ends with this process however that ends.

mod agent;
mod device;
mod emulator;
mod foreign;
mod installed;
mod machine;
mod old_kernel;
mod reboot;
mod request;

use harness::suite::{INDENT, Suite};
use machine::Machine;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: vm [--group tpm|old-kernel] [--tree DIR] [--qemu DIR]

  --group NAME  tpm (the default): the TPM of a Debian 13
                old-kernel: Debian 12, whose Linux 6.1 has no SO_PEERPIDFD
  --tree DIR    a Debian with a kernel, made by `tests/setup/tree.sh SUITE DIR vm`
                (default: target/trees/trixie-vm, or bookworm-vm for old-kernel)
  --qemu DIR    one with a QEMU (default: target/trees/trixie-vm)";

/// After this everything is ended, whatever hangs. A run takes 2 to 4 minutes where it has the machine to itself.
const LIMIT: Duration = Duration::from_secs(1800);

/// The machine's own TPM, and that of another one.
const OWN_TPM: &str = "tpm";
const OTHER_TPM: &str = "other-tpm";

/// Exit codes of sysexits.h: used wrongly, not possible here.
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Tpm,
    OldKernel,
}

struct Arguments {
    group: Group,
    tree: PathBuf,
    qemu: PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let Some(arguments) = parse(&words, &target) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EX_USAGE);
    };
    end_at_the_limit();
    let started = Instant::now();
    let machine = installed::payload(&target).and_then(|payload| {
        let (tree, qemu) = (&arguments.tree, &arguments.qemu);
        Machine::new(tree, qemu, payload.path(), &target.join("vm"))
    });
    let machine = match machine {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("vm: cannot make a machine here: {why}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    };
    println!("{INDENT}vm: {}", machine.processor());
    let mut suite = Suite::new(&machine, None);
    match arguments.group {
        Group::Tpm => tpm(&mut suite, &machine),
        Group::OldKernel => old_kernel(&mut suite, &machine),
    }
    let counts = suite.counts();
    println!(
        "{INDENT}vm: {:.0} s, {}",
        started.elapsed().as_secs_f32(),
        suite.slowest()
    );
    println!("{counts}");
    match (counts.passed, counts.failed) {
        (1.., 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn parse(words: &[String], target: &Path) -> Option<Arguments> {
    let (mut group, mut tree) = (Group::Tpm, None);
    let mut qemu = target.join("trees/trixie-vm");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next()?;
        match (word.as_str(), value.as_str()) {
            ("--group", "tpm") => group = Group::Tpm,
            ("--group", "old-kernel") => group = Group::OldKernel,
            ("--tree", directory) => tree = Some(PathBuf::from(directory)),
            ("--qemu", directory) => qemu = PathBuf::from(directory),
            _ => return None,
        }
    }
    let tree = tree.unwrap_or_else(|| match group {
        Group::Tpm => target.join("trees/trixie-vm"),
        Group::OldKernel => target.join("trees/bookworm-vm"),
    });
    Some(Arguments { group, tree, qemu })
}

/// Each part needs what the one before has left.
fn tpm(suite: &mut Suite<'_>, machine: &Machine) {
    if !installed(suite, machine, "boot: a kernel with a TPM") {
        return;
    }
    let Some(first) = request::run(suite, machine) else {
        return;
    };
    device::run(suite, machine);
    foreign::run(suite, machine, &first);
    reboot::run(suite, machine, &first);
}

fn old_kernel(suite: &mut Suite<'_>, machine: &Machine) {
    if installed(suite, machine, "boot: Debian 12 with its own kernel") {
        old_kernel::run(suite, machine);
    }
}

/// Switches it on for the first time and installs all there is; whether both went well.
fn installed(suite: &mut Suite<'_>, machine: &Machine, name: &str) -> bool {
    if !starts(suite, machine, name, OWN_TPM) {
        return false;
    }
    let done = installed::install(machine);
    if let Err(why) = done {
        suite.require("installed: programs, units, configuration, sockets", why);
        return false;
    }
    true
}

/// Switches it on; whether it is up.
fn starts(suite: &mut Suite<'_>, machine: &Machine, name: &str, tpm: &str) -> bool {
    let mut up = None;
    suite.check(name, || {
        up = Some(machine.start(tpm)?);
        Ok(())
    });
    if let Some(took) = up {
        println!("{INDENT}up after {:.1} s", took.as_secs_f32());
    }
    up.is_some()
}

/// The kernel kills QEMU and swtpm when the main thread is gone (`--pdeathsig`).
fn end_at_the_limit() {
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        println!("FAIL vm: still runs after {} s", LIMIT.as_secs());
        println!("0 passed, 1 failed");
        std::process::exit(1);
    });
}
