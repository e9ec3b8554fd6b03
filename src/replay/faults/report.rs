//! What fired and what should have.

use serde_json::{Value, json};

/// One fault's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it does.
    pub does: &'static str,
    /// How often it fired.
    pub fired: u64,
    /// How often it had to, at least.
    pub expected: u64,
}

impl Row {
    /// Whether it fired too seldom.
    pub fn is_missed(&self) -> bool {
        self.fired < self.expected
    }

    /// In words, on one line.
    pub fn words(&self) -> String {
        let Self { name, does, fired, expected } = self;
        let verdict = match (fired, self.is_missed()) {
            (0, true) => " - it never fired",
            (_, true) => " - too seldom",
            _ => "",
        };
        format!("fault {name} ({does}): fired {fired}, expected {expected}{verdict}")
    }

    /// For scripts.
    pub fn to_json(&self) -> Value {
        json!({ "name": self.name, "do": self.does, "fired": self.fired, "expected": self.expected, "missed": self.is_missed() })
    }
}
