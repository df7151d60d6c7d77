//! All processes that the broker runs itself: its keystores that no unit runs, and then the witness and
//! the courier too. Their threads are started before the sandbox is entered and their sockets are bound before any
//! of them runs; both are in the order in which `daemon` calls this.

use crate::child::Supervised;
use crate::config::Config;
use crate::courier;
use crate::keystores::{self, Keystore};
use crate::witness;
use keystore::config::Section;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The threads that run them.
pub struct Children {
    keystores: BTreeMap<String, Supervised>,
    /// None where units run the keystores: one runs the witness too, and every thread of ours is in
    /// the sandbox.
    witness: Option<Supervised>,
    /// Likewise. There is one before a reload makes it of use, for the sandbox lets none be made then.
    courier: Option<Supervised>,
}

impl Children {
    /// Starts the threads, before the sandbox.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn of(config: &Config) -> Result<Children, String> {
        let mut keystores = BTreeMap::new();
        for (name, _) in own(config) {
            keystores.insert(name.clone(), Supervised::new(format!("keystore-{name}"))?);
        }
        let beside = |name: &str| match keystores.is_empty() {
            true => Ok(None),
            false => Supervised::new(name.to_owned()).map(Some),
        };
        let (witness, courier) = (beside("witness")?, beside("courier")?);
        Ok(Children {
            keystores,
            witness,
            courier,
        })
    }

    /// Binds every socket, then has everything run.
    ///
    /// # Errors
    /// If a keystore cannot be run. Without a witness only selectors for executables are of no use, and
    /// without a courier only `verify_url` and canaries; whoever has some learns of it.
    pub fn start(
        &self,
        config: &Config,
        keystores: &BTreeMap<String, Arc<Keystore>>,
    ) -> Result<(), String> {
        let mut recipes = Vec::new();
        for (name, section) in own(config) {
            let recipe = keystores::child::Recipe::prepare(config, section, &keystores[name]);
            let recipe = recipe.map_err(|text| unit_advice(name, section, text))?;
            recipes.push((&self.keystores[name], recipe));
        }
        let witness = self.witness.as_ref();
        let witness = witness.map(|child| (child, witness::child::Recipe::prepare(config)));
        let courier = self.courier.as_ref();
        let courier = courier.map(|child| (child, courier::child::Recipe::prepare(config)));
        for (child, recipe) in recipes {
            child.run(Box::new(recipe));
        }
        match witness {
            Some((child, Ok(recipe))) => child.run(Box::new(recipe)),
            Some((_, Err(why))) => eprintln!("assertd: no witness: {why}"),
            None => {}
        }
        match courier {
            Some((child, Ok(recipe))) => child.run(Box::new(recipe)),
            Some((_, Err(why))) => eprintln!("assertd: no courier: {why}"),
            None => {}
        }
        Ok(())
    }

    /// Ends them for good.
    pub fn stop(self) {
        Supervised::stop_all(
            self.keystores
                .into_values()
                .chain(self.witness)
                .chain(self.courier),
        );
    }
}

/// The keystores that no unit runs.
fn own(config: &Config) -> impl Iterator<Item = (&String, &Section)> {
    let sections = config.keystores.iter();
    sections.filter(|(_, section)| section.socket.is_none())
}

/// A unit's sandbox lets assertd make no sockets and start no programs.
fn unit_advice(name: &str, section: &Section, text: String) -> String {
    if !keystore::notify::is_managed() {
        return text;
    }
    let program = section.program();
    format!(
        "{text}\n[keystore.{name}] has no `socket`, so that assertd would run it itself; under \
         systemd a unit does: write socket = \"/run/assertd/keystore-{name}.sock\" there, and run \
         `systemctl enable --now {program}@{name}.socket`"
    )
}
