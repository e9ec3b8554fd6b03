//! Parameters and bodies, checked; what is wrong with them is told thing by thing.
//!
//! Documented: 422 with `{"detail":[{"loc","msg",…}]}` (docs.scrapebadger.com, OpenAPI), the form of the web framework
//! behind it. The words are in its manner, not to the letter.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::Failure;
use crate::provider::{Asked, form_values};

/// Texts that are kept: longest webhook address and secret. Not documented; bounds of our own.
const URL_MAX: usize = 2_048;
const SECRET_MAX: usize = 256;

/// A row of a list, and how many rows there are of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Window {
    /// Both ways of counting at once: the OpenAPI text has pages, the vendor's packages read limit and offset of rules.
    pub(super) fn around(self, name: &str, rows: Vec<Value>, n_total: usize) -> Value {
        json!({
            name: rows,
            "total": n_total,
            "page": self.offset / self.limit + 1,
            "page_size": self.limit,
            "limit": self.limit,
            "offset": self.offset,
        })
    }
}

/// Query parameters.
#[derive(Debug)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    problems: Vec<Value>,
}

impl Params {
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        Self { pairs: form_values(asked.query).collect(), problems: Vec::new() }
    }

    /// The first of that name that says something.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    pub(super) fn needed(&mut self, name: &str) -> String {
        match self.text(name) {
            Some(text) => text.to_owned(),
            None => {
                self.complain("missing", name, "Field required");
                String::new()
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            Ok(_) => {
                let words = format!("Input should be from {} to {}", range.start(), range.end());
                self.complain("out_of_range", name, &words);
                default
            }
            Err(_) => {
                self.complain("int_parsing", name, "Input should be a valid integer");
                default
            }
        }
    }

    /// One of those words; the first is the default, and may be empty for none.
    pub(super) fn word(&mut self, name: &str, words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let Some(text) = self.text(name) else { return default };
        match words.iter().find(|word| **word == text) {
            Some(word) => word,
            None => {
                let words = words.join(", ");
                self.complain("enum", name, &format!("Input should be one of {}", words.trim_start_matches(", ")));
                default
            }
        }
    }

    /// Documented: `page` from 1 and `page_size` up to 100, 20 by default; `limit` and `offset` are the packages'.
    pub(super) fn window(&mut self) -> Window {
        const FAR: usize = 1 << 40;
        let page = self.number("page", 1, 1..=FAR);
        let page_size = self.number("page_size", 20, 1..=100);
        if self.text("limit").is_none() && self.text("offset").is_none() {
            return Window { offset: (page - 1).saturating_mul(page_size), limit: page_size };
        }
        Window { limit: self.number("limit", 20, 1..=100), offset: self.number("offset", 0, 0..=FAR) }
    }

    pub(super) fn complain(&mut self, kind: &str, name: &str, words: &str) {
        self.problems.push(problem("query", kind, name, words));
    }

    pub(super) fn checked(self) -> Result<(), Failure> {
        if self.problems.is_empty() { Ok(()) } else { Err(Failure::Invalid(self.problems)) }
    }
}

/// What a body says about a field that may be cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<T> {
    /// Nothing.
    Keep,
    /// `null`, or an empty text.
    Clear,
    /// This.
    Set(T),
}

impl<T> Change<T> {
    /// What a new thing has.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

/// The fields of a JSON body.
#[derive(Debug)]
pub(super) struct Body {
    fields: Map<String, Value>,
    problems: Vec<Value>,
}

impl Body {
    pub(super) fn of(asked: &Asked<'_>) -> Result<Self, Failure> {
        let wrong = |kind: &str, words: &str| Failure::Invalid(vec![json!({"type": kind, "loc": ["body"], "msg": words})]);
        match serde_json::from_slice(asked.body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, problems: Vec::new() }),
            Ok(_) => Err(wrong("model_attributes_type", "Input should be an object")),
            Err(_) if asked.body.is_empty() => Err(wrong("missing", "Field required")),
            Err(_) => Err(wrong("json_invalid", "JSON decode error")),
        }
    }

    pub(super) fn complain(&mut self, kind: &str, name: &str, words: &str) {
        self.problems.push(problem("body", kind, name, words));
    }

    pub(super) fn checked(self) -> Result<(), Failure> {
        if self.problems.is_empty() { Ok(()) } else { Err(Failure::Invalid(self.problems)) }
    }

    /// A new thing cannot do without these.
    pub(super) fn need(&mut self, names: &[&str]) {
        for name in names {
            if !self.fields.contains_key(*name) {
                self.complain("missing", name, "Field required");
            }
        }
    }

    /// A text of so many characters, if the field is there; `null` is none.
    pub(super) fn text(&mut self, name: &str, length: RangeInclusive<usize>) -> Option<String> {
        let text = match self.fields.get(name)? {
            Value::String(text) => text.clone(),
            _ => {
                self.complain("string_type", name, "Input should be a valid string");
                return None;
            }
        };
        if !length.contains(&text.chars().count()) {
            let words = format!("String should have from {} to {} characters", length.start(), length.end());
            self.complain("string_length", name, &words);
            return None;
        }
        Some(text)
    }

    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let Some(number) = self.fields.get(name)?.as_f64() else {
            self.complain("float_type", name, "Input should be a valid number");
            return None;
        };
        if !range.contains(&number) {
            let words = format!("Input should be from {} to {}", range.start(), range.end());
            self.complain("out_of_range", name, &words);
            return None;
        }
        Some(number)
    }

    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        match self.fields.get(name)? {
            Value::Null => None,
            given => match given.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Some(number),
                None => {
                    let words = format!("Input should be an integer from {} to {}", range.start(), range.end());
                    self.complain("out_of_range", name, &words);
                    None
                }
            },
        }
    }

    /// One of those words, if the field is there.
    pub(super) fn word(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        let given = self.fields.get(name)?.as_str().unwrap_or_default();
        let word = words.iter().find(|word| **word == given).copied();
        if word.is_none() {
            self.complain("enum", name, &format!("Input should be one of {}", words.join(", ")));
        }
        word
    }

    /// A list of texts, if the field is there; `check` says what is kept of each.
    pub(super) fn texts<T>(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        mut check: impl FnMut(&str) -> Option<T>,
    ) -> Change<Vec<T>> {
        let given = match self.fields.get(name) {
            None => return Change::Keep,
            Some(Value::Null) => return Change::Clear,
            Some(Value::Array(given)) => given,
            Some(_) => {
                self.complain("list_type", name, "Input should be a valid list");
                return Change::Keep;
            }
        };
        let n_given = given.len();
        let kept: Option<Vec<T>> = given.iter().take(*length.end()).map(|item| check(item.as_str()?)).collect();
        match kept {
            _ if !length.contains(&n_given) => {
                let words = format!("List should have from {} to {} items", length.start(), length.end());
                self.complain("list_length", name, &words);
                Change::Keep
            }
            Some(kept) => Change::Set(kept),
            None => {
                self.complain("value_error", name, "an item of the list is not valid");
                Change::Keep
            }
        }
    }

    /// A webhook's address. Documented: `https` only; `null` clears it, and so does an empty text in the packages.
    pub(super) fn url(&mut self, name: &str) -> Change<String> {
        match self.fields.get(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(Value::String(url)) if url.is_empty() => Change::Clear,
            Some(Value::String(url)) if url.starts_with("https://") && (9..=URL_MAX).contains(&url.len()) => {
                Change::Set(url.clone())
            }
            Some(_) => {
                self.complain("value_error", name, "Webhook URL must use HTTPS");
                Change::Keep
            }
        }
    }

    /// A webhook's secret: only that there is one is of use here.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::Null => None,
            _ => self.text(name, 0..=SECRET_MAX).filter(|secret| !secret.is_empty()),
        }
    }
}

fn problem(place: &str, kind: &str, name: &str, words: &str) -> Value {
    json!({"type": kind, "loc": [place, name], "msg": words})
}
