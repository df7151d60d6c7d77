//! What binds a key to a state of the host: which state it was made in, and who may approve others. It
//! stands beside the key in its file, because the TPM has a digest of it alone, and because a refusal is to
//! say which PCR is another one than it was. Pure. Nothing is believed of it that does not lead to the digest
//! in the key's public area.

use keystore::evidence::bundle::{Bytes, PUBLIC_LEN_MAX, PolicyStep};
use keystore::evidence::context::Sha256;
use keystore::evidence::healthy::{Authority, Generation, State, digest_of, steps};
use serde::{Deserialize, Serialize};

/// Longest line of it: 24 values and a public area have some 2 KiB.
pub const LINE_LEN_MAX: usize = 4 * 1024;

/// One key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// What the host was like when the key was made.
    pub state: State,
    /// Who may approve other states; none: nobody may.
    pub authority: Option<(Authority, Generation)>,
}

/// As it lies in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<StoredAuthority>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAuthority {
    /// TPMT_PUBLIC
    public: Bytes<PUBLIC_LEN_MAX>,
    generation: Generation,
}

impl Bond {
    /// What a session has to go through.
    pub fn steps(&self) -> Vec<PolicyStep> {
        let authority = self.authority.as_ref();
        steps(
            &self.state,
            authority.map(|(it, generation)| (it, *generation)),
        )
    }

    /// authPolicy of the key.
    pub fn digest(&self) -> Sha256 {
        digest_of(&self.steps())
    }

    /// As a line of text.
    pub fn line(&self) -> String {
        let authority = self.authority.as_ref();
        let stored = Stored {
            state: self.state.clone(),
            authority: authority.map(|(authority, generation)| StoredAuthority {
                public: authority.area().clone(),
                generation: *generation,
            }),
        };
        serde_json::to_string(&stored).expect("its map has texts as keys, and it has no float")
    }

    /// From that.
    ///
    /// # Errors
    /// The end of a sentence.
    pub fn parse(line: &str) -> Result<Bond, &'static str> {
        let wrong = "says in no known way what state of the host it is for";
        let stored: Stored = serde_json::from_str(line).map_err(|_| wrong)?;
        let authority = stored.authority.map(|it| {
            let authority = Authority::from_area(it.public.as_slice()).map_err(|_| wrong)?;
            Ok::<_, &'static str>((authority, it.generation))
        });
        Ok(Bond {
            state: stored.state,
            authority: authority.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::PublicKey;
    use keystore::evidence::bundle::{PcrIndex, PcrValue};

    fn bond(authority: Option<(Authority, Generation)>) -> Bond {
        let pcr = |n| PcrIndex::new(n).unwrap();
        let values = [
            (pcr(7), PcrValue::new(&[7; 32])),
            (pcr(14), PcrValue::new(&[14; 32])),
        ];
        Bond {
            state: State::new(values.into()).unwrap(),
            authority,
        }
    }

    /// The base point of P-256.
    fn authority() -> Authority {
        let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = keystore::evidence::bundle::hex(point).unwrap();
        Authority::new(PublicKey::from_sec1(&point).unwrap()).unwrap()
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for bond in [bond(None), bond(Some((authority(), Generation(3))))] {
            let line = bond.line();
            assert!(line.len() < LINE_LEN_MAX && !line.contains('\n'), "{line}");
            assert_eq!(Bond::parse(&line), Ok(bond));
            for end in 0..line.len() {
                assert!(Bond::parse(&line[..end]).is_err(), "{end}");
            }
        }
    }

    #[test]
    fn what_is_in_it_makes_the_policy() {
        let plain = bond(None).digest();
        let one = bond(Some((authority(), Generation(1))));
        assert_ne!(plain, one.digest());
        assert_ne!(
            one.digest(),
            bond(Some((authority(), Generation(2)))).digest()
        );
        // Which state it was made in is for people, where somebody may approve others.
        let other = Bond {
            state: State::new([(PcrIndex::new(0).unwrap(), PcrValue::new(&[1; 32]))].into())
                .unwrap(),
            ..one.clone()
        };
        assert_eq!(one.digest(), other.digest());
        assert!(Bond::parse(r#"{"state":{"16":"00"}}"#).is_err());
    }
}
