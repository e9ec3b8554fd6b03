//! The log: to stderr, one line an event, without keys.
//!
//! Two nets keep keys out. The first is the level: [`BIRDTAPE_LOG`](VARIABLE) speaks for birdtape's own events only, and
//! every other crate is held at `warn`, because some print whole handshakes when asked for more (tungstenite at TRACE,
//! URL, headers and subprotocols). The second is the writer: whatever an event says, each known secret in it becomes
//! `***`, be it plain, URL-encoded, in base64 or escaped for JSON. Panic messages go the same way.
//!
//! An event is one line: control characters and those that turn the writing direction are made visible, so text from
//! outside can neither forge a line nor command a terminal. There is no colour.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Once, PoisonError, RwLock};

use tracing::{Subscriber, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::model::{Secret, Secrets};

/// The environment variable with the level.
pub const VARIABLE: &str = "BIRDTAPE_LOG";

/// Longest line; an event beyond it is cut, after its secrets were taken out.
const LONGEST_LINE: usize = 64 << 10;

static KNOWN: RwLock<Secrets> = RwLock::new(Secrets::new(Secrets::IN_WORDS));

/// Starts logging to stderr and hides these secrets from now on.
///
/// Called again it only adds secrets, so a command can start the log before it reads its keys. A level that is no level
/// is answered with a warning and counts as `info`.
pub fn start(secrets: Vec<Secret>) {
    static STARTED: Once = Once::new();
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    secrets.iter().for_each(|secret| known.add(secret));
    drop(known);
    STARTED.call_once(|| {
        let asked = std::env::var(VARIABLE).unwrap_or_default();
        let level = level(&asked);
        // It fails when a test or a host program has a log of its own: then that one stands.
        let ours = tracing::subscriber::set_global_default(subscriber(level.unwrap_or(LevelFilter::INFO), stderr));
        std::panic::set_hook(Box::new(|panic| {
            let trace = std::backtrace::Backtrace::capture().to_string();
            // Nothing is left to do when stderr is gone too.
            io::stderr().write_all(panic_text(&panic.to_string(), &trace).as_bytes()).ok();
        }));
        if ours.is_ok() && level.is_none() {
            warn!("{VARIABLE} is {asked:?}, which is none of error, warn, info, debug, trace, off; using info");
        }
    });
}

/// Takes every known secret out of a text, for messages that do not go through the log.
pub fn redact(text: &str) -> String {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).hide(text)
}

/// Makes characters visible that could command a terminal, forge a line or turn the writing direction.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Keeps keys out of core files: none is written. Where the system does not allow that, nothing changes.
pub fn harden_process() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
    // The limit does not hold where the kernel hands cores to a program; this does, and keeps other processes of the user
    // from reading our memory.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
}

fn level(text: &str) -> Option<LevelFilter> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "info" => Some(LevelFilter::INFO),
        "off" => Some(LevelFilter::OFF),
        "error" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "debug" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

fn subscriber<M>(level: LevelFilter, writer: M) -> impl Subscriber + Send + Sync
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let others = level.min(LevelFilter::WARN);
    let targets = Targets::new().with_default(others).with_target("birdtape", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(level >= LevelFilter::DEBUG)
        .log_internal_errors(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(targets).with(lines)
}

fn stderr() -> Line<io::Stderr> {
    Line { event: Vec::new(), out: io::stderr() }
}

fn panic_text(panic: &str, trace: &str) -> String {
    let mut text = format!("birdtape stopped on a mistake of its own: {}\n", visible(&redact(panic)));
    // Without RUST_BACKTRACE it is one line that says so.
    if trace.lines().count() > 1 {
        text.push_str(&redact(trace));
    }
    text
}

/// Collects one event, however many writes it takes, and passes it on whole and clean when it is dropped.
struct Line<W: Write> {
    event: Vec<u8>,
    out: W,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.event.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: half an event may end in half a secret.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for Line<W> {
    fn drop(&mut self) {
        if self.event.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.event);
        let mut line = visible(&redact(text.strip_suffix('\n').unwrap_or(&text)));
        if line.len() > LONGEST_LINE {
            let end = (0..=LONGEST_LINE).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            let n_cut = line.len() - end;
            line.truncate(end);
            write!(line, " … ({n_cut} bytes more)").ok();
        }
        line.push('\n');
        // A log that cannot be written must not stop a recording.
        self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush()).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info, trace};

    use super::*;

    const PLANTED: &str = r#"Pl4nted/k+y="\~7c1e&%zz"#;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn plant() {
        KNOWN.write().unwrap().add(&Secret::new(PLANTED).unwrap());
    }

    fn logged(level: LevelFilter, events: impl FnOnce()) -> String {
        let paper = Paper::default();
        let out = paper.clone();
        let writer = move || Line { event: Vec::new(), out: out.clone() };
        tracing::subscriber::with_default(subscriber(level, writer), events);
        paper.text()
    }

    #[test]
    fn hides_secrets_in_events_and_panics() {
        plant();
        for case in [format!("GET /ws?apiKey={PLANTED} HTTP/1.1"), serde_json::json!({ "key": PLANTED }).to_string()] {
            let said = logged(LevelFilter::INFO, || info!(field = %case, "{case}"));
            assert_eq!(said.matches("***").count(), 2, "{case} -> {said}");
            assert!(!said.contains("Pl4nted") && !said.contains("7c1e"), "{said}");
        }
        let text = panic_text(&format!("at src/x.rs:1:2:\n{PLANTED}"), &format!("disabled {PLANTED}"));
        assert_eq!(text, "birdtape stopped on a mistake of its own: at src/x.rs:1:2:\\n***\n");
    }

    #[test]
    fn hides_a_secret_that_comes_in_pieces() {
        plant();
        let paper = Paper::default();
        let mut line = Line { event: Vec::new(), out: paper.clone() };
        for byte in format!("key={PLANTED}.\n").bytes() {
            line.write_all(&[byte]).unwrap();
            line.flush().unwrap();
            assert_eq!(paper.text(), "", "nothing leaves before the event is whole");
        }
        drop(line);
        assert_eq!(paper.text(), "key=***.\n");
    }

    #[test]
    fn other_crates_are_held_at_warn() {
        let events = || {
            for_target_tungstenite();
            trace!("ours: trace");
            debug!("ours: debug");
            error!("ours: error");
        };
        let all = logged(LevelFilter::TRACE, events);
        assert!(all.contains("ours: trace") && all.contains("theirs: warn"), "{all}");
        assert!(!all.contains("theirs: info") && !all.contains("theirs: trace"), "{all}");
        let usual = logged(LevelFilter::INFO, events);
        assert!(!usual.contains("ours: debug") && usual.contains("theirs: warn"), "{usual}");
        let few = logged(LevelFilter::ERROR, events);
        assert!(few.contains("ours: error") && !few.contains("theirs"), "{few}");
        assert_eq!(logged(LevelFilter::OFF, events), "");
    }

    fn for_target_tungstenite() {
        trace!(target: "tungstenite::handshake::client", "theirs: trace");
        info!(target: "rustls", "theirs: info");
        tracing::warn!(target: "hyper::proto", "theirs: warn");
    }

    #[test]
    fn an_event_is_one_line_without_commands() {
        let said = logged(LevelFilter::INFO, || {
            let tweet = "a\n2026-01-01T00:00:00Z  INFO forged\r\x1b]52;c;x\x07 \u{202e}evil\u{2066} \u{9b}2J \u{2028}b é 🐦";
            info!("{tweet}");
        });
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(r"a\n2026-01-01T00:00:00Z  INFO forged") && said.contains("é 🐦"), "{said}");
        assert!(!said.trim_end().chars().any(|c| c.is_control()), "{said:?}");
        assert!(!said.contains('\u{202e}') && !said.contains('\u{2066}') && !said.contains('\u{2028}'), "{said:?}");
        let long = logged(LevelFilter::INFO, || info!("{}", "é".repeat(LONGEST_LINE)));
        assert!(long.len() < LONGEST_LINE + 100 && long.ends_with(" bytes more)\n"), "{}", long.len());
    }

    #[test]
    fn knows_the_levels() {
        assert_eq!(
            (level(""), level(" Debug "), level("off")),
            (Some(LevelFilter::INFO), Some(LevelFilter::DEBUG), Some(LevelFilter::OFF),)
        );
        assert_eq!((level("verbose"), level("birdtape=trace")), (None, None));
    }
}
