//! What SDKs expect on the standard output of a program that they run for a credential: Google's
//! executable-sourced credentials (AIP-4117) and Kubernetes' exec plugins
//! (client.authentication.k8s.io). Nothing else may be printed: google-auth reads both outputs as one.

use super::Question;
use crate::ctl::failure::{Exit, Failure};
use crate::ctl::out::{Out, rfc3339};
use assertd_client::api::AssertionResponse;
use serde::{Deserialize, Serialize};

/// RFC 8693 §3: what `id_token` holds.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// How kubectl and client-go say what they understand, as JSON.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

/// The versions that have `status.token` and `status.expirationTimestamp`. The first where nobody says.
const VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

#[derive(Serialize)]
#[serde(untagged)]
enum GoogleAnswer<'a> {
    Success {
        version: u32,
        success: bool,
        token_type: &'a str,
        id_token: &'a str,
        expiration_time: u64,
    },
    Failure {
        version: u32,
        success: bool,
        code: String,
        message: &'a str,
    },
}

/// Prints what google-auth and its kin read. A failure is an answer too, and ends with 0: what they are
/// told then is the sentence, and else an exit code alone.
pub fn google(answer: Result<AssertionResponse, Failure>, out: &mut Out) -> Result<Exit, Failure> {
    match &answer {
        Ok(answer) => out.json(&GoogleAnswer::Success {
            version: 1,
            success: true,
            token_type: JWT,
            id_token: &answer.assertion,
            expiration_time: answer.expires_at,
        })?,
        Err(failure) => out.json(&GoogleAnswer::Failure {
            version: 1,
            success: false,
            code: (failure.exit as u8).to_string(),
            message: &failure.message,
        })?,
    }
    Ok(Exit::Done)
}

#[derive(Deserialize)]
struct ExecInfo {
    #[serde(rename = "apiVersion")]
    api_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    api_version: &'a str,
    kind: &'a str,
    status: ExecStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus<'a> {
    token: &'a str,
    expiration_timestamp: String,
}

/// Prints an ExecCredential. Always with the time at which it ends: a client that is told none keeps it
/// for ever.
pub fn kubernetes(question: &Question, out: &mut Out) -> Result<Exit, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the contract of exec plugins; nothing but a version is taken from it"
    )]
    let info = std::env::var_os(EXEC_INFO);
    let info = info.map(|info| info.to_string_lossy().into_owned());
    let api_version = version(info.as_deref())?;
    let answer = question.ask()?;
    out.json(&ExecCredential {
        api_version,
        kind: "ExecCredential",
        status: ExecStatus {
            token: &answer.assertion,
            expiration_timestamp: rfc3339(answer.expires_at),
        },
    })?;
    Ok(Exit::Done)
}

/// The version that the client speaks: it refuses any other.
fn version(info: Option<&str>) -> Result<&'static str, Failure> {
    let Some(info) = info else {
        return Ok(VERSIONS[0]);
    };
    let wrong = |what: String| {
        let text = format!(
            "{EXEC_INFO}: {what}; it has to name {}",
            VERSIONS.join(" or ")
        );
        Failure::new(Exit::Refused, text)
    };
    let info: ExecInfo =
        serde_json::from_str(info).map_err(|error| wrong(format!("not understood ({error})")))?;
    let known = VERSIONS.into_iter().find(|it| *it == info.api_version);
    known.ok_or_else(|| wrong(format!("version `{}` is not known here", info.api_version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_the_client_speaks_is_answered_and_no_other() {
        let of = |version: &str| format!(r#"{{"kind":"ExecCredential","apiVersion":"{version}"}}"#);
        for known in VERSIONS {
            assert_eq!(version(Some(&of(known))).unwrap(), known);
        }
        assert_eq!(version(None).unwrap(), VERSIONS[0]);
        for wrong in [
            of("client.authentication.k8s.io/v2"),
            "{}".into(),
            "v1".into(),
        ] {
            let failure = version(Some(&wrong)).unwrap_err();
            assert!(
                failure.message.contains("io/v1beta1"),
                "{}",
                failure.message
            );
        }
    }
}
