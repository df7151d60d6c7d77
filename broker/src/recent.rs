//! The last denials, with what was known about who asked: so that an administrator who is told the id
//! of one can learn why. In memory alone, bounded, and no user can push those of others out.
//!
//! What stands in the audit log is for ever and says little; this says much, for a while.

use crate::workload::Workload;
use keystore::Time;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most denials remembered: some hundred bytes each, since groups that matter to nobody are left out.
const DENIALS_MAX: usize = 1024;

/// Most of one user.
const DENIALS_OF_ONE_UID_MAX: usize = 64;

/// One denial.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The request's id.
    pub id: String,
    /// When.
    pub at: Time,
    /// Who asked, as attested then.
    pub workload: Workload,
    /// For what.
    pub target: String,
    /// The audit record's reason.
    pub reason: &'static str,
}

/// Those that are remembered, the oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    denials: Mutex<VecDeque<Denied>>,
}

impl Recent {
    /// Remembers one, and forgets the oldest: of the same user, if that user has enough.
    pub fn note(&self, denied: Denied) {
        let mut denials = self.lock();
        let uid = denied.workload.uid();
        let mut same = denials
            .iter()
            .enumerate()
            .filter(|(_, it)| it.workload.uid() == uid);
        let oldest = same.next().map(|(at, _)| at);
        let of_uid = usize::from(oldest.is_some()) + same.count();
        if let Some(at) = oldest.filter(|_| of_uid >= DENIALS_OF_ONE_UID_MAX) {
            denials.remove(at);
        } else if denials.len() >= DENIALS_MAX {
            denials.pop_front();
        }
        denials.push_back(denied);
    }

    /// The one with this id.
    pub fn find(&self, id: &str) -> Option<Denied> {
        self.lock().iter().find(|denied| denied.id == id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Denied>> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Proof;

    fn denied(uid: u32, number: usize) -> Denied {
        Denied {
            id: format!("{uid}-{number}"),
            at: Time::from_unix_s(0),
            workload: Workload::for_test(uid, uid, None, false, Proof::Pidfd),
            target: "t".to_owned(),
            reason: "not_yours",
        }
    }

    #[test]
    fn a_flood_of_one_user_pushes_out_its_own_denials_alone() {
        let recent = Recent::default();
        recent.note(denied(1, 0));
        (0..DENIALS_MAX * 2).for_each(|number| recent.note(denied(2, number)));
        assert!(recent.find("1-0").is_some());
        assert_eq!(recent.lock().len(), 1 + DENIALS_OF_ONE_UID_MAX);
        let last = DENIALS_MAX * 2 - 1;
        assert!(recent.find(&format!("2-{last}")).is_some());
        assert!(recent.find("2-0").is_none());
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let recent = Recent::default();
        for uid in 0..DENIALS_MAX as u32 + 10 {
            recent.note(denied(uid, 0));
        }
        assert_eq!(recent.lock().len(), DENIALS_MAX);
        assert!(recent.find("0-0").is_none());
    }
}
