//! What of the main file `assertd-publish` reads: where documents are, and whose. The rest may be wrong, and
//! is none of its business.

use super::{file, is_there};
use keystore::config::{Diagnostic, read_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is published by a main file: where, and issuers' URLs by their names.
pub struct Published {
    /// The directory, if there is one.
    pub directory: Option<PathBuf>,
    /// Each issuer's URL.
    pub issuers: BTreeMap<String, String>,
}

/// Reads what is published, whatever else is wrong with the file.
///
/// # Errors
/// It cannot be read, or is no TOML.
pub fn published(path: &Path) -> Result<Published, Diagnostic> {
    is_there(path)?;
    let text = read_text(path)?;
    let parsed: file::PublishedAlone =
        toml::from_str(&text).map_err(|error| Diagnostic::from_toml(path, &text, &error))?;
    let url = |(name, issuer): (String, file::UrlAlone)| (name, issuer.url);
    Ok(Published {
        directory: parsed.publication.directory.map(|it| it.into_inner()),
        issuers: parsed.issuer.into_iter().map(url).collect(),
    })
}
