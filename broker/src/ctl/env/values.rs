//! What `--set` says, or what stands in its place. Each name belongs to a recipe; one that no recipe
//! here knows is a mistake. Values go into unit files, JSON and shells, each of which quotes them: no
//! control character is let in at all.

use super::sdk::Sdk;
use crate::config::Section;
use crate::ctl::failure::{Exit, Failure};
use crate::selector::Selector;
use keystore::config::suggest;
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest value, in bytes: what a path may have.
const VALUE_LEN_MAX: usize = 4096;

/// Something that may be set.
type Name = (&'static str, &'static str);

const UNIT: Name = ("unit", "the service's unit, such as payments.service");
const INSTANCE: Name = (
    "instance",
    "the template's instance, for what systemd does not complete",
);
const PROGRAM: Name = ("assertctl", "where assertctl is on the workload's host");
const OUTPUT: Name = (
    "output",
    "the file of the assertion, if it is not to be in RuntimeDirectory=",
);
const FILE: Name = ("file", "where the file below is put");

/// What is yet to be filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The name for `--set`.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What stands in its place.
    pub placeholder: String,
}

/// What there is, and what was wanted and is not.
pub struct Values {
    given: BTreeMap<String, String>,
    known: Vec<Name>,
    missing: Vec<Missing>,
}

/// The names that a recipe knows beside those of all.
fn names(sdk: Sdk) -> &'static [Name] {
    match sdk {
        Sdk::Aws => &[
            (
                "role_arn",
                "the role to assume, arn:aws:iam::ACCOUNT:role/NAME",
            ),
            (
                "session_name",
                "the name in CloudTrail; left out, the workload's",
            ),
            (
                "region",
                "AWS_REGION and AWS_DEFAULT_REGION, if the service does not set them",
            ),
            ("endpoint", "another STS endpoint, such as a VPC's"),
        ],
        Sdk::Google | Sdk::GoogleExecutable => &[
            (
                "provider",
                "projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER",
            ),
            (
                "service_account",
                "the service account to act as, if not the pool's principal itself",
            ),
            (
                "project",
                "GOOGLE_CLOUD_PROJECT: without it some libraries ask Google for it",
            ),
            ("token_url", "another STS endpoint, such as a private one"),
        ],
        Sdk::Azure => &[
            ("tenant_id", "the directory (tenant) id"),
            (
                "client_id",
                "the application's or managed identity's client id",
            ),
            (
                "authority_host",
                "another cloud's, such as https://login.microsoftonline.us",
            ),
        ],
        Sdk::Vault => &[
            (
                "address",
                "where Vault is, such as https://vault.example:8200",
            ),
            ("role", "the role of the jwt auth method"),
            ("mount", "where the method is mounted; left out, auth/jwt"),
        ],
        Sdk::Kubernetes => &[
            ("server", "the API server, such as https://k8s.example:6443"),
            (
                "ca_file",
                "the file of the API server's CA, if the host does not know it",
            ),
            ("namespace", "the namespace, if not `default`"),
        ],
        Sdk::Databricks => &[
            (
                "host",
                "the workspace, such as https://NAME.cloud.databricks.com",
            ),
            ("client_id", "the service principal's application id"),
        ],
        Sdk::OAuth2 => &[
            (
                "token_endpoint",
                "the authorization server's token endpoint",
            ),
            ("scope", "what is asked for there"),
        ],
        Sdk::File => &[],
    }
}

impl Values {
    /// What was set, held against what can be.
    pub fn new(
        section: &Section,
        sdk: Sdk,
        settings: &BTreeMap<String, String>,
    ) -> Result<Values, Failure> {
        let wrong = |text: String| Failure::new(Exit::Usage, text);
        let mut known = names(sdk).to_vec();
        known.push(PROGRAM);
        if sdk != Sdk::OAuth2 {
            known.extend([UNIT, INSTANCE]);
        }
        if sdk.reads_a_file() {
            known.push(OUTPUT);
        }
        if matches!(
            sdk,
            Sdk::Google | Sdk::GoogleExecutable | Sdk::Vault | Sdk::Kubernetes
        ) {
            known.push(FILE);
        }
        for (name, value) in settings {
            if !known.iter().any(|(known, _)| known == name) {
                let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
                let help = suggest(name, &names);
                return Err(wrong(format!(
                    "--set {name}: there is no such setting for {}; {help}",
                    sdk.name()
                )));
            }
            if value.is_empty()
                || value.len() > VALUE_LEN_MAX
                || value.chars().any(char::is_control)
            {
                return Err(wrong(format!(
                    "--set {name}: needs a value of one line, {VALUE_LEN_MAX} bytes at most"
                )));
            }
        }
        let mut values = Values {
            given: settings.clone(),
            known,
            missing: Vec::new(),
        };
        values.hold_to_form()?;
        if let (None, Some(unit)) = (values.given.get("unit"), only_unit(section)) {
            values.given.insert("unit".to_owned(), unit);
        }
        Ok(values)
    }

    /// Those of which a mistake would be found late, or would change what the line means.
    fn hold_to_form(&self) -> Result<(), Failure> {
        let wrong = |name: &str, must: &str| {
            let text = format!("--set {name}: must {must}");
            Err(Failure::new(Exit::Usage, text))
        };
        for name in ["assertctl", "output", "file"] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._@+=:,-".contains(c);
            let odd = |path: &String| !path.starts_with('/') || !path.chars().all(plain);
            if self.given.get(name).is_some_and(odd) {
                return wrong(
                    name,
                    "be an absolute path of letters, digits and / . _ @ + = : , -",
                );
            }
        }
        let is_unit = |unit: &String| {
            let letters = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
            unit.ends_with(".service") && unit.chars().all(letters)
        };
        if self.given.get("unit").is_some_and(|unit| !is_unit(unit)) {
            return wrong("unit", "be a service's name, such as payments.service");
        }
        for name in [
            "endpoint",
            "token_url",
            "authority_host",
            "address",
            "server",
            "host",
            "token_endpoint",
        ] {
            let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
            if self.given.get(name).is_some_and(|url| !is_url(url)) {
                return wrong(name, "be a URL that begins with https://");
            }
        }
        if self
            .given
            .get("role_arn")
            .is_some_and(|arn| !arn.starts_with("arn:"))
        {
            return wrong("role_arn", "be an ARN, arn:aws:iam::ACCOUNT:role/NAME");
        }
        let is_provider = |it: &String| it.starts_with("projects/") && it.contains("/providers/");
        if self
            .given
            .get("provider")
            .is_some_and(|it| !is_provider(it))
        {
            return wrong(
                "provider",
                "be projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER",
            );
        }
        Ok(())
    }

    /// What was set.
    pub fn may(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned()
    }

    /// What was set, or its placeholder.
    pub fn must(&mut self, name: &'static str) -> String {
        if let Some(value) = self.given.get(name) {
            return value.clone();
        }
        let about = self.known.iter().find(|(known, _)| *known == name);
        let (_, about) = about.expect("recipes ask for names of `names` alone");
        let placeholder = format!("<{name}>");
        if !self.missing.iter().any(|it| it.name == name) {
            self.missing.push(Missing {
                name,
                about,
                placeholder: placeholder.clone(),
            });
        }
        placeholder
    }

    /// What is yet to be filled in, in the order in which it was asked for.
    pub fn missing(self) -> Vec<Missing> {
        self.missing
    }
}

/// The unit, where the section names just one.
fn only_unit(section: &Section) -> Option<String> {
    section.matches.iter().find_map(|selector| match selector {
        Selector::Unit(pattern) => {
            let text = pattern.to_string();
            let name = text.rsplit('/').next()?;
            (name.ends_with(".service") && !text.contains('*')).then(|| name.to_owned())
        }
        _ => None,
    })
}
