//! The drop-in of a workload's unit, and quoting: what systemd.syntax(7) and systemd.service(5) give a
//! meaning to, and what sh does.

use super::values::Values;
use std::collections::BTreeMap;

/// Where a unit's assertions are, below /run: `RuntimeDirectory=` makes it, and removes it.
const DIRECTORY: &str = "assertions-";

/// A file that systemd finds by the unit, and whoever looks at the unit as well.
pub struct Unit {
    /// Its name; a placeholder if it is not known.
    pub name: String,
    /// Its name without `.service`, as a unit file may say it.
    stem: Stem,
}

/// The name without its suffix.
enum Stem {
    /// The same everywhere.
    Known(String),
    /// Known, but with letters that mean something in unit files.
    Odd(String),
    /// Of a template: which instance it is, systemd knows.
    Template(String),
    /// Not known here.
    Systemd,
}

/// Where the assertion is put.
#[derive(Clone, Debug)]
pub struct Output {
    /// As the SDK is told.
    pub path: String,
    /// As the unit's lines name it: with systemd's own `%t/…/%N` where only systemd knows.
    in_unit: String,
    /// The unit's RuntimeDirectory=, unless another file was named.
    directory: Option<String>,
}

impl Unit {
    /// From `--set unit=`, the section, or nothing.
    pub fn of(values: &mut Values) -> Unit {
        let name = values.must("unit");
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.@".contains(c);
        let stem = match name.strip_suffix(".service") {
            None => Stem::Systemd,
            Some(stem) if stem.ends_with('@') => Stem::Template(stem.to_owned()),
            Some(stem) if stem.chars().all(plain) => Stem::Known(stem.to_owned()),
            Some(stem) => Stem::Odd(stem.to_owned()),
        };
        Unit { name, stem }
    }

    /// A file beside the unit's own, where systemd's generators and people look for it.
    pub fn beside(&self, file: &str) -> String {
        format!("/etc/systemd/system/{}.d/{file}", self.name)
    }

    /// Where a target's assertion is put.
    pub fn output(&self, target: &str, values: &mut Values) -> Output {
        if let Some(path) = values.may("output") {
            let in_unit = word(&path);
            return Output {
                path,
                in_unit,
                directory: None,
            };
        }
        let (known, in_unit) = match &self.stem {
            Stem::Known(stem) => (stem.clone(), stem.as_str()),
            Stem::Odd(stem) => (stem.clone(), "%N"),
            Stem::Template(stem) => (format!("{stem}{}", values.must("instance")), "%N"),
            Stem::Systemd => ("<unit>".to_owned(), "%N"),
        };
        Output {
            path: format!("/run/{DIRECTORY}{known}/{target}.jwt"),
            in_unit: format!("%t/{DIRECTORY}{in_unit}/{target}.jwt"),
            directory: Some(format!("{DIRECTORY}{in_unit}")),
        }
    }
}

/// A drop-in that sets variables and has assertions written before the service starts, and kept.
pub fn drop_in(
    path: &str,
    made_by: &str,
    command: &str,
    variables: &BTreeMap<&'static str, String>,
    output: Option<&Output>,
) -> String {
    let mut text = format!(
        "# Made by `{made_by}`. Put it at\n# {path}\n# and run `systemctl \
         daemon-reload`.\n[Unit]\nWants=assertd.socket\nAfter=assertd.socket\n\n[Service]\n"
    );
    if let Some(output) = output {
        if let Some(directory) = &output.directory {
            text += &format!("RuntimeDirectory={directory}\n");
        }
        let line = format!("{command} --output {}", output.in_unit);
        text += &format!("ExecStartPre={line}\nExecStartPost={line} --keep\n");
    }
    for (name, value) in variables {
        let value = match output {
            // A path that systemd completes, where it alone can.
            Some(output) if *value == output.path => format!("{name}={}", output.in_unit),
            _ => word(&format!("{name}={value}")),
        };
        text += &format!("Environment={value}\n");
    }
    text
}

/// A word of a unit's line: `%` is systemd's, and so are blanks, quotes and backslashes.
pub fn word(text: &str) -> String {
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "%_@+=:,./-".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// A word of a unit's command line, where `$` is systemd's too.
pub fn command_word(text: &str) -> String {
    word(text).replace('$', "$$")
}

/// A word of sh, and a value of EnvironmentFile=, which reads quotes alike.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%_@+=:,./-".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_word_is_left_for_systemd_or_a_shell_to_read() {
        assert_eq!(word("A=arn:aws:iam::1:role/r"), "A=arn:aws:iam::1:role/r");
        assert_eq!(word("A=50% \"x\" \\n"), "\"A=50%% \\\"x\\\" \\\\n\"");
        assert_eq!(command_word("/a$b"), "\"/a$$b\"");
        assert_eq!(shell("it's"), "'it'\\''s'");
        assert_eq!(shell("<role_arn>"), "'<role_arn>'");
        assert_eq!(shell(""), "''");
    }
}
