//! What a burst is about: a token, a match or breaking news, a few who write of it, and one post they all answer.

use std::sync::Arc;

use super::dice::Dice;
use super::tweets::Tweet;
use super::words;

/// What the posts of a burst have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// Index into [`words::TOKENS`].
    Token(usize),
    /// Goals of both sides at its beginning, and the match's tag.
    Match {
        goals: (u64, u64),
        tag: &'static str,
    },
    News {
        tag: &'static str,
    },
}

impl Theme {
    fn roll(dice: &mut Dice) -> Self {
        match dice.below(3) {
            0 => Self::Token(dice.below(words::TOKENS.len())),
            1 => Self::Match { goals: (dice.between(0, 4), dice.between(0, 4)), tag: dice.pick(&words::MATCHES) },
            _ => Self::News { tag: dice.pick(&words::NEWS) },
        }
    }

    /// What is said of it, by the place of a language among [`words::TONGUES`].
    pub(super) fn lines(self, tongue: usize) -> &'static [&'static str] {
        let place = match self {
            Self::Token(_) => 0,
            Self::Match { .. } => 1,
            Self::News { .. } => 2,
        };
        words::RUSH[tongue][place]
    }
}

/// One burst while it lasts.
#[derive(Clone, Debug)]
pub(super) struct Rush {
    /// Which one it is.
    pub(super) n: u64,
    pub(super) theme: Theme,
    /// Indices of those who write most of it, the busiest first.
    pub(super) cast: Vec<usize>,
    /// What the others answer, quote and repeat; the first post of the burst.
    pub(super) hot: Option<Arc<Tweet>>,
}

impl Rush {
    /// How many write in a burst.
    pub(super) const CAST: usize = 24;

    pub(super) fn new(dice: &mut Dice, n: u64, cast: Vec<usize>) -> Self {
        Self { n, theme: Theme::roll(dice), cast, hot: None }
    }
}
