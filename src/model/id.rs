//! Ids and names.

use std::fmt;
use std::str::FromStr;

use super::UnixMicros;

/// Place of a record in its source's sequence; dense, the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one; the last one there is stays. A file may come from anywhere.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one, at least 0.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a connection within its source; the first is 1, 0 means "no connection" (an import, a note).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A post's id: 64 bits, read from digits and never through a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TweetId(pub u64);

/// Milliseconds between 1970 and the zero of X's snowflake ids.
///
/// Documented by the sample in `fixtures/README.md`: `(id >> 22) + 1288834974657` equals `createdAt`.
const SNOWFLAKE_EPOCH_MS: u64 = 1_288_834_974_657;

/// Ids below this one were counted up, not made from the time (before 2010-11-04).
const FIRST_SNOWFLAKE: u64 = 29_700_859_247;

impl TweetId {
    /// Reads decimal digits; empty, signed, overflowing or other text is `None`.
    pub fn parse(digits: &str) -> Option<Self> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok().map(Self)).flatten()
    }

    /// When an X post was published, to the millisecond, from its snowflake id.
    ///
    /// `None` for ids older than snowflakes. Truth Social ids use another scheme: do not ask them.
    pub fn published_at(self) -> Option<UnixMicros> {
        let millis = (self.0 >> 22) + SNOWFLAKE_EPOCH_MS;
        (self.0 > FIRST_SNOWFLAKE).then(|| UnixMicros::from_millis(millis as i64))
    }

    /// The smallest id a post of that millisecond can have; 0 before the snowflake epoch.
    pub fn first_at(published_at: UnixMicros) -> Self {
        let since_epoch = published_at.millis().saturating_sub(SNOWFLAKE_EPOCH_MS as i64);
        Self((since_epoch.max(0) as u64) << 22)
    }
}

impl fmt::Display for TweetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The services birdtape speaks with; a closed set.
///
/// The enum stands on the ground floor, not in `provider`, because the catalog and the archive name a
/// source's provider without knowing anything about its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// twitterapi.io
    TwitterapiIo,
    /// tweetstream.io
    Tweetstream,
    /// scrapebadger.com
    Scrapebadger,
    /// X's own live pipeline
    XLive,
}

impl Provider {
    /// All of them, in the order they are listed everywhere.
    pub const ALL: [Self; 4] = [Self::TwitterapiIo, Self::Tweetstream, Self::Scrapebadger, Self::XLive];

    /// The name in config files, flags, segments and the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwitterapiIo => "twitterapi_io",
            Self::Tweetstream => "tweetstream",
            Self::Scrapebadger => "scrapebadger",
            Self::XLive => "x_live",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no provider.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown provider `{name}`; known are twitterapi_io, tweetstream, scrapebadger, x_live")]
pub struct UnknownProvider {
    /// What was written.
    pub name: String,
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| UnknownProvider { name: name.to_owned() })
    }
}

/// Name of a configured source: 1 to 64 of `a-z 0-9 _ -`, not beginning with `-`.
///
/// It becomes a directory name, so nothing that a file system could read as a path is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(String);

/// A source name that cannot be a directory name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("source name `{name}` is not 1 to 64 characters of a-z, 0-9, _ and -, beginning with a letter or digit")]
pub struct NameError {
    /// What was written.
    pub name: String,
}

impl SourceName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says which characters are allowed; the caller can only ask for another name.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let good =
            (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('-') && !name.starts_with('_');
        if good { Ok(Self(name)) } else { Err(NameError { name }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Provider> for SourceName {
    fn from(provider: Provider) -> Self {
        Self(provider.name().to_owned())
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snowflakes_give_the_documented_time() {
        let id = TweetId::parse("2064689031777615872").unwrap();
        assert_eq!(id.published_at(), Some(UnixMicros::from_millis(1_781_095_199_900)));
        assert!(TweetId::first_at(UnixMicros::from_millis(1_781_095_199_900)) <= id);
        assert_eq!(TweetId(20).published_at(), None, "the first tweet ever has no time in its id");
    }

    #[test]
    fn ids_are_digits_only() {
        for text in ["", "-1", "+1", "1.0", "1e3", "18446744073709551616", " 1", "abc"] {
            assert_eq!(TweetId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn source_names_cannot_leave_their_directory() {
        for name in ["", ".", "..", "a/b", "A", "a b", "-x", "_x", "é", &"x".repeat(65)] {
            assert!(SourceName::new(name).is_err(), "{name:?}");
        }
        assert!(SourceName::new("alpha-2_b").is_ok());
    }
}
