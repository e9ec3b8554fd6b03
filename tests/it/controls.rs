//! The planted faults of `tests/controls`: each place they change is where they think, or they would change nothing.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
struct Controls {
    control: Vec<Control>,
}

#[derive(Deserialize)]
struct Control {
    n: u32,
    file: String,
    find: String,
    replace: String,
}

#[test]
fn every_planted_fault_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/controls/controls.toml")).unwrap();
    let controls = toml::from_str::<Controls>(&text).unwrap().control;
    let numbers: BTreeSet<_> = controls.iter().map(|control| control.n).collect();
    assert!(controls.len() >= 30 && numbers.len() == controls.len(), "{} of {}", numbers.len(), controls.len());
    let lost = controls.iter().filter_map(|control| {
        let text = std::fs::read_to_string(root.join(&control.file)).unwrap_or_default();
        let n_places = text.matches(control.find.strip_prefix('\n').unwrap_or(&control.find)).count();
        let is_there = n_places == 1 && control.find != control.replace;
        (!is_there).then(|| format!("{}: its place stands {n_places} times in {}", control.n, control.file))
    });
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "{lost:#?}");
}
