//! Which token, and the one login. Slots move between starts, so a token is chosen by label and
//! serial number; two that fit are an error, never a guess. The PIN goes in once: a wrong one is
//! not tried again, and at the last try it is not tried at all (P9).

use crate::backend::ReadPin;
use crate::errors::{Spent, explain, explain_login};
use crate::module::Module;
use crate::pinmemory::{Count, PinMemory, Shown};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use keystore::backend::{ObjectId, TokenId};
use keystore::clock::Clock;
use keystore::evidence::bundle::{Module as ModuleEvidence, Text};
use keystore::inventory::PinState;
use keystore::shown::printable;
use keystore::{Error, Kind};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

/// A chosen token.
pub struct Token {
    /// The module it is reached through.
    pub context: Pkcs11,
    /// Where that was loaded from.
    pub module: PathBuf,
    /// Its slot, for as long as the module stays initialised.
    pub slot: Slot,
    /// Its serial number.
    pub serial: String,
    /// How messages name it: `token "edge" (slot 3)`.
    pub place: String,
    /// For status: label, serial, model, module.
    pub description: String,
    /// Its mechanisms, as listed.
    pub mechanisms: Vec<MechanismType>,
    /// Most sessions it allows, if it says.
    pub sessions_max: Option<u64>,
    /// Whether private objects need our login.
    pub login: LoginNeed,
    /// Ids of objects that are not called by ours.
    pub aliases: RwLock<HashMap<ObjectId, TokenId>>,
}

/// CKF_LOGIN_REQUIRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginNeed {
    /// Set: without a login the token shows no private object.
    Needed,
    /// Clear: there is nothing to log in to.
    NotNeeded,
}

impl Token {
    /// The CKA_ID of an object.
    pub fn id_of(&self, object: ObjectId) -> Vec<u8> {
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        match aliases.get(&object) {
            Some(id) => id.as_bytes().to_vec(),
            None => object.0.to_vec(),
        }
    }

    /// What the module says of itself and of the token.
    ///
    /// # Errors
    /// That it does not.
    pub fn likeness(&self) -> Result<ModuleEvidence, Error> {
        let failed = |error| explain(&self.place, "asking the token about itself", &error);
        let library = self.context.get_library_info().map_err(failed)?;
        let info = self.context.get_token_info(self.slot).map_err(failed)?;
        let text = |text: &str| Text::cut(&printable(text));
        Ok(ModuleEvidence {
            library: text(&format!(
                "{}, {}, version {}",
                library.manufacturer_id(),
                library.library_description(),
                library.library_version()
            )),
            manufacturer: text(info.manufacturer_id()),
            model: text(info.model()),
            serial: text(info.serial_number()),
            firmware: text(&info.firmware_version().to_string()),
        })
    }

    /// Finds the one token with this label and serial number; either may be left out.
    ///
    /// # Errors
    /// `Absent` if there is none, naming those there are; `Mismatch` if there are two.
    pub fn choose(
        module: &Module,
        label: Option<&str>,
        serial: Option<&str>,
    ) -> Result<Token, Error> {
        let context = module.context.clone();
        let at = format!("module {}", module.path.display());
        let slots = context
            .get_slots_with_token()
            .map_err(|error| explain(&at, "listing its slots", &error))?;
        let mut found = Vec::new();
        let mut unreadable = 0;
        for slot in slots {
            match context.get_token_info(slot) {
                Ok(info) if info.token_initialized() => found.push((slot, info)),
                Ok(_) => {}
                Err(_) => unreadable += 1, // one slot's broken answer is not the others' fault
            }
        }
        let names: Vec<Name<'_>> = found
            .iter()
            .map(|(_, info)| Name {
                label: info.label(),
                serial: info.serial_number(),
            })
            .collect();
        let index = select(&names, label, serial, unreadable)
            .map_err(|error| Error::new(error.kind(), format!("{at}: {error}")))?;
        let (slot, info) = &found[index];
        let place = format!("token \"{}\" (slot {})", printable(info.label()), slot.id());
        let mechanisms = context
            .get_mechanism_list(*slot)
            .map_err(|error| explain(&place, "listing its mechanisms", &error))?;
        Ok(Token {
            description: format!(
                "token \"{}\" (serial {}, {}) through {}",
                printable(info.label()),
                printable(info.serial_number()),
                printable(info.model()),
                module.path.display()
            ),
            mechanisms,
            sessions_max: match info.max_session_count() {
                Limit::Max(most) => Some(most),
                Limit::Unavailable | Limit::Infinite => None,
            },
            login: match info.login_required() {
                true => LoginNeed::Needed,
                false => LoginNeed::NotNeeded,
            },
            serial: info.serial_number().to_owned(),
            slot: *slot,
            place,
            module: module.path.clone(),
            context,
            aliases: RwLock::default(),
        })
    }

    /// Logs in and returns the session that holds the login; it does nothing else for life,
    /// because closing the last session logs out. The PIN is read just before and wiped when this
    /// returns. That it is tried is on disk before the token sees it, and what the token says of it
    /// before anybody hears of that.
    ///
    /// # Errors
    /// `Locked` or `BadPin`; neither may lead to another call by itself. `Unavailable` if the token
    /// or the session went away before the PIN was looked at, if the module failed in some other
    /// way, or if `memory` cannot be written or has the next try later.
    pub fn log_in(&self, read: &ReadPin, memory: &mut PinMemory) -> Result<Session, Error> {
        let place = &self.place;
        let session = self.open_session(Access::ReadOnly)?;
        if self.login == LoginNeed::NotNeeded {
            return Ok(session);
        }
        let info = self.context.get_token_info(self.slot);
        let info = info.map_err(|error| explain(place, "asking for its PIN's state", &error))?;
        self.is_still(&info)?;
        may_try(place, pin_state(&info))?;
        let pin = read()?;
        let shown = Shown {
            place,
            serial: &self.serial,
            count: match info.user_pin_count_low() {
                true => Count::Low,
                false => Count::Clear,
            },
            pin: &pin,
            now: Clock::new().read(),
        };
        let before = memory.begin(&shown)?;
        let raw = RawAuthPin::new(Box::new(pin.to_vec())); // wipes itself
        let outcome = session.login_with_raw(UserType::User, &raw);
        drop(raw);
        let (spent, error) = match outcome {
            Ok(()) => {
                memory.accepted(&shown)?;
                return Ok(session);
            }
            // Login belongs to the process and the token; that it is there is what we want.
            Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                memory.not_tried(&shown, &before)?;
                return Ok(session);
            }
            Err(error) => explain_login(place, &error),
        };
        let noted = match spent {
            Spent::Yes => memory.refused(&shown),
            Spent::Perhaps => memory.unclear(&shown, &before),
            Spent::No => memory.not_tried(&shown, &before),
        };
        // If this is not written the try stands as one without a clear answer, and counts.
        Err(match noted {
            Ok(()) => error,
            Err(unwritten) => {
                let text = format!("{error}; and that could not be written down: {unwritten}");
                Error::new(error.kind(), text)
            }
        })
    }

    /// Another token may have been put in the slot since this one was chosen: it sees no PIN of ours,
    /// and what it says of its own is not about ours.
    fn is_still(&self, info: &TokenInfo) -> Result<(), Error> {
        let there = Name {
            label: info.label(),
            serial: info.serial_number(),
        };
        if info.token_initialized() && there.serial == self.serial {
            return Ok(());
        }
        let text = format!(
            "{}: {there} is in its slot now, not the one with serial {}; put that back",
            self.place,
            printable(&self.serial)
        );
        Err(Error::new(Kind::Absent, text))
    }

    /// Whether this session is logged in still.
    pub fn is_logged_in(&self, session: &Session) -> bool {
        let state = || session.get_session_info().map(|info| info.session_state());
        self.login == LoginNeed::NotNeeded
            || matches!(state(), Ok(SessionState::RoUser | SessionState::RwUser))
    }

    /// A new session. It shares the login of the others.
    pub fn open_session(&self, access: Access) -> Result<Session, Error> {
        let opened = match access {
            Access::ReadOnly => self.context.open_ro_session(self.slot),
            Access::ReadWrite => self.context.open_rw_session(self.slot),
        };
        opened.map_err(|error| explain(&self.place, "opening a session", &error))
    }
}

/// What a session may do with the token's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look and sign.
    ReadOnly,
    /// Make and destroy as well.
    ReadWrite,
}

/// The worst of what the flags say (PKCS#11 v3.1 §3.2, CK_TOKEN_INFO).
pub fn pin_state(info: &TokenInfo) -> PinState {
    if info.user_pin_locked() {
        PinState::Locked
    } else if info.user_pin_final_try() {
        PinState::FinalTry
    } else if !info.user_pin_initialized() {
        PinState::NotSet
    } else if info.user_pin_to_be_changed() {
        PinState::ToBeChanged
    } else if info.user_pin_count_low() {
        PinState::CountLow
    } else {
        PinState::Ready
    }
}

fn may_try(place: &str, state: PinState) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::new(Kind::Locked, format!("{place}: {text}")));
    match state {
        // One that must be changed: the token itself says what it still lets us do.
        PinState::Ready | PinState::CountLow | PinState::ToBeChanged => Ok(()),
        PinState::Locked => refuse(
            "the user PIN is locked and was not tried; unlock it with the SO PIN, then restart \
             the keystore",
        ),
        PinState::FinalTry => refuse(
            "the user PIN has one try left, which is not spent here; log in once by the vendor's \
             tool with the right PIN, correct the keystore's, then restart it",
        ),
        PinState::NotSet => {
            refuse("the user PIN was never set; set it with the SO PIN, then restart the keystore")
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Name<'a> {
    label: &'a str,
    serial: &'a str,
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\"{}\" (serial {})",
            printable(self.label),
            printable(self.serial)
        )
    }
}

/// The index of the one that fits.
fn select(
    names: &[Name<'_>],
    label: Option<&str>,
    serial: Option<&str>,
    unreadable: usize,
) -> Result<usize, Error> {
    let wanted = match (label, serial) {
        (Some(label), Some(serial)) => format!("label \"{label}\" and serial {serial}"),
        (Some(label), None) => format!("label \"{label}\""),
        (None, Some(serial)) => format!("serial {serial}"),
        (None, None) => {
            let text = "say which token by `label`, `serial` or both";
            return Err(Error::new(Kind::Refused, text));
        }
    };
    let fits = |name: &Name<'_>| {
        label.is_none_or(|label| label == name.label)
            && serial.is_none_or(|serial| serial == name.serial)
    };
    let fitting: Vec<usize> = (0..names.len())
        .filter(|index| fits(&names[*index]))
        .collect();
    let list = |indices: &[usize]| {
        let list: Vec<String> = indices
            .iter()
            .map(|index| names[*index].to_string())
            .collect();
        list.join(", ")
    };
    match fitting[..] {
        [index] => Ok(index),
        [] => {
            let all: Vec<usize> = (0..names.len()).collect();
            let there = if all.is_empty() {
                "none".to_owned()
            } else {
                list(&all)
            };
            let broken = match unreadable {
                0 => String::new(),
                n => format!(", and {n} that cannot be read"),
            };
            let text = format!(
                "no token has {wanted}; there are: {there}{broken}; put the token back, or correct \
                 `token`"
            );
            Err(Error::new(Kind::Absent, text))
        }
        _ => {
            let text = format!(
                "{} tokens have {wanted}: {}; give the serial of the right one",
                fitting.len(),
                list(&fitting)
            );
            Err(Error::new(Kind::Mismatch, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [Name<'static>; 3] = [
        Name {
            label: "edge",
            serial: "1",
        },
        Name {
            label: "edge",
            serial: "2",
        },
        Name {
            label: "lab",
            serial: "1",
        },
    ];

    #[test]
    fn a_token_is_chosen_by_label_and_serial() {
        assert_eq!(select(&NAMES, Some("lab"), None, 0).unwrap(), 2);
        assert_eq!(select(&NAMES, None, Some("2"), 0).unwrap(), 1);
        assert_eq!(select(&NAMES, Some("edge"), Some("1"), 0).unwrap(), 0);
    }

    #[test]
    fn two_tokens_that_fit_are_an_error_that_names_their_serials() {
        let error = select(&NAMES, Some("edge"), None, 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch);
        assert!(error.to_string().contains("serial 1"), "{error}");
        assert!(error.to_string().contains("serial 2"), "{error}");
    }

    #[test]
    fn a_missing_token_may_come_later_and_the_others_are_named() {
        let error = select(&NAMES, Some("bank"), None, 1).unwrap_err();
        assert_eq!(error.kind(), Kind::Absent);
        assert_eq!(
            error.to_string(),
            "no token has label \"bank\"; there are: \"edge\" (serial 1), \"edge\" (serial 2), \
             \"lab\" (serial 1), and 1 that cannot be read; put the token back, or correct `token`"
        );
        assert_eq!(
            select(&NAMES, None, None, 0).unwrap_err().kind(),
            Kind::Refused
        );
    }

    #[test]
    fn a_pin_at_its_last_try_is_not_tried() {
        for state in [PinState::Ready, PinState::CountLow, PinState::ToBeChanged] {
            assert!(may_try("token", state).is_ok());
        }
        for state in [PinState::FinalTry, PinState::Locked, PinState::NotSet] {
            assert_eq!(may_try("token", state).unwrap_err().kind(), Kind::Locked);
        }
    }
}
