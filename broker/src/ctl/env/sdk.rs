//! Which SDKs there are recipes for, and which of them a profile is for.

use crate::ctl::failure::{Exit, Failure};
use crate::profile::Profile;
use keystore::charter::PurposeKind;

/// Who uses the assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// The AWS SDKs and command line.
    Aws,
    /// Google's client libraries, by a file.
    Google,
    /// The same, which run assertctl themselves.
    GoogleExecutable,
    /// The Azure SDKs.
    Azure,
    /// Vault's or OpenBao's agent.
    Vault,
    /// kubectl and client-go.
    Kubernetes,
    /// The Databricks SDKs and command line.
    Databricks,
    /// Whoever sends a `client_assertion`.
    OAuth2,
    /// Whoever reads a file.
    File,
}

impl Sdk {
    /// All of them.
    pub const ALL: [Sdk; 9] = [
        Sdk::Aws,
        Sdk::Google,
        Sdk::GoogleExecutable,
        Sdk::Azure,
        Sdk::Vault,
        Sdk::Kubernetes,
        Sdk::Databricks,
        Sdk::OAuth2,
        Sdk::File,
    ];

    /// As it is written after `--for`.
    pub fn name(self) -> &'static str {
        match self {
            Sdk::Aws => "aws",
            Sdk::Google => "google",
            Sdk::GoogleExecutable => "google-executable",
            Sdk::Azure => "azure",
            Sdk::Vault => "vault",
            Sdk::Kubernetes => "kubernetes",
            Sdk::Databricks => "databricks",
            Sdk::OAuth2 => "oauth2",
            Sdk::File => "file",
        }
    }

    /// In words.
    pub fn party(self) -> &'static str {
        match self {
            Sdk::Aws => "the AWS SDKs and command line",
            Sdk::Google => "Google's client libraries, by a file",
            Sdk::GoogleExecutable => "Google's client libraries, which run assertctl",
            Sdk::Azure => "the Azure SDKs",
            Sdk::Vault => "the agent of Vault or OpenBao",
            Sdk::Kubernetes => "kubectl and client-go",
            Sdk::Databricks => "the Databricks SDKs and command line",
            Sdk::OAuth2 => "a client of an OAuth 2.0 authorization server",
            Sdk::File => "whatever reads a file",
        }
    }

    /// Whether it reads the assertion from a file.
    pub fn reads_a_file(self) -> bool {
        match self {
            Sdk::Aws | Sdk::Google | Sdk::Azure | Sdk::Vault | Sdk::Databricks | Sdk::File => true,
            Sdk::GoogleExecutable | Sdk::Kubernetes | Sdk::OAuth2 => false,
        }
    }

    /// The one that was asked for, if the profile is for it; else the one that the profile is for.
    pub fn of(profile: &Profile, asked: Option<Sdk>) -> Result<Sdk, Failure> {
        let fits = fitting(profile);
        match (asked, fits) {
            (None, [first, ..]) => Ok(*first),
            (Some(sdk), fits) if fits.contains(&sdk) => Ok(sdk),
            (_, []) => {
                let text = format!(
                    "there is no recipe for profile `{0}` yet: `assertctl profiles {0}` says what the \
                     other side wants, and `assertctl assertion --target` prints the assertion",
                    profile.name
                );
                Err(Failure::new(Exit::Refused, text))
            }
            (Some(sdk), fits) => {
                let names: Vec<&str> = fits.iter().map(|it| it.name()).collect();
                let text = format!(
                    "profile `{}` is not for {}: --for takes {} here",
                    profile.name,
                    sdk.name(),
                    names.join(" or ")
                );
                Err(Failure::new(Exit::Refused, text))
            }
        }
    }
}

/// The first is the one that is meant where nobody says.
fn fitting(profile: &Profile) -> &'static [Sdk] {
    match profile.row.name {
        "aws-oidc" => &[Sdk::Aws, Sdk::File],
        "gcp-wif" => &[Sdk::Google, Sdk::GoogleExecutable, Sdk::File],
        "entra-fic" => &[Sdk::Azure, Sdk::File],
        "vault-jwt" => &[Sdk::Vault, Sdk::File],
        "k8s-structured-auth" => &[Sdk::Kubernetes, Sdk::File],
        "databricks-fed" => &[Sdk::Databricks, Sdk::File],
        "rfc7523" | "fapi2" | "keycloak" | "okta" | "auth0" | "entra-cert" => &[Sdk::OAuth2],
        // An assertion of a client is used once: never from a file.
        _ if profile.row.purpose == PurposeKind::Federation => &[Sdk::File],
        _ => &[],
    }
}
