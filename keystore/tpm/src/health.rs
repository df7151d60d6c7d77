//! Keys that sign in some states of the host alone: what the TPM is shown before each of their signatures,
//! and what is said when it does not let them. The TPM decides; here it is found out which PCR is another
//! one, for people. Nothing is kept of a refusal: the next signature is a new question.

use crate::approvals::{self, Place};
use crate::bond::Bond;
use crate::codes::Code;
use crate::connection::{Connection, Lasting};
use crate::failure::Failure;
use crate::{pcrs, sign, template};
use aws_lc_rs::digest::{SHA256, digest};
use keystore::config::Healthy;
use keystore::evidence::bundle::Selection;
use keystore::evidence::healthy::{
    Approval, Authority, AuthorityName, Difference, Generation, SIGNED_LEN, State, selection,
};
use keystore::{Error, Kind};
use std::sync::Arc;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::PolicySession;
use tss_esapi::structures::{
    Digest, EccParameter, EccSignature, Name, Nonce, Signature, SignatureScheme, VerifiedTicket,
};
use tss_esapi::tss2_esys::TPMT_TK_VERIFIED;

/// PCRs may change between being looked at and the signature so often; then something is wrong.
pub const TRIES_MAX: usize = 4;

/// Most PCRs, and most files, that one sentence names.
const NAMED_MAX: usize = 4;

/// Of whom an approval was accepted: the authority's Name.
pub type Whose = (AuthorityName, Generation);

/// An approval whose signature the TPM has verified.
pub struct Accepted {
    place: Place,
    state: State,
    policy: Digest,
    reference: Nonce,
    name: Name,
    /// As the library has it: the binding's cannot be copied.
    ticket: TPMT_TK_VERIFIED,
}

/// How far a signature came.
enum Unsigned {
    /// The host is in another state.
    Otherwise,
    /// A PCR has changed meanwhile.
    Changed,
    /// Something else.
    Failed(tss_esapi::Error),
}

/// By what a key may be used now.
pub struct Leave {
    state: State,
    accepted: Option<Arc<Accepted>>,
}

impl Connection {
    /// What a new key is to be bound to. None is made that could not sign now.
    ///
    /// # Errors
    /// `Unhealthy` if nobody has approved the state that the host is in.
    pub fn bond_now(&mut self, lasting: &Lasting) -> Result<Option<Bond>, Failure> {
        let Some(healthy) = &lasting.healthy else {
            return Ok(None);
        };
        let authority = approvals::authority(healthy)?;
        let bond = Bond {
            state: self.state_now(lasting, &wanted(healthy))?,
            authority: authority.map(|it| (it, healthy.generation())),
        };
        self.leave(lasting, &bond, "a new key")?;
        Ok(Some(bond))
    }

    /// These PCRs, as they are.
    pub fn state_now(&mut self, lasting: &Lasting, which: &Selection) -> Result<State, Failure> {
        let place = &lasting.place;
        let values = pcrs::read(&mut self.context, which, place)?;
        let unfit = |why| Error::new(Kind::Internal, format!("{place}: reading PCRs: {why}"));
        Ok(State::of(&values).map_err(unfit)?)
    }

    /// By what a key with this bond may be used. Where somebody approves states, an approval of the one that
    /// the host is in is looked for and shown to the TPM, which takes a place for a key for that long.
    ///
    /// # Errors
    /// `Unhealthy` if there is none.
    pub fn leave(&mut self, lasting: &Lasting, bond: &Bond, what: &str) -> Result<Leave, Failure> {
        let Some((authority, generation)) = &bond.authority else {
            return Ok(Leave {
                state: bond.state.clone(),
                accepted: None,
            });
        };
        let whose: Whose = (authority.name().clone(), *generation);
        let known = self.accepted.get(&whose);
        let accepted = match known.filter(|it| it.place.is_unchanged()) {
            Some(accepted) => accepted.clone(),
            None => {
                self.accepted.remove(&whose);
                let accepted = Arc::new(self.accept(lasting, bond, &whose, authority, what)?);
                self.accepted.insert(whose, accepted.clone());
                accepted
            }
        };
        Ok(Leave {
            state: accepted.state.clone(),
            accepted: Some(accepted),
        })
    }

    fn accept(
        &mut self,
        lasting: &Lasting,
        bond: &Bond,
        (_, generation): &Whose,
        authority: &Authority,
        what: &str,
    ) -> Result<Accepted, Failure> {
        let place = &lasting.place;
        let healthy = lasting.healthy.as_ref();
        let Some((healthy, directory)) = healthy.and_then(|it| Some((it, it.approvals.as_ref()?)))
        else {
            let text = format!(
                "{place}: {what} signs in states of the host that {authority} has approved, and no \
                 approvals are read any more; bring `authority` and `approvals` back into [healthy]"
            );
            return Err(Error::new(Kind::Unhealthy, text).into());
        };
        let which = wanted(healthy);
        let now = self.state_now(lasting, &which)?;
        let mut found = approvals::read(directory);
        let (mut others, mut fits) = (Vec::new(), None);
        for (file, approval) in found.approvals {
            match judge(&approval, authority, *generation, &which) {
                Err(why) => found.wrong.push(format!("{} {why}", file.name())),
                Ok(()) if approval.pcrs == now => fits = Some((file, approval)),
                Ok(()) => others.push((file.name(), approval.pcrs)),
            }
        }
        let Some((file, approval)) = fits else {
            let text = not_approved(&now, bond, &others, &found.wrong);
            let text = format!(
                "{place}: {what} signs in approved states of the host alone, and this one is not: {text}; \
                 have it approved (`assertctl approve request`), or start the host in an approved state"
            );
            return Err(Error::new(Kind::Unhealthy, text).into());
        };
        self.shown(lasting, file, &approval, authority)
    }

    /// The TPM verifies the signature, and gives a ticket for it.
    fn shown(
        &mut self,
        lasting: &Lasting,
        file: Place,
        approval: &Approval,
        authority: &Authority,
    ) -> Result<Accepted, Failure> {
        let place = &lasting.place;
        let doing = format!("showing it the approval {}", file.name());
        let failed = |error: tss_esapi::Error| Failure::of(place, &doing, &error);
        let signed = digest(&SHA256, &approval.to_be_signed());
        let signed = Digest::try_from(signed.as_ref()).map_err(failed)?;
        let signature = signature(approval).map_err(failed)?;
        let wrong = |why| Error::new(Kind::Internal, format!("{place}: {doing}: it {why}"));
        let public = template::unmarshalled(authority.area().as_slice()).map_err(wrong)?;
        let limit = self.slots.capacity();
        self.slots.make_room(&mut self.context, limit, place)?;
        let loaded = self
            .context
            .execute_without_session(|c| c.load_external_public(public, Hierarchy::Owner));
        let handle = loaded.map_err(failed)?;
        let ticket = self
            .context
            .execute_without_session(|c| c.verify_signature(handle, signed, signature));
        let flushed = self.context.flush_context(handle.into());
        let ticket = ticket.map_err(failed)?;
        flushed.map_err(failed)?;
        Ok(Accepted {
            place: file,
            state: approval.pcrs.clone(),
            policy: Digest::try_from(&approval.pcrs.policy()[..]).map_err(failed)?,
            reference: Nonce::try_from(&approval.generation.reference()[..]).map_err(failed)?,
            name: Name::try_from(authority.name().as_slice().to_vec()).map_err(failed)?,
            ticket: TPMT_TK_VERIFIED::try_from(ticket).map_err(failed)?,
        })
    }

    /// One try, with a key that is in the TPM. `None`: the host has changed, and its state has to be looked
    /// at again.
    ///
    /// # Errors
    /// `Unhealthy`, with the PCRs that are others.
    pub fn sign_in_state(
        &mut self,
        lasting: &Lasting,
        (handle, leave, bond): (KeyHandle, &Leave, &Bond),
        digest: Digest,
        what: &str,
    ) -> Result<Option<Signature>, Failure> {
        let place = &lasting.place;
        let signed = self.try_in_state(handle, leave, digest);
        if signed.is_err() {
            // Whatever it has come to, nothing is to follow from it.
            let given_back = self.session.give_back_policy(&mut self.context);
            given_back.map_err(|error| Failure::of(place, "ending a session", &error))?;
        }
        match signed {
            Ok(signature) => Ok(Some(signature)),
            Err(Unsigned::Changed) => Ok(None),
            Err(Unsigned::Failed(error)) => {
                Err(Failure::of(place, &format!("signing with {what}"), &error))
            }
            Err(Unsigned::Otherwise) => {
                if let Some((authority, generation)) = &bond.authority {
                    // Another approval may be about it.
                    self.accepted
                        .remove(&(authority.name().clone(), *generation));
                    return Ok(None);
                }
                let now = self.state_now(lasting, &leave.state.selection())?;
                let differs = now.differs(&leave.state);
                if differs.is_empty() {
                    return Ok(None); // it is again
                }
                let text = format!(
                    "{place}: {what} signs in one state of the host alone, and this is another: {}; start \
                     the host in that state, or give this version up (`assertctl keys replace-lost`): the \
                     next is bound to the state that the host is in then",
                    differences(&differs, "when it was made")
                );
                Err(Error::new(Kind::Unhealthy, text).into())
            }
        }
    }

    fn try_in_state(
        &mut self,
        handle: KeyHandle,
        leave: &Leave,
        digest: Digest,
    ) -> Result<Signature, Unsigned> {
        let failed = Unsigned::Failed;
        let session = self.session.policy(&mut self.context).map_err(failed)?;
        let policy = PolicySession::try_from(session).map_err(failed)?;
        let list = pcrs::list(&leave.state.selection()).map_err(failed)?;
        let values = Digest::try_from(&leave.state.digest()[..]).map_err(failed)?;
        let context = &mut self.context;
        context
            .execute_without_session(|c| c.policy_pcr(policy, values, list))
            .map_err(of_policy)?;
        if let Some(it) = leave.accepted.as_deref() {
            let (approved, reference) = (it.policy.clone(), it.reference.clone());
            let ticket = VerifiedTicket::try_from(it.ticket).map_err(failed)?;
            context
                .execute_without_session(|c| {
                    c.policy_authorize(policy, approved, reference, &it.name, ticket)
                })
                .map_err(of_policy)?;
        }
        context
            .execute_without_session(|c| c.policy_auth_value(policy))
            .map_err(failed)?;
        context
            .execute_with_session(Some(session), |c| {
                c.sign(handle, digest, SignatureScheme::Null, sign::no_ticket())
            })
            .map_err(of_sign)
    }
}

/// The PCRs that a section names.
pub fn wanted(healthy: &Healthy) -> Selection {
    selection(healthy.indices())
}

fn of_policy(error: tss_esapi::Error) -> Unsigned {
    match Code::of(&error) {
        Some(code) if code.is_wrong_value() => Unsigned::Otherwise,
        Some(code) if code.is_pcr_changed() => Unsigned::Changed,
        _ => Unsigned::Failed(error),
    }
}

fn of_sign(error: tss_esapi::Error) -> Unsigned {
    match Code::of(&error) {
        Some(code) if code.is_pcr_changed() => Unsigned::Changed,
        Some(code) if code.is_policy_not_met() => Unsigned::Otherwise,
        _ => Unsigned::Failed(error),
    }
}

/// Whether an approval is one for such keys.
fn judge(
    approval: &Approval,
    authority: &Authority,
    generation: Generation,
    which: &Selection,
) -> Result<(), String> {
    approval.check(authority)?;
    if approval.generation != generation {
        let found = approval.generation;
        return Err(format!(
            "is of generation {found}, and the key takes {generation}"
        ));
    }
    match approval.pcrs.selection() == *which {
        true => Ok(()),
        false => Err("is about other PCRs than [healthy] names".to_owned()),
    }
}

/// What is another than in the approval that is nearest, or than it was when the key was made.
fn not_approved(now: &State, bond: &Bond, others: &[(String, State)], wrong: &[String]) -> String {
    let nearest = others
        .iter()
        .min_by_key(|(_, state)| now.differs(state).len());
    let mut text = match nearest {
        Some((file, state)) => differences(&now.differs(state), &format!("in {file}")),
        None if *now == bond.state => format!("no approval is there ({now})"),
        None => {
            let differs = now.differs(&bond.state);
            let differs = differences(&differs, "when it was made");
            format!("no approval is there; {differs}")
        }
    };
    if !wrong.is_empty() {
        text.push_str(&format!("; not used: {}", some(wrong)));
    }
    text
}

/// `PCR 7 is …, and … when it was made`
fn differences(differs: &[Difference<'_>], then: &str) -> String {
    let named = differs.iter().map(|it| {
        let index = it.index;
        match (it.here, it.there) {
            (Some(here), Some(there)) => format!("PCR {index} is {here}, and {there} {then}"),
            (Some(_), None) => format!("PCR {index} was not looked at {then}"),
            (None, _) => format!("PCR {index} is not looked at any more"),
        }
    });
    some(&named.collect::<Vec<_>>())
}

fn some(all: &[String]) -> String {
    let shown = all[..all.len().min(NAMED_MAX)].join("; ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// As the TPM has it.
fn signature(approval: &Approval) -> tss_esapi::Result<Signature> {
    let bytes = approval.signature.as_ref().map(|it| it.as_slice());
    let (r, s) = bytes
        .unwrap_or_default()
        .split_at_checked(SIGNED_LEN / 2)
        .unwrap_or_default();
    let pair = EccSignature::create(
        HashingAlgorithm::Sha256,
        EccParameter::try_from(r)?,
        EccParameter::try_from(s)?,
    )?;
    Ok(Signature::EcDsa(pair))
}
