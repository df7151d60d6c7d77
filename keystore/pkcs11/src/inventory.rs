//! What a module shows of its tokens without a login (`--list-tokens`). Nothing here opens a
//! session or sends a PIN: looking costs no try. Only slots are read one by one, so that a broken
//! one does not hide the others.

use crate::errors::explain;
use crate::mechanism;
use crate::module::Module;
use crate::token::pin_state;
use cryptoki::slot::Slot;
use keystore::Error;
use keystore::inventory::{FORMAT, Inventory, SLOTS_MAX, Token};
use keystore::shown::printable;
use std::path::Path;

/// Loads the module at `path` and looks at its tokens.
///
/// # Errors
/// As loading a module; `Unavailable` if it does not list its slots.
pub fn take(path: &Path) -> Result<Inventory, Error> {
    let module = Module::load(path, None)?;
    let place = format!("module {}", module.path.display());
    let library = match module.context.get_library_info() {
        Ok(info) => {
            let version = info.library_version();
            let (maker, name) = (info.manufacturer_id(), info.library_description());
            format!("{maker}, {name} {}.{}", version.major(), version.minor())
        }
        Err(error) => return Err(explain(&place, "asking who made it", &error)),
    };
    let slots = module
        .context
        .get_slots_with_token()
        .map_err(|error| explain(&place, "listing its slots", &error))?;
    let (mut tokens, mut unreadable) = (Vec::new(), Vec::new());
    for slot in slots.iter().take(SLOTS_MAX) {
        match token(&module, *slot) {
            Ok(token) => tokens.push(token),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    if slots.len() > SLOTS_MAX {
        let more = slots.len() - SLOTS_MAX;
        unreadable.push(format!("{more} more slots were not looked at"));
    }
    let path = module.path.clone();
    module.give_up(); // some vendors' libraries leave sessions behind otherwise
    Ok(Inventory {
        format: FORMAT,
        module: path,
        library: printable(&library),
        tokens,
        unreadable,
    })
}

fn token(module: &Module, slot: Slot) -> Result<Token, Error> {
    let place = format!("slot {}", slot.id());
    let info = module
        .context
        .get_token_info(slot)
        .map_err(|error| explain(&place, "reading its token", &error))?;
    let algs = match info.token_initialized() {
        false => Vec::new(),
        true => module
            .context
            .get_mechanism_list(slot)
            .map(|mechanisms| mechanism::algs(&mechanisms))
            .map_err(|error| explain(&place, "listing its mechanisms", &error))?,
    };
    Ok(Token {
        slot: slot.id(),
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        model: info.model().to_owned(),
        initialized: info.token_initialized(),
        login_required: info.login_required(),
        write_protected: info.write_protected(),
        pin_pad: info.protected_authentication_path(),
        pin: pin_state(&info),
        pin_len_min: info.min_pin_length() as u64,
        pin_len_max: info.max_pin_length() as u64,
        algs,
    })
}
