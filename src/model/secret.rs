//! Keys and cookies, which must land nowhere.

use std::fmt;

use zeroize::Zeroize;

/// Text that is never shown: prints as `***`, has no serialisation, is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in; empty text is no secret.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let mut text = text.into();
        let trimmed = text.trim().to_owned();
        text.zeroize();
        (!trimmed.is_empty()).then_some(Self(trimmed))
    }

    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_itself() {
        let secret = Secret::new(" hunter2\n").unwrap();
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(Secret::new("  "), None);
    }
}
