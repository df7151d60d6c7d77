//! What the TPM says of itself: maker, firmware, slots, algorithms. Read once when it is opened and
//! shown in status; nothing secret, nothing that changes while it runs.

use crate::codes::Code;
use crate::failure::Failure;
use crate::template;
use keystore::Alg;
use std::fmt;
use tss_esapi::Context;
use tss_esapi::constants::PropertyTag;

/// What a TPM is built as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// A chip of its own: somebody with a probe can listen to the bus it hangs on.
    Discrete,
    /// A program of the processor's firmware.
    Firmware,
    /// An emulator, or the virtual TPM of a hypervisor.
    Software,
    /// We do not know the maker.
    Unknown,
}

/// Makers by their TCG vendor id (TCG Vendor ID Registry §3).
const MAKES: [(&str, Make); 17] = [
    ("AMD", Make::Firmware),
    ("ATML", Make::Discrete),
    ("BRCM", Make::Discrete),
    ("GOOG", Make::Discrete),
    ("HISI", Make::Firmware),
    ("IBM", Make::Software),
    ("IFX", Make::Discrete),
    ("INTC", Make::Firmware),
    ("MSFT", Make::Software),
    ("NSG", Make::Discrete),
    ("NSM", Make::Discrete),
    ("NTC", Make::Discrete),
    ("NTZ", Make::Discrete),
    ("QCOM", Make::Firmware),
    ("SECE", Make::Discrete),
    ("STM", Make::Discrete),
    ("VMW", Make::Software),
];

/// One TPM.
#[derive(Clone, Debug)]
pub struct Chip {
    /// Its maker's id.
    pub maker: String,
    /// What its maker calls it.
    pub model: String,
    /// Both halves of the firmware's version.
    pub firmware: (u32, u32),
    /// What it is built as, by its maker.
    pub make: Make,
}

impl Chip {
    /// Asks the TPM.
    ///
    /// # Errors
    /// Whatever TPM2_GetCapability answers.
    pub fn read(context: &mut Context, place: &str) -> Result<Chip, Failure> {
        let mut property = |tag| {
            let asked = context.get_tpm_property(tag);
            asked
                .map(Option::unwrap_or_default)
                .map_err(|e| Failure::of(place, "asking who made it", &e))
        };
        let maker = text(&[property(PropertyTag::Manufacturer)?]);
        let model = text(&[
            property(PropertyTag::VendorString1)?,
            property(PropertyTag::VendorString2)?,
            property(PropertyTag::VendorString3)?,
            property(PropertyTag::VendorString4)?,
        ]);
        let firmware = (
            property(PropertyTag::FirmwareVersion1)?,
            property(PropertyTag::FirmwareVersion2)?,
        );
        Ok(Chip {
            make: make(&maker),
            maker,
            model,
            firmware,
        })
    }

    /// For tests of what follows from the make alone.
    #[cfg(test)]
    pub fn of_make(make: Make) -> Chip {
        Chip {
            maker: "X".into(),
            model: String::new(),
            firmware: (0, 0),
            make,
        }
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.firmware;
        let (high, low) = (major >> 16, major & 0xffff);
        match self.model.is_empty() {
            true => write!(f, "{}", self.maker)?,
            false => write!(f, "{} {}", self.maker, self.model)?,
        }
        write!(f, " (firmware {high}.{low}")?;
        match minor {
            0 => f.write_str(")"),
            minor => write!(f, ".{}.{})", minor >> 16, minor & 0xffff),
        }
    }
}

/// Four bytes of text each, padded with blanks or zeros.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let shown = bytes.filter(|byte| byte.is_ascii_graphic() || *byte == b' ');
    shown.map(char::from).collect::<String>().trim().to_owned()
}

fn make(maker: &str) -> Make {
    let known = MAKES.iter().find(|(id, _)| *id == maker);
    known.map_or(Make::Unknown, |(_, make)| *make)
}

/// The algorithms it has, as TPM2_TestParms tells; an answer that is no answer to that is an error.
///
/// # Errors
/// Anything but "not supported".
pub fn algs(context: &mut Context, place: &str) -> Result<Vec<Alg>, Failure> {
    let mut algs = Vec::new();
    for alg in Alg::ALL {
        let Some(parameters) = template::parameters(alg) else {
            continue;
        };
        match context.execute_without_session(|c| c.test_parms(parameters)) {
            Ok(()) => algs.push(alg),
            Err(error) if Code::of(&error).is_some_and(Code::is_unsupported) => {}
            Err(error) => return Err(Failure::of(place, "asking what it can sign with", &error)),
        }
    }
    Ok(algs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_is_shown_with_maker_model_and_firmware() {
        let chip = |maker, model: [u32; 4], firmware| Chip {
            maker: text(&[maker]),
            model: text(&model),
            firmware,
            make: Make::Unknown,
        };
        let swtpm = chip(
            u32::from_be_bytes(*b"IBM\0"),
            [*b"SW  ", *b" TPM", [0; 4], [0; 4]].map(u32::from_be_bytes),
            (0x2019_1023, 0x0016_3636),
        );
        assert_eq!(
            swtpm.to_string(),
            "IBM SW   TPM (firmware 8217.4131.22.13878)"
        );
        let bare = chip(u32::from_be_bytes(*b"IFX\0"), [0; 4], (0x0001_0002, 0));
        assert_eq!(bare.to_string(), "IFX (firmware 1.2)");
    }

    #[test]
    fn makers_are_known_by_their_id_alone() {
        assert_eq!(make("IFX"), Make::Discrete);
        assert_eq!(make("INTC"), Make::Firmware);
        assert_eq!(make("IBM"), Make::Software);
        for unknown in ["", "ifx", "IFXX", "I"] {
            assert_eq!(make(unknown), Make::Unknown);
        }
    }
}
