//! How the TPM is shown that we may use a key: by its auth value itself, or by a salted HMAC session
//! with parameter encryption, in which the auth value never passes between processor and TPM.
//!
//! One session is kept open, since starting one costs the TPM an ECDH. It is given back when it has
//! been idle for a while: a session that is saved and forgotten stops every user of the TPM after
//! 65,536 more (TPM_RC_CONTEXT_GAP; keylime issue 656).

use crate::chip::{Chip, Make};
use crate::primary::Primary;
use keystore::config::Sessions;
use std::fmt;
use std::time::{Duration, Instant};
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::SymmetricDefinition;
use tss_esapi::{Context, WrapperErrorKind};

/// How long a session may lie idle before it is given back.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// How often one is used: its key lives no longer than it must, and one ECDH in a thousand commands
/// is not felt.
const USES_MAX: u32 = 1000;

/// Which of the two, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Which.
    pub sessions: Sessions,
    chosen: Chosen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Configuration,
    Make,
}

impl Mode {
    /// The configured one, or the safe one unless there is no bus that one could listen to.
    pub fn choose(configured: Option<Sessions>, chip: &Chip) -> Mode {
        match (configured, chip.make) {
            (Some(sessions), _) => Mode {
                sessions,
                chosen: Chosen::Configuration,
            },
            (None, Make::Firmware | Make::Software) => Mode {
                sessions: Sessions::Password,
                chosen: Chosen::Make,
            },
            (None, Make::Discrete | Make::Unknown) => Mode {
                sessions: Sessions::Encrypted,
                chosen: Chosen::Make,
            },
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.sessions {
            Sessions::Encrypted => "encrypted sessions",
            Sessions::Password => "password sessions",
        })?;
        match self.chosen {
            Chosen::Configuration => Ok(()),
            Chosen::Make => f.write_str(" by default"),
        }
    }
}

/// The session of one context.
pub struct OwnSession {
    sessions: Sessions,
    open: Option<Open>,
    /// A second one, while a command uses two keys.
    second: Option<AuthSession>,
    /// The one for keys with a policy.
    policy: Option<Open>,
}

struct Open {
    session: AuthSession,
    uses: u32,
    last: Instant,
}

impl OwnSession {
    /// None open yet.
    pub fn new(sessions: Sessions) -> OwnSession {
        OwnSession {
            sessions,
            open: None,
            second: None,
            policy: None,
        }
    }

    /// The session for the next command; `primary` is what a new one is salted with, so that only
    /// the TPM that has it can know the session's key.
    ///
    /// # Errors
    /// Whatever TPM2_StartAuthSession answers.
    pub fn next(
        &mut self,
        context: &mut Context,
        primary: Primary,
    ) -> tss_esapi::Result<AuthSession> {
        if self.sessions == Sessions::Password {
            return Ok(AuthSession::Password);
        }
        if self.open.as_ref().is_some_and(|open| open.uses >= USES_MAX) {
            self.give_back(context)?;
        }
        if self.open.is_none() {
            self.open = Some(start(context, primary)?);
        }
        let open = self.open.as_mut().expect("it was opened just now");
        open.uses += 1;
        open.last = Instant::now();
        Ok(open.session)
    }

    /// The session for the second key of a command that uses two. It hides nothing and costs the TPM
    /// nothing: the auth value is not sent, and what is made with it cannot be guessed back.
    ///
    /// # Errors
    /// Whatever TPM2_StartAuthSession answers.
    pub fn second(&mut self, context: &mut Context) -> tss_esapi::Result<AuthSession> {
        if self.sessions == Sessions::Password {
            return Ok(AuthSession::Password);
        }
        self.give_back_second(context)?;
        let session = hmac_session(context, None)?;
        self.second = Some(session);
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(true) // so that it is ours to flush, whatever comes
            .build();
        context.tr_sess_set_attributes(session, attributes, mask)?;
        Ok(session)
    }

    /// The session for a key with a policy, which has come to nothing yet: after a command that used it the
    /// TPM begins it anew. It is salted by nothing, and hides nothing: the auth value is not sent, and what is
    /// made with it cannot be guessed back.
    ///
    /// # Errors
    /// Whatever TPM2_StartAuthSession answers.
    pub fn policy(&mut self, context: &mut Context) -> tss_esapi::Result<AuthSession> {
        if self
            .policy
            .as_ref()
            .is_some_and(|open| open.uses >= USES_MAX)
        {
            self.give_back_policy(context)?;
        }
        if self.policy.is_none() {
            let session = session_of(context, None, SessionType::Policy)?;
            self.policy = Some(Open {
                session,
                uses: 0,
                last: Instant::now(),
            });
            let (attributes, mask) = SessionAttributesBuilder::new()
                .with_continue_session(true)
                .build();
            context.tr_sess_set_attributes(session, attributes, mask)?;
        }
        let open = self.policy.as_mut().expect("it was opened just now");
        open.uses += 1;
        open.last = Instant::now();
        Ok(open.session)
    }

    /// Flushes that one.
    ///
    /// # Errors
    /// Whatever TPM2_FlushContext answers.
    pub fn give_back_policy(&mut self, context: &mut Context) -> tss_esapi::Result<()> {
        match self.policy.take() {
            Some(open) => context.flush_context(SessionHandle::from(open.session).into()),
            None => Ok(()),
        }
    }

    /// Flushes that one.
    ///
    /// # Errors
    /// Whatever TPM2_FlushContext answers.
    pub fn give_back_second(&mut self, context: &mut Context) -> tss_esapi::Result<()> {
        match self.second.take() {
            Some(session) => context.flush_context(SessionHandle::from(session).into()),
            None => Ok(()),
        }
    }

    /// Flushes the open sessions, if there are any.
    ///
    /// # Errors
    /// Whatever TPM2_FlushContext answers.
    pub fn give_back(&mut self, context: &mut Context) -> tss_esapi::Result<()> {
        self.give_back_policy(context)?;
        match self.open.take() {
            Some(open) => context.flush_context(SessionHandle::from(open.session).into()),
            None => Ok(()),
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.both().count()
    }

    /// Whether a session is open that nobody has used for [`IDLE_MAX`].
    pub fn is_idle(&self) -> bool {
        self.both().any(Open::is_idle)
    }

    /// Flushes those that are idle.
    ///
    /// # Errors
    /// Whatever TPM2_FlushContext answers.
    pub fn give_back_idle(&mut self, context: &mut Context) -> tss_esapi::Result<()> {
        if self.policy.as_ref().is_some_and(Open::is_idle) {
            self.give_back_policy(context)?;
        }
        match self.open.take_if(|open| open.is_idle()) {
            Some(open) => context.flush_context(SessionHandle::from(open.session).into()),
            None => Ok(()),
        }
    }

    fn both(&self) -> impl Iterator<Item = &Open> {
        self.open.iter().chain(&self.policy)
    }
}

impl Open {
    fn is_idle(&self) -> bool {
        self.last.elapsed() >= IDLE_MAX
    }
}

fn start(context: &mut Context, primary: Primary) -> tss_esapi::Result<Open> {
    let session = hmac_session(context, Some(primary.handle))?;
    // The library leaves out a direction for which a command has nothing to encrypt.
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_continue_session(true)
        .with_decrypt(true)
        .with_encrypt(true)
        .build();
    context.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(Open {
        session,
        uses: 0,
        last: Instant::now(),
    })
}

/// A new one; `salt` is the key that it is salted with.
fn hmac_session(context: &mut Context, salt: Option<KeyHandle>) -> tss_esapi::Result<AuthSession> {
    session_of(context, salt, SessionType::Hmac)
}

fn session_of(
    context: &mut Context,
    salt: Option<KeyHandle>,
    kind: SessionType,
) -> tss_esapi::Result<AuthSession> {
    let session = context.execute_without_session(|c| {
        c.start_auth_session(
            salt,
            None,
            None,
            kind,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
    })?;
    session.ok_or(tss_esapi::Error::WrapperError(
        WrapperErrorKind::WrongValueFromTpm,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_one_could_listen_to_gets_encrypted_sessions() {
        let mode = |configured, make| {
            let chip = Chip::of_make(make);
            Mode::choose(configured, &chip).to_string()
        };
        assert_eq!(mode(None, Make::Discrete), "encrypted sessions by default");
        assert_eq!(mode(None, Make::Unknown), "encrypted sessions by default");
        assert_eq!(mode(None, Make::Firmware), "password sessions by default");
        assert_eq!(mode(None, Make::Software), "password sessions by default");
        assert_eq!(
            mode(Some(Sessions::Password), Make::Discrete),
            "password sessions"
        );
        assert_eq!(
            mode(Some(Sessions::Encrypted), Make::Software),
            "encrypted sessions"
        );
    }
}
