//! The figures by name: a table for people, a flat list for programs.

use serde::Serialize;
use std::fmt;
use std::path::Path;

/// All figures, in the order they were measured.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Summary(Vec<Figure>);

#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Summary {
    /// Adds a figure, rounded to what a measurement here can mean.
    pub fn push(&mut self, name: &str, value: f64, unit: &'static str) {
        assert!(value.is_finite(), "{name}: {value}");
        self.0.push(Figure {
            name: name.to_owned(),
            value: (value * 100.0).round() / 100.0,
            unit,
        });
    }

    /// A figure that was added before.
    pub fn value(&self, name: &str) -> f64 {
        let found = self.0.iter().find(|figure| figure.name == name);
        found
            .unwrap_or_else(|| panic!("{name} is not measured yet"))
            .value
    }

    /// Writes the list as JSON.
    pub fn write(&self, path: &Path) {
        let dir = path.parent().expect("a file in a directory");
        std::fs::create_dir_all(dir).expect("target/ is ours");
        let json = serde_json::to_string_pretty(self).expect("names and numbers");
        std::fs::write(path, json + "\n").expect("target/ is ours");
        println!("written to {}", path.display());
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Figure { name, value, unit } in &self.0 {
            writeln!(f, "{name:<36} {value:>12.2} {unit}")?;
        }
        Ok(())
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
