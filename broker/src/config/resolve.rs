//! From files as written to a [`Config`] that holds together: names exist, profiles get what they
//! need and nothing else, users are numbers, lifetimes fit, subjects have one owner.

use super::file::{
    DropIn, IssuerSection, LimitsSection, MainFile, MatchSection, TargetSection, WorkloadSection,
};
use super::*;
use keystore::charter::{LIFETIME_MAX_S, PurposeKind, Typ};
use keystore::claims::CLAIM_LEN_MAX;
use keystore::config::suggest;
use keystore::keyid::check_part;
use std::ops::Range;
use toml::Spanned;

/// Default for an issuer's `lifetime_max`, in seconds: a token file's hour.
const ISSUER_LIFETIME_MAX_S: u32 = 3600;

/// Smallest and largest audit segment in bytes: one batch of records must fit, and preparing it
/// must stay a matter of a second.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

type Result<T> = std::result::Result<T, Diagnostic>;

/// One file's text, to cite it.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn error<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T> {
        Err(Diagnostic::at(self.path, self.text, span, message, None))
    }

    fn unknown<T>(&self, what: &str, name: &Spanned<String>, known: &[&str]) -> Result<T> {
        let message = format!("there is no {what} `{}`", name.as_ref());
        let help = Some(suggest(name.as_ref(), known));
        Err(Diagnostic::at(
            self.path,
            self.text,
            name.span(),
            message,
            help,
        ))
    }

    fn name(&self, name: &Spanned<String>) -> Result<()> {
        check_part(name.as_ref()).or_else(|e| self.error(name.span(), e.to_string()))
    }

    fn positive(&self, value: &Spanned<u32>) -> Result<u32> {
        match *value.as_ref() {
            0 => self.error(value.span(), "must be at least 1"),
            value => Ok(value),
        }
    }

    fn claim(&self, value: &Spanned<String>) -> Result<String> {
        let text = value.as_ref();
        if text.is_empty() || text.len() > CLAIM_LEN_MAX || text.chars().any(char::is_control) {
            let message = format!("must be 1 to {CLAIM_LEN_MAX} bytes without control characters");
            return self.error(value.span(), message);
        }
        Ok(text.clone())
    }
}

pub fn resolve(sources: Vec<Source>) -> Result<Config> {
    let sha256 = digest(&sources);
    let (main, drop_ins) = sources.split_first().expect("the main file is always read");
    let file = File {
        path: &main.path,
        text: &main.text,
    };
    let parsed: MainFile = parse(&file)?;

    let keystores = keystores(&file, parsed.keystore)?;
    let issuers = issuers(&file, parsed.issuer, &keystores)?;
    let mut known = Known {
        keystores,
        issuers,
        limits: limits(&file, &parsed.limits)?,
        sections: BTreeMap::new(),
    };
    known.add(&file, parsed.workload)?;
    for source in drop_ins {
        let file = File {
            path: &source.path,
            text: &source.text,
        };
        let drop_in: DropIn = parse(&file)?;
        known.add(&file, drop_in.workload)?;
    }
    known.subjects_have_one_owner(&main.path)?;

    let state_dir = parsed
        .server
        .state_dir
        .unwrap_or_else(|| "/var/lib/assertd".into());
    if let Some(bytes) = &parsed.audit.segment_bytes
        && !SEGMENT_BYTES.contains(bytes.as_ref())
    {
        let (least, most) = (SEGMENT_BYTES.start(), SEGMENT_BYTES.end());
        return file.error(bytes.span(), format!("must be {least} to {most} bytes"));
    }
    Ok(Config {
        path: main.path.clone(),
        sha256,
        audit: Audit {
            dir: parsed.audit.dir.unwrap_or_else(|| state_dir.join("audit")),
            segment_bytes: parsed.audit.segment_bytes.map(Spanned::into_inner),
        },
        server: Server {
            runtime_dir: parsed
                .server
                .runtime_dir
                .unwrap_or_else(|| "/run/assertd".into()),
            state_dir,
        },
        keystores: known.keystores,
        issuers: known.issuers,
        workloads: known.sections.into_values().collect(),
    })
}

fn parse<T: serde::de::DeserializeOwned>(file: &File) -> Result<T> {
    toml::from_str(file.text).map_err(|error| Diagnostic::from_toml(file.path, file.text, &error))
}

fn digest(sources: &[Source]) -> String {
    use aws_lc_rs::digest;
    let mut context = digest::Context::new(&digest::SHA256);
    for source in sources {
        // Length first: two files cannot be told apart from one otherwise.
        context.update(&(source.text.len() as u64).to_be_bytes());
        context.update(source.text.as_bytes());
    }
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn limits(file: &File, limits: &LimitsSection) -> Result<(u32, u32)> {
    let rate = limits
        .workload_rate
        .as_ref()
        .map_or(Ok(RATE_PER_S), |rate| file.positive(rate))?;
    let burst = limits
        .workload_burst
        .as_ref()
        .map_or(Ok(BURST), |burst| file.positive(burst))?;
    Ok((rate, burst))
}

fn keystores(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<KeystoreSection>>,
) -> Result<BTreeMap<String, KeystoreSection>> {
    let mut keystores = BTreeMap::new();
    for (name, section) in sections {
        file.name(&name)?;
        if let Err(message) = section.as_ref().check() {
            return file.error(
                name.span(),
                format!("keystore `{}`: {message}", name.as_ref()),
            );
        }
        keystores.insert(name.into_inner(), section.into_inner());
    }
    Ok(keystores)
}

fn issuers(
    file: &File,
    sections: BTreeMap<Spanned<String>, Spanned<IssuerSection>>,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<BTreeMap<String, Arc<Issuer>>> {
    let mut issuers = BTreeMap::new();
    for (name, section) in sections {
        file.name(&name)?;
        let issuer = issuer(file, name.as_ref(), section.into_inner(), keystores)?;
        issuers.insert(name.into_inner(), Arc::new(issuer));
    }
    Ok(issuers)
}

fn issuer(
    file: &File,
    name: &str,
    section: IssuerSection,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<Issuer> {
    let url = file.claim(&section.url)?;
    // OIDC Discovery §3: https, no query, no fragment; `iss` must equal it character by character.
    if !url.starts_with("https://") || url.contains(['?', '#', ' ']) || url.len() < 9 {
        let message = "an issuer is an https URL without query and fragment (OIDC Discovery §3)";
        return file.error(section.url.span(), message);
    }
    if section.subjects.is_empty() {
        return file.error(
            section.url.span(),
            format!("issuer `{name}`: `subjects` is empty"),
        );
    }
    let mut subjects = Vec::new();
    for subject in &section.subjects {
        match SubjectPattern::try_from(subject.as_ref().clone()) {
            Ok(pattern) => subjects.push(pattern),
            Err(error) => return file.error(subject.span(), error.to_string()),
        }
    }
    let keystore = known_keystore(file, &section.keystore, keystores)?;
    let alg = section.alg.map_or(Alg::ES256, Spanned::into_inner);
    let lifetime_max_s = match &section.lifetime_max {
        None => ISSUER_LIFETIME_MAX_S,
        Some(seconds) if *seconds.as_ref() > LIFETIME_MAX_S => {
            return file.error(
                seconds.span(),
                format!("must be at most {LIFETIME_MAX_S} seconds"),
            );
        }
        Some(seconds) => file.positive(seconds)?,
    };
    let purpose = Purpose::Federation {
        iss: url.clone(),
        subjects: subjects.clone(),
    };
    let charter = Charter {
        purpose,
        alg,
        typ: Typ::Jwt,
        lifetime_max_s,
    };
    let key = KeyName::issuer(name).expect("the name was checked");
    Ok(Issuer {
        name: name.to_owned(),
        url,
        subjects,
        keystore,
        alg,
        key,
        charter,
    })
}

fn known_keystore(
    file: &File,
    name: &Spanned<String>,
    keystores: &BTreeMap<String, KeystoreSection>,
) -> Result<String> {
    if keystores.contains_key(name.as_ref()) {
        return Ok(name.as_ref().clone());
    }
    let names: Vec<&str> = keystores.keys().map(String::as_str).collect();
    file.unknown("keystore", name, &names)
}

/// What sections may refer to, and the sections so far.
struct Known {
    keystores: BTreeMap<String, KeystoreSection>,
    issuers: BTreeMap<String, Arc<Issuer>>,
    limits: (u32, u32),
    sections: BTreeMap<Arc<str>, Arc<Section>>,
}

impl Known {
    fn add(
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

    fn target(
        &self,
        file: &File,
        workload: &Arc<str>,
        name: &Spanned<String>,
        target: Spanned<TargetSection>,
    ) -> Result<Target> {
        let section = target.as_ref();
        let Some(profile) = Profile::named(section.profile.as_ref()) else {
            return file.unknown("profile", &section.profile, &Profile::names());
        };
        let lifetime_s = match &section.lifetime {
            None => profile.lifetime_default_s,
            Some(seconds) if *seconds.as_ref() > profile.lifetime_max_s => {
                let message = format!(
                    "profile `{}` allows at most {} seconds",
                    profile.name, profile.lifetime_max_s
                );
                return file.error(seconds.span(), message);
            }
            Some(seconds) => file.positive(seconds)?,
        };
        let place = TargetPlace {
            file,
            workload,
            name,
            profile,
        };
        match profile.purpose {
            PurposeKind::ClientAuthentication => self.client_target(&place, section, lifetime_s),
            PurposeKind::Federation => self.federation_target(&place, section, lifetime_s),
        }
    }

    fn client_target(
        &self,
        place: &TargetPlace,
        section: &TargetSection,
        lifetime_s: u32,
    ) -> Result<Target> {
        place.refuse("issuer", &section.issuer)?;
        place.refuse("subject", &section.subject)?;
        place.refuse("audience", &section.audience)?;
        let aud = place.need("authorization_server", &section.authorization_server)?;
        let client_id = place.need("client_id", &section.client_id)?;
        let keystore = match &section.keystore {
            Some(name) => known_keystore(place.file, name, &self.keystores)?,
            None => self.only_keystore(place)?,
        };
        let alg = place.alg(&section.alg)?;
        let purpose = Purpose::ClientAuthentication {
            iss: client_id.clone(),
            sub: client_id.clone(),
            aud: aud.clone(),
        };
        let charter = Charter {
            purpose,
            alg,
            typ: place.profile.typ,
            lifetime_max_s: lifetime_s,
        };
        let key = KeyName::client(place.workload, place.name.as_ref()).expect("names were checked");
        Ok(Target {
            workload: place.workload.clone(),
            name: place.name.as_ref().clone(),
            profile: place.profile,
            iss: client_id.clone(),
            sub: client_id,
            aud,
            lifetime_s,
            shared: false,
            key,
            keystore,
            charter,
        })
    }

    fn federation_target(
        &self,
        place: &TargetPlace,
        section: &TargetSection,
        lifetime_s: u32,
    ) -> Result<Target> {
        place.refuse("authorization_server", &section.authorization_server)?;
        place.refuse("client_id", &section.client_id)?;
        place.refuse("keystore", &section.keystore)?;
        place.refuse("alg", &section.alg)?;
        let _named = place.need("issuer", &section.issuer)?;
        let sub = place.need("subject", &section.subject)?;
        let aud = place.need("audience", &section.audience)?;
        let (Some(issuer_name), Some(subject)) = (&section.issuer, &section.subject) else {
            unreachable!("both were needed above")
        };
        let Some(issuer) = self.issuers.get(issuer_name.as_ref()) else {
            let names: Vec<&str> = self.issuers.keys().map(String::as_str).collect();
            return place.file.unknown("issuer", issuer_name, &names);
        };
        if !issuer.subjects.iter().any(|pattern| pattern.matches(&sub)) {
            let message = format!(
                "issuer `{}` may not assert `{sub}`; an administrator adds it to its `subjects`",
                issuer.name
            );
            return place.file.error(subject.span(), message);
        }
        if !place.profile.algs.contains(&issuer.alg) {
            let message = format!(
                "profile `{}` does not take {} of issuer `{}`",
                place.profile.name, issuer.alg, issuer.name
            );
            return place.file.error(issuer_name.span(), message);
        }
        if lifetime_s > issuer.charter.lifetime_max_s {
            let message = format!(
                "a lifetime of {lifetime_s} s is longer than issuer `{}` allows ({} s)",
                issuer.name, issuer.charter.lifetime_max_s
            );
            let at = section
                .lifetime
                .as_ref()
                .map_or(issuer_name.span(), Spanned::span);
            return place.file.error(at, message);
        }
        Ok(Target {
            workload: place.workload.clone(),
            name: place.name.as_ref().clone(),
            profile: place.profile,
            iss: issuer.url.clone(),
            sub,
            aud,
            lifetime_s,
            shared: section.shared,
            key: issuer.key.clone(),
            keystore: issuer.keystore.clone(),
            charter: issuer.charter.clone(),
        })
    }

    fn only_keystore(&self, place: &TargetPlace) -> Result<String> {
        let mut names = self.keystores.keys();
        match (names.next(), names.next()) {
            (Some(name), None) => Ok(name.clone()),
            _ => place.file.error(
                place.name.span(),
                "`keystore` is missing: name the [keystore.…] section that shall hold the key",
            ),
        }
    }

    /// A subject of an issuer belongs to one workload (Himmelblau CVE-2025-59044).
    fn subjects_have_one_owner(&self, path: &Path) -> Result<()> {
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

/// A target on its way to being resolved.
struct TargetPlace<'a> {
    file: &'a File<'a>,
    workload: &'a Arc<str>,
    name: &'a Spanned<String>,
    profile: &'static Profile,
}

impl TargetPlace<'_> {
    fn need(&self, key: &str, value: &Option<Spanned<String>>) -> Result<String> {
        match value {
            Some(value) => self.file.claim(value),
            None => self.file.error(
                self.name.span(),
                format!(
                    "`{key}` is missing: profile `{}` needs it",
                    self.profile.name
                ),
            ),
        }
    }

    fn refuse<T>(&self, key: &str, value: &Option<Spanned<T>>) -> Result<()> {
        match value {
            None => Ok(()),
            Some(value) => self.file.error(
                value.span(),
                format!("profile `{}` has no `{key}`", self.profile.name),
            ),
        }
    }

    fn alg(&self, alg: &Option<Spanned<Alg>>) -> Result<Alg> {
        match alg {
            None => Ok(self.profile.algs[0]),
            Some(alg) if self.profile.algs.contains(alg.as_ref()) => Ok(*alg.as_ref()),
            Some(alg) => {
                let names: Vec<&str> = self.profile.algs.iter().map(|alg| alg.name()).collect();
                let message = format!("profile `{}` takes {}", self.profile.name, names.join(", "));
                self.file.error(alg.span(), message)
            }
        }
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

/// Midnight UTC of a date; of a date and time, that moment. A local time has no one meaning.
fn expiry(at: &toml::value::Datetime) -> Option<Time> {
    let date = at.date?;
    let days = days_since_epoch(
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    let seconds = match (&at.time, &at.offset) {
        (None, None) => 0,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                toml::value::Offset::Z => 0,
                toml::value::Offset::Custom { minutes } => i64::from(*minutes),
            };
            let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
            hour * 3600 + (minute - minutes) * 60 + time.second.map_or(0, i64::from)
        }
        _ => return None,
    };
    u64::try_from(days * 86_400 + seconds)
        .ok()
        .map(Time::from_unix_s)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; years from March, so that the leap
/// day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        let at = |text: &str| expiry(&text.parse().unwrap()).map(Time::unix_s);
        assert_eq!(at("1970-01-01"), Some(0));
        assert_eq!(at("2000-02-29"), Some(951_782_400));
        assert_eq!(at("2027-06-30"), Some(1_814_313_600));
        assert_eq!(at("2027-06-30T02:00:00+02:00"), Some(1_814_313_600));
        assert_eq!(at("2027-06-30T00:00:00"), None);
        assert_eq!(at("12:00:00"), None);
    }
}
