//! The keystore's backend over one TPM: carries out the verbs of [`keystore::backend::Backend`], one
//! after the other, since a TPM does one thing at a time. Owns what is tried again and when: a
//! connection that broke, or a TPM that was reset, is opened anew once for each verb; a busy TPM is
//! waited for; a wrong auth value is never tried again.

use crate::attestationkey::AkFile;
use crate::auth::Secrets;
use crate::codes::Cure;
use crate::connection::{Connection, Lasting, Order};
use crate::duplicate::PRIME_LEN;
use crate::failure::Failure;
use crate::health;
use crate::keydir::KeyDir;
use crate::patience::Patience;
use crate::primary::{self, Memory, Pss};
use crate::survey;
use crate::tcti::Leftovers;
use crate::template;
use crate::trial::MemoryKey;
use keystore::backend::{
    Backend, Existing, Inspection, Likeness, NOT_BOUND, ObjectId, Testimony, TokenId, Trial,
};
use keystore::config::{Healthy, Sessions};
use keystore::evidence::bundle::{Quote, Selection, Tpm};
use keystore::evidence::context::Sha256;
use keystore::evidence::healthy::State;
use keystore::privatekey::Parts;
use keystore::protocol::{Credential, Evidence, EvidenceLevel};
use keystore::statefile::StateDir;
use keystore::survey::Line;
use keystore::tcti::Tcti;
use keystore::{Alg, Error, Kind, PrivateKey, PublicKey};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;
use zeroize::Zeroizing;

/// What is signed to find out what PSS means to this TPM.
const PSS_PROBE: &[u8] = b"assertd: does this TPM make PS256 signatures?";

/// How often it is signed before the TPM is found out: once may have been an accident on the way.
const PSS_PROBES: usize = 2;

/// What it takes to open a TPM.
pub struct Settings {
    /// How it is reached.
    pub tcti: Tcti,
    /// What auth values are made of.
    pub secrets: Secrets,
    /// Which sessions; default: by the kind of TPM.
    pub sessions: Option<Sessions>,
    /// Where key files are kept.
    pub state: StateDir,
    /// In which states of the host new keys sign; default: in any.
    pub healthy: Option<Healthy>,
}

/// One TPM, opened.
pub struct TpmBackend {
    desk: Arc<Mutex<Desk>>,
    description: String,
    firmware: (u32, u32),
    keys: KeyDir,
    /// As the connection has them; health asks without waiting for the TPM.
    algs: Mutex<Vec<Alg>>,
    /// Whether it can prove what its keys are.
    pub(crate) proof: Proof,
    /// In which states of the host new keys sign.
    pub(crate) healthy: Option<Healthy>,
    /// What it was found to be when it was opened: reading that takes dozens of commands, for which no
    /// workload is to wait.
    likeness: Mutex<Option<Tpm>>,
}

/// What its attestation key was found to be when the TPM was opened.
pub(crate) enum Proof {
    /// It signs what the TPM says.
    Ready,
    /// There is none, for this reason.
    None(String),
}

/// What one caller at a time works with.
struct Desk {
    /// `None` until it is needed, after it broke.
    connection: Option<Connection>,
    lasting: Lasting,
    patience: Patience,
    /// What the next connection finds in its way.
    leftovers: Leftovers,
}

impl TpmBackend {
    /// Opens the TPM, finds its primary, reads what it can.
    ///
    /// # Errors
    /// `Unavailable` may be tried again later; all others (`Mismatch`, `Refused`, `Corrupt` …) need
    /// a person first.
    pub fn open(settings: Settings) -> Result<TpmBackend, Error> {
        let Settings {
            tcti,
            secrets,
            sessions,
            state,
            healthy,
        } = settings;
        let keys = KeyDir::open(&state)?;
        let mut lasting = Lasting {
            place: format!("TPM {tcti}"),
            keys: keys.clone(),
            ak: AkFile::of(&state),
            memory: Memory::open(&state)?,
            tcti,
            secrets,
            sessions,
            healthy: healthy.clone(),
        };
        let connection = Connection::open(&mut lasting, Leftovers::Loaded);
        let mut connection = connection.map_err(|failure| failure.error)?;
        let (proof, likeness) = match connection.introduce(&lasting) {
            Ok(tpm) => (Proof::Ready, Some(tpm)),
            Err(failure) if matches!(failure.cure, Cure::Reconnect | Cure::Wait) => {
                return Err(not_now(failure)); // it was there a moment ago
            }
            Err(failure) => {
                eprintln!(
                    "{}: no evidence: {}; its keys are used all the same",
                    lasting.place, failure.error
                );
                (Proof::None(failure.error.to_string()), None)
            }
        };
        let description = format!(
            "TPM {} at {}: {}, key slots: {}",
            connection.chip,
            lasting.tcti,
            connection.mode,
            connection.capacity()
        );
        let firmware = connection.chip.firmware;
        let algs = Mutex::new(connection.algs.clone());
        let desk = Arc::new(Mutex::new(Desk {
            connection: Some(connection),
            lasting,
            patience: Patience::new(),
            leftovers: Leftovers::Loaded,
        }));
        let weak = Arc::downgrade(&desk);
        thread::Builder::new()
            .name("idle-session".to_owned())
            .spawn(move || give_back_idle_sessions(&weak))
            .map_err(|e| Error::new(Kind::Unavailable, "thread idle-session").because(e))?;
        Ok(TpmBackend {
            desk,
            description,
            firmware,
            keys,
            algs,
            proof,
            healthy,
            likeness: Mutex::new(likeness),
        })
    }

    /// Does `work` with the connection; if that turns out to be broken, once more with a new one.
    pub(crate) fn at_desk<T>(
        &self,
        mut work: impl FnMut(&mut Connection, &Lasting) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut desk = lock(&self.desk);
        let Desk {
            connection: place,
            lasting,
            patience,
            leftovers,
        } = &mut *desk;
        let mut is_last = false;
        loop {
            let mut connection = match place.take() {
                Some(connection) => connection,
                None => Connection::open(lasting, *leftovers).map_err(not_now)?,
            };
            *leftovers = Leftovers::Loaded;
            let failure = match work(&mut connection, lasting) {
                Ok(done) => {
                    *place = Some(connection);
                    *patience = Patience::new();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            match failure.cure {
                Cure::None => {
                    *place = Some(connection);
                    return Err(failure.error);
                }
                Cure::Forget => return Err(failure.error),
                Cure::Wait => {
                    *place = Some(connection);
                    let Some(wait) = patience.next(Instant::now()) else {
                        return Err(failure.error);
                    };
                    thread::sleep(wait);
                    continue;
                }
                Cure::Gap => *leftovers = Leftovers::SavedToo,
                Cure::Reconnect | Cure::Startup | Cure::Room | Cure::Session => {}
            }
            // Dropped here: what it can still flush it flushes, and where the TPM is ours alone the
            // next one flushes the rest.
            drop(connection);
            if std::mem::replace(&mut is_last, true) {
                return Err(failure.error);
            }
        }
    }

    fn check_proof(&self) -> Result<(), Error> {
        match &self.proof {
            Proof::Ready => Ok(()),
            Proof::None(why) => Err(Error::new(Kind::Refused, why.clone())),
        }
    }

    fn check_alg(&self, alg: Alg) -> Result<(), Error> {
        let algs = self.algs();
        if algs.contains(&alg) {
            return Ok(());
        }
        let can: Vec<&str> = algs.into_iter().map(Alg::name).collect();
        let text = format!(
            "{}: has no {alg}; it has: {}",
            self.description,
            can.join(" ")
        );
        Err(Error::new(Kind::Unsupported, text))
    }

    /// PSS has a salt as long as the digest in PS256 (RFC 7518 §3.5), and in many a TPM one as long
    /// as fits (TPM 2.0 Part 1 §B.7): whoever verifies strictly, as we do, tells by the signature.
    fn check_pss(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let verifier = public_key.verifier(Alg::PS256)?;
        let note = |pss| lock(&self.desk).lasting.memory.note_pss(pss, self.firmware);
        for _ in 0..PSS_PROBES {
            let signature = self.sign(object, public_key, Alg::PS256, PSS_PROBE)?;
            if verifier.verify(PSS_PROBE, &signature).is_ok() {
                return note(Pss::IsPs256);
            }
        }
        note(Pss::IsNotPs256)?;
        let mut algs = self.algs.lock().unwrap_or_else(PoisonError::into_inner);
        algs.retain(|alg| *alg != Alg::PS256);
        let text = format!(
            "{}: makes PSS signatures with another salt than PS256 has (32 bytes), which most \
             verifiers refuse; use RS256",
            self.description
        );
        Err(Error::new(Kind::Unsupported, text))
    }
}

impl Backend for TpmBackend {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn algs(&self) -> Vec<Alg> {
        let algs = self.algs.lock().unwrap_or_else(PoisonError::into_inner);
        algs.clone()
    }

    fn parallelism(&self) -> usize {
        1
    }

    fn generate(&self, object: ObjectId, label: &str, alg: Alg) -> Result<Inspection, Error> {
        self.check_alg(alg)?;
        let public_key = self.at_desk(|connection, lasting| {
            match lasting.keys.read(object) {
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let text = format!("{}: object {object} is there already", lasting.place);
                    return Err(Error::new(Kind::Exists, text).into());
                }
            }
            connection.make(lasting, object, label, alg)
        })?;
        let made = match alg {
            Alg::PS256 => self.check_pss(object, &public_key),
            _ => Ok(()),
        };
        match made.and_then(|()| self.inspect(object)) {
            Ok(inspection) => Ok(inspection),
            Err(error) => {
                self.destroy(object, &public_key)?;
                Err(error)
            }
        }
    }

    fn import(
        &self,
        object: ObjectId,
        label: &str,
        alg: Alg,
        key: &PrivateKey,
    ) -> Result<Inspection, Error> {
        self.check_alg(alg)?;
        let (public_key, parts) = key.read()?;
        if let Parts::Rsa(numbers) = &parts
            && numbers.prime_1.len() != PRIME_LEN
        {
            let text = "the RSA key has primes of unequal length, which no TPM takes";
            return Err(Error::new(Kind::Unsupported, text));
        }
        let public = template::imported_key(alg, &public_key)?;
        self.at_desk(|connection, lasting| {
            match lasting.keys.read(object) {
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    let text = format!("{}: object {object} is there already", lasting.place);
                    return Err(Error::new(Kind::Exists, text).into());
                }
            }
            connection.import(lasting, object, label, &public, &parts)
        })?;
        let made = match alg {
            Alg::PS256 => self.check_pss(object, &public_key),
            _ => Ok(()),
        };
        made.and_then(|()| self.inspect(object))
            .inspect_err(|_| drop(self.destroy(object, &public_key)))
    }

    fn find(&self, which: &Existing) -> Result<(TokenId, Inspection), Error> {
        let object = match which {
            Existing::Id(id) => id.object().ok_or_else(|| {
                let text = format!("no key file has {which}: an id of ours has 16 bytes");
                Error::new(Kind::NotFound, text)
            })?,
            Existing::Label(label) => self.keys.labelled(label.as_str())?,
        };
        Ok((TokenId::from(object), self.inspect(object)?))
    }

    /// Every key of a TPM is called by our id: its file is.
    fn alias(&self, _: ObjectId, _: &TokenId) {}

    /// Asks the TPM for the primary; [`Self::at_desk`] opens the connection anew if that fails.
    fn mend(&self) -> Result<(), Error> {
        self.at_desk(|connection, lasting| {
            let primary = connection.primary;
            primary::name_now(&mut connection.context, primary, &lasting.place).map(drop)
        })
    }

    fn inspect(&self, object: ObjectId) -> Result<Inspection, Error> {
        let (public_key, imported) = self.at_desk(|connection, lasting| {
            let public_key = connection.look(lasting, object)?;
            // What the TPM has just loaded: it binds both halves of the file.
            let stored = lasting.keys.read(object)?;
            Ok((public_key, template::is_imported(&stored.public)))
        })?;
        // What can be proven of one key can be of all: they are in the same TPM, with the same attributes.
        let level = match (imported, &self.proof) {
            (true, _) => EvidenceLevel::None,
            (false, Proof::Ready) => EvidenceLevel::TpmCertified,
            (false, Proof::None(_)) => EvidenceLevel::Asserted,
        };
        Ok(Inspection {
            public_key,
            evidence: Evidence { level, imported },
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
            let kid = public_key.kid();
            let text = format!("{}: key {kid} is not for {alg}", self.description);
            return Err(Error::new(Kind::Mismatch, text));
        }
        let order = Order {
            object,
            public_key,
            alg,
            message,
        };
        self.at_desk(|connection, lasting| connection.sign(lasting, &order))
    }

    fn destroy(&self, object: ObjectId, public_key: &PublicKey) -> Result<(), Error> {
        let mut desk = lock(&self.desk);
        let Desk {
            connection: place,
            lasting,
            ..
        } = &mut *desk;
        match lasting.keys.read(object) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(stored) if stored.public_key != *public_key => {
                let text = format!(
                    "{}: object {object} has another public key (kid {}) than the one to be \
                     destroyed (kid {}); it was left alone",
                    lasting.place,
                    stored.public_key.kid(),
                    public_key.kid()
                );
                return Err(Error::new(Kind::Mismatch, text));
            }
            Ok(_) => {}
        }
        // The file is the key: without it the TPM has nothing of it but what is in a slot.
        if let Some(mut connection) = place.take()
            && connection.forget(lasting, object).is_ok()
        {
            *place = Some(connection);
        }
        lasting.keys.remove(object)
    }

    /// Reads a directory; the TPM goes on signing meanwhile.
    fn strange(&self, known: &[ObjectId]) -> Result<Vec<String>, Error> {
        self.keys.strange(known)
    }

    fn counted(&self) -> Option<Result<Option<u64>, Error>> {
        Some(self.at_desk(|connection, lasting| connection.counted(lasting)))
    }

    fn count(&self, to: u64) -> Result<u64, Error> {
        self.at_desk(|connection, lasting| connection.count(lasting, to))
    }

    fn attest(
        &self,
        object: ObjectId,
        public_key: &PublicKey,
        about: &Sha256,
    ) -> Result<Testimony, Error> {
        self.check_proof()?;
        self.at_desk(|connection, lasting| connection.certify(lasting, object, public_key, about))
    }

    fn likeness(&self) -> Result<Likeness, Error> {
        self.check_proof()?;
        let mut known = (self.likeness.lock()).unwrap_or_else(PoisonError::into_inner);
        let tpm =
            self.at_desk(|connection, lasting| connection.identity(lasting, known.as_ref()))?;
        *known = Some(tpm.clone());
        Ok(Likeness::Tpm(Box::new(tpm)))
    }

    fn quote(&self, selection: &Selection, about: &Sha256) -> Result<Quote, Error> {
        self.check_proof()?;
        self.at_desk(|connection, lasting| connection.quote(lasting, selection, about))
    }

    fn state(&self) -> Result<State, Error> {
        let Some(healthy) = &self.healthy else {
            return Err(Error::new(Kind::Unsupported, NOT_BOUND));
        };
        let which = health::wanted(healthy);
        self.at_desk(|connection, lasting| connection.state_now(lasting, &which))
    }

    fn activate(&self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.check_proof()?;
        self.at_desk(|connection, lasting| connection.activate(lasting, credential))
    }

    fn survey(&self) -> Vec<Line> {
        survey::of(self)
    }

    fn trial(&self, alg: Alg) -> Result<Box<dyn Trial + '_>, Error> {
        self.check_alg(alg)?;
        Ok(Box::new(MemoryKey::make(self, alg)?))
    }
}

/// The connection ends here and not with the last who holds the desk, which may be the thread for idle
/// sessions: dropped later it would flush handles whose numbers the next connection has again.
impl Drop for TpmBackend {
    fn drop(&mut self) {
        let mut desk = lock(&self.desk);
        drop(desk.connection.take());
    }
}

/// Of a TPM that could not be opened anew in the middle of a verb. Whether that is for good is found
/// out where the whole token is opened; no key is to blame for it.
fn not_now(failure: Failure) -> Error {
    match failure.error.kind() {
        Kind::Unavailable | Kind::Absent => failure.error,
        _ => Error::new(Kind::Unavailable, failure.error.to_string()),
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until the backend is gone.
fn give_back_idle_sessions(desk: &Weak<Mutex<Desk>>) {
    loop {
        thread::sleep(crate::session::IDLE_MAX / 4);
        let Some(desk) = desk.upgrade() else {
            return;
        };
        let Ok(mut desk) = desk.try_lock() else {
            continue; // in use, so not idle
        };
        let idle = desk.connection.take_if(|c| c.has_idle_session());
        if let Some(mut connection) = idle
            && connection.give_back_session().is_ok()
        {
            desk.connection = Some(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::swtpm::Swtpm;
    use std::process::Command;

    const SECRET: [u8; 32] = [7; 32];

    /// Objects that are loaded, as tpm2-tools see it.
    fn loaded(swtpm: &Swtpm) -> usize {
        let output = Command::new("tpm2_getcap")
            .arg("handles-transient")
            .env("TPM2TOOLS_TCTI", swtpm.tcti().to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.lines().filter(|line| line.contains("0x")).count()
    }

    #[test]
    fn a_backend_that_is_dropped_leaves_nothing_for_whoever_still_holds_its_desk() {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path());
        let open = || {
            TpmBackend::open(Settings {
                tcti: swtpm.tcti(),
                secrets: Secrets::new(&SECRET),
                sessions: None,
                healthy: None,
                state: StateDir::lock(&dir.path().join("state")).unwrap(),
            })
            .unwrap()
        };
        let backend = open();
        backend
            .generate(ObjectId([1; 16]), "assertd/test/key/1", Alg::ES256)
            .unwrap();
        assert_eq!(loaded(&swtpm), 2, "the primary and a key");
        let held = backend.desk.clone(); // as the thread for idle sessions does for a moment
        drop(backend);
        assert_eq!(loaded(&swtpm), 0);

        let next = open();
        next.inspect(ObjectId([1; 16])).unwrap();
        let theirs = loaded(&swtpm);
        assert!(theirs > 0);
        drop(held);
        assert_eq!(loaded(&swtpm), theirs, "what the next has is left to it");
        next.inspect(ObjectId([1; 16])).unwrap();
    }
}
