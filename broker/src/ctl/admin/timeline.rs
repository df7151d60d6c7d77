//! The timeline of one key: how its versions came to be as they are, and what is to come. Pure.

use crate::ctl::out::rfc3339;
use assertd_client::api::KeyStatus;

/// A line for each thing that has happened and is known, and for each whose time is known; between them, a
/// line for what waits for something else than time.
pub fn rows(keys: &[KeyStatus]) -> Vec<Vec<String>> {
    let past = keys.iter().flat_map(|key| {
        let made = (key.made_at, "recorded".to_owned());
        let now = key.since.filter(|since| *since > key.made_at);
        let now = now.map(|since| (since, key.phase.clone()));
        [Some(made), now]
            .into_iter()
            .flatten()
            .map(move |it| (it, key))
    });
    let mut past: Vec<((u64, String), &KeyStatus)> = past.collect();
    past.sort_by_key(|((at, _), _)| *at);
    let coming = |key: &KeyStatus| Some((key.next_at, key.next.clone()?));
    let mut coming: Vec<((Option<u64>, String), &KeyStatus)> = keys
        .iter()
        .filter_map(|key| Some((coming(key)?, key)))
        .collect();
    coming.sort_by_key(|((at, _), _)| *at);
    let row = |sign: &str, at: Option<u64>, key: &KeyStatus, what: &str| {
        let version = key.key.rsplit_once('.').map_or("", |(_, version)| version);
        let at = at.map_or_else(|| "open".to_owned(), rfc3339);
        vec![sign.to_owned(), at, format!(".{version}"), what.to_owned()]
    };
    let past = past
        .iter()
        .map(|((at, what), key)| row("|", Some(*at), key, what));
    let coming = coming
        .iter()
        .map(|((at, what), key)| row(">", *at, key, what));
    past.chain(coming).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::fixtures::key;

    #[test]
    fn what_was_stands_before_what_comes_and_what_is_open_before_what_has_a_time() {
        let mut old = key("a/x.1", "retiring");
        (old.made_at, old.since) = (100, Some(3000));
        (old.next, old.next_at) = (Some("leaves the published set".into()), Some(5000));
        let mut new = key("a/x.2", "active");
        (new.made_at, new.since) = (2000, Some(3000));
        (new.next, new.next_at) = (Some("assertctl keys rotate a/x".into()), None);
        (old.phase, new.phase) = ("retiring".into(), "active".into());
        let lines: Vec<String> = rows(&[old, new]).iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "| 1970-01-01T00:01:40Z .1 recorded",
                "| 1970-01-01T00:33:20Z .2 recorded",
                "| 1970-01-01T00:50:00Z .1 retiring",
                "| 1970-01-01T00:50:00Z .2 active",
                "> open .2 assertctl keys rotate a/x",
                "> 1970-01-01T01:23:20Z .1 leaves the published set",
            ]
        );
    }
}
