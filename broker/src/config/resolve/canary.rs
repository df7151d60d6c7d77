//! `rotation.canary` of a target: the access token that each next version of its key has to get before it signs.
//! Where it is asked for is the configuration's alone: assertd-courier reads it there.

use super::super::file::{Activated, CanarySection};
use super::super::url::Https;
use super::target::TargetPlace;
use super::*;
use crate::lifecycle::Span;
use keystore::charter::PurposeKind;

/// Default for `span`, and its limits: standards §5.2 ask for a minute, and an hour of a key that works is enough.
const SPAN_S: u64 = 60;
const SPANS_S: std::ops::RangeInclusive<u64> = 1..=3600;

/// Longest `scope` and `audience` in bytes.
const PARAMETER_LEN_MAX: usize = 1024;

/// The canary of this target's key, if its versions become active by one.
pub fn canary(place: &TargetPlace, client_id: &str) -> Result<Option<Canary>> {
    let none = CanarySection::default();
    let rotation = place.section.rotation.as_ref().map(Spanned::as_ref);
    let activation = rotation.and_then(|it| it.activation.as_ref());
    let activation = activation.filter(|it| matches!(it.as_ref(), Activated::Canary));
    let section = rotation.and_then(|it| it.canary.as_ref());
    let (activation, written) = match (activation, section) {
        (None, None) => return Ok(None),
        (None, Some(section)) => {
            let message =
                "`canary` is for `activation = \"canary\"`: write that beside it, or remove it";
            return place.file.error(section.span(), message);
        }
        (Some(activation), section) => (activation, section.map_or(&none, Spanned::as_ref)),
    };
    if place.profile.row.purpose != PurposeKind::ClientAuthentication {
        let profile = &place.profile.name;
        let message = format!(
            "profile `{profile}` is none of a client that gets access tokens for itself, so there is nothing to \
             try a key by: write activation = \"hand\""
        );
        return place.file.error(activation.span(), message);
    }
    let own = place.section.token_endpoint.as_ref();
    let endpoint = match (&written.token_endpoint, own) {
        (Some(endpoint), None) | (None, Some(endpoint)) => endpoint,
        (Some(endpoint), Some(_)) => {
            let message = "`token_endpoint` of the canary is that of the target: remove it here";
            return place.file.error(endpoint.span(), message);
        }
        (None, None) => {
            let profile = &place.profile.name;
            let message = format!(
                "profile `{profile}` does not say where access tokens are to be had: write canary = {{ \
                 token_endpoint = \"https://…\" }} beside it, or activation = \"hand\""
            );
            return place.file.error(activation.span(), message);
        }
    };
    if let Err(why) = Https::parse(endpoint.as_ref()) {
        let message = format!(
            "`token_endpoint` {why}; with a canary it is where assertd-courier asks for an access token, such \
             as https://as.example.com/token"
        );
        return place.file.error(endpoint.span(), message);
    }
    let span_s = match &written.span {
        None => SPAN_S,
        Some(span) => {
            let seconds = rotation::span(place.file, "span", &written.span)?.unwrap_or(SPAN_S);
            if !SPANS_S.contains(&seconds) {
                let message = format!(
                    "`span` of {}: three tokens in a row are to be had over {} to {}",
                    Span(seconds),
                    Span(*SPANS_S.start()),
                    Span(*SPANS_S.end())
                );
                return place.file.error(span.span(), message);
            }
            seconds
        }
    };
    Ok(Some(Canary {
        token_endpoint: endpoint.as_ref().clone(),
        client_id: client_id.to_owned(),
        scope: parameter(place.file, "scope", &written.scope)?,
        audience: parameter(place.file, "audience", &written.audience)?,
        span_s,
    }))
}

/// What stands in the request's form (RFC 6749 appendix A).
fn parameter(file: &File, key: &str, written: &Option<Spanned<String>>) -> Result<Option<String>> {
    let Some(written) = written else {
        return Ok(None);
    };
    let text = written.as_ref();
    let is_fit = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if text.is_empty() || text.len() > PARAMETER_LEN_MAX || !text.bytes().all(is_fit) {
        let message = format!(
            "`{key}` is 1 to {PARAMETER_LEN_MAX} printable ASCII characters, without quotation marks and \
             backslashes (RFC 6749 §3.3)"
        );
        return file.error(written.span(), message);
    }
    Ok(Some(text.clone()))
}
