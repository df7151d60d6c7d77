//! What a PKCS#11 module shows without a login: its tokens, and what they can do. The keystore
//! program prints it (`--list-tokens`), assertctl, which loads no module itself, reads it.
//!
//! One line of JSON. Members only grow; [`FORMAT`] grows when one changes its meaning.

use crate::Alg;
use crate::shown::unread;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// Most slots that are looked at; more is a module gone mad, or an HSM whose token is named.
pub const SLOTS_MAX: usize = 256;

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// [`FORMAT`]
    pub format: u32,
    /// Where it was loaded from, links resolved.
    pub module: PathBuf,
    /// What it says about itself.
    pub library: String,
    /// By slot.
    pub tokens: Vec<Token>,
    /// Slots whose token could not be read: why.
    pub unreadable: Vec<String>,
}

/// One token. Texts are the token's own and may hold anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its slot now; it moves.
    pub slot: u64,
    /// Its label, without the padding.
    pub label: String,
    /// Its serial number.
    pub serial: String,
    /// Its maker.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// CKF_TOKEN_INITIALIZED: without it there is no label and no user PIN.
    pub initialized: bool,
    /// CKF_LOGIN_REQUIRED: it has a user PIN.
    pub login_required: bool,
    /// CKF_WRITE_PROTECTED: no key can be made in it.
    pub write_protected: bool,
    /// CKF_PROTECTED_AUTHENTICATION_PATH: the PIN is typed at the device.
    pub pin_pad: bool,
    /// Its user PIN.
    pub pin: PinState,
    /// Shortest PIN in bytes, as the token says; some say 0.
    pub pin_len_min: u64,
    /// Longest PIN in bytes, as the token says; some say 0.
    pub pin_len_max: u64,
    /// What it can both make keys for and sign with, by its list of mechanisms.
    pub algs: Vec<Alg>,
}

/// A user PIN, as the token's flags show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinState {
    /// It can be tried.
    Ready,
    /// Somebody was wrong since the last success.
    CountLow,
    /// One more wrong one locks it.
    FinalTry,
    /// It is locked.
    Locked,
    /// It was never set.
    NotSet,
    /// It has expired or is a default.
    ToBeChanged,
}

impl Inventory {
    /// One line of JSON.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("these types have no map and no float")
    }

    /// From the program's standard output: modules print there too, so the last line counts.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_output(output: &str) -> Result<Inventory, String> {
        let line = output
            .lines()
            .rfind(|line| line.starts_with('{'))
            .ok_or("it printed no inventory")?;
        let inventory: Inventory = serde_json::from_str(line)
            .map_err(|error| format!("its inventory: {}", unread(&error)))?;
        match inventory.format {
            FORMAT => Ok(inventory),
            other => Err(format!("its inventory has format {other}, not {FORMAT}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        Inventory {
            format: FORMAT,
            module: "/usr/lib/m.so".into(),
            library: "a maker, 1.0".into(),
            tokens: vec![Token {
                slot: 3,
                label: "edge \"1\"\n".into(),
                serial: "42".into(),
                manufacturer: "a maker".into(),
                model: "a model".into(),
                initialized: true,
                login_required: true,
                write_protected: false,
                pin_pad: false,
                pin: PinState::CountLow,
                pin_len_min: 4,
                pin_len_max: 255,
                algs: vec![Alg::ES256, Alg::EdDSA],
            }],
            unreadable: vec!["slot 4: C_GetTokenInfo answered CKR_DEVICE_ERROR".into()],
        }
    }

    #[test]
    fn what_a_module_prints_beside_does_not_matter() {
        let line = inventory().to_line();
        assert!(!line.contains('\n'), "{line}");
        for output in [
            format!("{line}\n"),
            format!("vendor: hello\n{{\n{line}\nvendor: bye\n"),
        ] {
            assert_eq!(Inventory::from_output(&output), Ok(inventory()));
        }
    }

    #[test]
    fn another_format_is_told_from_no_answer() {
        let newer = Inventory {
            format: FORMAT + 1,
            ..inventory()
        };
        let error = Inventory::from_output(&newer.to_line()).unwrap_err();
        assert!(error.contains("format 2"), "{error}");
        assert!(Inventory::from_output("").is_err());
        assert!(Inventory::from_output("{\"format\":1}").is_err());
    }
}
