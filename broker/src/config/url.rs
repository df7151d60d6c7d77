//! One party by two spellings of its URL. Claims are compared letter by letter by whoever relies on
//! them, and are never changed; this is for finding what an administrator did not mean to be two.

/// What spellings of one URL have in common: scheme and host in small letters, no port that is
/// the scheme's own, no `/` at the end (RFC 3986 §6.2.2.1, §6.2.3; OpenID Connect Discovery §4.1).
/// What is no URL is itself.
pub fn normal(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let own_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let host = host.strip_suffix(own_port).unwrap_or(&host);
    format!("{scheme}://{host}{}", path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn spellings_of_one_url_are_one() {
        for url in [
            "https://as.example/a",
            "HTTPS://AS.example/a",
            "https://as.example:443/a/",
            "https://as.example/a//",
        ] {
            assert_eq!(normal(url), "https://as.example/a", "{url}");
        }
        assert_eq!(normal("http://as.example:80"), "http://as.example");
        assert_eq!(normal("https://as.example/"), "https://as.example");
    }

    #[test]
    fn urls_of_others_stay_apart_and_what_is_none_stays_as_it_is() {
        let all = [
            "https://as.example",
            "https://as.example/a",
            "https://as.example/A",
            "https://as.example:8443",
            "https://as.example:80",
            "http://as.example",
            "https://as.example.net",
            "https://a/s.example",
            "urn:as.example",
            "as",
            "",
        ];
        let normal: std::collections::BTreeSet<String> = all.iter().map(|it| normal(it)).collect();
        assert_eq!(normal.len(), all.len());
        assert!(normal.contains("urn:as.example") && normal.contains("as"));
    }
}
