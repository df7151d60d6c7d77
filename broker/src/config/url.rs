//! URLs in the configuration: what is fetched, taken apart ([`Https`]), and one party by two spellings
//! ([`normal`]). Claims are compared letter by letter by whoever relies on them, and are never changed;
//! that is for finding what an administrator did not mean to be two.

use hyper::Uri;

/// Longest URL in bytes that is fetched; servers take 8,000 (RFC 9110 §4.1).
pub const URL_LEN_MAX: usize = 2048;

/// An https URL, taken apart for whoever is to fetch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Https {
    /// A name, or an address without brackets.
    pub host: String,
    /// 443 if it says none.
    pub port: u16,
    /// What the request's Host says: with the port only if the URL has one.
    pub authority: String,
    /// With the query, if there is one.
    pub path: String,
}

impl Https {
    /// Takes it apart.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Https, &'static str> {
        if !text.starts_with("https://") {
            return Err("must begin with https://");
        }
        if text.len() > URL_LEN_MAX {
            return Err("is longer than 2048 bytes");
        }
        // Uri takes more than RFC 3986 §2 has, and servers differ in what they make of it.
        let odd = |c: char| !c.is_ascii_graphic() || r#""<>\^`{|}"#.contains(c);
        if text.contains(odd) {
            return Err("has a character that no URL has; write it as % and two digits");
        }
        // Uri lets a fragment go without a word, and a user's name and password stay in the authority.
        if text.contains('#') {
            return Err("has a fragment, which is not sent");
        }
        let uri: Uri = text.parse().map_err(|_| "is no URL")?;
        let authority = uri.authority().ok_or("is no URL")?;
        if authority.as_str().contains('@') {
            return Err("names a user; assertd-courier logs in nowhere");
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 443,
            _ => authority
                .port_u16()
                .filter(|port| *port != 0)
                .ok_or("has no port that there is")?,
        };
        if host.is_empty() {
            return Err("is no URL");
        }
        Ok(Https {
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

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
    use super::{Https, normal};

    #[test]
    fn a_url_to_be_fetched_is_taken_apart() {
        for (url, host, port, authority, path) in [
            (
                "https://id.example/jwks.json",
                "id.example",
                443,
                "id.example",
                "/jwks.json",
            ),
            ("https://id.example", "id.example", 443, "id.example", "/"),
            (
                "https://id.example:8443/a?b=c",
                "id.example",
                8443,
                "id.example:8443",
                "/a?b=c",
            ),
            (
                "https://[2001:db8::1]:1/a",
                "2001:db8::1",
                1,
                "[2001:db8::1]:1",
                "/a",
            ),
            ("https://127.0.0.1/", "127.0.0.1", 443, "127.0.0.1", "/"),
        ] {
            let parsed = Https::parse(url).unwrap();
            assert_eq!(parsed.host, host, "{url}");
            assert_eq!(
                (parsed.port, &*parsed.authority, &*parsed.path),
                (port, authority, path)
            );
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        let long = format!("https://id.example/{}", "a".repeat(2048));
        for url in [
            "http://id.example/jwks.json",
            "HTTPS://id.example/",
            "id.example/jwks.json",
            "https://",
            "https:///jwks.json",
            "https://:443/",
            "https://id.example/a#b",
            "https://user@id.example/",
            "https://user:password@id.example/",
            "https://id.example:0/",
            "https://id.example:/",
            "https://id.example:65536/",
            "https://id.example:x/",
            "https://id.example/a b",
            "https://id.example/\"",
            "https://id.example/{a}",
            "https://id.exämple/",
            "https://id.example/\r\nHost: other",
            "https://[::1/",
            "file:///etc/passwd",
            "unix:/run/x",
            "",
            &long,
        ] {
            assert!(Https::parse(url).is_err(), "{url:?}");
        }
    }

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
