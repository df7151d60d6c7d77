//! Opens the way to the TPM. Owns how a context begins: the TPM is started if nobody did, and where
//! it is ours alone, what an earlier process left in it is flushed; behind the kernel's resource
//! manager there is nothing to flush, and never anything of others.

use crate::codes::{Code, Cure, explain};
use keystore::Error;
use keystore::tcti::{Company, Tcti};
use std::str::FromStr;
use tss_esapi::constants::tss::{
    TPM2_ACTIVE_SESSION_FIRST, TPM2_LOADED_SESSION_FIRST, TPM2_TRANSIENT_FIRST,
};
use tss_esapi::constants::{CapabilityType, StartupType};
use tss_esapi::structures::CapabilityData;
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::{Context, WrapperErrorKind};

/// Most handles asked for at a time; a chip has three to ten slots.
const HANDLES_MAX: u32 = 64;

/// What of an earlier process may stand in the way, in a TPM that is ours alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// What is loaded.
    #[default]
    Loaded,
    /// Sessions that somebody saved as well: while the oldest is there the TPM counts to 65,536 and
    /// then starts and saves none any more (TPM_RC_CONTEXT_GAP).
    SavedToo,
}

/// Opens a context on a TPM that answers and holds nothing of ours.
///
/// # Errors
/// `Unavailable` while the TPM is away.
pub fn connect(tcti: &Tcti, leftovers: Leftovers) -> Result<Context, Error> {
    let place = format!("TPM {tcti}");
    let failed =
        |doing: &'static str| move |error: tss_esapi::Error| explain(&place, doing, &error);
    let place = format!("TPM {tcti}");
    let name = TctiNameConf::from_str(&tcti.to_string()).map_err(failed("naming it"))?;
    let mut context = Context::new(name).map_err(|error| explain(&place, "opening it", &error))?;
    // The first command, so that a TPM that is away or not started is told from one that is.
    if let Err(error) = context.get_random(8) {
        if Code::of(&error).map(Code::cure) != Some(Cure::Startup) {
            return Err(explain(&place, "asking for its first answer", &error));
        }
        let started = context.startup(StartupType::Clear);
        started.map_err(|error| explain(&place, "starting it", &error))?;
    }
    if tcti.company() == Company::Alone {
        flush_all(&mut context, leftovers)
            .map_err(|error| explain(&place, "flushing what was left in it", &error))?;
    }
    Ok(context)
}

/// Flushes every transient object and every loaded session, whoever left them, and saved ones if they
/// stand in the way. Only where nobody else uses the TPM. Dropping a context that is in an error state
/// flushes nothing, so without this a lost reply would cost a slot until the next reset (tokens §2.4).
fn flush_all(context: &mut Context, leftovers: Leftovers) -> tss_esapi::Result<()> {
    let saved = (leftovers == Leftovers::SavedToo).then_some(TPM2_ACTIVE_SESSION_FIRST);
    let loaded = [TPM2_TRANSIENT_FIRST, TPM2_LOADED_SESSION_FIRST];
    for first in loaded.into_iter().chain(saved) {
        let (data, _) = context.get_capability(CapabilityType::Handles, first, HANDLES_MAX)?;
        let CapabilityData::Handles(handles) = data else {
            let kind = WrapperErrorKind::WrongValueFromTpm;
            return Err(tss_esapi::Error::WrapperError(kind));
        };
        for handle in handles.into_inner() {
            let object = context.execute_without_session(|c| c.tr_from_tpm_public(handle))?;
            context.flush_context(object)?;
        }
    }
    Ok(())
}
