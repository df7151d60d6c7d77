//! `[keystore.NAME.healthy]`: in which states of the host the keys of a TPM sign. What follows from it stands in
//! [`crate::evidence::healthy`].

use super::{AT_LEAST_1, Mistake, absolute, is_place, wrong};
use crate::evidence::bundle::PcrIndex;
use crate::evidence::healthy::{self, Generation};
#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// In which state of the host new keys of a TPM sign: the one that they were made in, or one that was
/// approved.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(transform = super::schema::of_healthy))]
pub struct Healthy {
    /// The PCRs that are the state, of bank sha256.
    #[cfg_attr(
        feature = "schema",
        schemars(length(min = 1), inner(range(min = 0, max = 22)))
    )]
    pub pcrs: Vec<u8>,
    /// Absolute path of a P-256 public key (PEM): of who may approve other states. Default: nobody may
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub authority: Option<PathBuf>,
    /// Absolute path of the directory in which approvals lie.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^/")))]
    pub approvals: Option<PathBuf>,
    /// Which approvals new keys take: those of this number alone. Default: 1
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub generation: Option<u32>,
}

impl Healthy {
    /// The PCRs.
    pub fn indices(&self) -> BTreeSet<PcrIndex> {
        let indices = self.pcrs.iter().copied();
        indices.filter_map(PcrIndex::new).collect()
    }

    /// Which approvals new keys take.
    pub fn generation(&self) -> Generation {
        self.generation.map_or(Generation::FIRST, Generation)
    }

    /// What serde cannot check.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        if self.pcrs.is_empty() {
            return wrong(
                "healthy.pcrs",
                "names none: write [7] for Secure Boot's state, or leave [healthy] out",
            );
        }
        for pcr in &self.pcrs {
            if let Err(text) = healthy::check_index(*pcr) {
                return wrong("healthy.pcrs", format!("cannot have this: {text}"));
            }
        }
        if self.indices().len() != self.pcrs.len() {
            return wrong("healthy.pcrs", "names one twice: leave one of them out");
        }
        absolute("healthy.authority", self.authority.as_deref())?;
        if let Some(path) = self.approvals.as_deref().filter(|path| !is_place(path)) {
            let path = path.display();
            let text = format!("takes the absolute path of a directory below /, not \"{path}\"");
            return wrong("healthy.approvals", text);
        }
        match (&self.authority, &self.approvals, self.generation) {
            (Some(_), None, _) => wrong(
                "healthy.approvals",
                "is missing: the directory in which what the authority has approved lies",
            ),
            (None, Some(_), _) => wrong(
                "healthy.authority",
                "is missing: the public key (PEM) of who may approve; or remove `approvals`",
            ),
            (None, None, Some(_)) => wrong(
                "healthy.generation",
                "is of approvals, and without `authority` there are none: remove it",
            ),
            (_, _, Some(0)) => wrong("healthy.generation", AT_LEAST_1),
            _ => Ok(()),
        }
    }
}
