//! Documents as they are found at a public URL, of the keys that the target expects and of others.

use super::Corpus;

const ACTIVE: &str = r#"{"alg":"ES256","crv":"P-256","kid":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U","kty":"EC","use":"sig","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const NEXT: &str = r#"{"alg":"ES256","crv":"P-256","kid":"cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s","kty":"EC","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
const OTHER: &str = r#"{"kty":"RSA","kid":"somebody's","e":"AQAB","n":"AQAB","x5c":["MIIB"]}"#;

/// Writes them.
pub fn write(corpus: &Corpus) {
    let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let no_alg = ACTIVE.replace(r#""alg":"ES256","#, "");
    for (name, document) in [
        ("old", set(&[ACTIVE])),
        ("both", set(&[ACTIVE, NEXT])),
        ("among-others", set(&[OTHER, NEXT, "{}", ACTIVE])),
        ("anothers", set(&[OTHER])),
        ("none", set(&[])),
        ("twice", set(&[NEXT, ACTIVE, NEXT])),
        (
            "wrong-key",
            set(&[&ACTIVE.replace("f83OJ3D2", "f83OJ3D3"), NEXT]),
        ),
        ("wrong-alg", set(&[&ACTIVE.replace("ES256", "none"), NEXT])),
        ("wrong-use", set(&[ACTIVE, &NEXT.replace("sig", "enc")])),
        ("no-alg", set(&[&no_alg])),
        (
            "key-ops",
            set(&[&ACTIVE.replace(r#""alg""#, r#""key_ops":["verify"],"alg""#)]),
        ),
        (
            "private",
            set(&[&ACTIVE.replace(r#""alg""#, r#""d":"AA","alg""#)]),
        ),
        (
            "name-twice",
            set(&[&ACTIVE.replace(r#""alg""#, r#""alg":"none","alg""#)]),
        ),
        (
            "escaped",
            set(&[&ACTIVE.replace(r#""kid""#, r#""k\u0069d""#)]),
        ),
        (
            "kinds",
            set(&[r#"{"kid":5,"x":[{}],"y":null,"n":1e9,"e":{"a":[true]},"alg":-1}"#]),
        ),
        (
            "spiffe",
            format!(r#"{{"spiffe_sequence":7,"spiffe_refresh_hint":300,"keys":[{ACTIVE}]}}"#),
        ),
        ("keys-twice", r#"{"keys":[],"keys":[]}"#.to_owned()),
        ("no-keys", r#"{"error":{"code":404}}"#.to_owned()),
        (
            "deep",
            format!(r#"{{"keys":[],"a":{}{}}}"#, "[".repeat(20), "]".repeat(20)),
        ),
        ("page", "<!DOCTYPE html><html></html>".to_owned()),
        ("short", format!(r#"{{"keys":[{}"#, &ACTIVE[..40])),
    ] {
        corpus.put("readback", name, document.as_bytes());
    }
}
