//! Flags that shape a made-up world, and what they mean to the generator.

use std::str::FromStr as _;

use anyhow::Result;

use super::args;
use super::exit::usage;
use crate::model::Provider;
use crate::provider::synthetic::{Burst, Dialect, Language, Options};

/// Flags behind `--synthetic`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Made up")]
pub(super) struct Synthetic {
    /// Make envelopes up instead of playing a tape
    #[arg(long)]
    pub(super) synthetic: bool,
    /// Envelopes a second, over all providers [default: 50]
    #[arg(long, value_name = "N", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// What chance begins with; equal seeds make equal worlds [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many envelopes [default: without end]
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// ScrapeBadger's dialect: A, B, C or merged [default: C]
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    dialect: Option<Dialect>,
    /// Shares of the providers on any scale; who is not named is silent [default: twitterapi_io=45,tweetstream=30,scrapebadger=12,x_live=13]
    #[arg(long, value_name = "PROVIDER=N,…", value_parser = mix)]
    mix: Option<[f64; 4]>,
    /// Bursts about one thing: 20x:10m:15s is twenty times the rate, about every ten minutes, for 15 s
    #[arg(long, value_name = "RATE:EVERY:FOR", value_parser = burst)]
    burst: Option<Burst>,
    /// Let the rate follow a day's shape by the hour of UTC, around its mean
    #[arg(long)]
    day_curve: bool,
    /// Languages of posts with their shares on any scale, such as en=60,ja=15,ar=5
    #[arg(long, value_name = "CODE=N,…", value_parser = languages)]
    languages: Option<Languages>,
    /// Share of posts that are changed later (0.02 or 2%)
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    edits: Option<f64>,
    /// Share of TweetStream's posts that are deleted later; the others announce none [default: 0.8%]
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    deletes: Option<f64>,
    /// Share of direct messages and of typing on X's live pipeline
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    dms: Option<f64>,
    /// Share of Truth Social among TweetStream's posts
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    truth_social: Option<f64>,
}

/// A named type, for clap takes a plain `Vec` for values of several flags.
#[derive(Clone, Debug)]
struct Languages(Vec<(Language, f64)>);

impl Synthetic {
    /// The world asked for; `None` without `--synthetic`.
    ///
    /// # Errors
    ///
    /// When the world is shaped and not asked for.
    pub(super) fn options(&self) -> Result<Option<Options>> {
        let usual = Options::default();
        let options = Options {
            seed: self.seed.unwrap_or(usual.seed),
            rate: self.rate.unwrap_or(usual.rate),
            mix: self.mix.unwrap_or(usual.mix),
            dialect: self.dialect.unwrap_or(usual.dialect),
            burst: self.burst,
            day_curve: self.day_curve,
            languages: self.languages.as_ref().map(|languages| languages.0.clone()).unwrap_or_default(),
            edits: self.edits.unwrap_or(usual.edits),
            deletes: self.deletes,
            dms: self.dms.unwrap_or(usual.dms),
            truth_social: self.truth_social.unwrap_or(usual.truth_social),
            ..usual
        };
        if self.synthetic {
            return Ok(Some(options));
        }
        match self.given().first() {
            None => Ok(None),
            Some(flag) => {
                let what = format!("{flag} shapes a made-up world");
                Err(usage(what, "add --synthetic, or leave it out to play a tape"))
            }
        }
    }

    /// Which flags were given, whatever they say.
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("--rate", self.rate.is_some()),
            ("--seed", self.seed.is_some()),
            ("--count", self.count.is_some()),
            ("--dialect", self.dialect.is_some()),
            ("--mix", self.mix.is_some()),
            ("--burst", self.burst.is_some()),
            ("--day-curve", self.day_curve),
            ("--languages", self.languages.is_some()),
            ("--edits", self.edits.is_some()),
            ("--deletes", self.deletes.is_some()),
            ("--dms", self.dms.is_some()),
            ("--truth-social", self.truth_social.is_some()),
        ];
        flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect()
    }
}

fn dialect(text: &str) -> Result<Dialect, String> {
    match text {
        "A" | "a" => Ok(Dialect::A),
        "B" | "b" => Ok(Dialect::B),
        "C" | "c" => Ok(Dialect::C),
        "merged" => Ok(Dialect::Merged),
        _ => Err("known are A, B, C, merged".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "a rate is a number of envelopes a second, from 0.001 to 1000000".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    };
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "a share is 0 to 1 (0.02) or 0% to 100% (2%)".to_owned())
}

fn mix(text: &str) -> Result<[f64; 4], String> {
    let mut mix = [0.0; 4];
    for (provider, share) in shares(text, |name| Provider::from_str(name).ok(), &Provider::ALL.map(Provider::name))? {
        mix[provider as usize] = share;
    }
    Ok(mix)
}

fn languages(text: &str) -> Result<Languages, String> {
    let known: Vec<_> = Language::all().map(Language::code).collect();
    shares(text, Language::from_code, &known).map(Languages)
}

/// `name=number,…`: every name is known and stands once, and one share at least is above 0.
fn shares<T: Copy + PartialEq>(text: &str, find: impl Fn(&str) -> Option<T>, known: &[&str]) -> Result<Vec<(T, f64)>, String> {
    let mut shares = Vec::new();
    for part in text.split(',') {
        let (name, number) = part.split_once('=').ok_or_else(|| format!("`{part}` is not written as name=number"))?;
        let (name, number) = (name.trim(), number.trim());
        let thing = find(name).ok_or_else(|| format!("`{name}` is not known; known are {}", known.join(", ")))?;
        let share = number.parse().ok().filter(|share: &f64| share.is_finite() && (0.0..=1e9).contains(share));
        let share = share.ok_or_else(|| format!("`{number}` is no share of {name}: a number from 0 on"))?;
        if shares.iter().any(|(other, _)| *other == thing) {
            return Err(format!("{name} stands there twice"));
        }
        shares.push((thing, share));
    }
    match shares.iter().any(|(_, share)| *share > 0.0) {
        true => Ok(shares),
        false => Err("all shares are 0, so nothing would be said".to_owned()),
    }
}

fn burst(text: &str) -> Result<Burst, String> {
    let written = || "a burst is written as RATE:EVERY:FOR, such as 20x:10m:15s".to_owned();
    let [times, every, lasts] = text.split(':').collect::<Vec<_>>()[..] else { return Err(written()) };
    let times = times.strip_suffix('x').unwrap_or(times).parse().ok().filter(|times| (1..=10_000).contains(times));
    let times = times.ok_or_else(|| "a burst has 1x to 10000x the rate, a whole number".to_owned())?;
    let (every, lasts) = (args::duration(every)?, args::duration(lasts)?);
    if every.as_millis() < 1_000 || lasts.as_millis() < 100 || lasts > every {
        return Err("bursts come every second or less often, and last from 100ms on, but not longer than to the next".to_owned());
    }
    Ok(Burst { times, every, lasts })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shares_are_read_on_any_scale() {
        assert_eq!(mix("twitterapi_io=50,tweetstream=30,scrapebadger=0,x_live=20"), Ok([50.0, 30.0, 0.0, 20.0]));
        assert_eq!(mix("x_live=0.5"), Ok([0.0, 0.0, 0.0, 0.5]));
        let read = languages("en=60, ja=15,ar=5").unwrap().0;
        let codes: Vec<_> = read.iter().map(|(language, share)| (language.code(), *share)).collect();
        assert_eq!(codes, [("en", 60.0), ("ja", 15.0), ("ar", 5.0)]);
        assert_eq!([share("0.02"), share("2%"), share("1")], [Ok(0.02), Ok(0.02), Ok(1.0)]);
        let wanted = Burst { times: 20, every: Duration::from_secs(600), lasts: Duration::from_secs(15) };
        assert_eq!([burst("20x:10m:15s"), burst("20:600:15")], [Ok(wanted), Ok(wanted)]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let mixes = ["", "x_live", "x_live=", "x_live=-1", "x_live=NaN", "x_live=inf", "X=1", "x_live=1,x_live=2", "x_live=0"];
        for text in mixes {
            assert!(mix(text).is_err(), "{text}");
        }
        assert!(mix("birds=1").unwrap_err().contains("known are twitterapi_io, tweetstream, scrapebadger, x_live"));
        assert!(languages("tlh=1").unwrap_err().contains("en, ja, es"));
        for text in ["", "20x", "20x:10m", "x:10m:15s", "0x:10m:15s", "2.5x:10m:15s", "2x:10s:15s", "2x:1ms:1ms", "2x:1m:1s:1s"] {
            assert!(burst(text).is_err(), "{text}");
        }
        for text in ["", "-0.1", "1.1", "101%", "NaN", "%"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert!(["0", "-1", "NaN", "inf", "2e6", "x"].iter().all(|text| rate(text).is_err()));
    }
}
