//! The keystore's backend over one token: opens it and carries out the verbs of
//! [`keystore::backend::Backend`]. Looking, making and destroying happens in a session of its own
//! that lives as long as the call; signing in [`Signers`].

use crate::attribute::{
    Leaving, Wrong, parameters, private_template, public_template, template_refused,
};
use crate::errors::explain;
use crate::mechanism::{Scheme, algs, key_pair_mechanism};
use crate::module::Module;
use crate::object::View;
use crate::signer::{Order, Signers};
use crate::token::{Access, Token, printable};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keystore::backend::{Backend, Inspection, LABEL_PREFIX, ObjectId};
use keystore::{Alg, Error, Kind, PublicKey};
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Most strange labels reported, and most characters of one: the report has to fit a frame.
const STRANGE_MAX: usize = 100;
const STRANGE_LABEL_LEN_MAX: usize = 200;

/// What it takes to open a token.
pub struct Settings {
    /// Absolute path of the module.
    pub module: PathBuf,
    /// The token's label; it, the serial or both.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The user PIN, tried once and wiped.
    pub pin: Zeroizing<Vec<u8>>,
    /// String behind C_Initialize's pReserved.
    pub init_args: Option<String>,
    /// Signatures at a time; default: as many as there are cores.
    pub signers: Option<usize>,
}

/// One PKCS#11 token, logged in for life.
pub struct Pkcs11Backend {
    /// Before `login`, so that its sessions close first.
    signers: Signers,
    /// One caller at a time looks, makes or destroys: the token has room for one more session.
    desk: Mutex<()>,
    /// Holds the login and does nothing else.
    _login: Mutex<Session>,
    token: Token,
}

impl Pkcs11Backend {
    /// Loads the module, finds the token, logs in once, opens the sessions.
    ///
    /// # Errors
    /// `Unavailable` may be tried again later; all others (`BadPin`, `Locked`, `Mismatch`,
    /// `Refused`, `Unsupported` …) need a person first.
    pub fn open(settings: Settings) -> Result<Pkcs11Backend, Error> {
        let module = Module::load(&settings.module, settings.init_args.as_deref())?;
        match open_token(&module, settings) {
            Ok(backend) => Ok(backend),
            Err(error) => {
                module.give_up();
                Err(error)
            }
        }
    }

    fn desk(&self) -> MutexGuard<'_, ()> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scheme(&self, alg: Alg) -> Result<Scheme, Error> {
        Scheme::choose(alg, &self.token.mechanisms).ok_or_else(|| self.cannot(alg))
    }

    fn cannot(&self, alg: Alg) -> Error {
        let can: Vec<&str> = self.algs().into_iter().map(Alg::name).collect();
        let text = format!(
            "{}: has no {alg}; it has: {}",
            self.token.place,
            can.join(" ")
        );
        Error::new(Kind::Unsupported, text)
    }
}

fn open_token(module: &Module, settings: Settings) -> Result<Pkcs11Backend, Error> {
    let Settings {
        label,
        serial,
        pin,
        signers,
        ..
    } = settings;
    let token = Token::choose(module, label.as_deref(), serial.as_deref())?;
    let login = token.log_in(pin)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let signers = Signers::open(&token, signers.unwrap_or_else(cores))?;
    Ok(Pkcs11Backend {
        signers,
        desk: Mutex::new(()),
        _login: Mutex::new(login),
        token,
    })
}

impl Backend for Pkcs11Backend {
    fn describe(&self) -> String {
        self.token.description.clone()
    }

    fn algs(&self) -> Vec<Alg> {
        algs(&self.token.mechanisms)
    }

    fn parallelism(&self) -> usize {
        self.signers.count()
    }

    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error> {
        if !self.algs().contains(&alg) {
            return Err(self.cannot(alg));
        }
        let scheme = self.scheme(alg)?;
        let _turn = self.desk();
        let session = self.token.open_session(Access::ReadWrite)?;
        let view = View {
            session: &session,
            token: &self.token,
        };
        if !view
            .search(&[Attribute::Id(object.0.to_vec())], 1)?
            .is_empty()
        {
            let text = format!("an object with CKA_ID {object} is there already");
            return Err(view.error(Kind::Exists, text).into());
        }
        let (public, private) = generate_pair(view, object, label, alg, scheme)?;
        look(view, object, private)
            .and_then(|inspection| {
                if inspection.public_key.fits(alg) {
                    Ok(inspection)
                } else {
                    let text = format!("was asked for an {alg} key and made another kind");
                    Err(view.error(Kind::Mismatch, text).into())
                }
            })
            .map_err(|error| take_back(view, &[private, public], error))
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        let _turn = self.desk();
        let session = self.token.open_session(Access::ReadOnly)?;
        let view = View {
            session: &session,
            token: &self.token,
        };
        let private = view.private_key(object)?;
        look(view, object, private)
    }

    fn sign(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        alg: Alg,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if !public_key.fits(alg) {
            let text = format!(
                "{}: key {} is not for {alg}",
                self.token.place,
                public_key.kid()
            );
            return Err(Error::new(Kind::Mismatch, text));
        }
        let scheme = self.scheme(alg)?;
        self.signers.sign(
            &self.token,
            &Order {
                object,
                public_key,
                alg,
                scheme,
                message,
            },
        )
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let _turn = self.desk();
        let session = self.token.open_session(Access::ReadWrite)?;
        let view = View {
            session: &session,
            token: &self.token,
        };
        let private = match view.private_key(object) {
            Ok(private) => Some(private),
            Err(failure) if failure.error.kind() == Kind::NotFound => None,
            Err(failure) => return Err(failure.into()),
        };
        let public = view.find(ObjectClass::PUBLIC_KEY, object)?;
        if private.is_none() && public.is_none() {
            return Ok(());
        }
        let there = view.public_key(object, private)?;
        if there != *public_key {
            let text = format!(
                "object {object} has another public key (kid {}) than the one to be destroyed \
                 (kid {}); it was left alone",
                there.kid(),
                public_key.kid()
            );
            return Err(view.error(Kind::Mismatch, text).into());
        }
        // The private half first: what a crash leaves behind can still be told by its public half.
        for handle in private.into_iter().chain(public) {
            session
                .destroy_object(handle)
                .map_err(view.failed("destroying an object"))?;
        }
        self.signers.forget_handles();
        Ok(())
    }

    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        let known: HashSet<&[u8]> = known.iter().map(|object| &object.0[..]).collect();
        let _turn = self.desk();
        let session = self.token.open_session(Access::ReadOnly)?;
        let view = View {
            session: &session,
            token: &self.token,
        };
        let mut strange = BTreeSet::new();
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            for handle in view.search(&[Attribute::Class(class)], usize::MAX)? {
                let label = view
                    .bytes(handle, AttributeType::Label)?
                    .unwrap_or_default();
                if !label.starts_with(LABEL_PREFIX.as_bytes()) {
                    continue;
                }
                let id = view.bytes(handle, AttributeType::Id)?.unwrap_or_default();
                if !known.contains(&id[..]) && strange.len() < STRANGE_MAX {
                    let label = String::from_utf8_lossy(&label);
                    let shown: String = label.chars().take(STRANGE_LABEL_LEN_MAX).collect();
                    strange.insert(printable(&shown));
                }
            }
        }
        Ok(strange.into_iter().collect())
    }
}

/// Makes a key pair with the fullest template the token takes.
fn generate_pair(
    view: View<'_>,
    object: ObjectId,
    label: &str,
    alg: Alg,
    scheme: Scheme,
) -> Result<(ObjectHandle, ObjectHandle), Error> {
    let mechanism = key_pair_mechanism(alg);
    let mut refusal = None;
    for parameters in parameters(alg) {
        for leaving in Leaving::LADDER {
            let public = public_template(object, label, &parameters, leaving);
            let private = private_template(object, label, scheme, leaving);
            match view
                .session
                .generate_key_pair(&mechanism, &public, &private)
            {
                Ok(pair) => return Ok(pair),
                Err(error) if template_refused(&error) => refusal = Some(error),
                Err(error) => return Err(explain_generation(view, alg, &error)),
            }
        }
    }
    let refusal = refusal.expect("the ladder has rungs, and each returned or was refused");
    Err(explain_generation(view, alg, &refusal))
}

fn explain_generation(view: View<'_>, alg: Alg, error: &cryptoki::error::Error) -> Error {
    explain(&view.token.place, &format!("making an {alg} key"), error)
}

/// Reads public key and attributes of a private key, and refuses one that could leave.
fn look(view: View<'_>, object: ObjectId, private: ObjectHandle) -> Result<Inspection, Error> {
    let public_key = view.public_key(object, Some(private))?;
    match view.facts(private)?.judge() {
        Ok(evidence) => Ok(Inspection {
            public_key,
            evidence,
        }),
        Err(Wrong(what)) => {
            let text = format!("object {object} is not a key that can only sign: {what}");
            Err(view.error(Kind::Mismatch, text).into())
        }
    }
}

/// Destroys what was just made and is not as it must be.
fn take_back(view: View<'_>, made: &[ObjectHandle], reason: Error) -> Error {
    for handle in made {
        if let Err(error) = view.session.destroy_object(*handle) {
            let text = format!("{reason}; and it could not be destroyed again, remove it by hand");
            return Error::new(reason.kind(), text).because(error);
        }
    }
    reason
}
