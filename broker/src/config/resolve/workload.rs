//! `[workload.NAME]`: whom it fits, until when, how often; and that a subject has one owner.

use super::super::file::WorkloadSection;
use super::expiry::expiry;
use super::matching::{Role, selectors};
use super::*;

/// What sections may refer to, and the sections so far.
pub struct Known<'a> {
    pub keystores: BTreeMap<String, KeystoreSection>,
    pub issuers: BTreeMap<String, Arc<Issuer>>,
    pub limits: (u32, u32),
    pub accounts: Accounts<'a>,
    pub sections: BTreeMap<Arc<str>, Arc<Section>>,
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
                return file.error(name.span(), "`issuer` is reserved for issuers' keys");
            }
            if self.sections.contains_key(name.as_ref().as_str()) {
                let message = format!("workload `{}` is defined twice", name.as_ref());
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
                    let message = "write a date, or a date and time with an offset: 2027-06-30";
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
            let target = self.target(file, bounds, &workload, &target_name, target)?;
            targets.insert(target_name.into_inner(), Arc::new(target));
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
            rate_per_s: section.rate.map_or(Ok(rate), |rate| file.positive(&rate))?,
            burst: section
                .burst
                .map_or(Ok(burst), |burst| file.positive(&burst))?,
            targets,
        })
    }

    /// A subject of an issuer belongs to one workload (Himmelblau CVE-2025-59044).
    /// Who relies on it knows the issuer by its URL, whatever keys it has.
    pub fn subjects_have_one_owner(&self, sources: &[Source]) -> Result<()> {
        let mut owners: BTreeMap<(&str, &str), &Arc<Target>> = BTreeMap::new();
        for target in self
            .sections
            .values()
            .flat_map(|section| section.targets.values())
        {
            let Purpose::Federation { .. } = target.charter.purpose else {
                continue;
            };
            let owner = owners.entry((&target.iss, &target.sub)).or_insert(target);
            if owner.workload != target.workload && !(owner.shared && target.shared) {
                let text = format!(
                    "workload `{}` has subject `{}` of {} here, which workload `{}` has at {}; give \
                         each its own, or say `shared = true` in both targets",
                    target.workload, target.sub, target.iss, owner.workload, owner.place
                );
                return Err(at(sources, &target.place, text));
            }
        }
        Ok(())
    }
}

/// A mistake in a whole line of the file that was read there.
fn at(sources: &[Source], place: &Place, text: String) -> Diagnostic {
    let source = sources.iter().find(|source| *source.path == *place.file);
    let source = source.expect("places are made from the files that were read");
    let mut lines = source.text.split_inclusive('\n');
    let start: usize = lines.by_ref().take(place.line - 1).map(str::len).sum();
    let len = lines.next().map_or(0, |line| line.trim_end().len());
    Diagnostic::at(&source.path, &source.text, start..start + len, text, None)
}
