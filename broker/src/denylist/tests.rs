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

#[test]
fn a_changed_list_holds_and_a_broken_one_leaves_the_old_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "users", "1\n");
    let files = Files {
        users: Some(path.clone()),
        ..Files::default()
    };
    let in_force = InForce::new(files.clone(), files.read().unwrap());
    let denies = |uid| in_force.now().hit(&workload(uid, "a.service")).is_some();
    assert!(in_force.look().is_none() && denies(1) && !denies(2));
    write(dir.path(), "users", "2\n");
    assert!(
        in_force
            .look()
            .is_some_and(|news| news.contains("1 entries"))
    );
    assert!(!denies(1) && denies(2));
    write(dir.path(), "users", "no-such-user-here\n");
    assert!(in_force.look().is_some() && in_force.fault().is_some());
    assert!(denies(2));
    std::fs::remove_file(&path).unwrap();
    assert!(
        in_force.look().is_some() && denies(2),
        "a file that is gone lets nobody in"
    );
    assert!(in_force.look().is_none(), "it is said once");
    write(dir.path(), "users", "2\n3\n");
    assert!(in_force.look().is_some() && denies(3) && in_force.fault().is_none());
}
