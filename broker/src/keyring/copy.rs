//! What the records in a state directory say, for people: read without its lock, and nothing is made of it.

use super::{FILE, Stored, words};
use keystore::{Error, statefile};
use std::path::Path;

/// Records as they are in a file.
pub struct Copied {
    /// How often they have been replaced.
    pub generation: u64,
    /// Id, kid and state of each version that is not destroyed.
    pub keys: Vec<[String; 3]>,
}

impl Copied {
    /// Those of this state directory; `None` if it has none.
    ///
    /// # Errors
    /// If they cannot be read or fail their check.
    pub fn read(dir: &Path) -> Result<Option<Copied>, Error> {
        let Some((generation, stored)) = statefile::peek::<Stored>(&dir.join(FILE))? else {
            return Ok(None);
        };
        let row = |(key, record): (&keystore::KeyId, &super::KeyRecord)| {
            let lineage = stored.lineages.get(&key.name);
            let version = lineage.and_then(|it| Some((it, it.version(key.version)?)));
            let state = version.map_or("recorded", |(lineage, it)| words::phase(lineage, it));
            let kid = record.public_key.kid().to_string();
            (state != "destroyed").then(|| [key.to_string(), kid, state.to_owned()])
        };
        let keys = stored.keys.iter().filter_map(row).collect();
        Ok(Some(Copied { generation, keys }))
    }
}
