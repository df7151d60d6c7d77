//! What systemd says about our units, asked by one `systemctl show`, and what it means.

use super::finding::{
    ENABLED, Finding, INSTALLED, ISOLATION, MASKED, RELOADED, SOCKET_OF_UNIT, SYSTEMD,
};
use super::host::{self, Output};
use super::site::{NoUnits, Runner, Site};
use crate::attestation;
use keystore::config::{BackendKind, Section};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod running;
mod sandbox;

/// The broker's service.
pub const SERVICE: &str = "assertd.service";

/// The two sockets of the broker.
const SOCKETS: [&str; 2] = ["assertd.socket", "assertd-admin.socket"];

/// The witness's units, which are needed where a configuration asks what workloads run.
const WITNESS: [&str; 2] = ["assertd-witness.socket", "assertd-witness.service"];

/// The courier's, which are needed where something is to be read back, or a key to be tried.
const COURIER: [&str; 2] = ["assertd-courier.socket", "assertd-courier.service"];

/// What is asked of every unit, the sandbox apart.
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,UnitFileState,FragmentPath,\
DropInPaths,NeedDaemonReload,ExecMainStatus,User,SupplementaryGroups,Listen,ExecPaths,\
NoExecPaths,ReadWritePaths,DevicePolicy,DeviceAllow,BindPaths";

/// Our units as systemd has them.
#[derive(Clone, Debug, Default)]
pub struct Units {
    by_name: BTreeMap<String, Unit>,
    /// Why systemd could not be asked.
    silent: Option<String>,
}

/// One of them.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    name: String,
    properties: BTreeMap<String, String>,
    /// The unit's file, then its drop-ins, with their text, in the order systemd reads them.
    files: Vec<(PathBuf, String)>,
}

impl Units {
    /// Asks systemd, if units run assertd.
    pub fn look(site: &Site) -> Units {
        if site.runner != Runner::Units {
            return Units::default();
        }
        let mut names = vec![SERVICE.to_owned()];
        names.extend(SOCKETS.map(str::to_owned));
        names.extend(WITNESS.map(str::to_owned));
        names.extend(COURIER.map(str::to_owned));
        for (name, section) in &site.keystores {
            names.extend(["service", "socket"].map(|suffix| section.backend.unit(name, suffix)));
        }
        let properties = format!("{PROPERTIES},{}", sandbox::properties());
        let mut arguments = vec!["show", "--no-pager", "-p", &properties, "--"];
        arguments.extend(names.iter().map(String::as_str));
        match host::command("systemctl", &arguments, Output::Read) {
            Ok(said) if said.succeeded() => {
                let mut units = parse(&said.stdout);
                units.by_name.values_mut().for_each(Unit::read_files);
                units
            }
            Ok(said) => Units::silent(&said.reason()),
            Err(why) => Units::silent(&why),
        }
    }

    fn silent(why: &str) -> Units {
        Units {
            silent: Some(why.to_owned()),
            ..Units::default()
        }
    }

    /// One of them, if systemd knows it.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.by_name.get(name)
    }

    /// The service of some keystore of this kind; all come from one template.
    pub fn any_keystore(&self, backend: BackendKind) -> Option<&Unit> {
        let of = |unit: &&Unit| {
            let template = unit.name.split('@').next();
            unit.is_service() && template == Some(backend.program())
        };
        self.by_name.values().find(of)
    }
}

impl Unit {
    /// A property that is there and not empty.
    pub fn property(&self, name: &str) -> Option<&str> {
        let value = self.properties.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.property(name) == Some(value)
    }

    fn is_keystore(&self) -> bool {
        self.name.starts_with("assertd-keystore-") && self.is_service()
    }

    fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }

    /// Whether it listens, or runs.
    fn is_active(&self) -> bool {
        self.is("ActiveState", "active")
    }

    /// Whether it runs, if only just: asking it starts nothing.
    pub fn is_up(&self) -> bool {
        let up = ["active", "activating", "reloading"];
        self.property("ActiveState")
            .is_some_and(|state| up.contains(&state))
    }

    /// The words of a property that is a list; of paths without what stands before them.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        let words = self.property(name).unwrap_or_default();
        words
            .split_ascii_whitespace()
            .map(|word| word.trim_start_matches(['-', '+']))
    }

    /// Where it listens.
    pub fn listens(&self) -> impl Iterator<Item = &Path> {
        let lines = self.property("Listen").unwrap_or_default().lines();
        lines.map(|line| Path::new(line.split(" (").next().unwrap_or(line)))
    }

    /// A credential it is handed over from a file: the file as the unit names it. `kind` is the
    /// directive; systemctl shows its values as `[unprintable]`, so that the files are read.
    pub fn credential(&self, kind: &str, id: &str) -> Option<String> {
        let instance = self.instance().unwrap_or_default();
        let lines = self.files.iter().flat_map(|(_, text)| text.lines());
        let mut file = None;
        for value in lines.filter_map(|line| assigned(line, kind)) {
            match value.replace("%i", instance).split_once(':') {
                Some((name, path)) if name == id => file = Some(path.to_owned()),
                None if value.is_empty() => file = None, // an empty value takes back all before it
                _ => {}
            }
        }
        file
    }

    /// What stands after the `@`.
    fn instance(&self) -> Option<&str> {
        let (_, instance) = self.name.split_once('@')?;
        instance.rsplit_once('.').map(|(instance, _)| instance)
    }

    fn read_files(&mut self) {
        let drop_ins = self.property("DropInPaths").unwrap_or_default();
        let paths = self.property("FragmentPath").into_iter();
        let paths = paths.chain(drop_ins.split_ascii_whitespace());
        let read = |path: &str| (PathBuf::from(path), host::text(path));
        self.files = paths.map(read).collect();
    }
}

/// The value that a line of a unit's file gives to a directive.
fn assigned<'a>(line: &'a str, directive: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(directive)?;
    Some(rest.trim_start().strip_prefix('=')?.trim())
}

/// What `systemctl show` prints: `Name=value` lines, an empty line between units. A property that
/// is there more than once has one value a line.
fn parse(text: &str) -> Units {
    let mut units = Units::default();
    for block in text.split("\n\n") {
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            properties
                .entry(name.to_owned())
                .and_modify(|there| *there = format!("{there}\n{value}"))
                .or_insert_with(|| value.to_owned());
        }
        if let Some(name) = properties.get("Id").cloned() {
            let unit = Unit {
                name: name.clone(),
                properties,
                files: Vec::new(),
            };
            units.by_name.insert(name, unit);
        }
    }
    units
}

/// Judges.
pub fn findings(site: &Site, units: &Units) -> Vec<Finding> {
    let no_units = match site.runner {
        Runner::Somebody(why) => why,
        Runner::Units => return of_units(site, units),
    };
    vec![match no_units {
        NoUnits::NoSystemd => SYSTEMD.warn(
            "systemd does not run here: nothing separates assertd from its keystores (isolation: \
             none), which is fine for trying it out",
            "install it on a host that systemd runs, where each has its own user and sandbox",
        ),
        NoUnits::OtherConfig => SYSTEMD.warn(
            format!(
                "{}: the units read {}, so they were not looked at",
                site.config_path.display(),
                crate::ctl::CONFIG
            ),
            "run `assertctl check` without -c to look at the units and their configuration",
        ),
    }]
}

fn of_units(site: &Site, units: &Units) -> Vec<Finding> {
    if let Some(why) = &units.silent {
        let text = format!("systemd does not say how the units are: {why}");
        let remedy =
            "run `systemctl is-system-running`; if that fails too, `systemctl daemon-reexec`";
        return vec![SYSTEMD.fail(text, remedy)];
    }
    let mut found = Vec::new();
    let mut names = vec![SERVICE.to_owned()];
    names.extend(SOCKETS.map(str::to_owned));
    if needs_witness(site) {
        names.extend(WITNESS.map(str::to_owned));
    }
    for (name, section) in &site.keystores {
        match units_of(units, name, section) {
            Ok((own, wrong)) => {
                names.extend(own);
                found.extend(wrong);
            }
            Err(none) => found.push(none),
        }
    }
    let present = well(units, &names, &mut found);
    if needs_courier(site) {
        // Its sandbox is another than all others': it has the network.
        let _present = well(units, &COURIER.map(str::to_owned), &mut found);
    }
    let sandboxes: Vec<Finding> = present
        .iter()
        .filter(|unit| unit.is_service() && unit.is("LoadState", "loaded"))
        .flat_map(|unit| {
            let section = unit.instance().and_then(|name| site.keystores.get(name));
            sandbox::findings(unit, section)
        })
        .collect();
    if sandboxes.is_empty() && present.iter().any(|unit| unit.is("LoadState", "loaded")) {
        found.push(super::finding::PROTECTION.ok(format!(
            "{} directives of the sandboxes are as they should be (`systemd-analyze security \
             assertd` rates all there are)",
            sandbox::number()
        )));
    }
    found.extend(sandboxes);
    found
}

/// Whether a section, or a deny list, asks what a workload runs.
fn needs_witness(site: &Site) -> bool {
    let config = site.config.as_ref();
    config.is_ok_and(|config| attestation::needs_witness(config).is_some())
}

/// Whether something that is published is to be read back, or a key to be tried.
fn needs_courier(site: &Site) -> bool {
    let config = site.config.as_ref();
    config.is_ok_and(|config| {
        config.issuers.values().any(|it| it.verify_url.is_some())
            || config.canaries().next().is_some()
    })
}

/// Of one keystore's units alone, whether they are there and well; their sandbox is the doctor's.
pub fn of_keystore(units: &Units, name: &str, section: &Section) -> Vec<Finding> {
    if let Some(why) = &units.silent {
        let text = format!("systemd does not say how the units are: {why}");
        return vec![SYSTEMD.fail(text, "run `systemctl is-system-running`")];
    }
    match units_of(units, name, section) {
        Ok((names, wrong)) => {
            let mut found = Vec::from_iter(wrong);
            well(units, &names, &mut found);
            found
        }
        Err(none) => vec![none],
    }
}

/// The units of a keystore, and whether assertd looks for it elsewhere; `Err` if it has none.
fn units_of(
    units: &Units,
    name: &str,
    section: &Section,
) -> Result<([String; 2], Option<Finding>), Finding> {
    let Some(socket) = &section.socket else {
        return Err(not_isolated(name, section.backend));
    };
    let own = ["socket", "service"].map(|suffix| section.backend.unit(name, suffix));
    let elsewhere = units
        .unit(&own[0])
        .filter(|unit| unit.listens().next().is_some_and(|path| path != socket));
    let wrong = elsewhere.map(|unit| other_socket(name, socket, unit));
    Ok((own, wrong))
}

/// Whether these units are there and well; those that are there.
fn well<'a>(units: &'a Units, names: &[String], found: &mut Vec<Finding>) -> Vec<&'a Unit> {
    let (missing, present): (Vec<&Unit>, Vec<&Unit>) = names
        .iter()
        .filter_map(|name| units.unit(name))
        .partition(|unit| unit.is("LoadState", "not-found"));
    found.extend(not_installed(&missing));
    for unit in &present {
        found.extend(of_unit(unit));
    }
    if found.is_empty() {
        let text = format!("{} installed, enabled, none failed", names.join(", "));
        found.push(INSTALLED.ok(text));
    }
    present
}

fn not_isolated(name: &str, backend: BackendKind) -> Finding {
    ISOLATION.warn(
        format!(
            "[keystore.{name}] has no `socket`: assertd runs that keystore itself, under its own \
             user (isolation: none)"
        ),
        format!(
            "write `socket = \"/run/assertd/keystore-{name}.sock\"` in [keystore.{name}], then run \
             `systemctl enable --now {}` and `systemctl restart assertd`",
            backend.unit(name, "socket")
        ),
    )
}

fn other_socket(name: &str, socket: &Path, unit: &Unit) -> Finding {
    let listens = unit.listens().next().unwrap_or(Path::new("")).display();
    SOCKET_OF_UNIT.fail(
        format!(
            "[keystore.{name}] has socket {}, and {} listens at {listens}: assertd never reaches it",
            socket.display(),
            unit.name
        ),
        format!(
            "write `socket = \"{listens}\"` in [keystore.{name}], then run `systemctl restart \
             assertd`"
        ),
    )
}

/// One line for all of them: usually it is all of them.
fn not_installed(missing: &[&Unit]) -> Option<Finding> {
    let names: Vec<&str> = missing.iter().map(|unit| unit.name.as_str()).collect();
    let (last, first) = names.split_last()?;
    let text = match first {
        [] => format!("{last} is not installed"),
        _ => format!("{} and {last} are not installed", first.join(", ")),
    };
    Some(INSTALLED.fail(
        text,
        "install assertd's package again, or run `make install` in its source; after copying units \
         by hand, `systemctl daemon-reload`",
    ))
}

fn of_unit(unit: &Unit) -> Vec<Finding> {
    let name = &unit.name;
    match unit.property("LoadState") {
        Some("loaded") => {}
        Some("masked") => {
            let text = format!("{name} is masked: systemd never starts it");
            let remedy = format!("run `systemctl unmask {name} && {}`", running::start(unit));
            return vec![MASKED.fail(text, remedy)];
        }
        state => {
            let text = format!("{name} cannot be loaded ({})", state.unwrap_or("unknown"));
            let remedy = format!("run `systemd-analyze verify {name}`, which names the line");
            return vec![INSTALLED.fail(text, remedy)];
        }
    }
    let mut found = Vec::new();
    let enabled = ["enabled", "enabled-runtime"];
    if !unit.is_service()
        && !unit
            .property("UnitFileState")
            .is_some_and(|it| enabled.contains(&it))
    {
        found.push(ENABLED.fail(
            format!("{name} is not enabled: after the next boot nobody listens"),
            format!("run `systemctl enable --now {name}`"),
        ));
    } else if unit.is_service() || !unit.is_active() {
        found.extend(running::finding(unit));
    }
    if unit.is("NeedDaemonReload", "yes") {
        found.push(RELOADED.warn(
            format!("{name} or a drop-in of it has changed since systemd read it"),
            format!("run `systemctl daemon-reload && systemctl try-restart {name}`"),
        ));
    }
    found
}

#[cfg(test)]
pub mod tests;
