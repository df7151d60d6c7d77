//! What is to be done once a key may have been misused, in the order that counts (standards §5.3): taking
//! it out of the published set alone leaves verifiers believing it for as long as they keep the set, and
//! what was given out for its assertions for as long as that lives.

use assertd_client::api::KeyStatus;

/// The steps, those that are done first.
pub fn lines(name: &str, before: &[KeyStatus], now: &[KeyStatus]) -> Vec<String> {
    let was = |key: &&KeyStatus| {
        before
            .iter()
            .any(|old| old.key == key.key && old.phase != key.phase)
    };
    let revoked = now.iter().find(|key| key.phase == "revoked" && was(key));
    let Some(revoked) = revoked.or_else(|| now.iter().find(|key| key.phase == "revoked")) else {
        return Vec::new();
    };
    let is_issuer = name.starts_with("issuer/");
    let other_side = match is_issuer {
        true => {
            "at each party that trusts the issuer: remove or disable the provider, the federated \
                 credential or the role that names it"
        }
        false => "at the authorization server: disable the client, or remove this key from it",
    };
    let kept = match is_issuer {
        true => {
            "a verifier that fetches the set believes it until it fetches again: up to the key's \
                 verifier_cache (a day unless `rotation` says less)"
        }
        false => "a server that fetches the set believes it until it fetches again",
    };
    vec![
        format!("1. done: {} (kid {}) signs nothing any more", revoked.key, revoked.kid),
        format!("2. now, {other_side}"),
        "3. then revoke what was given out for its assertions: sessions, grants and access tokens live \
         on by themselves, an access token often for an hour"
            .to_owned(),
        format!("4. the set is published without it: see that it is shipped; {kept}"),
        format!(
            "5. on a host that is trusted again: assertctl keys rotate {name}; the next version signs as \
             soon as it is published"
        ),
        format!("6. when nothing more is to be learnt from it: assertctl keys destroy {}", revoked.key),
    ]
}
