//! A store that speaks S3, as a destination: files are objects below a prefix.
//!
//! An object is there whole or not at all, which is what [`Store::put`] promises: a small file is put in one request, a
//! big one in parts that become an object when the last is there. What is local is the scratch directory, in the system's
//! place for temporary files. One export at a time writes to a prefix: see [lease](lease).
//!
//! The export is synchronous; a runtime in here carries the requests of all its threads and renews the lease meanwhile.

mod lease;
mod trouble;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::{Future, pending};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, Error, MultipartId, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::lease::Lease;
pub use self::trouble::S3Error;
use super::ExportError;
use super::store::{OURS, Store};
use crate::net::{self, TlsOptions};

/// A file longer than this goes in parts of this size; the protocol wants at least 5 MiB.
const PART_BYTES: u64 = 8 << 20;

/// The protocol's bound on the parts of an object.
const PARTS_MAX: u64 = 10_000;

/// Parts of one file that are on their way, and so in memory, at once.
const PARTS_AT_ONCE: usize = 2;

/// How long one request may take, the bytes of a part included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a hold on a destination lasts when nobody renews it.
const TERM: Duration = Duration::from_secs(5 * 60);

/// How long a signal waits for the store while what was begun is taken back.
const PARTING: Duration = Duration::from_secs(10);

/// What leads to a store, as it was typed.
#[derive(Clone)]
pub struct S3Options {
    /// `s3://BUCKET/PREFIX`.
    pub address: String,
    /// The environment; what begins with `AWS_` matters here.
    pub variables: Vec<(String, String)>,
    /// Certificate authorities trusted beside the built-in ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// Whether another's hold is broken whatever its age.
    pub break_lock: bool,
}

/// What a store must be able to do; production has one such, tests another in memory.
trait Remote: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Remote for T {}

/// A prefix of a bucket. Clones are the same destination.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    remote: Arc<dyn Remote>,
    place: Place,
    lease: Arc<Lease>,
    break_lock: bool,
    scratch: Mutex<Option<TempDir>>,
    /// Uploads in parts that are under way.
    uploads: Mutex<BTreeMap<MultipartId, Key>>,
    ending: watch::Sender<bool>,
}

/// Where objects are, for keys and for messages.
#[derive(Clone, Debug)]
struct Place {
    bucket: String,
    prefix: Key,
    /// As somebody typed it, or that it is Amazon's.
    endpoint: String,
}

impl Place {
    fn parse(address: &str) -> Result<Self, S3Error> {
        let unfit = |why: &str| S3Error::Address { address: address.to_owned(), why: why.to_owned() };
        let rest = address.strip_prefix("s3://").ok_or_else(|| unfit("it does not begin with s3://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(3..=255).contains(&bucket.len()) || !bucket.chars().all(is_fit) {
            return Err(unfit("a bucket's name is 3 or more of letters, digits, `.`, `-` and `_`"));
        }
        if prefix.starts_with('/') {
            return Err(unfit("the prefix begins with a second slash"));
        }
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|error| unfit(&error.to_string()))?;
        Ok(Self { bucket: bucket.to_owned(), prefix, endpoint: String::new() })
    }

    fn key(&self, name: &str) -> Result<Key, S3Error> {
        let whole = if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Key::parse(&whole).map_err(|error| S3Error::Address { address: self.shown(&whole), why: error.to_string() })
    }

    /// What a key is called here; `None` for one that is not below the prefix.
    fn name(&self, key: &Key) -> Option<String> {
        let below = key.as_ref().strip_prefix(self.prefix.as_ref())?;
        let name = if self.prefix.as_ref().is_empty() { below } else { below.strip_prefix('/')? };
        Some(name.to_owned())
    }

    fn shown(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket).trim_end_matches('/').to_owned()
    }

    fn refused(&self, what: &'static str, key: &Key, error: &Error) -> S3Error {
        trouble::refused(what, self.shown(key.as_ref()), &self.endpoint, error)
    }
}

impl S3Store {
    /// Makes ready for an export, and finds out whether the store answers and lets us in.
    ///
    /// # Errors
    /// An address or environment that cannot work; a store that cannot be reached or refuses.
    pub fn open(options: &S3Options) -> Result<Self, S3Error> {
        let mut place = Place::parse(&options.address)?;
        let (builder, endpoint) = builder(&options.variables, options.ca_file.as_deref())?;
        place.endpoint = endpoint;
        let builder = builder.with_bucket_name(&place.bucket);
        let make =
            |retry| builder.clone().with_retry(retry).build().map_err(|error| S3Error::Settings { why: error.to_string() });
        let (patient, brisk): (AmazonS3, AmazonS3) =
            (make(retries(12, Duration::from_secs(30)))?, make(retries(3, Duration::from_secs(5)))?);
        let runtime = runtime()?;
        let prefix = place.prefix.clone();
        let first = runtime.block_on(brisk.list(Some(&prefix)).next());
        if let Some(Err(error)) = first {
            return Err(place.refused("cannot read", &prefix, &error));
        }
        Self::over(runtime, (Arc::new(patient), Arc::new(brisk)), place, options.break_lock, TERM)
    }

    /// The first remote is for the files, the second, which gives up sooner, for the lease.
    fn over(
        runtime: Runtime,
        (remote, brisk): (Arc<dyn Remote>, Arc<dyn Remote>),
        place: Place,
        break_lock: bool,
        term: Duration,
    ) -> Result<Self, S3Error> {
        let lease = Arc::new(Lease::new(brisk, place.clone(), term)?);
        let (scratch, uploads, ending) = (Mutex::default(), Mutex::default(), watch::Sender::new(false));
        Ok(Self { inner: Arc::new(Inner { runtime, remote, place, lease, break_lock, scratch, uploads, ending }) })
    }

    /// Takes back what was begun: uploads in parts, the hold on the destination, temporary files.
    ///
    /// For a process that is about to end: whoever works with the store waits from now on.
    pub fn abandon(&self) {
        let inner = &self.inner;
        inner.ending.send_replace(true);
        let uploads = std::mem::take(&mut *inner.uploads());
        let take_back = async {
            for (id, key) in &uploads {
                if let Err(error) = inner.remote.abort_multipart(key, id).await {
                    inner.parts_stay(key, &error);
                }
            }
            inner.lease.release().await;
        };
        // The time limit is the runtime's affair, so it is made inside.
        let taken_back = inner.runtime.block_on(async { timeout(PARTING, take_back).await });
        if taken_back.is_err() {
            tracing::warn!("the store does not answer: the hold on it ends by itself");
        }
        inner.clear_scratch();
    }

    /// Does something with the store, unless the process is ending.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ending = self.inner.ending.subscribe();
        self.inner.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = ending.wait_for(|ending| *ending) => pending().await,
                done = work => done,
            }
        })
    }
}

impl Inner {
    fn uploads(&self) -> MutexGuard<'_, BTreeMap<MultipartId, Key>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scratch(&self) -> MutexGuard<'_, Option<TempDir>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How scratch directories of this destination begin.
    fn scratch_prefix(&self) -> String {
        let whole = format!("{} {}", self.place.endpoint, self.place.shown(self.place.prefix.as_ref()));
        format!("birdtape-export-{:016x}-", xxhash_rust::xxh3::xxh3_64(whole.as_bytes()))
    }

    fn clear_scratch(&self) {
        if let Some(dir) = self.scratch().take() {
            // What cannot be removed now is removed by the next export.
            dir.close().ok();
        }
    }

    /// Removes what exports that were killed left on this machine; whoever holds the destination is alone with it.
    fn clear_left(&self) {
        let prefix = self.scratch_prefix();
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                // Another user's is not ours to remove.
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }

    fn parts_stay(&self, key: &Key, error: &Error) {
        let error = self.place.refused("cannot abort the upload of", key, error);
        tracing::warn!(%error, "its parts stay in the store");
    }

    async fn in_parts(&self, key: &Key, file: &mut File, len: u64) -> Result<(), Broken> {
        let id = self.remote.create_multipart(key).await?;
        self.uploads().insert(id.clone(), key.clone());
        let whole = async {
            let part_bytes = PART_BYTES.max(len.div_ceil(PARTS_MAX));
            let parts = stream::iter(0..len.div_ceil(part_bytes)).map(|idx| {
                let mut bytes = Vec::new();
                let n_bytes = part_bytes.min(len - idx * part_bytes);
                let read = file.by_ref().take(n_bytes).read_to_end(&mut bytes);
                let id = &id;
                async move {
                    if read? as u64 != n_bytes {
                        return Err(Broken::File(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Ok(self.remote.put_part(key, id, idx as usize, PutPayload::from(bytes)).await?)
                }
            });
            let parts: Vec<PartId> = parts.buffered(PARTS_AT_ONCE).try_collect().await?;
            self.remote.complete_multipart(key, &id, parts).await?;
            Ok(())
        };
        let whole = whole.await;
        if whole.is_err()
            && let Err(error) = self.remote.abort_multipart(key, &id).await
        {
            self.parts_stay(key, &error);
        }
        self.uploads().remove(&id);
        whole
    }

    async fn send(&self, key: &Key, path: &Path) -> Result<(), Broken> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        if len > PART_BYTES {
            return self.in_parts(key, &mut file, len).await;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        self.remote.put(key, bytes.into()).await?;
        Ok(())
    }
}

/// Why a file did not arrive.
enum Broken {
    File(io::Error),
    Store(Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Gives the destination back.
struct Held {
    store: S3Store,
    renewing: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
        self.store.wait(self.store.inner.lease.release());
        self.store.inner.clear_scratch();
    }
}

impl Store for S3Store {
    fn shown(&self) -> String {
        self.inner.place.shown(self.inner.place.prefix.as_ref())
    }

    fn lock(&self, holder: &str) -> Result<Box<dyn Send>, ExportError> {
        let inner = &self.inner;
        self.wait(inner.lease.take(holder, inner.break_lock))?;
        let renewing = inner.runtime.spawn(Arc::clone(&inner.lease).keep());
        inner.clear_left();
        Ok(Box::new(Held { store: self.clone(), renewing }))
    }

    fn scratch(&self) -> Result<PathBuf, ExportError> {
        let mut scratch = self.inner.scratch();
        if scratch.is_none() {
            let made = tempfile::Builder::new().prefix(&self.inner.scratch_prefix()).tempdir();
            let path = || std::env::temp_dir().display().to_string();
            *scratch = Some(made.map_err(|source| ExportError::Io { what: "cannot write", path: path(), source })?);
        }
        Ok(scratch.as_ref().map(|dir| dir.path().to_owned()).unwrap_or_default())
    }

    fn put(&self, name: &str, file: &Path) -> Result<(), ExportError> {
        let inner = &self.inner;
        inner.lease.check()?;
        if name.starts_with(OURS) {
            // The manifest vouches for everything else, so nobody may have taken the destination from us meanwhile.
            self.wait(inner.lease.renew())?;
        }
        let key = inner.place.key(name)?;
        let local = |what| move |source| ExportError::Io { what, path: file.display().to_string(), source };
        match self.wait(inner.send(&key, file)) {
            Ok(()) => fs::remove_file(file).map_err(local("cannot remove")),
            Err(Broken::File(source)) => Err(local("cannot read")(source)),
            Err(Broken::Store(error)) => Err(inner.place.refused("cannot write", &key, &error).into()),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ExportError> {
        let inner = &self.inner;
        let key = inner.place.key(name)?;
        let got = self.wait(async { inner.remote.get(&key).await?.bytes().await });
        match got {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if trouble::is_missing_object(&error) => Ok(None),
            Err(error) => Err(inner.place.refused("cannot read", &key, &error).into()),
        }
    }

    fn list(&self) -> Result<Vec<(String, u64)>, ExportError> {
        let place = &self.inner.place;
        let named = |meta: object_store::ObjectMeta| async move { Ok(place.name(&meta.location).map(|name| (name, meta.size))) };
        let all = self.inner.remote.list(Some(&place.prefix)).try_filter_map(named).try_collect::<Vec<_>>();
        let mut all = self.wait(all).map_err(|error| place.refused("cannot list", &place.prefix, &error))?;
        all.sort();
        Ok(all)
    }

    fn delete(&self, name: &str) -> Result<(), ExportError> {
        let inner = &self.inner;
        inner.lease.check()?;
        let key = inner.place.key(name)?;
        match self.wait(inner.remote.delete(&key)) {
            Err(error) if !trouble::is_missing_object(&error) => Err(inner.place.refused("cannot remove", &key, &error).into()),
            _ => Ok(()),
        }
    }
}

fn runtime() -> Result<Runtime, S3Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("store").enable_all().build().map_err(S3Error::Threads)
}

fn retries(max_retries: usize, retry_timeout: Duration) -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(200), Duration::from_secs(5));
    RetryConfig { backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 }, max_retries, retry_timeout }
}

/// The settings but the bucket's, and how to call the store's address.
fn builder(variables: &[(String, String)], ca_file: Option<&Path>) -> Result<(AmazonS3Builder, String), S3Error> {
    // A variable without text is one that is not set: that is how scripts unset them.
    let of_aws = || variables.iter().filter(|(name, text)| name.starts_with("AWS_") && !text.is_empty());
    let value = |wanted: &str| of_aws().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
    let mut builder = AmazonS3Builder::new();
    for (name, text) in of_aws() {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, text);
        }
    }
    let settings = |why: &str| S3Error::Settings { why: why.to_owned() };
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
    let is_plain = endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    let is_here = endpoint.as_deref().is_some_and(is_loopback);
    if let Some(url) = &endpoint {
        if !is_plain && !url.starts_with("https://") {
            return Err(settings("AWS_ENDPOINT_URL does not begin with https:// (or http://)"));
        }
        let is_allowed =
            value("AWS_ALLOW_HTTP").is_some_and(|text| matches!(text.to_lowercase().as_str(), "true" | "1" | "yes" | "on"));
        if is_plain && !is_here && !is_allowed {
            return Err(S3Error::Plain { endpoint: url.clone() });
        }
    }
    match (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")) {
        (Some(_), None) => return Err(settings("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not")),
        (None, Some(_)) => return Err(settings("AWS_SECRET_ACCESS_KEY is set, AWS_ACCESS_KEY_ID is not")),
        // On Amazon's machines there may be credentials of the machine; nobody else has those.
        (None, None) if endpoint.is_some() && value("AWS_SKIP_SIGNATURE").is_none() => return Err(S3Error::NoKey),
        _ => {}
    }
    let client = |allow_plain| {
        let tls = TlsOptions { ca_file: ca_file.map(Path::to_owned), allow_plain };
        net::bare_client(&tls, REQUEST_TIMEOUT).map(HttpClient::new).map_err(S3Error::Tls)
    };
    let ways = Ways { tls: client(false)?, plain: client(true)? };
    // A request for one object is understood by every store, the one for many is not.
    let builder = builder.with_http_connector(ways).with_allow_http(is_plain).with_disable_bulk_delete(true);
    let endpoint = endpoint.unwrap_or_else(|| match builder.get_config_value(&AmazonS3ConfigKey::Region) {
        Some(region) => format!("Amazon S3 in {region}"),
        None => "Amazon S3 in us-east-1".to_owned(),
    });
    Ok((builder, endpoint))
}

/// Whether an address is one of this machine, to the letter.
fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Our own clients for the crate that speaks S3, so that TLS is what it is everywhere.
#[derive(Debug)]
struct Ways {
    tls: HttpClient,
    plain: HttpClient,
}

impl HttpConnector for Ways {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        Ok(if is_plain { self.plain.clone() } else { self.tls.clone() })
    }
}

#[cfg(test)]
mod tests;
