//! `assertctl keys import` and `keys adopt`: a key that was made elsewhere becomes a version of one that the
//! configuration asks for, under its charter. The private key is in the file and in the keystore; here its
//! bytes pass through memory that is wiped, and nobody looks into them.

use super::apply::work::{Work, answer_deadline};
use super::apply::{key_line, name_of};
use super::args::{Args, Format};
use super::failure::{Exit, Failure};
use super::look::{Sight, look};
use super::out::{Out, clean};
use super::plan::Shown;
use crate::config::{Config, Wanted};
use assertd_client::api::KeyStatus;
use keystore::backend::Existing;
use keystore::client::Client;
use keystore::keyfile::KEY_FILE_LEN_MAX;
use keystore::protocol::{KeyEntry, Reply, Request};
use keystore::{Charter, KeyFile, KeyId, KeyName, KeyVersion};
use nix::libc::O_CLOEXEC;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a keystore may take to list its keys: it reads them from its records.
const LIST_DEADLINE: Duration = Duration::from_secs(10);

/// Permissions of somebody else than the owner.
const OTHERS: u32 = 0o077;

/// `--json` of both.
#[derive(Serialize)]
struct BroughtJson<'a> {
    format: u32,
    key: &'a KeyStatus,
}

/// Where a key is to go.
struct Place {
    id: KeyId,
    wanted: Wanted,
}

/// Brings in the private key that is in a file, or, for `-`, on standard input.
pub fn import(args: &Args, name: &KeyName, path: &Path, out: &mut Out) -> Result<Exit, Failure> {
    // No core dump, no debugger, and no swap if that may be had.
    keystore::hardening::close_off().map_err(|error| Failure::from_keystore(&error))?;
    let _as_far_as_limits_allow = keystore::hardening::memory::lock_all();
    let sight = look(args)?;
    let place = place(&sight, name)?;
    let is_stdin = path == Path::new("-");
    let file = match is_stdin {
        true => from_stdin()?,
        false => from_file(path)?,
    };
    let request = |key: KeyId, charter: Charter| Request::Import {
        key,
        charter,
        private_key: file,
    };
    let status = bring(args, sight, &place, request, "imported", out)?;
    if args.format == Format::Text {
        let what = match is_stdin {
            true => "what it was read from".to_owned(),
            false => path.display().to_string(),
        };
        let how = match is_stdin {
            true => String::new(),
            false => format!(" (`shred -u {}`)", path.display()),
        };
        let text = format!(
            "next: destroy {what}{how} and every copy and backup of it: whoever has one has {}",
            name_of(&status)
        );
        out.line(&clean(&text));
    }
    Ok(Exit::Done)
}

/// Takes a key that is in the token already.
pub fn adopt(
    args: &Args,
    name: &KeyName,
    object: &Existing,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let sight = look(args)?;
    let place = place(&sight, name)?;
    let request = |key: KeyId, charter: Charter| Request::Adopt {
        key,
        charter,
        object: object.clone(),
    };
    bring(args, sight, &place, request, "adopted", out)?;
    Ok(Exit::Done)
}

fn bring(
    args: &Args,
    sight: Sight,
    place: &Place,
    request: impl FnOnce(KeyId, Charter) -> Request,
    done: &str,
    out: &mut Out,
) -> Result<KeyStatus, Failure> {
    let Place { id, wanted } = place;
    let request = request(id.clone(), wanted.charter.clone());
    let mut work = Work::new(&sight.config, sight.client);
    let status = work.bring(id, &wanted.keystore, &request, wanted.certificate_s)?;
    match args.format {
        Format::Json => out.json(&BroughtJson {
            format: 1,
            key: &status,
        })?,
        Format::Text => {
            let version = id.version.number();
            out.line(&format!(
                "{done} version {version} of {}",
                key_line(&status)
            ));
            if let Some(next) = &status.next {
                out.line(&format!("next: {next}"));
            }
            out.flush();
        }
    }
    Ok(status)
}

/// The version that the key is to be: the first one, the next one, or one that a crash left in the keystore
/// unrecorded, which the keystore finishes if it is the same key, and refuses if it is another.
fn place(sight: &Sight, name: &KeyName) -> Result<Place, Failure> {
    let refused = |text: String| Err(Failure::new(Exit::Refused, text));
    let wanted = wanted(&sight.config, name)?;
    let home = &wanted.keystore;
    let mut records = sight.world.recorded.iter();
    let entries: Vec<&KeyEntry> = match sight.world.keystores.get(home) {
        Some(Shown::Keys(entries)) => entries.iter().filter(|it| it.key.name == *name).collect(),
        Some(Shown::Unreachable(why)) => {
            return Err(Failure::new(Exit::Unavailable, why.clone()));
        }
        None => Vec::new(),
    };
    if let Some(other) = records.find(|it| it.key.name == *name && it.keystore != *home) {
        return refused(format!(
            "key {name}: its versions are in keystore {}, and the configuration says {home}",
            other.keystore
        ));
    }
    let recorded = || {
        let records = sight.world.recorded.iter().map(|record| &record.key);
        records.filter(|key| key.name == *name)
    };
    let newest = entries.iter().map(|entry| &entry.key).max();
    let version = match newest {
        Some(newest) if !recorded().any(|key| key == newest) => newest.version,
        _ => {
            let newest = newest.into_iter().chain(recorded()).max();
            let number = newest.map_or(Some(1), |it| it.version.number().checked_add(1));
            let version = number.and_then(KeyVersion::new);
            version.ok_or_else(|| {
                let text = format!("key {name}: there are no more numbers of versions");
                Failure::new(Exit::Refused, text)
            })?
        }
    };
    let coming = sight.coming.iter().find(|key| key.name == *name);
    match coming {
        Some(coming) if coming.version != version => refused(format!(
            "key {coming}: is on its way already; `assertctl keys` says what it waits for, and `assertctl \
             keys abandon {name}` gives it up"
        )),
        _ => Ok(Place {
            id: name.version(version),
            wanted,
        }),
    }
}

/// What the configuration asks for.
pub fn wanted(config: &Config, name: &KeyName) -> Result<Wanted, Failure> {
    config.wanted_keys().remove(name).ok_or_else(|| {
        let text = format!(
            "the configuration asks for no key {name}: write its target first (`assertctl config check`)"
        );
        Failure::new(Exit::Refused, text)
    })
}

/// Its keystore, for looking.
pub fn connect(config: &Config, keystore: &str) -> Result<Client, Failure> {
    let section = &config.keystores[keystore];
    let client = Client::connect(&config.keystore_socket(keystore, section), LIST_DEADLINE);
    client.map_err(|error| Failure::from_keystore(&error))
}

/// Asks one thing that its token may take a while for.
pub fn ask(config: &Config, keystore: &str, request: &Request) -> Result<Reply, Failure> {
    let mut client = connect(config, keystore)?;
    let section = &config.keystores[keystore];
    let answer = client
        .set_deadline(answer_deadline(section))
        .and_then(|()| client.call(request));
    answer.map_err(|error| Failure::from_keystore(&error))
}

fn from_file(path: &Path) -> Result<KeyFile, Failure> {
    let shown = path.display();
    let failed = |error: io::Error| Failure::new(Exit::Refused, format!("{shown}: {error}"));
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(O_CLOEXEC | nix::libc::O_NONBLOCK) // of a pipe nobody waits for
        .open(path);
    let file = opened.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        let text = format!("{shown}: is no file; a pipe is read as standard input, by `-`");
        return Err(Failure::new(Exit::Refused, text));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        eprintln!(
            "assertctl: {shown}: can be opened by others (mode {mode:04o}): whoever has read it has the key, \
             and whoever could have is to be believed to"
        );
    }
    read(file, &shown.to_string())
}

fn from_stdin() -> Result<KeyFile, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let text =
            "standard input is a terminal, which shows what is typed: name a file, or redirect one";
        return Err(Failure::new(Exit::Usage, text));
    }
    // Not through the buffer of `Stdin`, which nobody wipes.
    let file = stdin_file()
        .map_err(|error| Failure::new(Exit::Refused, format!("standard input: {error}")))?;
    read(file, "standard input")
}

/// Standard input without a buffer of its own.
fn stdin_file() -> io::Result<File> {
    use std::os::fd::AsFd;
    let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(File::from(descriptor))
}

/// All of it, in memory that is wiped and never moved.
fn read(mut file: File, shown: &str) -> Result<KeyFile, Failure> {
    let mut bytes = Zeroizing::new(vec![0; KEY_FILE_LEN_MAX + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Failure::new(Exit::Refused, format!("{shown}: {error}")));
            }
        }
    }
    if length > KEY_FILE_LEN_MAX {
        let text = format!("{shown}: is longer than {KEY_FILE_LEN_MAX} bytes, and no private key");
        return Err(Failure::new(Exit::Refused, text));
    }
    bytes.truncate(length);
    KeyFile::new(bytes).map_err(|error| Failure::new(Exit::Refused, format!("{shown}: {error}")))
}
