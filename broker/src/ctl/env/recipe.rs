//! One recipe for each SDK: the variables it reads, the file it wants, the drop-in that puts them in
//! place. Their contracts are the vendors'; each says where it stands. What was run with the real SDKs
//! is in tests/e2e/sdk.rs.

use super::sdk::Sdk;
use super::unit::{Output, Unit, command_word, drop_in, shell};
use super::values::Values;
use crate::config::Target;
use crate::ctl::failure::{Exit, Failure};
use crate::profile::{Key, Origin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Google's libraries stop a program that takes longer, in milliseconds: 5,000 to 120,000 may be said,
/// and a request to assertd takes 5 s at most.
const EXECUTABLE_TIMEOUT_MS: u32 = 30_000;

/// What is printed.
#[derive(Default)]
pub struct Recipe {
    /// By name.
    pub variables: BTreeMap<&'static str, String>,
    /// What the SDK reads beside them.
    pub file: Option<Text>,
    /// The drop-in.
    pub unit: Option<Text>,
}

/// A text and where it belongs.
pub struct Text {
    /// Where.
    pub path: String,
    /// What.
    pub text: String,
}

/// What the configuration says.
pub struct Place<'a> {
    /// Of whom.
    pub target: &'a Target,
    /// Where assertd listens.
    pub socket: PathBuf,
}

/// The recipe of an SDK for a target.
pub fn of(sdk: Sdk, place: &Place, values: &mut Values) -> Result<Recipe, Failure> {
    let command = Command::of(place, values)?;
    match sdk {
        Sdk::OAuth2 => Ok(oauth2(place, &command, values)),
        Sdk::Kubernetes => Ok(kubernetes(place, &command, values)),
        Sdk::GoogleExecutable => Ok(google_executable(place, &command, values)),
        Sdk::Aws | Sdk::Google | Sdk::Azure | Sdk::Vault | Sdk::Databricks | Sdk::File => {
            let unit = Unit::of(values);
            let output = unit.output(&place.target.name, values);
            let mut recipe = match sdk {
                Sdk::Aws => aws(place, &output, values),
                Sdk::Google => google_file(place, &unit, &output, values),
                Sdk::Azure => azure(&output, values),
                Sdk::Vault => vault(place, &unit, &output, values),
                Sdk::Databricks => databricks(&output, values),
                _ => Recipe::default(),
            };
            recipe.unit = Some(text(
                place,
                &unit,
                &command,
                &recipe.variables,
                Some(&output),
            ));
            Ok(recipe)
        }
    }
}

/// AWS SDKs and Tools Reference, "Assume role with web identity".
fn aws(place: &Place, output: &Output, values: &mut Values) -> Recipe {
    let mut recipe = Recipe::default();
    let session = values.may("session_name");
    let session = session.unwrap_or_else(|| place.target.workload.to_string());
    recipe.set("AWS_ROLE_ARN", values.must("role_arn"));
    recipe.set("AWS_ROLE_SESSION_NAME", session);
    recipe.set("AWS_WEB_IDENTITY_TOKEN_FILE", output.path.clone());
    // No key of the machine instead of this one, should this one fail (eks-pod-identity-agent#153).
    recipe.set("AWS_EC2_METADATA_DISABLED", "true".to_owned());
    if let Some(region) = values.may("region") {
        recipe.set("AWS_REGION", region.clone());
        recipe.set("AWS_DEFAULT_REGION", region); // botocore reads this one alone
    }
    recipe.set_if("AWS_ENDPOINT_URL_STS", values.may("endpoint"));
    recipe
}

/// azure-identity's WorkloadIdentityCredential, and DefaultAzureCredential, in all languages.
fn azure(output: &Output, values: &mut Values) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.set("AZURE_TENANT_ID", values.must("tenant_id"));
    recipe.set("AZURE_CLIENT_ID", values.must("client_id"));
    recipe.set("AZURE_FEDERATED_TOKEN_FILE", output.path.clone());
    recipe.set_if("AZURE_AUTHORITY_HOST", values.may("authority_host"));
    recipe
}

/// Databricks, "Authenticate with an identity provider token": auth type file-oidc.
fn databricks(output: &Output, values: &mut Values) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.set("DATABRICKS_HOST", values.must("host"));
    recipe.set("DATABRICKS_CLIENT_ID", values.must("client_id"));
    recipe.set("DATABRICKS_AUTH_TYPE", "file-oidc".to_owned());
    // The second name is that of older releases of the Python SDK.
    recipe.set("DATABRICKS_OIDC_TOKEN_FILEPATH", output.path.clone());
    recipe.set("DATABRICKS_OIDC_TOKEN_FILE", output.path.clone());
    recipe
}

/// The agent's auto-auth method `jwt`, which by default removes what it has read.
fn vault(place: &Place, unit: &Unit, output: &Output, values: &mut Values) -> Recipe {
    let mut recipe = Recipe::default();
    let address = values.must("address");
    let mount = values.may("mount").unwrap_or_else(|| "auth/jwt".to_owned());
    let role = values.must("role");
    let hcl = format!(
        "vault {{\n  address = {}\n}}\n\nauto_auth {{\n  method \"jwt\" {{\n    mount_path = {}\n    \
         config = {{\n      path = {}\n      role = {}\n      remove_jwt_after_reading = false\n    }}\n  \
         }}\n}}\n",
        quoted(&address),
        quoted(&mount),
        quoted(&output.path),
        quoted(&role),
    );
    recipe.set("VAULT_ADDR", address);
    recipe.file = Some(Text {
        path: file_path(place, unit, values, "hcl"),
        text: hcl,
    });
    recipe
}

/// Google, "Workload identity federation": AIP-4117, credential_source by file.
fn google_file(place: &Place, unit: &Unit, output: &Output, values: &mut Values) -> Recipe {
    let source = json!({ "file": output.path, "format": { "type": "text" } });
    let path = file_path(place, unit, values, "json");
    google(place, path, source, values)
}

/// The same by executable: no file with a credential, and nothing to be kept fresh.
fn google_executable(place: &Place, command: &Command, values: &mut Values) -> Recipe {
    let unit = Unit::of(values);
    let words = [
        &command.words[..],
        &["--as".to_owned(), "google".to_owned()],
    ]
    .concat();
    let source = json!({
        "executable": { "command": words.join(" "), "timeout_millis": EXECUTABLE_TIMEOUT_MS },
    });
    let path = file_path(place, &unit, values, "json");
    let mut recipe = google(place, path, source, values);
    recipe.set("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1".to_owned());
    recipe.unit = Some(text(place, &unit, command, &recipe.variables, None));
    recipe
}

fn google(place: &Place, path: String, source: Value, values: &mut Values) -> Recipe {
    let token_url = values.may("token_url");
    let mut account = json!({
        "type": "external_account",
        "audience": format!("//iam.googleapis.com/{}", provider(place, values)),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": token_url.as_deref().unwrap_or("https://sts.googleapis.com/v1/token"),
        "credential_source": source,
    });
    if let Some(email) = values.may("service_account") {
        account["service_account_impersonation_url"] = json!(format!(
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
        ));
    }
    let mut recipe = Recipe::default();
    recipe.set("GOOGLE_APPLICATION_CREDENTIALS", path.clone());
    recipe.set_if("GOOGLE_CLOUD_PROJECT", values.may("project"));
    recipe.file = Some(Text {
        path,
        text: format!("{account:#}\n"),
    });
    recipe
}

/// The pool's provider: the audience names it, unless the provider allows another one.
fn provider(place: &Place, values: &mut Values) -> String {
    let aud = place.target.aud.as_deref().unwrap_or_default();
    let rest = aud.strip_prefix("https:").unwrap_or(aud);
    match (
        values.may("provider"),
        rest.strip_prefix("//iam.googleapis.com/"),
    ) {
        (None, Some(provider)) => provider.to_owned(),
        _ => values.must("provider"),
    }
}

/// client-go's exec plugins, "client.authentication.k8s.io". YAML takes JSON's strings.
fn kubernetes(place: &Place, command: &Command, values: &mut Values) -> Recipe {
    let unit = Unit::of(values);
    let target = place.target;
    let name = quoted(&format!("{}-{}", target.workload, target.name));
    let server = quoted(&values.must("server"));
    let mut yaml = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n"
    );
    if let Some(file) = values.may("ca_file") {
        yaml += &format!("    certificate-authority: {}\n", quoted(&file));
    }
    yaml += &format!(
        "users:\n- name: {name}\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      \
         command: {}\n      args:\n",
        quoted(&command.words[0])
    );
    for word in &command.words[1..] {
        yaml += &format!("      - {}\n", quoted(word));
    }
    yaml += &format!(
        "      - \"--as\"\n      - \"kubernetes\"\n      interactiveMode: Never\n      \
         provideClusterInfo: false\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    \
         user: {name}\n"
    );
    if let Some(namespace) = values.may("namespace") {
        yaml += &format!("    namespace: {}\n", quoted(&namespace));
    }
    yaml += &format!("current-context: {name}\n");
    let path = file_path(place, &unit, values, "kubeconfig");
    let mut recipe = Recipe::default();
    recipe.set("KUBECONFIG", path.clone());
    recipe.file = Some(Text { path, text: yaml });
    recipe.unit = Some(text(place, &unit, command, &recipe.variables, None));
    recipe
}

/// RFC 7523 §2.2. One assertion for each request: servers take it once.
fn oauth2(place: &Place, command: &Command, values: &mut Values) -> Recipe {
    let target = place.target;
    let endpoint = match target.profile.row.aud {
        Origin::Key(Key::TokenEndpoint) if values.may("token_endpoint").is_none() => {
            target.aud.clone()
        }
        _ => None,
    };
    let endpoint = endpoint.unwrap_or_else(|| values.must("token_endpoint"));
    let assertion: Vec<String> = command.words.iter().map(|it| shell(it)).collect();
    let mut fields = vec![
        ("grant_type", "client_credentials".to_owned()),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned(),
        ),
        ("client_id", target.sub.clone().unwrap_or_default()),
    ];
    fields.extend(values.may("scope").map(|scope| ("scope", scope)));
    let fields: String = fields
        .into_iter()
        .map(|(name, value)| {
            format!(
                "    --data-urlencode {} \\\n",
                shell(&format!("{name}={value}"))
            )
        })
        .collect();
    Recipe {
        file: Some(Text {
            path: "request.sh".to_owned(),
            text: format!(
                "#!/bin/sh\n# The assertion goes by a pipe: what stands in a program's arguments can be read by \
                 others.\nassertion=$({}) || exit\nprintf 'client_assertion=%s' \"$assertion\" |\n  \
                 curl -sS --fail-with-body --data @- \\\n{fields}    {}\n",
                assertion.join(" "),
                shell(&endpoint)
            ),
        }),
        ..Recipe::default()
    }
}

/// How assertctl is run for a target.
struct Command {
    words: Vec<String>,
}

impl Command {
    fn of(place: &Place, values: &Values) -> Result<Command, Failure> {
        let program = match values.may("assertctl") {
            Some(program) => program,
            None => this_program()?,
        };
        let mut words = vec![program];
        if place.socket.as_os_str() != assertd_client::SOCKET {
            words.extend(["-s".to_owned(), place.socket.display().to_string()]);
        }
        words.extend(["assertion", "--target", &place.target.name].map(str::to_owned));
        if words.iter().any(|word| word.contains(char::is_whitespace)) {
            let text = "the path of assertctl or of assertd's socket has a space in it, which no SDK can be \
                        told: --set assertctl=… names another";
            return Err(Failure::new(Exit::Refused, text));
        }
        Ok(Command { words })
    }

    fn in_unit(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|it| command_word(it)).collect();
        words.join(" ")
    }
}

/// The workload's host has it where this one has, most likely.
fn this_program() -> Result<String, Failure> {
    let path = std::env::current_exe().map_err(|error| {
        let text = format!("where assertctl is cannot be told ({error}): say --set assertctl=…");
        Failure::new(Exit::Internal, text)
    })?;
    Ok(path.display().to_string())
}

fn file_path(place: &Place, unit: &Unit, values: &Values, extension: &str) -> String {
    let beside = || unit.beside(&format!("assertd-{}.{extension}", place.target.name));
    values.may("file").unwrap_or_else(beside)
}

fn text(
    place: &Place,
    unit: &Unit,
    command: &Command,
    variables: &BTreeMap<&'static str, String>,
    output: Option<&Output>,
) -> Text {
    let target = place.target;
    let path = unit.beside(&format!("assertd-{}.conf", target.name));
    let made_by = format!("assertctl env {}/{}", target.workload, target.name);
    let text = drop_in(&path, &made_by, &command.in_unit(), variables, output);
    Text { path, text }
}

impl Recipe {
    fn set(&mut self, name: &'static str, value: String) {
        self.variables.insert(name, value);
    }

    fn set_if(&mut self, name: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }
}

/// As JSON, YAML and HCL quote.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
