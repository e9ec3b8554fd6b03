//! Where a provider's pages contradict each other: the fake peers do what a switch says.

use std::collections::BTreeMap;

use super::{Provider, scrapebadger, tweetstream, twitterapi_io, x_live};

/// A thing a fake provider does in one way or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Its name, such as `takeover`.
    pub name: &'static str,
    /// What it can be set to.
    pub values: Values,
    /// What it decides, in one line, with the source of each way.
    pub about: &'static str,
}

/// What a switch can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these words; the first is the default.
    Words(&'static [&'static str]),
    /// A whole number.
    Number {
        /// Without being set.
        default: u64,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
}

/// The switches of a provider.
pub const fn switches_of(provider: Provider) -> &'static [Switch] {
    match provider {
        Provider::TwitterapiIo => twitterapi_io::SWITCHES,
        Provider::Tweetstream => tweetstream::SWITCHES,
        Provider::Scrapebadger => scrapebadger::SWITCHES,
        Provider::XLive => x_live::SWITCHES,
    }
}

/// Switches that were set; the others are at their default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches(BTreeMap<(Provider, &'static str), String>);

/// What is wrong with the setting of a switch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{problem}")]
pub struct SwitchError {
    problem: String,
}

impl Switches {
    /// Sets one by text, as in `twitterapi_io.takeover=replace`.
    ///
    /// # Errors
    /// When there is no such switch, or it cannot be set to that.
    pub fn set(&mut self, text: &str) -> Result<(), SwitchError> {
        let fail = |problem: String| SwitchError { problem };
        let parts = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
        let ((provider, name), value) =
            parts.ok_or_else(|| fail(format!("`{text}` is not of the form PROVIDER.SWITCH=VALUE")))?;
        let provider: Provider = provider.parse().map_err(|error| fail(format!("{error}")))?;
        let switches = switches_of(provider);
        let switch = switches.iter().find(|switch| switch.name == name).ok_or_else(|| {
            let known: Vec<_> = switches.iter().map(|switch| switch.name).collect();
            fail(format!("{provider} has no switch `{name}`; it has {}", known.join(", ")))
        })?;
        match switch.values {
            Values::Words(words) if words.contains(&value) => {}
            Values::Words(words) => {
                return Err(fail(format!("{provider}.{name} cannot be `{value}`; it can be {}", words.join(", "))));
            }
            Values::Number { min, max, .. } => {
                if !value.parse().is_ok_and(|n: u64| (min..=max).contains(&n)) {
                    return Err(fail(format!("{provider}.{name} is a whole number from {min} to {max}, not `{value}`")));
                }
            }
        }
        self.0.insert((provider, switch.name), value.to_owned());
        Ok(())
    }

    /// The word a switch stands at.
    ///
    /// # Panics
    /// When the provider has no such switch of words: the name is a constant of our own.
    pub fn word(&self, provider: Provider, name: &str) -> &str {
        let switch = switches_of(provider).iter().find(|switch| switch.name == name);
        let Some(Switch { values: Values::Words(words), name, .. }) = switch else { panic!("no switch of words: {name}") };
        self.0.get(&(provider, *name)).map_or(words[0], String::as_str)
    }

    /// The number a switch stands at.
    ///
    /// # Panics
    /// When the provider has no such switch of a number.
    pub fn number(&self, provider: Provider, name: &str) -> u64 {
        let switch = switches_of(provider).iter().find(|switch| switch.name == name);
        let Some(Switch { values: Values::Number { default, .. }, name, .. }) = switch else { panic!("no number: {name}") };
        self.0.get(&(provider, *name)).and_then(|text| text.parse().ok()).unwrap_or(*default)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_set_by_text_and_says_what_it_knows() {
        let mut switches = Switches::default();
        assert_eq!(switches.word(Provider::TwitterapiIo, "takeover"), "reject");
        switches.set("twitterapi_io.takeover=replace").unwrap();
        assert_eq!(switches.word(Provider::TwitterapiIo, "takeover"), "replace");
        assert_eq!(switches.number(Provider::XLive, "ttl_ms"), 120_000);
        switches.set("x_live.ttl_ms=500").unwrap();
        assert_eq!(switches.number(Provider::XLive, "ttl_ms"), 500);
        for (bad, says) in [
            ("takeover", "PROVIDER.SWITCH=VALUE"),
            ("nobody.takeover=replace", "unknown provider"),
            ("twitterapi_io.nothing=x", "it has takeover"),
            ("twitterapi_io.takeover=maybe", "it can be reject, replace"),
            ("x_live.ttl_ms=soon", "whole number from"),
        ] {
            let error = switches.set(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
