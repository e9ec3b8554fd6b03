//! Authors: who they are, and how a profile changes.

use super::dice::Dice;
use super::out::Digits;
use super::words::{self, TONGUES, Tongue};

/// Milliseconds between 1970 and the zero of snowflake ids.
const SNOWFLAKE_EPOCH_MS: u64 = 1_288_834_974_657;

/// One account. Fields are what any of the four providers shows of it.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) id: u64,
    pub(super) handle: String,
    pub(super) name: String,
    pub(super) bio: String,
    pub(super) location: String,
    /// Makes the addresses of the picture and the banner.
    pub(super) avatar: u64,
    pub(super) banner: u64,
    pub(super) followers: u64,
    pub(super) following: u64,
    pub(super) posts: u64,
    pub(super) likes: u64,
    pub(super) media: u64,
    pub(super) joined_ms: u64,
    pub(super) blue: bool,
    pub(super) has_site: bool,
    /// Place of the language among [`TONGUES`].
    pub(super) tongue: usize,
}

/// A field that changed, with what it held before.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Name(String),
    Handle(String),
    Bio(String),
    Location(String),
    Avatar(u64),
    Banner(u64),
}

impl Author {
    /// Without a `tongue` it is a matter of chance.
    pub(super) fn new(dice: &mut Dice, rank: usize, start_ms: u64, tongue: Option<usize>) -> Self {
        let mut roll = dice.below(100);
        let drawn = words::SHARES.iter().position(|&share| {
            roll < share || {
                roll -= share;
                false
            }
        });
        let tongue = tongue.or(drawn).unwrap_or(0);
        let words = &TONGUES[tongue];
        let year_ms = 31_557_600_000;
        let joined_ms = start_ms.saturating_sub(dice.between(year_ms / 12, 17 * year_ms));
        // Accounts older than snowflakes, and a while after, have short numbers.
        let id = match joined_ms.checked_sub(SNOWFLAKE_EPOCH_MS + 5 * year_ms) {
            Some(_) => (joined_ms - SNOWFLAKE_EPOCH_MS) << 22 | dice.between(0, 0x3f_ffff),
            // The rank keeps them apart.
            None => 10_000_000 + rank as u64 * 3_880 + dice.between(0, 3_879),
        };
        let mut author = Self {
            id,
            handle: handle(dice, rank),
            name: name(dice, words),
            bio: dice.pick(words.bios).to_owned(),
            location: if dice.per_mille(600) { dice.pick(words.places).to_owned() } else { String::new() },
            avatar: dice.bits(),
            banner: if dice.per_mille(700) { dice.bits() } else { 0 },
            // The busier the author, the more followers, roughly.
            followers: dice.magnitude(20_000_000 / (rank as u64 / 16 + 1) + 500),
            following: 20 + dice.magnitude(8_000),
            posts: dice.magnitude(200_000),
            likes: dice.magnitude(150_000),
            media: dice.magnitude(20_000),
            joined_ms,
            blue: dice.per_mille(350),
            has_site: dice.per_mille(400),
            tongue,
        };
        if dice.per_mille(150) {
            author.bio = [author.bio.as_str(), " ", dice.pick(&words::EMOJI)].concat();
        }
        author
    }

    pub(super) fn tongue(&self) -> &'static Tongue {
        &TONGUES[self.tongue]
    }

    pub(super) fn verified_type(&self) -> &'static str {
        match (self.blue, self.followers) {
            (true, 2_000_000..) => "business",
            (true, _) => "blue",
            (false, _) => "none",
        }
    }

    /// Changes one thing and says what stood there before.
    pub(super) fn change(&mut self, dice: &mut Dice) -> Change {
        let words = self.tongue();
        match dice.below(100) {
            0..34 => {
                let next = [name(dice, words).as_str(), " ", dice.pick(&words::EMOJI)].concat();
                Change::Name(std::mem::replace(&mut self.name, next))
            }
            34..60 => {
                let next = [dice.pick(words.bios), " ", dice.pick(&words::EMOJI), " ", dice.pick(words.places)].concat();
                Change::Bio(std::mem::replace(&mut self.bio, next))
            }
            60..75 => {
                let next = [dice.pick(words.places), " ", dice.pick(&words::EMOJI)].concat();
                Change::Location(std::mem::replace(&mut self.location, next))
            }
            75..90 => Change::Avatar(std::mem::replace(&mut self.avatar, dice.bits() | 1)),
            90..97 => Change::Banner(std::mem::replace(&mut self.banner, dice.bits() | 1)),
            _ => {
                // What follows the name's number is only ever appended after an underscore, and only letters before it are
                // left out, so handles stay unique.
                let base = self.handle.split_once('_').map_or(self.handle.as_str(), |(base, _)| base);
                let next = [base, "_", Digits::of(dice.between(1, 999)).as_str()].concat();
                let next = next[next.len().saturating_sub(HANDLE_MAX)..].to_owned();
                Change::Handle(std::mem::replace(&mut self.handle, next))
            }
        }
    }
}

/// Longest name that X gives to an account, and takes in a search.
const HANDLE_MAX: usize = 15;

/// Unique because the rank stands in it.
fn handle(dice: &mut Dice, rank: usize) -> String {
    let (first, second) = (dice.pick(&words::HANDLE_PARTS), dice.pick(&words::HANDLE_PARTS));
    let number = Digits::of(rank as u64);
    let second = if first.len() + second.len() + number.as_str().len() > HANDLE_MAX { "" } else { second };
    let mut text = [first, second, number.as_str()].concat();
    if dice.per_mille(250) {
        text[..1].make_ascii_uppercase();
        text[first.len()..=first.len()].make_ascii_uppercase();
    }
    text
}

fn name(dice: &mut Dice, words: &Tongue) -> String {
    let (given, family) = (dice.pick(words.given), dice.pick(words.family));
    match dice.below(10) {
        0..7 => [given, words.glue, family].concat(),
        7 => given.to_owned(),
        8 => [given, " | ", dice.pick(words.places)].concat(),
        _ => [given, " ", dice.pick(&words::EMOJI)].concat(),
    }
}

/// Letters and digits of an address's random part.
pub(super) struct Slug([u8; 16]);

impl Slug {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";

    pub(super) fn of(mut seed: u64) -> Self {
        let mut text = [0; 16];
        for letter in &mut text {
            *letter = Self::LETTERS[(seed >> 58) as usize];
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        }
        Self(text)
    }

    /// The first `n` letters.
    pub(super) fn letters(&self, n: usize) -> &str {
        str::from_utf8(&self.0[..n]).unwrap_or_default()
    }
}

/// Hexadecimal digits of ids that are made of them.
pub(super) fn hex(dice: &mut Dice, n_digits: usize) -> String {
    let digits = format!("{:016x}{:016x}", dice.bits(), dice.bits());
    digits[..n_digits].to_owned()
}

pub(super) fn uuid(dice: &mut Dice) -> String {
    let h = hex(dice, 32);
    [&h[..8], "-", &h[8..12], "-4", &h[13..16], "-a", &h[17..20], "-", &h[20..]].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn handles_are_unique_and_no_longer_than_they_may_be() {
        let mut dice = Dice::new(1);
        let mut seen = HashSet::new();
        let mut longest = 0;
        for rank in 0..30_000 {
            let mut author = Author::new(&mut dice, rank, 1_767_614_400_000, None);
            for _ in 0..20 {
                let letters = author.handle.bytes().take_while(u8::is_ascii_alphabetic).count();
                let (number, _) = author.handle[letters..].split_once('_').unwrap_or((&author.handle[letters..], ""));
                assert_eq!((number, letters > 0), (Digits::of(rank as u64).as_str(), true), "{}", author.handle);
                longest = longest.max(author.handle.len());
                seen.insert(author.handle.clone());
                author.change(&mut dice);
            }
        }
        assert_eq!(longest, HANDLE_MAX);
        assert!(seen.len() > 30_000);
    }
}
