//! Entries, hits, and files that change under a running daemon.

use super::*;
use crate::peer::Proof;

const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let (path, new) = (dir.join(name), dir.join("new"));
    std::fs::remove_file(&path).unwrap_or_default();
    let mut file = std::fs::File::create_new(&new).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

fn workload(uid: u32, unit: &str) -> Workload {
    let path = format!("/system.slice/{unit}");
    Workload::for_test(uid, uid, Some(&path), false, Proof::Pidfd)
}

#[test]
fn entries_stand_on_lines_with_remarks() {
    let dir = tempfile::tempdir().unwrap();
    let executables = format!("# stolen\n\n  {DIGEST}  /usr/bin/x  # as sha256sum has it\n");
    let files = Files {
        executables: Some(write(dir.path(), "executables", &executables)),
        units: Some(write(
            dir.path(),
            "units",
            "a.service\nb@*.service # all of them\n",
        )),
        users: Some(write(dir.path(), "users", "root\n4711\n")),
    };
    let lists = files.read().unwrap();
    assert_eq!(lists.len(), 5);
    assert_eq!(lists.hit(&workload(4711, "x.service")), Some(Hit::User));
    assert_eq!(lists.hit(&workload(1, "b@2.service")), Some(Hit::Unit));
    let mut other = workload(1, "c.service");
    assert_eq!(lists.hit(&other), Some(Hit::NotAttestable));
    let program = |text: &str| Program::Is {
        path: None,
        sha256: Sha256::from_hex(text).unwrap(),
    };
    other.set_program(program(DIGEST));
    assert_eq!(lists.hit(&other), Some(Hit::Executable));
    other.set_program(program(&DIGEST.replace('e', "f")));
    assert_eq!(lists.hit(&other), None);
}

#[test]
fn without_a_list_of_executables_nobody_needs_to_be_attested() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files {
        units: Some(write(dir.path(), "units", "a.service")),
        ..Files::default()
    };
    let lists = files.read().unwrap();
    assert!(!lists.asks_for_program());
    assert_eq!(lists.hit(&workload(1, "c.service")), None);
    assert_eq!(lists.hit(&workload(1, "a.service")), Some(Hit::Unit));
}

#[test]
fn a_line_that_is_no_entry_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let units = write(dir.path(), "units", "a.service\n\n   b  # no suffix\n");
    let files = Files {
        units: Some(units.clone()),
        ..Files::default()
    };
    let shown = files.read().unwrap_err().to_string();
    let wanted = format!(
        "{}:3:4: a unit's name ends in .service or .scope, such as payments.service\n    3 |    b  # no suffix\n      \
         |    ^",
        units.display()
    );
    assert_eq!(shown, wanted);
}

/// What the next looks find that is new, until nothing changes any more.
fn looks(watched: &Watched) -> Option<News> {
    (0..3).find_map(|_| watched.look())
}

fn users(dir: &Path, text: &str) -> (Files, Watched) {
    let path = write(dir, "users", text);
    let files = Files {
        users: Some(path),
        ..Files::default()
    };
    let watched = Watched::default();
    watched.saw(Reading::of(&files).unwrap().sight);
    (files, watched)
}

#[test]
fn a_changed_list_is_news_once_it_has_settled_and_until_it_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let (_files, watched) = users(dir.path(), "1\n");
    assert!(looks(&watched).is_none());
    write(dir.path(), "users", "2\n");
    assert!(watched.look().is_none(), "it may still be written");
    let Some(News::Changed(reading)) = watched.look() else {
        panic!("it has settled");
    };
    let denies = |uid| reading.lists.hit(&workload(uid, "a.service")).is_some();
    assert!(!denies(1) && denies(2));
    assert!(looks(&watched).is_some(), "it is not in force yet");
    watched.saw(reading.sight);
    assert!(looks(&watched).is_none());
}

#[test]
fn a_list_that_changes_between_reading_and_coming_into_force_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (files, watched) = users(dir.path(), "1\n");
    let reading = Reading::of(&files).unwrap();
    write(dir.path(), "users", "1\n2\n");
    watched.saw(reading.sight); // as a reload does, after a record that took its time
    let news = looks(&watched);
    assert!(matches!(news, Some(News::Changed(it)) if it.lists.len() == 2));
}

#[test]
fn a_list_that_somebody_keeps_writing_counts_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (_files, watched) = users(dir.path(), "1\n");
    let mut entries = String::new();
    let news = (0..10).find_map(|entry| {
        entries += &format!("{entry}\n");
        write(dir.path(), "users", &entries);
        watched.look()
    });
    assert!(matches!(news, Some(News::Changed(_))));
}

#[test]
fn a_broken_list_is_said_once_and_is_no_fault_any_more_once_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (_files, watched) = users(dir.path(), "1\n");
    write(dir.path(), "users", "no-such-user-here\n");
    assert!(matches!(looks(&watched), Some(News::Broken(text)) if text.contains("no-such-user")));
    assert!(looks(&watched).is_none() && watched.fault().is_some());
    let there = dir.path().join("users");
    std::fs::remove_file(&there).unwrap();
    assert!(matches!(looks(&watched), Some(News::Broken(text)) if text.contains("cannot be read")));
    write(dir.path(), "users", "2\n3\n");
    let Some(News::Changed(reading)) = looks(&watched) else {
        panic!("it is a list again");
    };
    watched.saw(reading.sight);
    assert!(watched.fault().is_none());
}

#[test]
fn lists_have_a_name_that_follows_what_is_in_them_and_in_which() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "list", "4711\n");
    let name = |files: Files| files.read().unwrap().sha256();
    let as_users = || Files {
        users: Some(path.clone()),
        ..Files::default()
    };
    assert_eq!(name(Files::default()), None);
    let first = name(as_users());
    assert!(first.is_some() && first == name(as_users()));
    write(dir.path(), "list", "\n");
    let emptied = name(as_users());
    assert_ne!(emptied, first);
    let as_units = Files {
        units: Some(path.clone()),
        ..Files::default()
    };
    assert_ne!(name(as_units), emptied);
}
