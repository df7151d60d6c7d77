//! The part of `make test-long` that has a TPM behind a real kernel's `/dev/tpmrm0`: a Debian of its
//! own in a virtual machine. Installs the built programs and units there as an administrator would,
//! makes a key, signs, reboots, and signs with the same key.
//!
//! Prints one line for each check and at the end `N passed, M failed`. It changes nothing outside of
//! target/vm, and the machine ends with this process however that ends.

mod agent;
mod device;
mod emulator;
mod foreign;
mod installed;
mod machine;
mod reboot;
mod request;

use harness::suite::{INDENT, Suite};
use machine::Machine;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: vm [--tree DIR]

  --tree DIR  a Debian with a kernel, made by `tests/setup/tree.sh trixie DIR vm`
              (default: target/trees/trixie-vm)";

/// After this everything is ended, whatever hangs. A run takes 2 to 4 minutes where it has the machine to itself.
const LIMIT: Duration = Duration::from_secs(1800);

/// The machine's own TPM, and that of another one.
const OWN_TPM: &str = "tpm";
const OTHER_TPM: &str = "other-tpm";

/// Exit codes of sysexits.h: used wrongly, not possible here.
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let tree = match &words[..] {
        [] => target.join("trees/trixie-vm"),
        [option, tree] if option == "--tree" => PathBuf::from(tree),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(EX_USAGE);
        }
    };
    end_at_the_limit();
    let started = Instant::now();
    let machine = installed::payload(&target)
        .and_then(|payload| Machine::new(&tree, payload.path(), &target.join("vm")));
    let machine = match machine {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("vm: cannot make a machine here: {why}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    };
    println!("{INDENT}vm: {}", machine.processor());
    let mut suite = Suite::new(&machine, None);
    run(&mut suite, &machine);
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

/// Each part needs what the one before has left.
fn run(suite: &mut Suite<'_>, machine: &Machine) {
    if !starts(suite, machine, "boot: a kernel with a TPM", OWN_TPM) {
        return;
    }
    if let Err(why) = installed::install(machine) {
        suite.require("installed: programs, units, configuration, sockets", why);
        return;
    }
    let Some(first) = request::run(suite, machine) else {
        return;
    };
    device::run(suite, machine);
    foreign::run(suite, machine, &first);
    reboot::run(suite, machine, &first);
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
