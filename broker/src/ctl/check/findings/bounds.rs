//! `[bounds.NAME]`: that they are about files which are there, and that they bound something.

use super::super::finding::{BOUNDS_OF_EVERYTHING, BOUNDS_WITHOUT_FILE, Finding};
use crate::config::{Config, WrittenBounds};
use crate::selector::Pattern;

pub fn findings(config: &Config, found: &mut Vec<Finding>) {
    let drop_ins = config
        .files
        .iter()
        .skip(1)
        .filter_map(|path| path.file_name());
    let drop_ins: Vec<String> = drop_ins
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for bounds in &config.bounds {
        for file in bounds
            .files
            .iter()
            .filter(|file| !is_there(file, &drop_ins))
        {
            let what = match file.contains('*') {
                true => format!("no file of conf.d fits `{file}`"),
                false => format!("there is no conf.d/{file}"),
            };
            found.push(BOUNDS_WITHOUT_FILE.at(
                object(bounds),
                &bounds.place,
                format!("{what}: if it was renamed, its new name has no bounds, or another's"),
                "write the file's name as it is in conf.d, or remove it from `files`",
            ));
        }
        if bounds.files.is_empty() {
            found.push(BOUNDS_WITHOUT_FILE.at(
                object(bounds),
                &bounds.place,
                "it names no file, and so binds nobody",
                "write files = \"NAME.toml\", a file of conf.d",
            ));
        }
        if let Some(what) = everything(bounds) {
            found.push(BOUNDS_OF_EVERYTHING.at(
                object(bounds),
                &bounds.place,
                format!("{what}, so that its files may match every process of the host"),
                "name the team's units (units = [\"payments*.service\"]) or its users",
            ));
        }
    }
}

fn object(bounds: &WrittenBounds) -> String {
    format!("[bounds.{}]", bounds.name)
}

fn is_there(file: &str, drop_ins: &[String]) -> bool {
    match Pattern::new(file) {
        Ok(pattern) => drop_ins.iter().any(|name| pattern.matches(name)),
        Err(_) => !drop_ins.is_empty(), // `*`
    }
}

/// What bounds nothing: units that are everything, where users do not bound either.
fn everything(bounds: &WrittenBounds) -> Option<&'static str> {
    let units = bounds.units.as_ref()?;
    let all = units.iter().any(|unit| unit == "*");
    (all && bounds.users.is_none()).then_some("`units` has `*` and there are no `users`")
}
