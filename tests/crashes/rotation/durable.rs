//! What a power cut may take away: everything that was not flushed. A file that is flushed before it takes
//! another's place, in a directory that is flushed before the next one does, is the old one or the
//! new one whatever is taken away; so that the order of the calls shows all there is to show
//! (reliability row 27).

use harness::stepper::{Place, Step};
use std::collections::BTreeSet;
use std::path::Path;

/// Demands that order of the files whose paths begin so; how many took another's place.
pub fn everything_is_flushed_in_time(steps: &[Step], below: &Path) -> usize {
    let below = below.to_string_lossy();
    let (mut unflushed, mut unsettled) = (BTreeSet::new(), BTreeSet::new());
    let mut replaced = 0;
    for step in steps.iter().filter(|step| step.place == Place::File) {
        let target = step.target.as_str();
        if matches!(step.call.as_str(), "fsync" | "fdatasync") {
            unflushed.remove(target);
            unsettled.remove(target);
            continue;
        }
        if !target.starts_with(&*below) {
            continue;
        }
        assert!(
            unsettled.is_empty(),
            "{} of {target} before {unsettled:?} is flushed",
            step.call
        );
        match step.call.as_str() {
            "open" | "write" | "ftruncate" => drop(unflushed.insert(target.to_owned())),
            "unlink" => drop(unflushed.remove(target)),
            "rename" => {
                let new = format!("{target}.new");
                assert!(!unflushed.contains(&new), "{new} was not flushed");
                let dir = Path::new(target)
                    .parent()
                    .expect("a file is in a directory");
                unsettled.insert(dir.to_string_lossy().into_owned());
                replaced += 1;
            }
            _ => {}
        }
    }
    assert!(unsettled.is_empty(), "never flushed: {unsettled:?}");
    replaced
}
