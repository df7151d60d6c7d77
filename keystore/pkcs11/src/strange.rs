//! Labels of strange objects as status shows them. Whoever can write to the token chooses them, in
//! number, length and content, and the reply they are part of has to fit a frame all the same: they
//! are bounded as they are shown, after their control characters were escaped.

use keystore::shown::printable;
use std::collections::BTreeSet;

/// Most labels that are shown; behind them is said how many more there are. With
/// [`LABEL_LEN_MAX`], and quoted in JSON, they take a third of a frame.
const LABELS_MAX: usize = 64;

/// Most bytes of one label as shown. The longest label of ours, `assertd/<64>/<64>/<10>` (see
/// `keystore::keyid`), has 148.
const LABEL_LEN_MAX: usize = 160;

/// What is shown of the labels found so far, each once.
#[derive(Default)]
pub struct Strange(BTreeSet<String>);

impl Strange {
    /// Adds the label of one object.
    pub fn add(&mut self, label: &[u8]) {
        let mut shown = printable(&String::from_utf8_lossy(label));
        while shown.len() > LABEL_LEN_MAX {
            shown.pop(); // whole characters
        }
        self.0.insert(shown);
    }

    /// The first labels, and a last entry `and N more` if there are more.
    pub fn into_list(self) -> Vec<String> {
        let more = self.0.len().saturating_sub(LABELS_MAX);
        let mut list: Vec<String> = self.0.into_iter().take(LABELS_MAX).collect();
        if more > 0 {
            list.push(format!("and {more} more"));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::backend::LABEL_PREFIX;
    use keystore::protocol::{FRAME_LEN_MAX, Health, Reply, Standing, write};

    fn listed(labels: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut strange = Strange::default();
        for label in labels {
            strange.add(label.as_bytes());
        }
        strange.into_list()
    }

    #[test]
    fn hostile_labels_fit_a_frame() {
        for stuff in ["\u{1}", "\u{9f}", "\"", "\\", "\u{2028}", "🔑", "\u{fffd}"] {
            let stuff = stuff.repeat(1000);
            let strange = listed((0..1000).map(|n| format!("{LABEL_PREFIX}{n:04}{stuff}")));
            assert!(strange.iter().all(|label| label.len() <= LABEL_LEN_MAX));
            assert_eq!(strange.len(), LABELS_MAX + 1);
            assert_eq!(strange.last().unwrap(), "and 936 more");
            let health = Health {
                standing: Standing::Usable {},
                for_s: 0,
                token: "t".repeat(1000),
                algs: Vec::new(),
                strange,
                minted: u64::MAX,
                failed: u64::MAX,
            };
            let mut frame = Vec::new();
            write(&mut frame, &Reply::Health(health)).unwrap();
            assert!(frame.len() < FRAME_LEN_MAX / 2, "{}", frame.len());
        }
    }

    #[test]
    fn a_label_of_ours_is_shown_whole_and_once() {
        let part = "n".repeat(keystore::keyid::NAME_PART_LEN_MAX);
        let longest = format!("{LABEL_PREFIX}{part}/{part}/{}", u32::MAX);
        // Once for each half of the pair.
        assert_eq!(listed([longest.clone(), longest.clone()]), [longest]);
        let most = listed((0..LABELS_MAX).map(|n| format!("{LABEL_PREFIX}{n}")));
        assert_eq!(most.len(), LABELS_MAX);
    }
}
