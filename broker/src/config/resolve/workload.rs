//! `[workload.NAME]`: whom it fits, until when, how often; and that a subject has one owner.

use super::super::file::WorkloadSection;
use super::expiry::expiry;
use super::matching::{Role, selectors};
use super::*;

/// What sections may refer to, and the sections so far.
pub struct Known<'a> {
    pub keystores: BTreeMap<String, KeystoreSection>,
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    pub profiles: BTreeMap<String, Arc<Profile>>,
    pub limits: (u32, u32),
    pub accounts: Accounts<'a>,
    pub sections: BTreeMap<Arc<str>, Arc<Section>>,
    /// The first target of each subject, by the issuer's URL and the subject.
    pub owners: HashMap<(String, String), Arc<Target>>,
}

impl Known<'_> {
    /// Adds one file's sections, which stay inside its bounds.
    pub fn add(
        &mut self,
        file: &File,
        bounds: Option<&Bounds>,
        sections: BTreeMap<Spanned<String>, Spanned<WorkloadSection>>,
    ) -> Result<()> {
        for (name, section) in sections {
            file.name(&name)?;
            if name.as_ref() == "issuer" {
                let message =
                    "`issuer` is reserved for the keys of issuers: call the workload otherwise";
                return file.error(name.span(), message);
            }
            if let Some(other) = self.sections.get(name.as_ref().as_str()) {
                let message = format!(
                    "workload `{}` is there already, at {}: give this one another name, or make them \
                     one section",
                    name.as_ref(),
                    other.place
                );
                return file.error(name.span(), message);
            }
            let section = self.section(file, bounds, &name, section.into_inner())?;
            self.sections
                .insert(section.name.clone(), Arc::new(section));
        }
        Ok(())
    }

    fn section(
        &mut self,
        file: &File,
        bounds: Option<&Bounds>,
        name: &Spanned<String>,
        section: WorkloadSection,
    ) -> Result<Section> {
        let (rate, burst) = self.limits;
        let expires = match &section.expires {
            None => None,
            Some(at) => match expiry(at.as_ref()) {
                Some(time) => Some(time),
                None => {
                    let message = "`expires` is no moment yet: write a date, or a date and time with an \
                                   offset, 2027-06-30 or 2027-06-30T12:00:00Z";
                    return file.error(at.span(), message);
                }
            },
        };
        let mut of =
            |section: &Spanned<_>, role| selectors(file, &mut self.accounts, section, role);
        let matches = of(&section.r#match, Role::Match)?;
        let excluded = section
            .unless
            .0
            .iter()
            .map(|section| of(section, Role::Unless));
        let unless = excluded.collect::<Result<_>>()?;
        let shadow = section
            .shadow
            .as_ref()
            .map(|section| of(section, Role::Shadow));
        let shadow = shadow.transpose()?.unwrap_or_default();
        if let Some(bounds) = bounds {
            bounds.check(file, name, &section, &matches)?;
        }
        let workload: Arc<str> = name.as_ref().as_str().into();
        let mut targets = BTreeMap::new();
        for (target_name, target) in section.target {
            file.name(&target_name)?;
            let subject = target.as_ref().subject.as_ref().map(Spanned::span);
            let target = self.target(file, bounds, &workload, &target_name, target)?;
            let target = Arc::new(target);
            self.has_one_owner(file, &target, subject)?;
            targets.insert(target_name.into_inner(), target);
        }
        Ok(Section {
            name: workload,
            place: file.place(&name.span()),
            owner: section.owner.map(Spanned::into_inner),
            purpose: section.purpose.map(Spanned::into_inner),
            matches,
            unless,
            shadow,
            expires,
            allow_pid_fallback: section.allow_pid_fallback,
            rate_per_s: section
                .rate
                .map_or(Ok(rate), |rate| file.positive("rate", &rate))?,
            burst: section
                .burst
                .map_or(Ok(burst), |burst| file.positive("burst", &burst))?,
            weight: match &section.weight {
                None => 1,
                Some(weight) => file.weight(weight)?,
            },
            targets,
        })
    }

    /// A subject of an issuer belongs to one workload (Himmelblau CVE-2025-59044).
    /// Who relies on it knows the issuer by its URL, whatever keys it has and however it is spelt.
    fn has_one_owner(
        &mut self,
        file: &File,
        target: &Arc<Target>,
        subject: Option<Range<usize>>,
    ) -> Result<()> {
        let Some(span) = subject else {
            return Ok(()); // a client's own
        };
        let sub = target.sub.clone().unwrap_or_default();
        let key = (url::normal(&target.iss), sub.clone());
        let owner = self.owners.entry(key).or_insert_with(|| target.clone());
        if owner.workload == target.workload || (owner.shared && target.shared) {
            return Ok(());
        }
        let message = format!(
            "subject `{sub}` belongs to workload `{}` ({}): give each its own, or say shared = true in both \
             targets",
            owner.workload, owner.place
        );
        file.error(span, message)
    }
}
