//! The keystore's backend over one token: opens it and carries out the verbs of
//! [`keystore::backend::Backend`]. Looking, making and destroying happens in one session, the desk;
//! signing in [`Signers`].

use crate::attribute::{Leaving, Lifetime, Template, Wrong, parameters, template_refused};
use crate::errors::{Blame, explain};
use crate::finder::{Class, Finder};
use crate::import::import_pair;
use crate::mechanism::{Scheme, algs, key_pair_mechanism};
use crate::module::Module;
use crate::object::{Failure, View};
use crate::pin;
use crate::pinmemory::PinMemory;
use crate::signer::{Order, Signers};
use crate::strange::Strange;
use crate::survey;
use crate::token::{Access, Token};
use crate::trial::SessionKey;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use keystore::backend::{
    Backend, Existing, Inspection, LABEL_PREFIX, Likeness, ObjectId, Testimony, TokenId, Trial,
};
use keystore::config::{Section, TokenSelector};
use keystore::evidence::context::Sha256;
use keystore::statefile::StateDir;
use keystore::survey::Line;
use keystore::{Alg, Error, Kind, PrivateKey, PublicKey};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLockWriteGuard};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long looking for objects that nobody knows may take: others wait for the session meanwhile, and
/// where each call is a way over a network there may be thousands.
const STRANGE_MAX: Duration = Duration::from_secs(10);

/// What an object is reported as that nobody can find by any name. A module that is cut off while it
/// makes a pair leaves such a shell.
const NAMELESS: &[u8] = b"a key without a label or CKA_ID, perhaps half made";

/// Reads the user PIN; what it returns is wiped when it was used.
pub type ReadPin = Box<dyn Fn() -> Result<Zeroizing<Vec<u8>>, Error> + Send + Sync>;

/// What it takes to open a token.
pub struct Settings {
    /// Absolute path of the module.
    pub module: PathBuf,
    /// The token's label; it, the serial or both.
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// Reads the user PIN, for the login and for each that follows when one is lost.
    pub pin: ReadPin,
    /// Where it is written down which PINs were tried.
    pub state: StateDir,
    /// String behind C_Initialize's pReserved.
    pub init_args: Option<String>,
    /// Signatures at a time; default: as many as there are cores.
    pub signers: Option<usize>,
}

impl Settings {
    /// What the section of keystore `name` says. `credentials` is `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// `Internal` if the section was not checked. That the PIN can be read shows when it is.
    pub fn read(
        section: &Section,
        name: &str,
        credentials: Option<&Path>,
        state: StateDir,
    ) -> Result<Settings, Error> {
        let missing = |key: &str| Error::new(Kind::Internal, format!("`{key}` was not checked"));
        let source = section.pin.clone().ok_or_else(|| missing("pin"))?;
        let TokenSelector { label, serial } = section.token.clone().unwrap_or_default();
        let (name, credentials) = (name.to_owned(), credentials.map(Path::to_owned));
        Ok(Settings {
            module: section.module.clone().ok_or_else(|| missing("module"))?,
            label,
            serial,
            pin: Box::new(move || pin::read(&source, credentials.as_deref(), &name)),
            state,
            init_args: section.init_args.clone(),
            signers: section.signers,
        })
    }
}

/// One PKCS#11 token, logged in for life.
pub struct Pkcs11Backend {
    signers: Signers,
    /// One caller at a time looks, makes or destroys, in one session more; it is opened when it
    /// is needed and closed after a failure.
    desk: Mutex<Option<Finder>>,
    login: Mutex<Login>,
    token: Token,
    /// Finalised when the backend goes.
    module: Option<Module>,
}

/// What it takes to log in again.
struct Login {
    /// Holds the login and does nothing else; none while it is lost.
    session: Option<Session>,
    pin: ReadPin,
    /// Where its tries are written down; read anew each time, since a person may remove that.
    state: StateDir,
}

impl Pkcs11Backend {
    /// Loads the module, finds the token, logs in once, opens the sessions.
    ///
    /// # Errors
    /// `Unavailable` may be tried again later; all others (`BadPin`, `Locked`, `Mismatch`,
    /// `Refused`, `Unsupported` …) need a person first.
    pub fn open(settings: Settings) -> Result<Pkcs11Backend, Error> {
        // First: what a module complains of hides that there is no PIN. Read again for the login.
        drop((settings.pin)()?);
        let module = Module::load(&settings.module, settings.init_args.as_deref())?;
        match open_token(&module, settings) {
            Ok(mut backend) => {
                backend.module = Some(module);
                Ok(backend)
            }
            Err(error) => {
                module.give_up();
                Err(error)
            }
        }
    }

    /// Does `work` in the desk's session; if that turns out to be dead, once more in a new one.
    fn at_desk<T>(&self, work: impl Fn(&mut Finder) -> Result<T, Failure>) -> Result<T, Error> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tries = 0..2;
        loop {
            let mut finder = match desk.take() {
                Some(finder) => finder,
                None => Finder::open(&self.token, Access::ReadWrite)?,
            };
            let done = work(&mut finder).map_err(|failure| (failure.blame, failure));
            match (done, tries.next()) {
                (Ok(done), _) => {
                    *desk = Some(finder);
                    return Ok(done);
                }
                (Err((Blame::Nobody, failure)), _) => {
                    *desk = Some(finder);
                    return Err(failure.into());
                }
                (Err((Blame::Session, _)), Some(0)) => {}
                (Err((_, failure)), _) => return Err(failure.into()),
            }
        }
    }

    fn lock_aliases(&self) -> RwLockWriteGuard<'_, HashMap<ObjectId, TokenId>> {
        let aliases = self.token.aliases.write();
        aliases.unwrap_or_else(PoisonError::into_inner)
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

impl Drop for Pkcs11Backend {
    /// Closes every session and finalises the module: it is to forget all it knew when it is loaded
    /// again.
    fn drop(&mut self) {
        self.signers.close();
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        login.session = None;
        if let Some(module) = self.module.take() {
            module.give_up();
        }
    }
}

fn open_token(module: &Module, settings: Settings) -> Result<Pkcs11Backend, Error> {
    let Settings {
        label,
        serial,
        pin,
        state,
        signers,
        ..
    } = settings;
    let token = Token::choose(module, label.as_deref(), serial.as_deref())?;
    let mut memory = PinMemory::open(&state)?;
    let session = token.log_in(&pin, &mut memory)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let signers = Signers::open(&token, signers.unwrap_or_else(cores))?;
    Ok(Pkcs11Backend {
        signers,
        desk: Mutex::new(None),
        login: Mutex::new(Login {
            session: Some(session),
            pin,
            state,
        }),
        token,
        module: None,
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
        self.at_desk(|finder| {
            take_away_half(finder, &self.token, object, label)?;
            let view = finder.view(&self.token);
            nobody_has(view, object)?;
            let template = Template {
                object,
                label,
                lifetime: Lifetime::Token,
            };
            let (public, private) = generate_pair(view, &template, alg, scheme)?;
            let remedy = "it is not used; choose a token that makes keys as it is told";
            let looked = look(finder, &self.token, object, private, remedy);
            let made = looked.and_then(|inspection| {
                if inspection.public_key.fits(alg) {
                    return Ok(inspection);
                }
                let text = format!("was asked for an {alg} key and made another kind");
                Err(finder.view(&self.token).error(Kind::Mismatch, text))
            });
            made.map_err(|failure| {
                take_back(finder.view(&self.token), &[private, public], failure.into()).into()
            })
        })
    }

    fn import(
        &self,
        object: ObjectId,
        label: &str,
        alg: Alg,
        key: &PrivateKey,
    ) -> Result<Inspection, Error> {
        let scheme = self.scheme(alg)?;
        let (public_key, _) = key.read()?;
        self.at_desk(|finder| {
            take_away_half(finder, &self.token, object, label)?;
            nobody_has(finder.view(&self.token), object)?;
            let template = Template {
                object,
                label,
                lifetime: Lifetime::Token,
            };
            let view = finder.view(&self.token);
            let (public, private) = import_pair(view, &template, scheme, key)?;
            let remedy = "it is not used; choose a token that keeps keys as it is told";
            let looked = look(finder, &self.token, object, private, remedy);
            let made = looked.and_then(|inspection| {
                if inspection.public_key == public_key {
                    return Ok(inspection);
                }
                let text = "shows another public key than that of the private key it was given";
                let view = finder.view(&self.token);
                Err(view.error(Kind::Mismatch, text.to_owned()))
            });
            made.map_err(|failure| {
                take_back(finder.view(&self.token), &[private, public], failure.into()).into()
            })
        })
    }

    fn find(&self, which: &Existing) -> Result<(TokenId, Inspection), Error> {
        let token = &self.token;
        self.at_desk(|finder| {
            finder.forget(); // somebody wants to know how things are now
            let id = finder.meant(token, which)?;
            // Under a name that nobody else has: two keys with this id are found out here.
            let object = ObjectId::random()?;
            self.alias(object, &id);
            let remedy = "it is not used; only a key that can do nothing but sign is adopted";
            let looked = (finder.private_key(token, object))
                .and_then(|private| look(finder, token, object, private, remedy));
            self.lock_aliases().remove(&object);
            Ok((id, looked?))
        })
    }

    fn alias(&self, object: ObjectId, id: &TokenId) {
        self.lock_aliases().insert(object, id.clone());
    }

    /// Logs in again, if the login is lost. Every handle is found anew after that, by id and public
    /// key.
    fn mend(&self) -> Result<(), Error> {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        let Login {
            session,
            pin,
            state,
        } = &mut *login;
        let is_there = session.as_ref().is_some_and(|s| self.token.is_logged_in(s));
        if !is_there {
            *session = None; // closed before the next is opened: it may be one of few
            let mut memory = PinMemory::open(state)?;
            *session = Some(self.token.log_in(pin, &mut memory)?);
        }
        self.signers.forget_handles();
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        self.at_desk(|finder| {
            let private = finder.private_key(&self.token, object)?;
            let remedy = "it is not used and not destroyed; find out who put it there";
            look(finder, &self.token, object, private, remedy)
        })
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
                scheme,
                message,
            },
        )
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let token = &self.token;
        self.at_desk(|finder| {
            finder.forget(); // what is destroyed was found just now
            let private = match finder.private_key(token, object) {
                Ok(private) => Some(private),
                Err(failure) if failure.error.kind() == Kind::NotFound => None,
                Err(failure) => return Err(failure),
            };
            let public = finder.find(token, Class::Public, object)?;
            if private.is_none() && public.is_none() {
                return Ok(());
            }
            let there = finder.public_key(token, object, private)?;
            let view = finder.view(token);
            if there != *public_key {
                let text = format!(
                    "object {object} has another public key (kid {}) than the one to be \
                     destroyed (kid {}); it was left alone",
                    there.kid(),
                    public_key.kid()
                );
                return Err(view.error(Kind::Mismatch, text));
            }
            // The private half first: what a crash leaves can still be told by its public half.
            for handle in private.into_iter().chain(public) {
                let failed = view.failed("destroying an object");
                view.session.destroy_object(handle).map_err(failed)?;
            }
            self.signers.forget(object);
            Ok(())
        })
    }

    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        let known: HashSet<Vec<u8>> = (known.iter())
            .map(|object| self.token.id_of(*object))
            .collect();
        self.at_desk(|finder| {
            finder.forget(); // somebody wants to know how things are now
            let view = finder.view(&self.token);
            let (mut strange, began) = (Strange::default(), Instant::now());
            for class in Class::ALL {
                for handle in view.search(&[class.attribute()], usize::MAX)? {
                    if began.elapsed() > STRANGE_MAX {
                        return Ok(strange.into_list()); // it is a report: what there is of it
                    }
                    let label = view
                        .bytes(handle, AttributeType::Label)?
                        .unwrap_or_default();
                    if !label.is_empty() && !label.starts_with(LABEL_PREFIX.as_bytes()) {
                        continue;
                    }
                    let id = view.bytes(handle, AttributeType::Id)?.unwrap_or_default();
                    if label.is_empty() && id.is_empty() {
                        strange.add(NAMELESS);
                    } else if !label.is_empty() && !known.contains(&id) {
                        strange.add(&label);
                    }
                }
            }
            Ok(strange.into_list())
        })
    }

    /// Nothing that the module says is signed by anybody: it is read anew, and handed on.
    fn attest(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        _about: &Sha256,
    ) -> Result<Testimony, Error> {
        self.at_desk(|finder| {
            let private = finder.private_key(&self.token, object)?;
            let shown = finder.public_key(&self.token, object, Some(private))?;
            let view = finder.view(&self.token);
            if shown != *public_key {
                let text = format!(
                    "object {object} has another public key (kid {}) than was recorded (kid {}); nothing \
                     is said of it; find out who put it there",
                    shown.kid(),
                    public_key.kid()
                );
                return Err(view.error(Kind::Mismatch, text));
            }
            Ok(Testimony::Asserted(view.attributes(private)?))
        })
    }

    fn likeness(&self) -> Result<Likeness, Error> {
        self.token.likeness().map(Likeness::Token)
    }

    fn survey(&self) -> Vec<Line> {
        survey::of(&self.token, self.signers.count())
    }

    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error> {
        if !self.algs().contains(&alg) {
            return Err(self.cannot(alg));
        }
        let key = SessionKey::make(&self.token, alg, self.scheme(alg)?)?;
        Ok(Box::new(key))
    }
}

/// Makes a key pair with the fullest template the token takes.
pub fn generate_pair(
    view: View<'_>,
    template: &Template<'_>,
    alg: Alg,
    scheme: Scheme,
) -> Result<(ObjectHandle, ObjectHandle), Error> {
    let mechanism = key_pair_mechanism(alg);
    let mut refusal = None;
    for parameters in parameters(alg) {
        for leaving in Leaving::LADDER {
            let public = template.public(&parameters, leaving);
            let private = template.private(scheme, leaving);
            match view
                .session
                .generate_key_pair(&mechanism, &public, &private)
            {
                Ok(pair) => return Ok(pair),
                Err(error) if template_refused(&error) => {
                    // Nothing had this id before: what has it now is half of a pair.
                    let id = Attribute::Id(template.object.0.to_vec());
                    for half in view.search(&[id], 2)? {
                        let failed = view.failed("destroying half of a key pair");
                        view.session.destroy_object(half).map_err(failed)?;
                    }
                    refusal = Some(error);
                }
                Err(error) => return Err(explain_generation(view, alg, &error)),
            }
        }
    }
    let refusal = refusal.expect("the ladder has rungs, and each returned or was refused");
    Err(explain_generation(view, alg, &refusal))
}

/// Takes away what a module has left that was cut off while it made a pair: the public half alone, under
/// the random id and with the label of an intent of ours. Without the other half it is nobody's key, and
/// while it is there the key could never be made.
fn take_away_half(
    finder: &mut Finder,
    token: &Token,
    object: ObjectId,
    label: &str,
) -> Result<(), Failure> {
    finder.forget(); // it may have been made a moment ago
    match finder.private_key(token, object) {
        Ok(_) => return Ok(()), // then it is no half
        Err(failure) if failure.error.kind() == Kind::NotFound => {}
        Err(failure) => return Err(failure),
    }
    let Some(public) = finder.find(token, Class::Public, object)? else {
        return Ok(());
    };
    let view = finder.view(token);
    if view.bytes(public, AttributeType::Label)?.as_deref() == Some(label.as_bytes()) {
        let failed = view.failed("destroying half of a pair that was never whole");
        view.session.destroy_object(public).map_err(failed)?;
        finder.forget();
    }
    Ok(())
}

/// Whether an id is free.
fn nobody_has(view: View<'_>, object: ObjectId) -> Result<(), Failure> {
    let id = Attribute::Id(object.0.to_vec());
    match view.search(&[id], 1)?[..] {
        [] => Ok(()),
        _ => {
            let text = format!("an object with CKA_ID {object} is there already");
            Err(view.error(Kind::Exists, text))
        }
    }
}

fn explain_generation(view: View<'_>, alg: Alg, error: &cryptoki::error::Error) -> Error {
    explain(&view.token.place, &format!("making an {alg} key"), error)
}

/// Reads public key and attributes of a private key, and refuses one that could leave, with a word on
/// what helps.
fn look(
    finder: &mut Finder,
    token: &Token,
    object: ObjectId,
    private: ObjectHandle,
    remedy: &str,
) -> Result<Inspection, Failure> {
    let public_key = finder.public_key(token, object, Some(private))?;
    let view = finder.view(token);
    match view.facts(private)?.judge() {
        Ok(evidence) => Ok(Inspection {
            public_key,
            evidence,
        }),
        Err(Wrong(what)) => {
            let text = format!("object {object} is not a key that can only sign: {what}; {remedy}");
            Err(view.error(Kind::Mismatch, text))
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
