//! `[workload.NAME]`: whom it fits, until when, how often; and that a subject has one owner.

use super::super::file::{MatchSection, WorkloadSection};
use super::expiry::expiry;
use super::*;

/// What sections may refer to, and the sections so far.
pub struct Known {
    pub keystores: BTreeMap<String, KeystoreSection>,
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    pub limits: (u32, u32),
    pub sections: BTreeMap<Arc<str>, Arc<Section>>,
}

impl Known {
    /// Adds one file's sections.
    pub fn add(
        &mut self,
        file: &File,
        sections: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
    ) -> Result<()> {
        for (name, section) in sections {
            file.name(&name)?;
            if name.as_ref() == "issuer" {
                return file.error(name.span(), "`issuer` is reserved for issuers' keys");
            }
            if self.sections.contains_key(name.as_ref().as_str()) {
                let message = format!("workload `{}` is defined twice", name.as_ref());
                return file.error(name.span(), message);
            }
            let section = self.section(file, &name, section.into_inner())?;
            self.sections
                .insert(section.name.clone(), Arc::new(section));
        }
        Ok(())
    }

    fn section(
        &self,
        file: &File,
        name: &Spanned<String>,
        section: WorkloadSection,
    ) -> Result<Section> {
        let (rate, burst) = self.limits;
        let expires = match &section.expires {
            None => None,
            Some(at) => match expiry(at.as_ref()) {
                Some(time) => Some(time),
                None => {
                    let message = "write a date, or a date and time with an offset: 2027-06-30";
                    return file.error(at.span(), message);
                }
            },
        };
        let workload: Arc<str> = name.as_ref().as_str().into();
        let mut targets = BTreeMap::new();
        for (target_name, target) in section.target {
            file.name(&target_name)?;
            let target = self.target(file, &workload, &target_name, target)?;
            targets.insert(target_name.into_inner(), Arc::new(target));
        }
        Ok(Section {
            name: workload,
            owner: section.owner,
            matches: matching(file, section.r#match)?,
            expires,
            allow_pid_fallback: section.allow_pid_fallback,
            rate_per_s: section.rate.map_or(Ok(rate), |rate| file.positive(&rate))?,
            burst: section
                .burst
                .map_or(Ok(burst), |burst| file.positive(&burst))?,
            targets,
        })
    }

    /// A subject of an issuer belongs to one workload (Himmelblau CVE-2025-59044).
    pub fn subjects_have_one_owner(&self, path: &Path) -> Result<()> {
        let mut owners: BTreeMap<(&KeyName, &str), &Arc<Target>> = BTreeMap::new();
        for target in self
            .sections
            .values()
            .flat_map(|section| section.targets.values())
        {
            let Purpose::Federation { .. } = target.charter.purpose else {
                continue;
            };
            let owner = owners.entry((&target.key, &target.sub)).or_insert(target);
            if owner.workload != target.workload && !(owner.shared && target.shared) {
                let (owner, other) = (&owner.workload, &target.workload);
                return Err(Diagnostic::file(
                    path,
                    format!(
                        "workloads `{owner}` and `{other}` both have subject `{}` of {}; give each its own, \
                         or say `shared = true` in both targets",
                        target.sub, target.key
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn matching(file: &File, section: Spanned<MatchSection>) -> Result<Match> {
    let span = section.span();
    let section = section.into_inner();
    if section.uid.is_some() && section.user.is_some()
        || section.gid.is_some() && section.group.is_some()
    {
        return file.error(span, "give `uid` or `user`, `gid` or `group`, not both");
    }
    let uid = match &section.user {
        None => section.uid,
        Some(user) => match nix::unistd::User::from_name(user.as_ref()) {
            Ok(Some(found)) => Some(found.uid.as_raw()),
            _ => {
                return file.error(
                    user.span(),
                    format!("this host has no user `{}`", user.as_ref()),
                );
            }
        },
    };
    let gid = match &section.group {
        None => section.gid,
        Some(group) => match nix::unistd::Group::from_name(group.as_ref()) {
            Ok(Some(found)) => Some(found.gid.as_raw()),
            _ => {
                let message = format!("this host has no group `{}`", group.as_ref());
                return file.error(group.span(), message);
            }
        },
    };
    if let Some(unit) = &section.unit
        && ![".service", ".scope"]
            .iter()
            .any(|suffix| unit.as_ref().ends_with(suffix))
    {
        return file.error(unit.span(), "a unit's name ends in .service or .scope");
    }
    if section.unit.is_none() && uid.is_none() {
        return file.error(span, "a match needs at least `unit`, `user` or `uid`");
    }
    Ok(Match {
        unit: section.unit.map(Spanned::into_inner),
        uid,
        gid,
        container: section.container,
    })
}
