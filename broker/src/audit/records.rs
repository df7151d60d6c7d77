//! Records that wait to be written, in order. Their texts stand one behind the other in one buffer
//! that is used again: with an allocation for each, which the writer frees and a request's thread
//! has made, both would wait for the allocator's lock (docs/performance.md).
//!
//! Never changes a text, never looks into one.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::record::Stamp;

/// What a buffer may keep of its room once it is empty, in bytes: more than a group, less than a
/// stalled disk leaves behind.
const ROOM_KEPT: usize = 256 << 10;

/// All that wait, the oldest first.
#[derive(Default)]
pub(super) struct Records {
    entries: VecDeque<(usize, Queued)>,
    /// From `begin` on those of `entries`, in their order.
    texts: Vec<u8>,
    begin: usize,
}

/// A record but for its text.
pub(super) struct Queued {
    pub(super) stamp: Stamp,
    /// Bytes promised in the account of space.
    pub(super) reserved: u64,
    pub(super) haste: Haste,
    pub(super) durable: Option<oneshot::Sender<()>>,
}

/// How long a record may wait for a flush of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    Now,
    Soon,
    Whenever,
}

impl Records {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One behind all others.
    pub(super) fn push(&mut self, text: &[u8], record: Queued) {
        self.texts.extend_from_slice(text);
        self.entries.push_back((text.len(), record));
    }

    /// One before all others.
    pub(super) fn push_front(&mut self, text: &[u8], record: Queued) {
        let begin = self.begin;
        self.texts.splice(begin..begin, text.iter().copied());
        self.entries.push_front((text.len(), record));
    }

    /// Takes all of another's, behind its own. The other one is empty then, and has a buffer.
    pub(super) fn append(&mut self, other: &mut Records) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        self.texts.drain(..self.begin);
        self.begin = 0;
        self.texts.extend_from_slice(&other.texts[other.begin..]);
        self.entries.append(&mut other.entries);
        other.forget_texts();
    }

    /// Each with its text.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Queued, &[u8])> {
        self.entries
            .iter()
            .scan(self.begin, |begin, (len, record)| {
                let text = &self.texts[*begin..*begin + len];
                *begin += len;
                Some((record, text))
            })
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let (len, record) = self.entries.pop_front()?;
        self.begin += len;
        if self.is_empty() {
            self.forget_texts();
        }
        Some(record)
    }

    fn forget_texts(&mut self) {
        self.texts.clear();
        self.begin = 0;
        self.texts.shrink_to(ROOM_KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        PushFront(Vec<u8>),
        Append(Vec<Vec<u8>>),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        let text = || prop::collection::vec(any::<u8>(), 1..20);
        prop_oneof![
            text().prop_map(Step::Push),
            text().prop_map(Step::PushFront),
            prop::collection::vec(text(), 0..5).prop_map(Step::Append),
            Just(Step::Pop),
            Just(Step::Pop),
        ]
    }

    /// A record that is known by its number.
    fn record(number: u64) -> Queued {
        Queued {
            stamp: Stamp {
                wall_ms: number,
                boot_ms: 0,
            },
            reserved: 0,
            haste: Haste::Now,
            durable: None,
        }
    }

    proptest! {
        #[test]
        fn each_keeps_its_text_and_its_place(steps in prop::collection::vec(step(), 0..60)) {
            let (mut records, mut model) = (Records::default(), VecDeque::new());
            let mut number = 0;
            let mut next = || { number += 1; number };
            for step in steps {
                match step {
                    Step::Push(text) => {
                        let number = next();
                        records.push(&text, record(number));
                        model.push_back((number, text));
                    }
                    Step::PushFront(text) => {
                        let number = next();
                        records.push_front(&text, record(number));
                        model.push_front((number, text));
                    }
                    Step::Append(texts) => {
                        let mut other = Records::default();
                        other.push(b"taken before", record(0));
                        let numbers: Vec<u64> = texts.iter().map(|_| next()).collect();
                        for (text, number) in texts.iter().zip(&numbers) {
                            other.push(text, record(*number));
                        }
                        other.pop();
                        records.append(&mut other);
                        prop_assert!(other.is_empty());
                        model.extend(numbers.into_iter().zip(texts));
                    }
                    Step::Pop => {
                        let popped = records.pop().map(|record| record.stamp.wall_ms);
                        prop_assert_eq!(popped, model.pop_front().map(|(number, _)| number));
                    }
                }
                let now: Vec<(u64, Vec<u8>)> = records
                    .iter()
                    .map(|(record, text)| (record.stamp.wall_ms, text.to_vec()))
                    .collect();
                prop_assert_eq!(records.len(), now.len());
                prop_assert_eq!(&now, &model.iter().cloned().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_stalled_disk_leaves_no_buffer_behind() {
        let mut records = Records::default();
        for number in 0..4096 {
            records.push(&[b'x'; 1024], record(number));
        }
        assert!(records.texts.capacity() >= 4096 * 1024);
        while records.pop().is_some() {}
        assert!(records.texts.capacity() <= ROOM_KEPT);
    }
}
