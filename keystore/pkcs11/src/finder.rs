//! A session and what it has found: objects by CKA_ID. C_FindObjects reads every object of the
//! token (12 µs each in SoftHSM), so a start with many keys would take quadratic time; after a few
//! searches the finder reads all ids once and keeps them. What it keeps dies with the session or
//! is forgotten on demand, and an id it has not seen is always searched for.

use crate::errors::Blame;
use crate::object::{Failure, View};
use crate::token::{Access, LoginNeed, Token};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState};
use keystore::backend::{Existing, ObjectId, TokenId};
use keystore::{Error, Kind, PublicKey};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Searches before the whole token is read instead: reading costs about as much as this many
/// searches, so nothing is ever twice as slow as it would be with the better choice.
const SEARCHES_MAX: u32 = 8;

/// How long reading may take. It happens in front of somebody's signature, which may take 4 s; and where
/// each call is a way over a network, searching for one key is a few of them, and reading thousands.
const READING_MAX: Duration = Duration::from_millis(1_000);

/// One session and its memory.
pub struct Finder {
    session: Session,
    searches: u32,
    directory: Directory,
}

/// The ids of all keys in the token.
enum Directory {
    /// Not read yet.
    Unread,
    /// Reading it failed, and is tried once more.
    Failed,
    /// All of them.
    Whole(HashMap<(Class, Vec<u8>), Found>),
    /// That takes too long here, or failed twice.
    GivenUp,
}

#[derive(Clone, Copy)]
enum Found {
    One(ObjectHandle),
    Several,
}

/// The two classes we deal in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// CKO_PRIVATE_KEY
    Private,
    /// CKO_PUBLIC_KEY
    Public,
}

impl Class {
    /// Both.
    pub const ALL: [Class; 2] = [Class::Private, Class::Public];

    fn name(self) -> &'static str {
        match self {
            Class::Private => "private",
            Class::Public => "public",
        }
    }

    /// As the binding has it.
    pub fn attribute(self) -> Attribute {
        Attribute::Class(match self {
            Class::Private => ObjectClass::PRIVATE_KEY,
            Class::Public => ObjectClass::PUBLIC_KEY,
        })
    }
}

impl Finder {
    /// A finder with a new session.
    pub fn open(token: &Token, access: Access) -> Result<Finder, Error> {
        Ok(Finder {
            session: token.open_session(access)?,
            searches: 0,
            directory: Directory::Unread,
        })
    }

    /// The session's view.
    pub fn view<'a>(&'a self, token: &'a Token) -> View<'a> {
        View {
            session: &self.session,
            token,
        }
    }

    /// Forgets every handle.
    pub fn forget(&mut self) {
        self.searches = 0;
        if let Directory::Whole(_) = self.directory {
            self.directory = Directory::Unread;
        }
    }

    /// The private key with this id.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if there are two; `Unavailable` if the login is lost, because then
    /// the token shows no private key at all.
    pub fn private_key(
        &mut self,
        token: &Token,
        object: ObjectId,
    ) -> Result<ObjectHandle, Failure> {
        if let Some(handle) = self.find(token, Class::Private, object)? {
            return Ok(handle);
        }
        let view = self.view(token);
        check_login(view)?;
        Err(view.error(
            Kind::NotFound,
            format!("no private key has CKA_ID {}", shown(token, object)),
        ))
    }

    /// The id of the one private key that somebody means.
    ///
    /// # Errors
    /// `NotFound`; `Mismatch` if two are meant, or it has no id.
    pub fn meant(&self, token: &Token, which: &Existing) -> Result<TokenId, Failure> {
        let view = self.view(token);
        let wanted = match which {
            Existing::Id(id) => Attribute::Id(id.as_bytes().to_vec()),
            Existing::Label(label) => Attribute::Label(label.as_str().as_bytes().to_vec()),
        };
        let private = match view.search(&[Class::Private.attribute(), wanted], 2)?[..] {
            [private] => private,
            [] => {
                check_login(view)?;
                let text = format!("no private key has {which}");
                return Err(view.error(Kind::NotFound, text));
            }
            _ => {
                let text = format!("two private keys have {which}; say which one is meant");
                return Err(view.error(Kind::Mismatch, text));
            }
        };
        let id = view.bytes(private, AttributeType::Id)?;
        TokenId::new(id.unwrap_or_default()).map_err(|error| {
            let text = format!(
                "the private key with {which} has no CKA_ID that it can be found by; give it one by \
                 the vendor's tool"
            );
            view.error(Kind::Mismatch, text).and(error)
        })
    }

    /// The one object of a class with this id; two are an error, since CKA_ID is not unique.
    pub fn find(
        &mut self,
        token: &Token,
        class: Class,
        object: ObjectId,
    ) -> Result<Option<ObjectHandle>, Failure> {
        if self.searches >= SEARCHES_MAX
            && let Directory::Unread | Directory::Failed = self.directory
        {
            self.read_all(token)?;
        }
        let id = token.id_of(object);
        let known = match &self.directory {
            Directory::Whole(known) => known.get(&(class, id.clone())).copied(),
            Directory::Unread | Directory::Failed | Directory::GivenUp => None,
        };
        let found = match known {
            Some(found) => Some(found),
            None => {
                self.searches = self.searches.saturating_add(1);
                let template = [class.attribute(), Attribute::Id(id)];
                match self.view(token).search(&template, 2)?[..] {
                    [] => None,
                    [handle] => Some(Found::One(handle)),
                    _ => Some(Found::Several),
                }
            }
        };
        match found {
            None => Ok(None),
            Some(Found::One(handle)) => Ok(Some(handle)),
            Some(Found::Several) => {
                let text = format!(
                    "two {} keys have CKA_ID {}; neither is used; find out who put the \
                     second one there, remove it by the vendor's tool, then restart the keystore",
                    class.name(),
                    shown(token, object)
                );
                Err(self.view(token).error(Kind::Mismatch, text))
            }
        }
    }

    /// The public key that belongs to an object id. An RSA private key carries it itself; for the
    /// others it is in the public key object, or in some tokens on the private key too.
    pub fn public_key(
        &mut self,
        token: &Token,
        object: ObjectId,
        private: Option<ObjectHandle>,
    ) -> Result<PublicKey, Failure> {
        if let Some(private) = private
            && self.view(token).key_type(private)? == KeyType::RSA
        {
            return self.view(token).public_key_of(private);
        }
        if let Some(public) = self.find(token, Class::Public, object)? {
            return self.view(token).public_key_of(public);
        }
        let view = self.view(token);
        if let Some(private) = private
            && view.bytes(private, AttributeType::EcPoint)?.is_some()
        {
            return view.public_key_of(private);
        }
        // It may come: a copy of a token arrives piece by piece.
        Err(view.error(
            Kind::NotFound,
            format!("object {object} has no public key, so it cannot be told whose it is"),
        ))
    }

    /// Reads the ids of all keys. What fails there fails nobody: SoftHSM answers CKR_GENERAL_ERROR for a key
    /// that is destroyed meanwhile, and whoever wants to sign is after another one, for which the token is
    /// searched.
    fn read_all(&mut self, token: &Token) -> Result<(), Failure> {
        match read_directory(self.view(token)) {
            Ok(directory) => self.directory = directory,
            Err(failure) if failure.blame == Blame::Other => {
                self.searches = 0;
                self.directory = if let Directory::Failed = self.directory {
                    Directory::GivenUp
                } else {
                    Directory::Failed
                };
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// A CKA_ID in hexadecimal.
fn shown(token: &Token, object: ObjectId) -> String {
    let id = token.id_of(object);
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the ids of all keys.
fn read_directory(view: View<'_>) -> Result<Directory, Failure> {
    let began = Instant::now();
    let mut known = HashMap::new();
    for class in Class::ALL {
        for handle in view.search(&[class.attribute()], usize::MAX)? {
            if began.elapsed() > READING_MAX {
                return Ok(Directory::GivenUp);
            }
            let Some(id) = view.bytes(handle, AttributeType::Id)? else {
                continue;
            };
            known
                .entry((class, id))
                .and_modify(|found| *found = Found::Several)
                .or_insert(Found::One(handle));
        }
    }
    Ok(Directory::Whole(known))
}

/// A token that does not know us any more shows no private objects instead of an error.
fn check_login(view: View<'_>) -> Result<(), Failure> {
    if view.token.login == LoginNeed::NotNeeded {
        return Ok(());
    }
    let info = view
        .session
        .get_session_info()
        .map_err(view.failed("asking for the login"))?;
    match info.session_state() {
        SessionState::RoUser | SessionState::RwUser => Ok(()),
        SessionState::RoPublic | SessionState::RwPublic | SessionState::RwSecurityOfficer => {
            let text = "the login is lost, and is made again";
            Err(Failure {
                blame: Blame::Login,
                ..view.error(Kind::Unavailable, text.to_owned())
            })
        }
    }
}
