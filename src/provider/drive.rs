//! Drives a walk against a fake history in process, for tests: what is asked, what comes, what it makes of it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{Known, Next, Trouble, Verdict, Walk, Wanted, decode_page};
use super::past::Past;
use super::{Asked, Rest, Settings};
use crate::model::{EventId, EventKind, Request, Response};

/// Requests after which a walk will never end.
const REQUESTS_MAX: usize = 3_000;

/// The events of a tape.
#[derive(Clone, Debug, Default)]
pub(super) struct Tape(pub(super) HashSet<(EventKind, EventId)>);

impl Known for Tape {
    fn holds(&mut self, kind: EventKind, id: &EventId) -> bool {
        self.0.contains(&(kind, id.clone()))
    }
}

/// How it went.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Addresses as they may be shown.
    pub(super) asked: Vec<String>,
    pub(super) found: HashSet<(EventKind, EventId)>,
    /// Rows that were said to be new.
    pub(super) n_new: u64,
    pub(super) verdict: Option<Verdict>,
    pub(super) stopped: Option<String>,
    pub(super) waits: Vec<Option<Duration>>,
    pub(super) cursors: Vec<String>,
}

/// What stands between the walk and the fake: given the number of the request, from 0, and the answer.
pub(super) type Meddle<'m> = &'m mut dyn FnMut(usize, &Request, Response) -> Response;

/// Walks to the end; `resumes` makes a new walk from the cursor after each page.
pub(super) fn walk(
    settings: &Settings,
    wanted: &Wanted,
    tape: &mut Tape,
    (rest, past): (&mut Rest, &mut Past<'_>),
    resumes: bool,
    meddle: Meddle<'_>,
) -> Walked {
    let mut walk = Walk::new(settings, wanted.clone(), None);
    let mut walked = Walked::default();
    loop {
        let request = match walk.next() {
            Next::Done(verdict) => {
                walked.verdict = Some(verdict);
                return walked;
            }
            Next::Ask(request) => request,
        };
        let Next::Ask(same) = walk.next() else { panic!("asked twice, it says something else") };
        assert_eq!(same.target.expose(), request.target.expose());
        assert!(walked.asked.len() < REQUESTS_MAX, "it never ends: {:#?}", &walked.asked[REQUESTS_MAX - 10..]);
        let response = meddle(walked.asked.len(), &request, ask(rest, past, &request));
        walked.asked.push(request.shown.clone());
        match walk.answered(&response, tape) {
            Ok(page) => walked.n_new += page.new,
            Err(Trouble::Again { after, why }) => {
                assert!(!why.is_empty());
                walked.waits.push(after);
                continue;
            }
            Err(Trouble::Stop { why }) => {
                walked.stopped = Some(why);
                return walked;
            }
        }
        for event in decode_page(settings.provider, &response.body).events {
            tape.0.insert((event.kind, event.id.clone()));
            walked.found.insert((event.kind, event.id));
        }
        if resumes {
            let cursor = walk.cursor();
            assert!(!cursor.contains('\n') && serde_json::from_str::<Value>(&cursor).is_ok(), "{cursor}");
            walk = Walk::new(settings, wanted.clone(), Some(&cursor));
            walked.cursors.push(cursor);
        }
    }
}

/// Asks the fake.
pub(super) fn ask(rest: &mut Rest, past: &mut Past<'_>, request: &Request) -> Response {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.expose().to_owned())).collect();
    let (path, query) = request.target.expose().split_once('?').unwrap_or((request.target.expose(), ""));
    let asked =
        Asked { method: request.method, path, query, headers: &headers, body: request.body.as_bytes(), wants_upgrade: false };
    #[allow(clippy::disallowed_methods, reason = "a fake without limits only compares it")]
    let now = Instant::now();
    rest.asked(&asked, past, now)
}

/// Changes a page as JSON.
pub(super) fn with_page(response: Response, change: impl FnOnce(&mut Value)) -> Response {
    let Ok(mut page) = serde_json::from_slice(&response.body) else { return response };
    change(&mut page);
    Response { body: page.to_string().into(), ..response }
}
