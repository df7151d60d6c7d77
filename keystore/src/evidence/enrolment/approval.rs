//! Which TPMs may be enrolled: a list of fingerprints of endorsement keys, as the inventory or the supplier
//! has it. One on a line, and behind it the host that it is to be, if that is known; `#` begins a comment.

use super::registry::EkFingerprint;
use crate::evidence::bundle::Host;
use std::collections::BTreeMap;

/// Longest list in bytes.
pub const LIST_LEN_MAX: usize = 64 * 1024 * 1024;

/// A list, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approved(BTreeMap<EkFingerprint, Option<Host>>);

/// Why a TPM is not approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unapproved {
    /// It is not on the list.
    Unknown,
    /// It is to be another host.
    As(Host),
}

impl Approved {
    /// Reads one.
    ///
    /// # Errors
    /// The line's number, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Approved, (usize, String)> {
        let mut approved = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let at = |wrong: String| (index + 1, wrong);
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(fingerprint) = words.next() else {
                continue;
            };
            let fingerprint = fingerprint.parse().map_err(at)?;
            let host = words.next().map(str::parse::<Host>);
            let host = host.transpose().map_err(at)?;
            if words.next().is_some() {
                return Err(at("write FINGERPRINT, or FINGERPRINT HOST".into()));
            }
            if approved.insert(fingerprint, host).is_some() {
                return Err(at(format!("{fingerprint} is there twice")));
            }
        }
        Ok(Approved(approved))
    }

    /// Whether this TPM may be this host.
    pub fn permits(&self, ek: &EkFingerprint, host: &Host) -> Result<(), Unapproved> {
        match self.0.get(ek) {
            None => Err(Unapproved::Unknown),
            Some(Some(other)) if other != host => Err(Unapproved::As(other.clone())),
            Some(_) => Ok(()),
        }
    }
}

impl std::fmt::Display for Unapproved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unapproved::Unknown => f.write_str(
                "its endorsement key is not on the list; if your inventory has this TPM, add the line (of its two keys \
                 assertd shows the P-256 one where that has a certificate, or else the RSA one)",
            ),
            Unapproved::As(host) => write!(f, "by the list, its endorsement key is that of {host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_is_approved_by_its_fingerprint_and_for_its_host() {
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let text = format!("# ours\n\n{one}\n  {two} web-1 # rack 4\n");
        let approved = Approved::parse(&text).unwrap();
        let permits = |byte, host: &str| {
            let host = host.parse().unwrap();
            approved.permits(&EkFingerprint([byte; 32]), &host)
        };
        assert_eq!(permits(1, "web-9"), Ok(()));
        assert_eq!(permits(2, "web-1"), Ok(()));
        assert_eq!(
            permits(2, "web-2"),
            Err(Unapproved::As("web-1".parse().unwrap()))
        );
        assert_eq!(permits(3, "web-1"), Err(Unapproved::Unknown));
    }

    #[test]
    fn a_strange_line_is_named() {
        let one = "01".repeat(32);
        for (text, line) in [
            (format!("{one}\n0102\n"), 2),
            (format!("{one} a b\n"), 1),
            (format!("{one}\n#\n{one} web-1"), 3),
            (one.to_uppercase().replace('1', "A"), 1),
        ] {
            assert_eq!(Approved::parse(&text).unwrap_err().0, line, "{text}");
        }
    }
}
