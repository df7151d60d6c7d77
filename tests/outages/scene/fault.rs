//! The faults: what each does to a token, for how long the token itself is not there, and the
//! evidence that it was felt. What assertd makes of it is for others to judge.

use super::client::Client;
use super::log::Absence;
use super::place::{HSM, Place, TPM};
use harness::fault::Function;
use harness::{DEADLINE, process, wait_until};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The directory with the token's objects is moved away, and back.
    StoreAway,
    /// C_Sign returns no more, on whichever session it is called.
    ModuleHangs,
    /// One call of C_Sign returns no more.
    CallHangs,
    /// The module makes its process die of SIGSEGV.
    ModuleCrashes,
    /// All sessions are closed.
    SessionsLost,
    /// The user is logged out.
    LoginLost,
    /// Every function answers CKR_DEVICE_ERROR, and then no more.
    DeviceError,
    /// Every function answers CKR_DEVICE_ERROR until C_Finalize.
    DeviceDead,
    /// swtpm is killed, and started again.
    TpmKilled,
    /// TPM reset: what was loaded is gone, sessions too.
    TpmReset,
    /// Somebody else flushes every object from the TPM.
    TpmFlushed,
    /// The TPM answers nothing any more to who is connected.
    TpmHangs,
    /// Every command answers TPM_RC_FAILURE, and then no more.
    TpmFailure,
}

impl Fault {
    pub const ALL: [Fault; 13] = [
        Fault::StoreAway,
        Fault::TpmKilled,
        Fault::TpmReset,
        Fault::ModuleHangs,
        Fault::CallHangs,
        Fault::TpmHangs,
        Fault::ModuleCrashes,
        Fault::SessionsLost,
        Fault::LoginLost,
        Fault::TpmFlushed,
        Fault::DeviceError,
        Fault::DeviceDead,
        Fault::TpmFailure,
    ];

    /// What it is called in the tables, and in the name of its log.
    pub fn name(self) -> &'static str {
        match self {
            Fault::StoreAway => "store moved away and back",
            Fault::ModuleHangs => "module hangs",
            Fault::CallHangs => "one call of the module hangs",
            Fault::ModuleCrashes => "module segfaults",
            Fault::SessionsLost => "sessions lost",
            Fault::LoginLost => "login lost",
            Fault::DeviceError => "device error in every function",
            Fault::DeviceDead => "device error until re-initialised",
            Fault::TpmKilled => "TPM killed and started again",
            Fault::TpmReset => "TPM reset",
            Fault::TpmFlushed => "TPM's objects flushed by others",
            Fault::TpmHangs => "TPM hangs",
            Fault::TpmFailure => "TPM failure in every command",
        }
    }

    /// The keystore that has it.
    pub fn keystore(self) -> &'static str {
        match self {
            Fault::StoreAway
            | Fault::ModuleHangs
            | Fault::CallHangs
            | Fault::ModuleCrashes
            | Fault::SessionsLost
            | Fault::LoginLost
            | Fault::DeviceError
            | Fault::DeviceDead => HSM,
            Fault::TpmKilled
            | Fault::TpmReset
            | Fault::TpmFlushed
            | Fault::TpmHangs
            | Fault::TpmFailure => TPM,
        }
    }

    /// Does it to the place while the client asks, and undoes it after `length` where it lasts. When
    /// the token was not there, by the client's clock: for what a new process or a new session cures
    /// it is no time at all.
    ///
    /// # Errors
    /// A sentence if the fault was not felt.
    pub fn inflict(
        self,
        place: &mut Place,
        client: &Client,
        length: Duration,
    ) -> Result<Absence, String> {
        match self {
            Fault::StoreAway => store_away(place, client, length),
            Fault::ModuleHangs => module_hangs(place, client),
            Fault::CallHangs => call_hangs(place, client),
            Fault::ModuleCrashes => once(place, client, Function::C_Sign, "segfault"),
            Fault::SessionsLost => once(place, client, Function::C_SignInit, "close-all"),
            Fault::LoginLost => once(place, client, Function::C_SignInit, "logout"),
            Fault::DeviceDead => once(place, client, Function::C_Sign, "dead:0x30"),
            Fault::DeviceError => device_error(place, client, length),
            Fault::TpmKilled => tpm_killed(place, client, length),
            Fault::TpmReset => tpm_reset(place, client),
            Fault::TpmFlushed => tpm_flushed(place, client),
            Fault::TpmHangs => tpm_hangs(place, client),
            Fault::TpmFailure => tpm_failure(place, client, length),
        }
    }
}

/// It begins now, and the token is there all the time.
fn present(client: &Client) -> Absence {
    let now = client.now();
    Absence {
        from: now,
        until: now,
    }
}

fn felt(there: bool, what: &str) -> Result<(), String> {
    there
        .then_some(())
        .ok_or_else(|| format!("the fault was not felt: {what}"))
}

/// Lets time pass, in which the fault lasts: what is measured is what happens meanwhile.
fn last(length: Duration) {
    std::thread::sleep(length);
}

fn store_away(place: &Place, client: &Client, length: Duration) -> Result<Absence, String> {
    let store = place.hsm.token().state();
    let away = store.with_extension("away");
    let asked = place.hsm.calls(Function::C_Sign);
    let rename = |from: &Path, to: &Path| {
        std::fs::rename(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    let from = client.now();
    rename(&store, &away);
    last(length);
    let refused = client.with_entries(|entries| {
        let mut late = entries.iter().filter(|entry| entry.ended > from);
        late.any(|entry| entry.outcome != super::log::Outcome::Released)
    });
    rename(&away, &store);
    let until = client.now();
    let signed = place.hsm.calls(Function::C_Sign) - asked;
    felt(refused, &format!("no request failed, {signed} C_Sign"))?;
    Ok(Absence { from, until })
}

/// A rule that fires once over all processes.
fn once(
    place: &Place,
    client: &Client,
    function: Function,
    action: &str,
) -> Result<Absence, String> {
    let fired = place.hsm.fired(function);
    let absence = present(client);
    place
        .hsm
        .rules(&format!("{} 1! {action}\n", function.name()));
    let now = || place.hsm.fired(function) > fired;
    felt(wait_until(DEADLINE, now), "the rule did not fire")?;
    Ok(absence)
}

/// Until its process has been ended, which is felt by what else is under way.
fn call_hangs(place: &Place, client: &Client) -> Result<Absence, String> {
    let pid = place.daemon.keystore_process(HSM).expect("it runs");
    let absence = once(place, client, Function::C_Sign, "hang")?;
    let gone = wait_until(DEADLINE, || !process::runs(pid));
    felt(gone, "the process with the hanging call was not ended")?;
    Ok(absence)
}

/// The rule is gone as soon as a call of every signer hangs; they hang for ever.
fn module_hangs(place: &Place, client: &Client) -> Result<Absence, String> {
    let keystore = place.daemon.keystore(HSM).expect("it is configured");
    let pid = place.daemon.keystore_process(HSM).expect("it runs");
    let all = place.hsm.fired(Function::C_Sign) + keystore.signers as u64;
    let absence = present(client);
    place.hsm.rules("C_Sign * hang\n");
    let hang = || place.hsm.fired(Function::C_Sign) >= all || !process::runs(pid);
    let hung = wait_until(DEADLINE, hang);
    place.hsm.rules("");
    felt(hung, "not every signer hangs")?;
    Ok(absence)
}

fn device_error(place: &Place, client: &Client, length: Duration) -> Result<Absence, String> {
    let fired = place.hsm.fired_any();
    let from = client.now();
    place.hsm.rules("* * ckr:0x30\n");
    last(length);
    place.hsm.rules("");
    let until = client.now();
    felt(place.hsm.fired_any() > fired, "no call failed")?;
    Ok(Absence { from, until })
}

fn tpm_killed(place: &mut Place, client: &Client, length: Duration) -> Result<Absence, String> {
    let from = client.now();
    place.tpm.tpm.swtpm().power_off();
    last(length);
    place.tpm.tpm.swtpm().power_on();
    let until = client.now();
    loaded_again(place)?;
    Ok(Absence { from, until })
}

fn tpm_reset(place: &mut Place, client: &Client) -> Result<Absence, String> {
    let from = client.now();
    place.tpm.tpm.swtpm().reset();
    let until = client.now();
    loaded_again(place)?;
    Ok(Absence { from, until })
}

/// The keystore had to load its key again: that what was loaded is gone was felt.
fn loaded_again(place: &Place) -> Result<(), String> {
    let loads = place.tpm.proxy.seen("TPM2_Load");
    let again = wait_until(DEADLINE, || place.tpm.proxy.seen("TPM2_Load") > loads);
    felt(again, "no key was loaded again")
}

/// Not by way of the proxy, as another program of the host.
fn tpm_flushed(place: &mut Place, client: &Client) -> Result<Absence, String> {
    let (host, port) = place.tpm.tpm.swtpm().address();
    let absence = present(client);
    let flush = Command::new("tpm2_flushcontext")
        .arg("--tcti")
        .arg(format!("swtpm:host={host},port={port}"))
        .arg("--transient-object")
        .output()
        .expect("tpm2-tools is installed by `make setup`");
    let said = String::from_utf8_lossy(&flush.stderr);
    felt(flush.status.success(), &said)?;
    loaded_again(place)?;
    Ok(absence)
}

/// The connections that stall do so for ever, as far as their keystore can tell: the rule goes when
/// its process has.
fn tpm_hangs(place: &Place, client: &Client) -> Result<Absence, String> {
    let fired = place.tpm.proxy.fired("TPM2_Sign");
    let pid = place.daemon.keystore_process(TPM).expect("it runs");
    let absence = present(client);
    place.tpm.proxy.rules("TPM2_Sign 1 stall\n");
    let gone = wait_until(DEADLINE, || !process::runs(pid));
    place.tpm.proxy.rules("");
    felt(place.tpm.proxy.fired("TPM2_Sign") > fired, "no stall")?;
    felt(gone, "the process that hangs was not ended")?;
    Ok(absence)
}

fn tpm_failure(place: &Place, client: &Client, length: Duration) -> Result<Absence, String> {
    let fired = place.tpm.proxy.fired("*");
    let from = client.now();
    place.tpm.proxy.rules("* * rc:0x101\n");
    last(length);
    place.tpm.proxy.rules("");
    let until = client.now();
    felt(place.tpm.proxy.fired("*") > fired, "no command failed")?;
    Ok(Absence { from, until })
}
