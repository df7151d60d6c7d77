//! Which path is which document. An issuer's are below the path of its URL, so that a reverse proxy
//! in front passes paths on as they are. Pure.

use crate::config::Published;
use crate::publication::documents::{BUNDLE, CLIENTS, DISCOVERY, ISSUERS, JWKS, WELL_KNOWN};
use keystore::keyid::check_part;
use std::collections::HashMap;

/// `application/json`, and what RFC 7517 §8.5.2 has for a set.
const JSON: &str = "application/json";
const JWK_SET: &str = "application/jwk-set+json";

/// Where a document lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Directories from the published one, each a plain name.
    pub directories: Vec<String>,
    /// The file's name there.
    pub name: &'static str,
    /// `Content-Type`
    pub content_type: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Routes {
    of_issuers: HashMap<String, (String, Route)>,
}

impl Routes {
    /// Of these issuers.
    ///
    /// # Errors
    /// A sentence: an issuer's URL has no path that could be served, or two have the same.
    pub fn of(published: &Published) -> Result<Routes, String> {
        let mut routes = Routes::default();
        for (name, url) in &published.issuers {
            check_part(name).map_err(|error| format!("[issuer.{name}]: {error}"))?;
            let path = path_of(url).ok_or_else(|| {
                format!(
                    "[issuer.{name}]: `{url}` is no https URL without query and fragment; see \
                     `assertctl config check`"
                )
            })?;
            let home = || vec![ISSUERS.to_owned(), name.clone()];
            let below = || [home(), vec![WELL_KNOWN.to_owned()]].concat();
            let discovery = format!("{WELL_KNOWN}/{DISCOVERY}");
            for (end, directories, file, content_type) in [
                (discovery.as_str(), below(), DISCOVERY, JSON),
                (JWKS, home(), JWKS, JWK_SET),
                (BUNDLE, home(), BUNDLE, JSON),
            ] {
                let route = Route {
                    directories,
                    name: file,
                    content_type,
                };
                routes.add(format!("{path}/{end}"), name, route)?;
            }
        }
        Ok(routes)
    }

    fn add(&mut self, path: String, issuer: &str, route: Route) -> Result<(), String> {
        if let Some((other, _)) = self.of_issuers.get(&path) {
            return Err(format!(
                "[issuer.{other}] and [issuer.{issuer}] both have {path}: one address shows one \
                 issuer. Give their URLs different paths, or ship their documents instead \
                 (docs/publication.md)"
            ));
        }
        self.of_issuers.insert(path, (issuer.to_owned(), route));
        Ok(())
    }

    /// The document at a path, as it stands in a request; there is no other spelling of one.
    pub fn find(&self, path: &str) -> Option<Route> {
        let of_issuer = self.of_issuers.get(path);
        of_issuer.map_or_else(|| of_client(path), |(_, route)| Some(route.clone()))
    }
}

/// `/client/WORKLOAD/TARGET/jwks.json`. Client keys have no URL in the configuration, and sections of
/// workloads are not read here.
fn of_client(path: &str) -> Option<Route> {
    let rest = path.strip_prefix('/')?.strip_prefix(CLIENTS)?;
    let rest = rest.strip_prefix('/')?.strip_suffix(JWKS)?;
    let (workload, target) = rest.strip_suffix('/')?.split_once('/')?;
    for part in [workload, target] {
        check_part(part).ok()?;
    }
    let directories = [CLIENTS, workload, target].map(str::to_owned).to_vec();
    Some(Route {
        directories,
        name: JWKS,
        content_type: JWK_SET,
    })
}

/// The path of an issuer's URL, without the `/` that may be at its end (OIDC Discovery §4.1).
fn path_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let host_len = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_len);
    let is_plain = !host.is_empty() && !url.contains(['?', '#', ' ']);
    is_plain.then(|| path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(issuers: &[(&str, &str)]) -> Result<Routes, String> {
        let owned = |(name, url): &(&str, &str)| ((*name).to_owned(), (*url).to_owned());
        Routes::of(&Published {
            directory: None,
            issuers: issuers.iter().map(owned).collect(),
        })
    }

    fn place(routes: &Routes, path: &str) -> Option<String> {
        let route = routes.find(path)?;
        Some(format!("{}/{}", route.directories.join("/"), route.name))
    }

    #[test]
    fn documents_are_below_the_path_of_the_issuers_url() {
        let routes = routes(&[
            ("prod", "https://id.example.com/a/b"),
            ("root", "https://id.example.com/"),
        ])
        .unwrap();
        let place = |path| place(&routes, path);
        for (path, file) in [
            (
                "/a/b/.well-known/openid-configuration",
                "issuer/prod/.well-known/openid-configuration",
            ),
            ("/a/b/jwks.json", "issuer/prod/jwks.json"),
            ("/a/b/bundle.json", "issuer/prod/bundle.json"),
            ("/jwks.json", "issuer/root/jwks.json"),
            (
                "/.well-known/openid-configuration",
                "issuer/root/.well-known/openid-configuration",
            ),
            (
                "/client/payments/bank/jwks.json",
                "client/payments/bank/jwks.json",
            ),
        ] {
            assert_eq!(place(path).as_deref(), Some(file));
        }
        let set = routes.find("/a/b/jwks.json").unwrap();
        assert_eq!(set.content_type, "application/jwk-set+json");
    }

    #[test]
    fn nothing_else_has_a_path() {
        let routes = routes(&[("prod", "https://id.example.com/a")]).unwrap();
        for path in [
            "",
            "/",
            "/a",
            "/a/",
            "/jwks.json",
            "/a//jwks.json",
            "/a/jwks.json/",
            "/A/jwks.json",
            "/a/jwks.upload.json",
            "/a/%6awks.json",
            "/a/../a/jwks.json",
            "/a/by-sha256/00.json",
            "/published",
            "/issuer/prod/jwks.json",
            "/client/jwks.json",
            "/client/a/jwks.json",
            "/client/a/b/c/jwks.json",
            "/client/../issuer/jwks.json",
            "/client/a/../jwks.json",
            "/client/a/./jwks.json",
            "/client/a/b/bundle.json",
            "/client//b/jwks.json",
            "client/a/b/jwks.json",
        ] {
            assert_eq!(place(&routes, path), None, "{path}");
        }
    }

    #[test]
    fn two_issuers_at_one_path_are_named() {
        let why = routes(&[("a", "https://a.example/x"), ("b", "https://b.example/x/")]);
        let why = why.unwrap_err();
        assert!(
            why.contains("[issuer.a]") && why.contains("[issuer.b]"),
            "{why}"
        );
        for url in ["http://a.example", "https://", "https://a.example/?x", "a"] {
            assert!(
                routes(&[("a", url)]).unwrap_err().contains("[issuer.a]"),
                "{url}"
            );
        }
    }
}
