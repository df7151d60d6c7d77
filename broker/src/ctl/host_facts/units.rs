//! Services of this host: from the files that systemd reads, templates among them, and, where it runs,
//! from systemd itself, which knows what its defaults and other sources make of them.

use crate::config::{UnitFacts, template};
use crate::ctl::doctor::host::{self, Output};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where units' files are, the first of a name wins (systemd.unit(5), System Unit Search Path).
const DIRECTORIES: [&str; 12] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Only there while systemd is PID 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Letters before what is run that change how, not what (systemd.service(5), ExecStart=).
const EXEC_PREFIXES: [char; 6] = ['@', '-', ':', '+', '!', '|'];

/// All of them.
pub fn look() -> BTreeMap<String, UnitFacts> {
    let directories: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
    let mut units = of_files(&directories);
    if Path::new(BOOTED).is_dir() {
        units.extend(of_systemd());
    }
    units
}

/// What systemd says of the services that it has loaded.
fn of_systemd() -> BTreeMap<String, UnitFacts> {
    let properties = "Id,LoadState,User,Slice,DynamicUser,ExecStart";
    let arguments = ["show", "--no-pager", "-p", properties, "--", "*.service"];
    let said = host::command("systemctl", &arguments, Output::Read);
    let said = said.ok().filter(|ended| ended.succeeded());
    said.map(|ended| of_show(&ended.stdout)).unwrap_or_default()
}

/// `Name=value` lines, an empty line between units.
fn of_show(text: &str) -> BTreeMap<String, UnitFacts> {
    let mut units = BTreeMap::new();
    for block in text.split("\n\n") {
        let values = |name: &str| {
            let lines = block.lines().filter_map(|line| line.split_once('='));
            let of_name = lines
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned());
            of_name.collect::<Vec<String>>()
        };
        let one = |name: &str| values(name).into_iter().find(|value| !value.is_empty());
        let Some(name) = one("Id").filter(|_| one("LoadState").as_deref() == Some("loaded")) else {
            continue;
        };
        let path = |value: &String| {
            let (_, rest) = value.split_once("path=")?;
            rest.split(" ;").next().map(PathBuf::from)
        };
        let unit = UnitFacts {
            user: Some(one("User").unwrap_or_else(|| "root".to_owned())),
            slice: one("Slice"),
            dynamic_user: one("DynamicUser").as_deref() == Some("yes"),
            exec: values("ExecStart").iter().filter_map(path).collect(),
        };
        units.insert(name, unit);
    }
    units
}

/// What the files in these directories say, with their drop-ins.
fn of_files(directories: &[PathBuf]) -> BTreeMap<String, UnitFacts> {
    let mut units = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (name, path) = (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            );
            if !name.ends_with(".service") || units.contains_key(&name) {
                continue;
            }
            units.insert(name.clone(), of_file(&name, &path, directories));
        }
    }
    units
        .into_iter()
        .filter_map(|(name, unit)| Some((name, unit?)))
        .collect()
}

/// Nothing of a unit that is masked, or that is another by a second name: its processes are the
/// other's.
fn of_file(name: &str, path: &Path, directories: &[PathBuf]) -> Option<UnitFacts> {
    let target = fs::read_link(path).ok();
    if target.is_some_and(|target| target.file_name().is_none_or(|it| it != name)) {
        return None;
    }
    let text = host::text(path);
    if text.is_empty() {
        return None; // masked too
    }
    let mut texts = vec![text];
    // The most particular directory last; what it says last counts (systemd.unit(5)).
    let owners = template(name).into_iter().chain([name.to_owned()]);
    for owner in owners {
        for directory in directories.iter().rev() {
            let drop_ins = fs::read_dir(directory.join(format!("{owner}.d")));
            let mut paths: Vec<PathBuf> = drop_ins
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            paths.retain(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "conf")
            });
            paths.sort();
            texts.extend(paths.into_iter().map(host::text));
        }
    }
    Some(of_text(name, &texts))
}

/// A unit's file and its drop-ins in the order they are read.
fn of_text(name: &str, texts: &[String]) -> UnitFacts {
    let mut unit = UnitFacts {
        user: Some("root".to_owned()),
        slice: Some(default_slice(name)),
        ..UnitFacts::default()
    };
    for text in texts {
        let mut in_service = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_service) else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            match key {
                // With a specifier only systemd knows what it is.
                "User" | "Slice" if value.contains('%') => match key {
                    "User" => unit.user = None,
                    _ => unit.slice = None,
                },
                "User" if value.is_empty() => unit.user = Some("root".to_owned()),
                "User" => unit.user = Some(value.to_owned()),
                "Slice" if value.is_empty() => unit.slice = Some(default_slice(name)),
                "Slice" => unit.slice = Some(value.to_owned()),
                "DynamicUser" => {
                    unit.dynamic_user = ["yes", "true", "on", "1"].contains(&value);
                }
                "ExecStart" if value.is_empty() => unit.exec.clear(),
                "ExecStart" => unit.exec.extend(program(value)),
                _ => {}
            }
        }
    }
    unit
}

/// What a command line runs, if it says so by a path.
fn program(command: &str) -> Option<PathBuf> {
    let word = command.split_ascii_whitespace().next()?;
    let path = word
        .trim_start_matches(EXEC_PREFIXES)
        .trim_matches(['"', '\'']);
    (path.starts_with('/') && !path.contains('%')).then(|| path.into())
}

/// Where a service is that says no `Slice=`: of a template in a slice of the template's
/// (systemd.special(7)), whose name has every `-` escaped.
fn default_slice(name: &str) -> String {
    match name.split_once('@') {
        Some((before, _)) => format!("system-{}.slice", before.replace('-', "\\x2d")),
        None => "system.slice".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn put(directory: &Path, name: &str, text: &str) {
        fs::create_dir_all(directory.join(name).parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .open(directory.join(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_unit_is_what_its_file_and_its_drop_ins_say() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
        let service = "[Unit]\nUser=no\n[Service]\nUser=web\nSlice=a.slice\nExecStart=-+/usr/bin/web \\\n -f\n";
        put(&lib, "web.service", service);
        put(&lib, "over.service", "[Service]\nUser=lib\n");
        put(
            &etc,
            "over.service",
            "[Service]\nUser=etc\nDynamicUser=yes\n",
        );
        put(
            &lib,
            "app-x@.service",
            "[Service]\nUser=%i\nExecStart=/usr/bin/%i\n",
        );
        put(
            &etc,
            "web.service.d/10.conf",
            "[Service]\nUser=late\nExecStart=\nExecStart=\"/opt/w\"\n",
        );
        put(&etc, "web.socket", "[Socket]\n");
        symlink("/dev/null", etc.join("masked.service")).unwrap();
        symlink("web.service", etc.join("alias.service")).unwrap();
        let units = of_files(&[etc, lib]);
        let names: Vec<&str> = units.keys().map(String::as_str).collect();
        assert_eq!(names, ["app-x@.service", "over.service", "web.service"]);
        let user = |user: &str| Some(user.to_owned());
        let web = UnitFacts {
            user: user("late"),
            slice: Some("a.slice".into()),
            dynamic_user: false,
            exec: vec!["/opt/w".into()],
        };
        assert_eq!(units["web.service"], web);
        let over = &units["over.service"];
        assert_eq!((over.user.clone(), over.dynamic_user), (user("etc"), true));
        let app = UnitFacts {
            slice: Some("system-app\\x2dx.slice".into()),
            ..UnitFacts::default()
        };
        assert_eq!(units["app-x@.service"], app);
    }

    #[test]
    fn a_mask_hides_the_unit_of_a_later_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, lib) = (dir.path().join("etc"), dir.path().join("lib"));
        put(&lib, "a.service", "[Service]\n");
        put(&etc, "b.service", "[Service]\n");
        symlink("/dev/null", etc.join("a.service")).unwrap();
        let units = of_files(&[etc, lib]);
        assert_eq!(units.keys().collect::<Vec<_>>(), ["b.service"]);
    }

    #[test]
    fn what_systemd_shows_is_understood() {
        let text = "ExecStart={ path=/usr/bin/a ; argv[]=/usr/bin/a -x ; ignore_errors=no }\n\
                    ExecStart={ path=/usr/bin/b ; argv[]=/usr/bin/b }\nSlice=system.slice\n\
                    DynamicUser=no\nUser=\nId=a.service\nLoadState=loaded\n\n\
                    DynamicUser=yes\nUser=d\nId=d.service\nLoadState=loaded\n\n\
                    Id=gone.service\nLoadState=not-found\n";
        let units = of_show(text);
        let a = UnitFacts {
            user: Some("root".into()),
            slice: Some("system.slice".into()),
            dynamic_user: false,
            exec: vec!["/usr/bin/a".into(), "/usr/bin/b".into()],
        };
        assert_eq!(units["a.service"], a);
        assert!(units["d.service"].dynamic_user);
        assert_eq!(units.len(), 2);
    }
}
