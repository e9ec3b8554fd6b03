//! The player's buttons, in Rust and over HTTP.
//!
//! | request under `/_birdtape` | does |
//! | --- | --- |
//! | `GET /` | tells where it stands: [`Status`] as JSON |
//! | `POST /pause`, `POST /resume` | holds the clock, lets it run |
//! | `POST /speed` `{"to": 10}` or `{"to": "max"}` | changes the pace, without a jump |
//! | `POST /seek` `{"to": "2026-01-05T12:00:00Z"}`, a post's id as text, or `"end"` | goes there; what waits for clients is dropped |
//! | `POST /step` `{"n": 1}` | while paused: plays so many envelopes, over all providers |
//! | `POST /inject` `{"provider": "tweetstream", "envelope": {…}}` or `"text": "…"` | gives clients an envelope that is in no tape |
//! | `POST /stop` | ends the replay |
//!
//! A parameter may stand in the query as well. The answer is the status, or `{"error", "hint"}` with 4xx. Only
//! programs on this machine are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::feed::Origin;
use super::house::House;
use super::player::lock;
use super::{Place, ReplayError, Speed, Stats};
use crate::model::{Provider, Response, TweetId, UnixMicros};
use crate::net::ServerRequest;
use crate::provider::form_values;

/// Where the buttons are.
pub(super) const PREFIX: &str = "/_birdtape";

/// Why a button does nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The feed does not reach there.
    #[error("{at} is outside of what is played, which goes from {first} to {}", last.map_or("no end".to_owned(), |at| at.to_string()))]
    Outside {
        /// Where to.
        at: UnixMicros,
        /// The feed's first moment.
        first: UnixMicros,
        /// Its last.
        last: Option<UnixMicros>,
    },
    /// The post never came.
    #[error("post {id} is in no envelope that is played")]
    NoSuchTweet {
        /// Its id.
        id: TweetId,
    },
    /// A made-up world has no end, and its posts are not known before they are made up.
    #[error("a made-up world can only be sought by time")]
    MadeUp,
    /// A word that is no place.
    #[error("`{given}` is no place in a recording")]
    NoPlace {
        /// The word.
        given: String,
    },
    /// A speed that cannot be played.
    #[error("a speed of {given} cannot be played")]
    Speed {
        /// What was asked for.
        given: f64,
    },
    /// Stepping needs a held clock.
    #[error("the clock runs, so there is nothing to step")]
    Running,
    /// The tape cannot be read.
    #[error("the tape cannot be read: {0}")]
    Tape(String),
}

impl ControlError {
    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Outside { .. } => Some("take a moment in between; `birdtape status` shows what a tape holds"),
            Self::NoSuchTweet { .. } => Some("`birdtape get ID` shows whether the tape has it, and over which source"),
            Self::MadeUp => Some("give a moment as in 2026-01-05T12:00:30Z"),
            Self::NoPlace { .. } => Some("a place is a moment (2026-01-05T12:00:00Z), a post's id, or `end`"),
            Self::Speed { .. } => Some("a speed is a number above 0 and up to 1000000, or `max`"),
            Self::Running => Some("pause it first"),
            Self::Tape(_) => None,
        }
    }
}

impl std::str::FromStr for Place {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        if text == "end" {
            return Ok(Self::End);
        }
        let place = TweetId::parse(text).map(Self::Tweet).or_else(|| UnixMicros::parse_rfc3339(text).map(Self::At));
        place.ok_or_else(|| ControlError::NoPlace { given: text.to_owned() })
    }
}

impl Speed {
    /// A speed that can be played.
    ///
    /// # Errors
    /// When it is not above 0 and up to a million.
    pub fn checked(self) -> Result<Self, ControlError> {
        match self {
            Self::Times(given) if !(given > 0.0 && given <= 1e6) => Err(ControlError::Speed { given }),
            speed => Ok(speed),
        }
    }
}

/// What a replay is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The clock waits for the first client.
    Waiting,
    /// It plays.
    Playing,
    /// The clock is held.
    Paused,
    /// Everything was played.
    Done,
}

impl State {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Playing => "playing",
            Self::Paused => "paused",
            Self::Done => "done",
        }
    }
}

/// Where a replay stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// How fast.
    pub speed: Speed,
    /// The virtual instant; at full speed that of the last envelope played.
    pub now: UnixMicros,
    /// First moment of what is played.
    pub first: UnixMicros,
    /// Last moment of it, if it has one.
    pub last: Option<UnixMicros>,
    /// Rounds still to come after this one.
    pub rounds_left: u64,
    /// Counts.
    pub stats: Stats,
}

impl Status {
    /// One JSON object.
    pub fn to_json(&self) -> String {
        let providers: serde_json::Map<_, _> =
            self.stats.providers.iter().map(|of| (of.provider.name().to_owned(), of.to_json())).collect();
        let speed = match self.speed {
            Speed::Max => json!("max"),
            Speed::Times(times) => json!(times),
        };
        json!({
            "state": self.state.name(), "speed": speed, "now": self.now.to_string(), "first": self.first.to_string(),
            "last": self.last.map(|at| at.to_string()), "rounds_left": self.rounds_left, "providers": providers,
            "damage": self.stats.damage,
        })
        .to_string()
    }
}

/// The buttons of a running replay.
#[derive(Clone)]
pub struct Control {
    house: Arc<House>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("base", &self.house.urls.base()).finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn of(house: &Arc<House>) -> Self {
        Self { house: Arc::clone(house) }
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let house = &self.house;
        let stats = house.stats();
        let is_done = stats.providers.iter().all(|of| of.done);
        let (state, speed, now, rounds_left) = house.timeline.with(|clock, now| {
            let state = match () {
                () if clock.is_paused() => State::Paused,
                () if is_done => State::Done,
                () if clock.is_started() => State::Playing,
                () => State::Waiting,
            };
            (state, clock.speed(), clock.moment(now), clock.loops())
        });
        Status { state, speed, now, first: house.origin.first_at(), last: house.origin.last_at(), rounds_left, stats }
    }

    /// Holds the clock; what is on its way to clients still arrives.
    pub fn pause(&self) {
        self.house.timeline.change(|clock, now| clock.pause(now));
    }

    /// Lets the clock run; one that was held from the start begins.
    pub fn resume(&self) {
        self.house.timeline.change(|clock, now| clock.resume(now));
    }

    /// Changes the pace, without a jump.
    ///
    /// # Errors
    /// When it cannot be played.
    pub fn speed(&self, speed: Speed) -> Result<(), ControlError> {
        let speed = speed.checked()?;
        self.house.timeline.change(|clock, now| clock.set_speed(speed, now));
        Ok(())
    }

    /// Goes somewhere else; what waits for clients is dropped, a held clock stays held. Says where it stands then.
    ///
    /// # Errors
    /// When the feed does not have that place.
    pub async fn seek(&self, place: Place) -> Result<UnixMicros, ControlError> {
        let to = moment(&self.house.origin, place, self.house.index_delay).await?;
        for booth in &self.house.booths {
            booth.tally.played_to.store(to.0, Relaxed);
        }
        self.house.timeline.change(|clock, now| clock.seek(to, now));
        for booth in &self.house.booths {
            for queue in lock(&booth.peers).values() {
                queue.clear(|slice| slice.framed().len());
            }
        }
        Ok(to)
    }

    /// Plays so many envelopes, over all providers that have begun, although the clock is held.
    ///
    /// # Errors
    /// When the clock is not held.
    pub fn step(&self, n: u64) -> Result<(), ControlError> {
        self.house.timeline.change(|clock, _| {
            if !clock.is_paused() {
                return Err(ControlError::Running);
            }
            clock.step(n);
            Ok(())
        })
    }

    /// Gives an envelope to all clients of a provider, behind what waits for them. How many get it.
    pub fn inject(&self, provider: Provider, envelope: &Bytes) -> usize {
        self.house.booth(provider).inject(envelope)
    }

    /// Ends the replay.
    pub fn stop(&self) {
        self.house.stop.send_replace(true);
    }
}

/// The moment a place means.
pub(super) async fn moment(origin: &Arc<Origin>, place: Place, index_delay: Duration) -> Result<UnixMicros, ControlError> {
    let (first, last) = (origin.first_at(), origin.last_at());
    match place {
        Place::At(at) if at < first || last.is_some_and(|last| at > last) => Err(ControlError::Outside { at, first, last }),
        Place::At(at) => Ok(at),
        Place::End => last.map(|last| last.plus(index_delay + Duration::from_micros(1))).ok_or(ControlError::MadeUp),
        Place::Tweet(_) if origin.world().is_some() => Err(ControlError::MadeUp),
        Place::Tweet(id) => {
            let origin = Arc::clone(origin);
            let found = tokio::task::spawn_blocking(move || origin.find(id)).await;
            let found = found.unwrap_or_else(|error| Err(ReplayError::Thread { source: std::io::Error::other(error) }));
            found.map_err(|error| ControlError::Tape(error.to_string()))?.ok_or(ControlError::NoSuchTweet { id })
        }
    }
}

/// Answers a request whose path goes on like this behind [`PREFIX`].
pub(super) async fn answer(house: &Arc<House>, path: &str, asked: &ServerRequest) -> Response {
    if !asked.peer.ip().to_canonical().is_loopback() {
        return refuse(403, "the player is controlled from its own machine only", None);
    }
    let control = Control::of(house);
    let button = path.trim_matches('/');
    match (asked.method.as_str(), button) {
        ("GET", "") => return Response::json(200, control.status().to_json()),
        ("POST", _) => {}
        _ => return refuse(405, "a button is pressed with POST; GET tells the status", None),
    }
    match press(&control, button, asked).await {
        Ok(()) => Response::json(200, control.status().to_json()),
        Err(Refusal::Control(error)) => refuse(400, &error.to_string(), error.hint()),
        Err(Refusal::Request(what, hint)) => refuse(400, &what, Some(hint)),
        Err(Refusal::Unknown) => {
            let hint = "there are pause, resume, speed, seek, step, inject and stop";
            refuse(404, &format!("no button is called `{button}`"), Some(hint))
        }
    }
}

enum Refusal {
    Control(ControlError),
    /// What is wrong, and what to do.
    Request(String, &'static str),
    Unknown,
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

async fn press(control: &Control, button: &str, asked: &ServerRequest) -> Result<(), Refusal> {
    match button {
        "pause" => control.pause(),
        "resume" => control.resume(),
        "stop" => control.stop(),
        "speed" => {
            const HINT: &str = r#"say {"to": 10} or {"to": "max"}"#;
            let to = parameter(asked, "to")?;
            let to = to.ok_or_else(|| Refusal::Request("no speed is given".to_owned(), HINT))?;
            let speed = match to.as_str() {
                "max" => Speed::Max,
                text => text.parse().map(Speed::Times).map_err(|_| Refusal::Request(format!("`{text}` is no speed"), HINT))?,
            };
            control.speed(speed)?;
        }
        "seek" => {
            const HINT: &str = r#"say {"to": "2026-01-05T12:00:00Z"}, {"to": "a post's id"} or {"to": "end"}"#;
            let to = parameter(asked, "to")?.ok_or_else(|| Refusal::Request("no place is given".to_owned(), HINT))?;
            control.seek(to.parse::<Place>()?).await?;
        }
        "step" => {
            let n = parameter(asked, "n")?.unwrap_or_else(|| "1".to_owned());
            let n = n.parse().ok().filter(|n| *n > 0);
            control.step(n.ok_or_else(|| Refusal::Request("n is no number of envelopes".to_owned(), r#"say {"n": 3}"#))?)?;
        }
        "inject" => inject(control, asked)?,
        _ => return Err(Refusal::Unknown),
    }
    Ok(())
}

fn inject(control: &Control, asked: &ServerRequest) -> Result<(), Refusal> {
    /// The envelope's own bytes are kept, spaces and all.
    #[derive(serde::Deserialize)]
    struct Wanted<'a> {
        provider: String,
        #[serde(borrow)]
        envelope: Option<&'a RawValue>,
        text: Option<String>,
    }
    const HINT: &str = r#"say {"provider": "tweetstream", "envelope": {…}}, or "text" for bytes that are no JSON"#;
    let wanted: Wanted<'_> = serde_json::from_slice(&asked.body)
        .map_err(|error| Refusal::Request(format!("the body cannot be read: {error}"), HINT))?;
    let provider = wanted.provider.parse::<Provider>().map_err(|error| Refusal::Request(error.to_string(), HINT))?;
    let envelope = match (wanted.envelope, wanted.text) {
        (Some(envelope), None) => Bytes::copy_from_slice(envelope.get().as_bytes()),
        (None, Some(text)) => Bytes::from(text),
        _ => return Err(Refusal::Request("either `envelope` or `text` is needed".to_owned(), HINT)),
    };
    control.inject(provider, &envelope);
    Ok(())
}

/// A parameter of the query, or of the body's JSON object.
fn parameter(asked: &ServerRequest, name: &str) -> Result<Option<String>, Refusal> {
    if let Some((_, value)) = form_values(&asked.query).find(|(key, _)| key == name) {
        return Ok(Some(value));
    }
    if asked.body.is_empty() {
        return Ok(None);
    }
    let body: Value = serde_json::from_slice(&asked.body)
        .map_err(|error| Refusal::Request(format!("the body is no JSON: {error}"), "give a JSON object, or the query"))?;
    Ok(match &body[name] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    })
}

fn refuse(status: u16, error: &str, hint: Option<&str>) -> Response {
    Response::json(status, json!({ "error": error, "hint": hint }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_places() {
        assert!(matches!("end".parse(), Ok(Place::End)));
        assert!(matches!("2045879341243043889".parse(), Ok(Place::Tweet(TweetId(2_045_879_341_243_043_889)))));
        assert!(matches!("2026-01-05T12:00:00Z".parse(), Ok(Place::At(UnixMicros(1_767_614_400_000_000)))));
        assert!(matches!("soon".parse::<Place>(), Err(ControlError::NoPlace { .. })));
    }
}
