//! One export at a time writes to a prefix: the object `_birdtape/lock`, made only where there is none.
//!
//! A killed export cannot take its lock away, so it is a lease: its holder writes it anew every minute, and one that nobody
//! has written for [`TERM`](super::TERM) is taken over, by a put that succeeds only if it is still the same. How old it is
//! is told by the store's own clock. Who has lost it finds out before the next file, and before the manifest in any case.
//! Between two looks both may put a file; of one tape both files are the same.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::path::Path as Key;
use object_store::{Error, ObjectStoreExt as _, PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::{OURS, Place, Remote, S3Error, trouble};

/// Attempts to renew in a row that may fail; three of them with their time limits are well within the term.
const FAILURES_MAX: u32 = 3;

/// Longest text of another's that is shown.
const HOLDER_CHARS: usize = 200;

/// What stands in the lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    /// Who, in words.
    holder: String,
    /// Tells two holders apart that call themselves the same.
    id: String,
    /// Makes each writing another object than the one before.
    renewals: u64,
}

struct Mine {
    note: Note,
    at: UpdateVersion,
}

/// The hold on a destination.
pub(super) struct Lease {
    remote: Arc<dyn Remote>,
    place: Place,
    key: Key,
    clock: Key,
    term: Duration,
    mine: Mutex<Option<Mine>>,
    /// Who has it now, or why we have it no more.
    lost: OnceLock<String>,
}

impl Lease {
    pub(super) fn new(remote: Arc<dyn Remote>, place: Place, term: Duration) -> Result<Self, S3Error> {
        let (key, clock) = (place.key(&format!("{OURS}/lock"))?, place.key(&format!("{OURS}/clock"))?);
        Ok(Self { remote, place, key, clock, term, mine: Mutex::default(), lost: OnceLock::new() })
    }

    /// Takes the destination, from its holder too when that is silent for too long or is to be broken.
    pub(super) async fn take(&self, holder: &str, break_lock: bool) -> Result<(), S3Error> {
        let note = Note { holder: holder.to_owned(), id: format!("{:032x}", rand::random::<u128>()), renewals: 0 };
        let mut last = String::new();
        // Another may give it back or take it between two requests of ours.
        for _ in 0..3 {
            match self.write(&note, PutMode::Create).await {
                Ok(at) => return self.prove(note, at).await,
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(self.cannot("cannot lock", &error)),
            }
            let Some(there) = self.read().await? else { continue };
            if there.note.id == note.id {
                // The answer to our first attempt was lost on the way.
                return self.prove(note, there.at).await;
            }
            let silent = self.silent_for(&there).await?;
            if !break_lock && silent < self.term {
                return Err(self.held(there.note.holder, Some(silent)));
            }
            match self.write(&note, PutMode::Update(there.at)).await {
                Ok(at) => {
                    tracing::warn!(holder = there.note.holder, "the destination is taken over");
                    return self.prove(note, at).await;
                }
                Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => last = there.note.holder,
                Err(error) => return Err(self.cannot("cannot lock", &error)),
            }
        }
        Err(self.held(last, None))
    }

    fn held(&self, holder: String, silent: Option<Duration>) -> S3Error {
        S3Error::Held { place: self.place.shown(self.place.prefix.as_ref()), holder, silent }
    }

    /// A store may not know conditions and put whatever it is given: then a lock means nothing.
    async fn prove(&self, note: Note, at: UpdateVersion) -> Result<(), S3Error> {
        let again = self.write(&note, PutMode::Create).await;
        *self.mine.lock().await = Some(Mine { note, at });
        let proven = match again {
            Err(Error::AlreadyExists { .. }) => self.renew().await,
            Ok(_) => Err(S3Error::NoConditions { place: self.place.shown(self.key.as_ref()) }),
            Err(error) => Err(self.cannot("cannot lock", &error)),
        };
        if proven.is_err() {
            self.release().await;
        }
        proven
    }

    /// Says once more that we are there.
    pub(super) async fn renew(&self) -> Result<(), S3Error> {
        let mut mine = self.mine.lock().await;
        let Some(mine) = mine.as_mut() else { return self.check() };
        for _ in 0..2 {
            mine.note.renewals += 1;
            match self.write(&mine.note, PutMode::Update(mine.at.clone())).await {
                Ok(at) => {
                    mine.at = at;
                    return Ok(());
                }
                Err(Error::Precondition { .. } | Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(self.cannot("cannot renew", &error)),
            }
            match self.read().await? {
                // An earlier attempt arrived, its answer did not.
                Some(there) if there.note.id == mine.note.id => mine.at = there.at,
                Some(there) => return self.lose(there.note.holder),
                None => return self.lose("somebody removed the lock".to_owned()),
            }
        }
        self.lose("the lock changes under our hands".to_owned())
    }

    fn lose(&self, why: String) -> Result<(), S3Error> {
        self.lost.get_or_init(|| why);
        self.check()
    }

    /// Whether the destination is still ours, as far as we know.
    pub(super) fn check(&self) -> Result<(), S3Error> {
        match self.lost.get() {
            Some(why) => Err(S3Error::Lost { place: self.place.shown(self.place.prefix.as_ref()), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// Renews for as long as it is ours.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            sleep(self.term / 5).await;
            match timeout(self.term / 10, self.renew()).await {
                Ok(Ok(())) => failures = 0,
                Ok(Err(S3Error::Lost { .. })) => return,
                Ok(Err(_)) | Err(_) => failures += 1,
            }
            if failures > 0 {
                tracing::warn!(failures, "the hold on the destination could not be renewed");
            }
            if failures == FAILURES_MAX {
                self.lose("the hold could not be renewed in time".to_owned()).ok();
                return;
            }
        }
    }

    /// Gives the destination back, if it is ours.
    pub(super) async fn release(&self) {
        let Some(mine) = self.mine.lock().await.take() else { return };
        let gone = match self.read().await {
            Ok(Some(there)) if there.note.id == mine.note.id => self.remove(&self.key).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            tracing::warn!(%error, "the lock stays in the store; it ends by itself");
        }
    }

    async fn write(&self, note: &Note, mode: PutMode) -> Result<UpdateVersion, Error> {
        let text = serde_json::to_vec(note).map_err(|error| Error::Generic { store: "lock", source: error.into() })?;
        self.remote.put_opts(&self.key, text.into(), mode.into()).await.map(UpdateVersion::from)
    }

    async fn read(&self) -> Result<Option<There>, S3Error> {
        let got = match self.remote.get(&self.key).await {
            Err(error) if trouble::is_missing_object(&error) => return Ok(None),
            got => got.map_err(|error| self.cannot("cannot read", &error))?,
        };
        let meta = got.meta.clone();
        let text = got.bytes().await.map_err(|error| self.cannot("cannot read", &error))?;
        let stranger = || Note { holder: "whoever put something else there".to_owned(), id: String::new(), renewals: 0 };
        let mut note = serde_json::from_slice::<Note>(&text).unwrap_or_else(|_| stranger());
        note.holder = note.holder.chars().take(HOLDER_CHARS).collect();
        let at = UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() };
        Ok(Some(There { note, at, meta }))
    }

    /// How long nobody has written the lock, by the clock that stamped it: the store's.
    async fn silent_for(&self, there: &There) -> Result<Duration, S3Error> {
        let cannot = |error: Error| self.place.refused("cannot write", &self.clock, &error);
        self.remote.put(&self.clock, "what time is it".into()).await.map_err(cannot)?;
        let now = self.remote.head(&self.clock).await.map_err(cannot)?.last_modified;
        self.remove(&self.clock).await?;
        let silent = (now - there.meta.last_modified).num_seconds();
        Ok(Duration::from_secs(u64::try_from(silent).unwrap_or(0)))
    }

    async fn remove(&self, key: &Key) -> Result<(), S3Error> {
        match self.remote.delete(key).await {
            Err(error) if !trouble::is_missing_object(&error) => Err(self.place.refused("cannot remove", key, &error)),
            _ => Ok(()),
        }
    }

    fn cannot(&self, what: &'static str, error: &Error) -> S3Error {
        if trouble::lacks_conditions(error) {
            return S3Error::NoConditions { place: self.place.shown(self.key.as_ref()) };
        }
        self.place.refused(what, &self.key, error)
    }
}

/// A lock as it stands in the store.
struct There {
    note: Note,
    at: UpdateVersion,
    meta: object_store::ObjectMeta,
}
