//! Which calls of a function a rule means, and whether the file of rules is another one by now.
//! The TPM proxy of the harness has rules of the same kind and uses both.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which calls, counted from 1 since the rules were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `*`
    Every,
    /// `3`
    Exactly(u64),
    /// `3+`
    From(u64),
    /// `3!`: the third of all processes together, since the file of rules was replaced. A process
    /// that is started anew does not count from the beginning, so this fires once.
    Overall(u64),
}

impl Which {
    /// The second word of a rule. There is no call 0.
    pub fn parse(word: &str) -> Option<Which> {
        let number = |digits: &str| digits.parse().ok().filter(|n| *n > 0);
        match (word, word.strip_suffix('+'), word.strip_suffix('!')) {
            ("*", ..) => Some(Which::Every),
            (_, Some(digits), _) => number(digits).map(Which::From),
            (_, _, Some(digits)) => number(digits).map(Which::Overall),
            _ => number(word).map(Which::Exactly),
        }
    }

    /// Whether the `own`th call of this process, the `overall`th of all, is meant.
    pub fn means(self, own: u64, overall: u64) -> bool {
        match self {
            Which::Every => true,
            Which::Exactly(n) => own == n,
            Which::From(n) => own >= n,
            Which::Overall(n) => overall == n,
        }
    }
}

/// The identity of a file's content, near enough: a file that is renamed to its place has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    len: u64,
    changed_s: i64,
    changed_ns: i64,
}

impl Stamp {
    /// Of what is there now; `None` if nothing is.
    pub fn of(path: &Path) -> Option<Stamp> {
        let metadata = path.metadata().ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            len: metadata.len(),
            changed_s: metadata.mtime(),
            changed_ns: metadata.mtime_nsec(),
        })
    }

    /// As one number, the same in every process, and never 0.
    pub fn digest(self) -> u64 {
        let words = [
            self.inode,
            self.len,
            self.changed_s.cast_unsigned(),
            self.changed_ns.cast_unsigned(),
        ];
        // FNV-1a, by words.
        let fold = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        words.into_iter().fold(0xcbf2_9ce4_8422_2325, fold) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_the_calls_it_says() {
        let means = |word: &str, own, overall| Which::parse(word).unwrap().means(own, overall);
        assert!(means("*", 1, 1) && means("*", 9, 9));
        assert!(means("3", 3, 7) && !means("3", 4, 7) && !means("3", 2, 3));
        assert!(means("3+", 3, 3) && means("3+", 9, 9) && !means("3+", 2, 9));
        assert!(means("3!", 1, 3) && !means("3!", 3, 4) && !means("3!", 3, 2));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for word in ["", "0", "0+", "0!", "3-", "+", "!", "3+!", "x", "**", "-1"] {
            assert_eq!(Which::parse(word), None, "{word}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_has_another_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (path, next) = (dir.path().join("rules"), dir.path().join("rules.new"));
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, "same").unwrap();
        let before = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path), Some(before));
        std::fs::write(&next, "same").unwrap();
        std::fs::rename(&next, &path).unwrap();
        let after = Stamp::of(&path).unwrap();
        assert_ne!(after, before);
        assert_ne!(after.digest(), before.digest());
    }
}
