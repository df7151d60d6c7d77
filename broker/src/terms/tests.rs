//! What a configuration grants, member by member, and that each change of it can be seen.

use super::*;
use std::io::Write;

const CONFIG: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }

[issuer.prod]
url = "https://id.example.com/prod"
subjects = ["reports"]
keystore = "hsm"
alg = "ES256"

[deny]
users = "/etc/assertd/denied-users"
units = "/etc/assertd/denied-units"

[workload.reports]
owner = "reports@example.com"
expires = 2030-06-30
match = { uid = 7, unit = "reports.service" }
unless = [{ uid = 8 }, { gid = 9 }]
shadow = { slice = "reports.slice" }
allow_pid_fallback = true
rate = 5
burst = 6
weight = 3

[workload.reports.target.bank]
profile = "rfc7523"
authorization_server = "https://as.example"
client_id = "reports"
keystore = "hsm"
rate = 1
burst = 2
evidence = "asserted"

[workload.reports.target.aws]
profile = "aws-oidc"
issuer = "prod"
subject = "reports"
audience = "sts.amazonaws.com"
reuse = false

[workload.plain]
match = { uid = 11 }

[workload.plain.target.drive]
profile = "google-sa-jwt"
service_account = "p@acme.iam.gserviceaccount.com"
scope = "read"
keystore = "hsm"
"#;

fn of(text: &str) -> Grants {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    grants(&Config::load(file.path()).unwrap_or_else(|error| panic!("{error}")))
}

/// One line for each term, below the workload and target.
fn lines(grants: &Grants) -> Vec<String> {
    let line = |term: &Term| format!("{}: {}", term.member, term.value);
    let mut lines: Vec<String> = grants.deny.iter().map(line).collect();
    for terms in &grants.grants {
        lines.push(format!("{} {}", terms.workload, terms.target));
        lines.extend(terms.terms.iter().map(line));
    }
    lines
}

#[test]
fn everything_that_a_configuration_grants_is_said_in_the_order_of_names() {
    let of_reports = [
        "match: unit = \"reports.service\", uid = 7, container = false",
        "unless: uid = 8",
        "unless: gid = 9",
        "shadow: slice = \"reports.slice\"",
        "expires: 2030-06-30T00:00:00Z",
        "weight: 3",
        "allow_pid_fallback: true",
        "rate: 5 in a second, 6 at once",
    ];
    let mut wanted = vec![
        "units: /etc/assertd/denied-units",
        "users: /etc/assertd/denied-users",
        "plain drive",
        "match: uid = 11, container = false",
        "rate: 100 in a second, 200 at once",
        "profile: google-sa-jwt",
        "iss: p@acme.iam.gserviceaccount.com",
        "aud: https://oauth2.googleapis.com/token",
        "scope: read",
        "lifetime: 600 s",
        "key: plain/drive",
        "keystore: hsm",
        "alg: RS256",
        "reports aws",
    ];
    wanted.extend(of_reports);
    wanted.extend([
        "profile: aws-oidc",
        "iss: https://id.example.com/prod",
        "sub: reports",
        "aud: sts.amazonaws.com",
        "lifetime: 600 s",
        "key: issuer/prod",
        "keystore: hsm",
        "alg: ES256",
        "reuse: never",
        "reports bank",
    ]);
    wanted.extend(of_reports);
    wanted.extend([
        "profile: rfc7523",
        "iss: reports",
        "sub: reports",
        "aud: https://as.example",
        "lifetime: 60 s",
        "key: reports/bank",
        "keystore: hsm",
        "alg: ES256",
        "rate for the target: 1 in a second, 2 at once",
        "evidence: asserted",
    ]);
    assert_eq!(lines(&of(CONFIG)), wanted);
}

#[test]
fn what_changes_nobodys_rights_is_not_said() {
    let same = CONFIG
        .replace("owner = \"reports@example.com\"\n", "")
        .replace("reuse = false\n", "reuse = false\nshared = true\n");
    assert_eq!(of(&same), of(CONFIG));
    let again = lines(&of(&CONFIG.replace("reuse = false\n", "")));
    assert!(!again.iter().any(|line| line.starts_with("reuse")));
    assert_eq!(again.len() + 1, lines(&of(CONFIG)).len());
}
