//! What every client makes of a farewell, of an answer that is no opening, and of `Retry-After`: one table for all providers.
//!
//! The rules are those of the protocols and of good manners; what a provider documents otherwise stands beside them by name.
//! `scripts/conformance --closes` runs this and counts the cells.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Action, Auth, Client, End, Fault, Input, Loudness, Provider, Settings, default_settings};
use crate::model::{Cause, NetFault, Response, Secret};

use Cause::{Auth as Key, ConnectionLost, Credits, Protocol, RateLimited, Refused, Replaced, Silent, Unreachable};

/// Whatever is said, no client waits longer than a day and its jitter.
const LONGEST: Duration = Duration::from_secs(86_400 * 21 / 20);

fn settings(provider: Provider) -> Settings {
    let key = || Secret::new("planted-key-5c1d");
    let mut settings = Settings { scopes_every: Duration::ZERO, ..default_settings(provider) };
    settings.credentials = super::Credentials { key: key(), auth_token: key(), ct0: key() };
    if provider == Provider::XLive {
        (settings.topics, settings.auth) = (vec!["/tweet_engagement/1".to_owned()], Auth::Cookies);
    }
    settings
}

/// A client on virtual time.
struct Played {
    client: Client,
    settings: Settings,
    now: Instant,
}

/// What a client wants after something happened to it.
#[derive(Debug, PartialEq)]
struct Wants {
    causes: Vec<Cause>,
    details: String,
    /// The wait before the next dial, or why there is none.
    next: Result<Duration, Fault>,
    is_loud: bool,
}

impl Played {
    fn new(provider: Provider) -> Self {
        let (settings, now) = (settings(provider), Instant::now());
        let mut played = Self { client: Client::new(settings.clone()), settings, now };
        assert_eq!(played.after(Input::Start).next, Ok(Duration::ZERO), "{provider}: the first dial is made at once");
        played
    }

    fn after(&mut self, input: Input<'_>) -> Wants {
        self.client.on(self.now, input);
        let mut wants = Wants { causes: Vec::new(), details: String::new(), next: Err(Fault::Settings), is_loud: false };
        while let Some(action) = self.client.next_action() {
            match action {
                Action::Lost { cause, detail, .. } => {
                    wants.causes.push(cause);
                    wants.details += &detail;
                }
                Action::Dial { not_before } => wants.next = Ok(not_before - self.now),
                Action::Stop { fault, text } => {
                    (wants.next, wants.is_loud) = (Err(fault), true);
                    wants.details += &text;
                }
                Action::Say { loud, text } => {
                    wants.is_loud |= loud == Loudness::Error;
                    wants.details += &text;
                }
                _ => {}
            }
        }
        assert!(!wants.details.contains("planted"), "{}", wants.details);
        wants
    }

    fn ended(&mut self, end: End<'_>) -> Wants {
        self.after(Input::Opened { subprotocol: None });
        self.after(Input::Closed(end))
    }

    fn closed(&mut self, code: u16) -> Wants {
        self.ended(End { code: Some(code), reason: "a reason of theirs", ..End::default() })
    }

    fn refused(&mut self, status: u16, headers: &[(&str, &str)]) -> Wants {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.after(Input::Refused { response: &Response { status, headers, ..Response::default() } })
    }

    /// Goes on to the next dial; the machine is made anew when it has given up.
    fn dial(&mut self, wants: &Wants) {
        match wants.next {
            Ok(wait) => self.now += wait,
            Err(_) => *self = Self { now: self.now, ..Self::new(self.settings.provider) },
        }
    }
}

/// What is owed.
#[derive(Clone, Copy, Debug)]
enum Owed {
    /// Again, by the back-off.
    Soon,
    /// Again, not earlier than after so many seconds.
    NotWithin(u64),
    /// It does not pass by itself: seldom, and loudly.
    Slow,
    /// Never again, and loudly.
    Never(Fault),
}

impl Owed {
    fn check(self, what: &str, settings: &Settings, cause: Cause, wants: &Wants) {
        assert_eq!(wants.causes, [cause], "{what}: {wants:?}");
        let wait = match (self, wants.next) {
            (Self::Never(fault), next) => {
                assert_eq!((next, wants.is_loud), (Err(fault), true), "{what}: {wants:?}");
                return;
            }
            (_, Ok(wait)) => wait,
            (_, Err(_)) => panic!("{what}: {wants:?}"),
        };
        assert!(wait >= settings.reconnect_floor && wait <= LONGEST, "{what}: {wants:?}");
        let highest = (settings.reconnect_cap.max(settings.reconnect_floor)).mul_f64(1.06);
        match self {
            Self::Soon => assert!(wait <= highest && !wants.is_loud, "{what}: {wants:?}"),
            Self::NotWithin(seconds) => {
                let least = Duration::from_secs(seconds);
                assert!(wait >= least && wait <= highest.max(least.mul_f64(4.1)) && !wants.is_loud, "{what}: {wants:?}");
            }
            Self::Slow => assert!(wait >= settings.slow_retry && wants.is_loud, "{what}: {wants:?}"),
            Self::Never(_) => {}
        }
    }
}

/// Providers that speak WebSocket.
const SOCKETS: [Provider; 3] = [Provider::TwitterapiIo, Provider::Tweetstream, Provider::Scrapebadger];

/// What a close code owes, everywhere but where a provider documents it otherwise.
fn owed_for_close(provider: Provider, code: u16) -> (Cause, Owed) {
    use Provider::{Scrapebadger, Tweetstream, TwitterapiIo};
    match (provider, code) {
        (TwitterapiIo, 4001 | 4009) => (Replaced, Owed::Never(Fault::Replaced)),
        (TwitterapiIo, 4003) | (Tweetstream | Scrapebadger, 4001) => (Key, Owed::Never(Fault::Credentials)),
        (TwitterapiIo, 4029) => (RateLimited, Owed::NotWithin(60)),
        // A slot of the plan frees itself.
        (Tweetstream, 4029) => (RateLimited, Owed::NotWithin(40)),
        (Tweetstream, 4003 | 4403) => (Credits, Owed::Slow),
        (Tweetstream, 4401) => (Key, Owed::Slow),
        (_, 1000 | 1001 | 1012) => (ConnectionLost, Owed::Soon),
        (_, 1011 | 1014) => (ConnectionLost, Owed::NotWithin(5)),
        (Tweetstream, 1013) => (ConnectionLost, Owed::NotWithin(15)),
        (_, 1013) => (ConnectionLost, Owed::NotWithin(60)),
        (_, 1002 | 1003 | 1007 | 1009 | 1010) => (Protocol, Owed::Soon),
        (_, 1008 | 3000..=4999) => (Refused, Owed::Slow),
        _ => unreachable!("{code} never comes as a code: net finds it malformed"),
    }
}

#[test]
fn the_table_goes_red() {
    let wants = Played::new(Provider::TwitterapiIo).closed(1008);
    let settings = settings(Provider::TwitterapiIo);
    Owed::Slow.check("1008", &settings, Refused, &wants);
    let wrong = [(Refused, Owed::Soon), (ConnectionLost, Owed::Slow), (Refused, Owed::Never(Fault::Replaced))];
    for (cause, owed) in wrong {
        let checked = std::panic::AssertUnwindSafe(|| owed.check("on purpose", &settings, cause, &wants));
        assert!(std::panic::catch_unwind(checked).is_err(), "{owed:?}");
    }
}

#[test]
fn every_close_code_of_every_provider() {
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3003, 3999];
    let own = [4000, 4001, 4003, 4008, 4009, 4029, 4100, 4400, 4401, 4403, 4429, 4500, 4999];
    let mut n_cells = 0;
    for provider in SOCKETS {
        for code in codes.into_iter().chain(own) {
            let mut played = Played::new(provider);
            let wants = played.closed(code);
            let (cause, owed) = owed_for_close(provider, code);
            owed.check(&format!("{provider} {code}"), &played.settings, cause, &wants);
            assert!(wants.details.contains("a reason of theirs") && wants.details.contains(&code.to_string()), "{wants:?}");
            n_cells += 1;
        }
    }
    // A stream without codes ends, or breaks; codes that must not be sent come as a malformed frame.
    for provider in Provider::ALL {
        for (fault, cause) in [
            (None, ConnectionLost),
            (Some(NetFault::Reset), ConnectionLost),
            (Some(NetFault::Malformed), Protocol),
            (Some(NetFault::InvalidUtf8), Protocol),
            (Some(NetFault::Oversized), Protocol),
            (Some(NetFault::Timeout), if SESSIONS.contains(&provider) { Unreachable } else { Silent }),
        ] {
            let mut played = Played::new(provider);
            let cause = if fault.is_none() && provider == Provider::Tweetstream { ConnectionLost } else { cause };
            let wants = played.ended(End { fault, ..End::default() });
            Owed::Soon.check(&format!("{provider} {fault:?}"), &played.settings, cause, &wants);
            n_cells += 1;
        }
    }
    println!("cells {n_cells}");
}

/// Those whose machines are built over `session.rs`.
const SESSIONS: [Provider; 2] = [Provider::TwitterapiIo, Provider::Scrapebadger];

fn owed_for_status(provider: Provider, status: u16) -> (Cause, Owed) {
    match (provider, status) {
        (_, 401) => (Key, Owed::Never(Fault::Credentials)),
        // Documented as a matter of the plan there, of the key elsewhere.
        (Provider::Tweetstream, 403) | (_, 402) => (Credits, Owed::Slow),
        (_, 403) => (Key, Owed::Never(Fault::Credentials)),
        (Provider::Tweetstream, 429) => (RateLimited, Owed::NotWithin(40)),
        // With its jitter.
        (Provider::XLive, 429) => (RateLimited, Owed::NotWithin(30)),
        (_, 429) => (RateLimited, Owed::NotWithin(60)),
        (_, 408 | 425 | 200..=299 | 500..=599) => (Refused, Owed::Soon),
        _ => (Refused, Owed::Slow),
    }
}

#[test]
fn every_answer_to_a_handshake() {
    let statuses = [
        200, 204, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 408, 410, 418, 422, 425, 426, 429, 451, 500, 501, 502,
        503, 504, 520, 599,
    ];
    let mut n_cells = 0;
    for provider in Provider::ALL {
        for status in statuses {
            let mut played = Played::new(provider);
            let wants = played.refused(status, &[("location", "https://elsewhere.test/?k=planted-key-5c1d")]);
            let (cause, owed) = owed_for_status(provider, status);
            owed.check(&format!("{provider} {status}"), &played.settings, cause, &wants);
            n_cells += 1;
        }
        // A wrong accept key, endless headers, what is no HTTP; then what never got so far.
        for (fault, cause) in [
            (NetFault::Handshake, Protocol),
            (NetFault::Dns, Unreachable),
            (NetFault::Connect, Unreachable),
            (NetFault::Tls, Unreachable),
            (NetFault::Timeout, Unreachable),
            (NetFault::Reset, Unreachable),
        ] {
            let mut played = Played::new(provider);
            let wants = played.after(Input::Unreachable { fault, detail: "in words" });
            Owed::Soon.check(&format!("{provider} {fault:?}"), &played.settings, cause, &wants);
            n_cells += 1;
        }
    }
    println!("cells {n_cells}");
}

#[test]
fn every_form_of_retry_after() {
    const NOON: &str = "Mon, 02 Nov 2026 12:00:00 GMT";
    // The seconds that are asked for; `None` leaves it to the back-off.
    let forms = [
        ("7200", Some(7_200)),
        ("0", Some(0)),
        ("Mon, 02 Nov 2026 14:00:00 GMT", Some(7_200)),
        ("Mon, 02 Nov 2026 10:00:00 GMT", Some(0)),
        ("1000000000", Some(86_400)),
        ("Thu, 02 Nov 2062 12:00:00 GMT", Some(86_400)),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("7200, 1", None),
    ];
    let mut n_cells = 0;
    for provider in Provider::ALL {
        for status in [429, 503] {
            let unasked = Played::new(provider).refused(status, &[]).next.unwrap();
            for (text, asked) in forms {
                let mut played = Played::new(provider);
                let wants = played.refused(status, &[("retry-after", text), ("date", NOON)]);
                let wait = wants.next.unwrap();
                let floor = played.settings.reconnect_floor;
                match asked {
                    // The same seed draws the same jitter.
                    None => assert_eq!(wait, unasked, "{provider} {status} {text:?}"),
                    Some(seconds) => {
                        let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(seconds).max(unasked));
                        assert!(wait >= least.max(floor) && wait <= most, "{provider} {status} {text:?}: {wait:?}");
                    }
                }
                assert!(wait <= LONGEST && !wants.is_loud, "{provider} {status} {text:?}: {wait:?}");
                n_cells += 1;
            }
        }
    }
    println!("cells {n_cells}");
}

#[test]
fn protocol_faults_in_a_row_become_rare_and_loud() {
    for provider in Provider::ALL {
        let mut played = Played::new(provider);
        let is_slow = |wants: &Wants| wants.is_loud && wants.next.is_ok_and(|wait| wait >= settings(provider).slow_retry);
        let told: Vec<bool> = (0..8)
            .map(|_| {
                let wants = played.ended(End { fault: Some(NetFault::Malformed), ..End::default() });
                played.dial(&wants);
                is_slow(&wants)
            })
            .collect();
        assert!(!told[0] && !told[1] && told[5..].iter().all(|slow| *slow), "{provider}: {told:?}");
    }
}

#[test]
fn a_refusal_that_does_not_pass_is_asked_for_at_most_a_hundred_times_a_day() {
    for provider in Provider::ALL {
        for status in [301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 410, 422] {
            let mut played = Played::new(provider);
            let (begun, mut dials) = (played.now, 1);
            while played.now - begun < Duration::from_secs(86_400) {
                let wants = played.refused(status, &[]);
                let Ok(wait) = wants.next else { break };
                played.now += wait;
                dials += 1;
            }
            assert!(dials <= 100, "{provider} {status}: {dials}");
        }
    }
}

#[test]
fn ten_thousand_cycles_never_dial_before_the_floor() {
    let codes: Vec<u16> = (1000..=1003).chain(1007..=1014).chain([3000, 4000, 4001, 4003, 4009, 4029, 4401, 4999]).collect();
    let faults = [
        NetFault::Dns,
        NetFault::Connect,
        NetFault::Tls,
        NetFault::Timeout,
        NetFault::Handshake,
        NetFault::Reset,
        NetFault::Malformed,
    ];
    let mut n_cells = 0;
    for provider in Provider::ALL {
        let mut chance = Pcg64Mcg::seed_from_u64(u64::from(n_cells == 0));
        let mut played = Played::new(provider);
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            let fault = faults[chance.random_range(0..faults.len())];
            let wants = match chance.random_range(0..4) {
                0 if provider != Provider::XLive => played.closed(codes[chance.random_range(0..codes.len())]),
                0 | 1 => played.ended(End { fault: chance.random_bool(0.5).then_some(fault), ..End::default() }),
                2 => {
                    let status = chance.random_range(200..600);
                    let wait = ["0", "1", "1000000000", "rubbish"][chance.random_range(0..4)];
                    played.refused(status, &[("retry-after", wait)])
                }
                _ => played.after(Input::Unreachable { fault, detail: "" }),
            };
            if let Ok(wait) = wants.next {
                assert!(wait >= played.settings.reconnect_floor && wait <= LONGEST, "{provider}: {wants:?}");
            }
            seen.extend(wants.causes.iter().map(|cause| cause.name()));
            played.dial(&wants);
            // Some connections are good before they end.
            played.now += Duration::from_secs(chance.random_range(0..120));
            n_cells += 1;
        }
        assert!(seen.len() >= 6, "{provider}: {seen:?}");
    }
    println!("cells {n_cells}");
}
