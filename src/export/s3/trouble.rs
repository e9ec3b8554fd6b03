//! What a store answers, in our words.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;
use std::time::Duration;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::net::SetupError;

/// Longest answer of a store that is shown.
const ANSWER_CHARS: usize = 300;

/// Why there is no export to a store.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// No address of a destination.
    #[error("{address} cannot be a destination: {why}")]
    Address {
        /// As it was typed.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// Environment variables that cannot work.
    #[error("the environment does not fit: {why}")]
    Settings {
        /// What is wrong, without values.
        why: String,
    },
    /// Nothing to show at the door.
    #[error("there are no credentials for the store: AWS_ACCESS_KEY_ID is not set")]
    NoKey,
    /// What is exported would travel readable.
    #[error("{endpoint} is refused: without TLS everyone on the way can read and change what is exported")]
    Plain {
        /// The store.
        endpoint: String,
    },
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(SetupError),
    /// No threads.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// Another export is at work there, or was killed.
    #[error("another export writes to {place} ({holder}{})", silence(*silent))]
    Held {
        /// The destination.
        place: String,
        /// What the holder wrote into the lock.
        holder: String,
        /// How long it has not renewed it.
        silent: Option<Duration>,
    },
    /// Another export took the destination from this one.
    #[error("{place} is no longer held by this export: {why}")]
    Lost {
        /// The destination.
        place: String,
        /// Who has it, or what happened.
        why: String,
    },
    /// A lock would mean nothing.
    #[error("the store cannot put {place} only if it is not there, so two exports could write at once")]
    NoConditions {
        /// The lock.
        place: String,
    },
    /// The store refused or cannot be reached.
    #[error("{what} {place}: {why}")]
    Refused {
        /// The operation, as "cannot write".
        what: &'static str,
        /// Bucket and key.
        place: String,
        /// In our words, or the store's.
        why: String,
        /// What the person can do.
        cure: &'static str,
    },
}

fn silence(silent: Option<Duration>) -> String {
    silent.map_or_else(String::new, |silent| format!("; last heard of {} s ago", silent.as_secs()))
}

impl S3Error {
    /// Whether the command or the environment has to change before it can work.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Settings { .. } | Self::NoKey | Self::Plain { .. } | Self::Tls(_))
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } => Some("name a bucket and a prefix: --out s3://bucket/lake"),
            Self::Settings { .. } => Some("birdtape export parquet --help lists the variables"),
            Self::NoKey => Some("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            Self::Plain { .. } => Some("use https:// in AWS_ENDPOINT_URL, or set AWS_ALLOW_HTTP=true on purpose"),
            Self::Tls(_) => Some("check BIRDTAPE_CA_FILE or AWS_CA_BUNDLE"),
            Self::Threads(_) => None,
            Self::Held { .. } => Some(
                "wait until it has ended; of one that was killed the hold ends after five minutes, or at once with --break-lock",
            ),
            Self::Lost { .. } => Some("run it again when the other has ended; files that are in their place are whole"),
            Self::NoConditions { .. } => Some("export to a directory, and copy that with the store's own program"),
            Self::Refused { cure, .. } => Some(cure),
        }
    }
}

/// Whether an object is not there; a bucket that is not there is something else.
pub(super) fn is_missing_object(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && Answer::of(error).code.as_deref() != Some("NoSuchBucket")
}

/// Whether the store, or whoever configured it, has no conditional puts.
pub(super) fn lacks_conditions(error: &Error) -> bool {
    let answer = Answer::of(error);
    matches!(error, Error::NotImplemented { .. })
        || answer.status == Some(501)
        || answer.code.as_deref() == Some("NotImplemented")
}

/// Puts what a store said, or that it said nothing, into words.
pub(super) fn refused(what: &'static str, place: String, endpoint: &str, error: &Error) -> S3Error {
    let (why, cure) = Answer::of(error).judged(endpoint);
    S3Error::Refused { what, place, why, cure }
}

/// What is in an error, as far as it matters. Of a server's text only the code and the message are shown.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    is_redirect: bool,
    is_missing: bool,
    asked_the_machine: bool,
    /// No answer came.
    broken: Option<HttpErrorKind>,
    /// The last cause.
    last: String,
}

impl Answer {
    fn of(error: &Error) -> Self {
        let mut answer = Self { is_missing: matches!(error, Error::NotFound { .. }), ..Self::default() };
        for cause in successors(Some(error as &(dyn StdError + 'static)), |&cause| cause.source()) {
            let text = cause.to_string();
            answer.broken = answer.broken.or_else(|| cause.downcast_ref::<HttpError>().map(HttpError::kind));
            let status = || text.split_once("status code: ")?.1.get(..3)?.parse().ok();
            answer.status = answer.status.or_else(status);
            answer.code = answer.code.take().or_else(|| element(&text, "Code"));
            answer.message = answer.message.take().or_else(|| element(&text, "Message"));
            answer.is_redirect |= text.contains("redirect without LOCATION");
            answer.asked_the_machine |= text.contains("//169.254.");
            answer.last = text;
        }
        answer
    }

    /// What it means, and what can be done.
    fn judged(self, endpoint: &str) -> (String, &'static str) {
        const REGION: &str = "set AWS_REGION to the bucket's region";
        let code = self.code.as_deref().unwrap_or_default();
        let coded = |words: &str| if code.is_empty() { words.to_owned() } else { format!("{words} ({code})") };
        if self.asked_the_machine {
            let why = "there are no credentials: none in the environment, and this machine has none of its own".to_owned();
            return (why, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
        }
        match code {
            "SignatureDoesNotMatch" => {
                return (coded("the secret key does not fit the access key"), "check AWS_SECRET_ACCESS_KEY, and AWS_REGION");
            }
            "InvalidAccessKeyId" | "InvalidClientTokenId" | "AuthFailure" => {
                let cure = "check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the store it is for";
                return (coded("the store does not know the access key"), cure);
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                let cure = "get new credentials; AWS_SESSION_TOKEN belongs to temporary keys only";
                return (coded("the session token is no longer valid"), cure);
            }
            "RequestTimeTooSkewed" => return (coded("the clocks differ too much"), "set this machine's clock"),
            "NoSuchBucket" => {
                let cure = "make the bucket, or check its name, AWS_ENDPOINT_URL and AWS_REGION";
                return (coded("there is no such bucket"), cure);
            }
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                return (coded("the bucket is in another region"), REGION);
            }
            "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
                return (
                    coded("the store is full"),
                    "free some space there and run it again; files that are in their place are whole",
                );
            }
            _ => {}
        }
        if let Some(kind) = self.broken.filter(|_| self.status.is_none()) {
            let how = if kind == HttpErrorKind::Timeout { "no answer in time" } else { &self.last };
            let why = format!("{endpoint} cannot be reached ({})", shortened(how));
            return (why, "check AWS_ENDPOINT_URL, the network and the server; run it again to go on where it ended");
        }
        match self.status {
            _ if self.is_redirect => (coded("the bucket is in another region"), REGION),
            Some(301 | 307 | 308) => (coded("the bucket is in another region"), REGION),
            Some(401 | 403) => {
                let cure = "allow the key to list the bucket and to get, put and delete objects below the prefix";
                (coded("the store denies it"), cure)
            }
            Some(507) => {
                (coded("the store is full"), "free some space there and run it again; files that are in their place are whole")
            }
            Some(429 | 500..=599) => (self.in_its_words(), "try again later; files that are in their place are whole"),
            Some(404) | None if self.is_missing => {
                (coded("it is not there"), "check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION")
            }
            _ => (self.in_its_words(), "check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION"),
        }
    }

    fn in_its_words(&self) -> String {
        let words = match (&self.code, &self.message, self.status) {
            (Some(code), Some(message), _) => format!("{message} ({code})"),
            (Some(code), None, _) => code.clone(),
            (None, _, Some(status)) => format!("the store answers {status}"),
            (None, _, None) => self.last.clone(),
        };
        shortened(&words)
    }
}

fn shortened(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(ANSWER_CHARS).collect()
}

/// The text of an element of the store's answer.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(shortened(inside.trim()))
}
