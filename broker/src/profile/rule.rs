//! What vendors document about the values of claims: checked when a configuration is loaded, so
//! that a mistake is found where it is written and not by a refusal far away. Each sentence goes
//! below the profile's name and beside the line.

use super::{Key, spiffe};

/// Whose value a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The `url` of the `[issuer.NAME]` that the target names.
    Issuer,
    /// A key of the target.
    Key(Key),
    /// The target as a whole.
    Target,
}

/// A vendor's rule about one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// So many characters at most.
    Chars(usize),
    /// So many bytes of UTF-8 at most.
    Bytes(usize),
    /// An https URL without query and fragment.
    HttpsUrl,
    /// An https URL of a host alone, with the slash at its end.
    HttpsOrigin,
    /// No port in the URL.
    NoPort,
    /// The v2.0 token endpoint of one tenant at Entra ID.
    EntraTokenEndpoint,
    /// A SPIFFE ID with a path, of the issuer's trust domain.
    SpiffeId,
    /// Upper-case letters, digits, hyphens and underscores.
    SnowflakeAccount,
    /// No letter that is not upper case.
    UpperCase,
    /// The address of a service account.
    ServiceAccount,
    /// Scopes with one blank between (RFC 6749 §3.3).
    Scope,
    /// Of the target: one of these two keys.
    AudienceOrScope,
}

impl Rule {
    /// Whether `value` is as the vendor has it; if not, what it has to be. `trust_domain` is the
    /// issuer's.
    ///
    /// # Errors
    /// The rule as the end of a sentence that begins with the key.
    pub fn check(self, value: &str, trust_domain: Option<&str>) -> Result<(), String> {
        let count = value.chars().count();
        match self {
            Rule::Chars(most) if count > most => Err(format!(
                "has {most} characters at most, and this has {count}"
            )),
            Rule::Bytes(most) if value.len() > most => {
                let len = value.len();
                Err(format!("has {most} bytes at most, and this has {len}"))
            }
            Rule::HttpsUrl if !is_https(value) => {
                Err("must be an https URL without query and fragment".to_owned())
            }
            Rule::HttpsOrigin if !is_origin(value) => {
                Err("must be https://, a host, and a slash at the end".to_owned())
            }
            Rule::NoPort if has_port(value) => Err("must be a URL without a port".to_owned()),
            Rule::EntraTokenEndpoint => of_one_tenant(value),
            Rule::SpiffeId => of_trust_domain(value, trust_domain),
            Rule::SnowflakeAccount if !value.bytes().all(is_snowflake) => Err(
                "must be in upper case, with hyphens where the account's name has periods"
                    .to_owned(),
            ),
            Rule::UpperCase if value.chars().any(char::is_lowercase) => {
                Err("must be in upper case".to_owned())
            }
            Rule::ServiceAccount if !is_service_account(value) => {
                Err("must be an address, NAME@PROJECT.iam.gserviceaccount.com".to_owned())
            }
            Rule::Scope if !value.split(' ').all(is_scope) => {
                Err("must be one scope, or several with one blank between".to_owned())
            }
            Rule::Chars(_)
            | Rule::Bytes(_)
            | Rule::HttpsUrl
            | Rule::HttpsOrigin
            | Rule::NoPort
            | Rule::SnowflakeAccount
            | Rule::UpperCase
            | Rule::ServiceAccount
            | Rule::Scope
            | Rule::AudienceOrScope => Ok(()),
        }
    }

    /// Whether a target has the keys that go together; `has` says which are there.
    ///
    /// # Errors
    /// The rule as the end of a sentence that begins with the target.
    pub fn check_target(self, has: impl Fn(Key) -> bool) -> Result<(), String> {
        match self {
            Rule::AudienceOrScope if has(Key::Audience) == has(Key::Scope) => Err(
                "must have either `audience`, for the API itself, or `scope`, for the token endpoint".to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

fn is_snowflake(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
}

fn is_service_account(value: &str) -> bool {
    let parts = value.split_once('@');
    parts.is_some_and(|(name, domain)| {
        !name.is_empty() && domain.ends_with(".gserviceaccount.com") && !domain.contains('@')
    })
}

/// RFC 6749 §3.3: printable ASCII without quotation mark and backslash.
fn is_scope(scope: &str) -> bool {
    !scope.is_empty()
        && scope
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

fn is_https(value: &str) -> bool {
    let rest = value.strip_prefix("https://");
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', ' '])
    })
}

/// What stands between `https://` and the path.
fn authority(value: &str) -> &str {
    let rest = value.strip_prefix("https://").unwrap_or(value);
    rest.split('/').next().unwrap_or_default()
}

fn is_origin(value: &str) -> bool {
    is_https(value) && value.len() == "https://".len() + authority(value).len() + 1
}

fn has_port(value: &str) -> bool {
    let host = authority(value);
    host.rsplit_once(']')
        .map_or(host, |(_, rest)| rest)
        .contains(':')
}

/// Who is told that a client is any tenant's cannot know its certificates.
const NO_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];

fn of_one_tenant(value: &str) -> Result<(), String> {
    let path = value
        .strip_prefix("https://")
        .and_then(|rest| rest.split_once('/'))
        .map(|(_host, path)| path);
    let tenant = path.and_then(|path| path.strip_suffix("/oauth2/v2.0/token"));
    match tenant {
        Some(tenant) if NO_TENANTS.contains(&tenant) => Err(format!(
            "must name the application's own tenant; `{tenant}` is none"
        )),
        Some(tenant) if is_https(value) && !tenant.is_empty() && !tenant.contains('/') => Ok(()),
        _ => Err(
            "must be https://login.microsoftonline.com/TENANT/oauth2/v2.0/token, or that of \
                  another cloud's host"
                .to_owned(),
        ),
    }
}

fn of_trust_domain(value: &str, trust_domain: Option<&str>) -> Result<(), String> {
    let Some(trust_domain) = trust_domain else {
        let text = "must be a SPIFFE ID, and the issuer is of no trust domain; an administrator gives it a \
                    `trust_domain`";
        return Err(text.to_owned());
    };
    match spiffe::trust_domain_of(value) {
        Ok(found) if found == trust_domain => Ok(()),
        Ok(found) => Err(format!(
            "must be a SPIFFE ID of the issuer's trust domain `{trust_domain}`, and this is one of `{found}`"
        )),
        Err(why) => Err(format!(
            "must be a SPIFFE ID, as in spiffe://{trust_domain}/payments: {why}"
        )),
    }
}
