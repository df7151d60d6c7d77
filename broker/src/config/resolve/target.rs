//! `[workload.NAME.target.NAME]`: what its profile needs and nothing else, what its vendor takes, and
//! its key's charter.

use super::super::file::TargetSection;
use super::issuer::known_keystore;
use super::*;
use crate::profile::{Key, KidRule, Of, Origin, Takes};
use crate::reuse::{LIFETIME_MIN_S, Reuse};
use keystore::charter::{ASSIGNED_KID_LEN_MAX, AccountIss, KidMember, PurposeKind, is_kid};
use keystore::protocol::EvidenceLevel;

impl Known<'_> {
    /// One target, by its profile.
    pub fn target(
        &self,
        file: &File,
        bounds: Option<&Bounds>,
        workload: &Arc<str>,
        name: &Spanned<String>,
        target: Spanned<TargetSection>,
    ) -> Result<Target> {
        let section = target.as_ref();
        let Some(profile) = self.profiles.get(section.profile.as_ref()) else {
            let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
            return file.unknown("profile", &section.profile, &names);
        };
        let lifetime_s = match &section.lifetime {
            None => profile.lifetime_default_s,
            Some(seconds) if *seconds.as_ref() > profile.lifetime_max_s => {
                let message = format!(
                    "`lifetime` must be {} seconds at most for profile `{}`",
                    profile.lifetime_max_s, profile.name
                );
                return file.error(seconds.span(), message);
            }
            Some(seconds) => file.positive("lifetime", seconds)?,
        };
        let place = TargetPlace {
            file,
            bounds,
            workload,
            name,
            profile,
            section,
        };
        for key in Key::ALL {
            match profile.takes(key) {
                Takes::Not => place.refuse(key.as_str(), written(section, key))?,
                Takes::Needs | Takes::May => {}
            }
        }
        match profile.row.purpose {
            PurposeKind::ClientAuthentication | PurposeKind::Account => {
                self.own_key_target(&place, lifetime_s)
            }
            PurposeKind::Federation => self.federation_target(&place, lifetime_s),
        }
    }

    fn own_key_target(&self, place: &TargetPlace, lifetime_s: u32) -> Result<Target> {
        let section = place.section;
        place.refuse("issuer", &section.issuer)?;
        place.refuse("shared", &section.shared)?;
        place.refuse("reuse", &section.reuse)?;
        let row = place.profile.row;
        let aud = place.claim(row.aud)?;
        let sub = place.claim(row.sub)?;
        let scope = place.claim(row.scope)?;
        let iss = place.claim(row.iss)?.expect("every row has an `iss`");
        place.follows_its_vendors_rules(None)?;
        let keystore = match &section.keystore {
            Some(name) => known_keystore(place.file, name, &self.keystores)?,
            None => self.only_keystore(place)?,
        };
        let alg = place.alg(&section.alg)?;
        let purpose = match (row.purpose, &sub, &aud) {
            (PurposeKind::ClientAuthentication, Some(sub), Some(aud)) => {
                Purpose::ClientAuthentication {
                    iss: iss.clone(),
                    sub: sub.clone(),
                    aud: aud.clone(),
                }
            }
            _ => Purpose::Account {
                iss: match row.iss {
                    Origin::AccountUserKey => AccountIss::WithFingerprint(iss.clone()),
                    _ => AccountIss::Is(iss.clone()),
                },
                sub: sub.clone(),
                aud: aud.clone(),
                scope: scope.clone(),
            },
        };
        let charter = Charter {
            purpose,
            alg,
            typ: row.typ,
            kid: place.kid()?,
            lifetime_max_s: lifetime_s,
            backdate_s: row.backdate_s,
            certificate: row.certificate,
        };
        if let Err(error) = charter.check() {
            // Each claim was looked at; a fingerprint makes `iss` longer.
            return place.file.error(place.name.span(), error.to_string());
        }
        let key = KeyName::client(place.workload, place.name.as_ref()).expect("names were checked");
        let canary = canary::canary(place, &iss)?.map(Box::new);
        let told = rotation::Told::ByHand;
        let schedule = rotation::schedule(place.file, section.rotation.as_ref(), told, lifetime_s)?;
        let next = place.next_version(&charter)?;
        let certificate_s = place.certificate_s(&schedule)?;
        Ok(Target {
            workload: place.workload.clone(),
            name: place.name.as_ref().clone(),
            place: place.file.place(&place.name.span()),
            profile: place.profile.clone(),
            iss,
            sub,
            aud,
            scope,
            lifetime_s,
            rate: rate(place.file, section)?,
            evidence_min: evidence_min(section),
            reuse: Reuse::Never,
            shared: false,
            key,
            keystore,
            charter: Arc::new(charter),
            schedule: Some(Box::new(schedule)),
            key_from: place.key_from()?,
            next,
            certificate_s,
            canary,
        })
    }

    fn federation_target(&self, place: &TargetPlace, lifetime_s: u32) -> Result<Target> {
        let section = place.section;
        place.refuse("keystore", &section.keystore)?;
        place.refuse("alg", &section.alg)?;
        place.refuse("rotation", &section.rotation)?;
        place.refuse("key", &section.key)?;
        place.refuse("certificate", &section.certificate)?;
        let _named = place.need("issuer", &section.issuer)?;
        let sub = place.claim(place.profile.row.sub)?;
        let aud = place.claim(place.profile.row.aud)?;
        let (Some(issuer_name), Some(subject), Some(sub)) =
            (&section.issuer, &section.subject, sub)
        else {
            unreachable!("all were needed above")
        };
        let Some(issuer) = self.issuers.get(issuer_name.as_ref()) else {
            let names: Vec<&str> = self.issuers.keys().map(String::as_str).collect();
            return place.file.unknown("issuer", issuer_name, &names);
        };
        place.follows_its_vendors_rules(Some((issuer, issuer_name.span())))?;
        if !issuer.subjects.iter().any(|pattern| pattern.matches(&sub)) {
            let message = format!(
                "issuer `{}` may not assert `{sub}`; an administrator adds it to its `subjects`",
                issuer.name
            );
            return place.file.error(subject.span(), message);
        }
        if !place.profile.algs.contains(&issuer.alg) {
            let message = format!(
                "profile `{}` does not take {}, the algorithm of issuer `{}`; it takes {}",
                place.profile.name,
                issuer.alg,
                issuer.name,
                place.algs()
            );
            return place.file.error(issuer_name.span(), message);
        }
        if lifetime_s > issuer.charter.lifetime_max_s {
            let most = issuer.charter.lifetime_max_s;
            let message = format!(
                "a lifetime of {lifetime_s} s is longer than issuer `{}` allows; write lifetime = \
                 {most}, or have an administrator raise its `lifetime_max`",
                issuer.name
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
            place: place.file.place(&place.name.span()),
            profile: place.profile.clone(),
            iss: issuer.url.clone(),
            sub: Some(sub),
            aud,
            scope: None,
            lifetime_s,
            rate: rate(place.file, section)?,
            evidence_min: evidence_min(section),
            reuse: reuse(place.file, section, lifetime_s)?,
            shared: section.shared.as_ref().is_some_and(|it| *it.as_ref()),
            key: issuer.key.clone(),
            keystore: issuer.keystore.clone(),
            charter: issuer.charter.clone(),
            schedule: None,
            key_from: KeyFrom::Make,
            next: NextVersion::Made,
            certificate_s: None,
            canary: None,
        })
    }

    fn only_keystore(&self, place: &TargetPlace) -> Result<String> {
        let mut names = self.keystores.keys();
        match (names.next(), names.next()) {
            (Some(name), None) => {
                if let Some(bounds) = place.bounds {
                    bounds.only_keystore(place.file, place.name.span(), name)?;
                }
                Ok(name.clone())
            }
            (None, _) => place.file.error(
                place.name.span(),
                "there is no [keystore.…] that could hold the key; `assertctl init` writes one",
            ),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = self.keystores.keys().map(String::as_str).collect();
                let message = format!(
                    "`keystore` is missing: say which one shall hold the key ({})",
                    names.join(", ")
                );
                place.file.error(place.name.span(), message)
            }
        }
    }
}

/// How often the target may be asked for by its workload, if that is limited by itself.
fn rate(file: &File, section: &TargetSection) -> Result<Option<(u32, u32)>> {
    let (rate, burst) = (&section.rate, &section.burst);
    match (rate, burst) {
        (None, None) => Ok(None),
        (Some(rate), None) => {
            let rate = file.positive("rate", rate)?;
            Ok(Some((rate, rate)))
        }
        (Some(rate), Some(burst)) => {
            let rate = file.positive("rate", rate)?;
            Ok(Some((rate, file.positive("burst", burst)?)))
        }
        (None, Some(burst)) => {
            let message = "`burst` needs `rate` beside it: how often after so many at once";
            file.error(burst.span(), message)
        }
    }
}

fn evidence_min(section: &TargetSection) -> EvidenceLevel {
    let least = section.evidence.as_ref();
    least.map_or(EvidenceLevel::None, |level| *level.as_ref())
}

/// Whether its assertions may be handed out again. Who asks for it must get it.
fn reuse(file: &File, section: &TargetSection, lifetime_s: u32) -> Result<Reuse> {
    match &section.reuse {
        Some(reuse) if !*reuse.as_ref() => Ok(Reuse::Never),
        Some(reuse) if lifetime_s < LIFETIME_MIN_S => {
            let message = format!(
                "an assertion that lives {lifetime_s} s is too short-lived to be handed out again: \
                 remove `reuse`, or write lifetime = {LIFETIME_MIN_S} at least"
            );
            file.error(reuse.span(), message)
        }
        Some(_) | None => Ok(Reuse::UntilHalf),
    }
}

/// A target on its way to being resolved.
pub(super) struct TargetPlace<'a> {
    pub(super) file: &'a File<'a>,
    bounds: Option<&'a Bounds>,
    workload: &'a Arc<str>,
    pub(super) name: &'a Spanned<String>,
    pub(super) profile: &'a Arc<Profile>,
    pub(super) section: &'a TargetSection,
}

/// What a target says for one of the keys that become claims.
fn written(section: &TargetSection, key: Key) -> &Option<Spanned<String>> {
    match key {
        Key::AuthorizationServer => &section.authorization_server,
        Key::TokenEndpoint => &section.token_endpoint,
        Key::ClientId => &section.client_id,
        Key::Account => &section.account,
        Key::User => &section.user,
        Key::ServiceAccount => &section.service_account,
        Key::Subject => &section.subject,
        Key::Audience => &section.audience,
        Key::Scope => &section.scope,
        Key::Kid => &section.kid,
    }
}

impl TargetPlace<'_> {
    /// A claim's value, from where its profile has it; none if the assertion has no such claim.
    fn claim(&self, origin: Origin) -> Result<Option<String>> {
        if let (Origin::Key(Key::Audience) | Origin::KeyOr(Key::Audience, _), Some(fixed)) =
            (origin, &self.profile.audience)
        {
            return Ok(Some(fixed.clone()));
        }
        let need = |key: Key| self.need(key.as_str(), written(self.section, key));
        match origin {
            Origin::Nothing | Origin::IssuerUrl => Ok(None),
            Origin::Key(key) => need(key).map(Some),
            Origin::KeyUnless(key, other) => {
                let value = need(key)?;
                Ok(written(self.section, other).is_none().then_some(value))
            }
            Origin::IfThere(key) => match written(self.section, key) {
                Some(value) => self.file.claim(key.as_str(), value).map(Some),
                None => Ok(None),
            },
            Origin::KeyOr(key, constant) => match written(self.section, key) {
                Some(value) => self.file.claim(key.as_str(), value).map(Some),
                None => Ok(Some(constant.to_owned())),
            },
            Origin::AccountUser | Origin::AccountUserKey => Ok(Some(format!(
                "{}.{}",
                need(Key::Account)?,
                need(Key::User)?
            ))),
        }
    }

    /// The header's `kid`, by its profile.
    fn kid(&self) -> Result<KidMember> {
        match (self.profile.row.kid, &self.section.kid) {
            (KidRule::Absent, _) => Ok(KidMember::Absent),
            (KidRule::Thumbprint, _) | (KidRule::MayBeAssigned, None) => Ok(KidMember::Thumbprint),
            (KidRule::MayBeAssigned, Some(kid)) if is_kid(kid.as_ref()) => {
                Ok(KidMember::Assigned(kid.as_ref().clone()))
            }
            (KidRule::MayBeAssigned, Some(kid)) => {
                let message = format!(
                    "`kid` is what the other side has named the key: 1 to {ASSIGNED_KID_LEN_MAX} letters, \
                     digits, `-`, `.`, `_` and `~`"
                );
                self.file.error(kid.span(), message)
            }
        }
    }

    /// What its vendor documents about the values; of an issuer, where the target names it.
    fn follows_its_vendors_rules(&self, issuer: Option<(&Issuer, Range<usize>)>) -> Result<()> {
        let trust_domain = issuer
            .as_ref()
            .and_then(|(it, _)| it.trust_domain.as_deref());
        for (of, rule) in self.profile.row.rules {
            let (what, value, span) = match of {
                Of::Issuer => match &issuer {
                    Some((issuer, span)) => {
                        let what = format!("the `url` of issuer `{}`", issuer.name);
                        (what, issuer.url.as_str(), span.clone())
                    }
                    None => continue,
                },
                Of::Key(key) => match written(self.section, *key) {
                    Some(value) => {
                        let what = format!("`{}`", key.as_str());
                        (what, value.as_ref().as_str(), value.span())
                    }
                    None => continue,
                },
                Of::Target => {
                    let is_fixed = |key| key == Key::Audience && self.profile.audience.is_some();
                    let has = |key| is_fixed(key) || written(self.section, key).is_some();
                    if let Err(must) = rule.check_target(has) {
                        let profile = &self.profile.name;
                        let message = format!("profile `{profile}`: a target {must}");
                        return self.file.error(self.name.span(), message);
                    }
                    continue;
                }
            };
            if let Err(must) = rule.check(value, trust_domain) {
                let profile = &self.profile.name;
                let message = format!("profile `{profile}`: {what} {must}");
                return self.file.error(span, message);
            }
        }
        Ok(())
    }

    fn need(&self, key: &str, value: &Option<Spanned<String>>) -> Result<String> {
        match value {
            Some(value) => self.file.claim(key, value),
            None => {
                let profile = &self.profile.name;
                let message = format!("`{key}` is missing: profile `{profile}` needs it");
                self.file.error(self.name.span(), message)
            }
        }
    }

    pub(super) fn refuse<T>(&self, key: &str, value: &Option<Spanned<T>>) -> Result<()> {
        match value {
            None => Ok(()),
            Some(value) => {
                let profile = &self.profile.name;
                let message = format!(
                    "profile `{profile}` has no `{key}`: remove it, or use a profile that has"
                );
                self.file.error(value.span(), message)
            }
        }
    }

    fn alg(&self, alg: &Option<Spanned<Alg>>) -> Result<Alg> {
        match alg {
            None => Ok(self.profile.algs[0]),
            Some(alg) if self.profile.algs.contains(alg.as_ref()) => Ok(*alg.as_ref()),
            Some(alg) => {
                let message = format!("profile `{}` takes {}", self.profile.name, self.algs());
                self.file.error(alg.span(), message)
            }
        }
    }

    /// The algorithms of its profile, to be shown.
    fn algs(&self) -> String {
        let names: Vec<&str> = self.profile.algs.iter().map(|alg| alg.name()).collect();
        names.join(", ")
    }
}
