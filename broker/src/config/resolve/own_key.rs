//! What a target says of its own key: where it comes from, how one version comes after another, and for how
//! long their certificates are valid.

use super::target::TargetPlace;
use super::*;
use crate::profile::Birth;
use keystore::CertificateUse;
use keystore::charter::KidMember;

impl TargetPlace<'_> {
    /// Where its key comes from.
    pub fn key_from(&self) -> Result<KeyFrom> {
        match (self.profile.row.birth, &self.section.key) {
            (Birth::Here, None) => Ok(KeyFrom::Make),
            (Birth::Here, Some(written)) => Ok(*written.as_ref()),
            (Birth::AtTheVendor, Some(written)) if *written.as_ref() == KeyFrom::Make => {
                let message = format!(
                    "profile `{}`: its vendor makes the key and takes no other: write key = \"import\", or \
                     leave it out",
                    self.profile.name
                );
                self.file.error(written.span(), message)
            }
            (Birth::AtTheVendor, _) => Ok(KeyFrom::Import),
        }
    }

    /// How a version of its key comes after another. One that nobody makes here does not come by time.
    pub fn next_version(&self, charter: &Charter) -> Result<NextVersion> {
        let next = match (self.profile.row.birth, &charter.kid) {
            (Birth::AtTheVendor, _) => NextVersion::AtTheVendor,
            (Birth::Here, KidMember::Assigned(_)) => NextVersion::Assigned,
            (Birth::Here, KidMember::Thumbprint | KidMember::Absent) => NextVersion::Made,
        };
        let rotation = self.section.rotation.as_ref();
        let period = rotation.and_then(|it| it.as_ref().period.as_ref());
        match (next.why_none_is_made(), period) {
            (Some(why), Some(period)) => {
                let message = format!("`rotation`: {why}; leave `period` out");
                self.file.error(period.span(), message)
            }
            _ => Ok(next),
        }
    }

    /// For how long its certificates are valid, if it has any.
    pub fn certificate_s(&self, schedule: &Schedule) -> Result<Option<u64>> {
        let written = self.section.certificate.as_ref();
        match self.profile.row.certificate {
            CertificateUse::None => {
                self.refuse("certificate", &self.section.certificate)?;
                Ok(None)
            }
            CertificateUse::Allowed | CertificateUse::Named => {
                let place = match (written, &self.section.rotation) {
                    (Some(written), _) => written.span(),
                    (None, Some(rotation)) => rotation.span(),
                    (None, None) => self.name.span(),
                };
                certificate::validity_s(self.file, written, schedule, place).map(Some)
            }
        }
    }
}
