//! Where an export goes: a directory, or a store that speaks S3.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use super::args;
use super::exit::usage;
use super::{log, signal};
use crate::export::{ExportError, LocalStore, S3Options, S3Store, Store};
use crate::model::Secret;

/// What the long help says of stores.
pub(super) const LONG: &str = "\
Stores: --out s3://BUCKET/PREFIX writes to Amazon S3, or to any store that speaks its protocol and can put an object only if it \
is not there, as MinIO can. The environment says how to reach it:
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY     the key; AWS_SESSION_TOKEN for a temporary one
  AWS_REGION or AWS_DEFAULT_REGION             us-east-1 unless you say otherwise
  AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3)    another store than Amazon's
  AWS_ALLOW_HTTP=true                          accept http:// in it outside this machine
  AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true        the bucket is in the endpoint's name, not in the path
  BIRDTAPE_CA_FILE or AWS_CA_BUNDLE            certificates to trust beside the usual ones (PEM)
  HTTPS_PROXY, NO_PROXY                        the way out
  TMPDIR                                       where temporary files go
Without a key, the credentials of the machine or container are asked for (Amazon's only). ~/.aws is not read.

MinIO on this machine:
  export AWS_ACCESS_KEY_ID=minio AWS_SECRET_ACCESS_KEY=… AWS_ENDPOINT_URL=http://127.0.0.1:9000
  birdtape export parquet --out s3://tapes/lake

The key has to be allowed to list the bucket, and to get, put and delete objects below the prefix.

One export at a time writes to a prefix: it holds PREFIX/_birdtape/lock and renews it every minute. Ctrl-C takes back what was \
begun. An export that was killed leaves its hold, which ends after five minutes (or at once with --break-lock), whole files, \
and perhaps parts of one that was on its way: a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes those. \
Run it again to go on.";

/// Makes ready for writing there. On a signal a store is given back and the program ends; for a directory `stop` is set.
pub(super) fn open(out: &Path, break_lock: bool, stop: &Arc<AtomicBool>) -> Result<Box<dyn Store>> {
    let shown = out.display().to_string();
    match shown.split_once("://") {
        Some(("s3", _)) => remote(shown, break_lock),
        Some((scheme, _)) if !out.exists() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            Err(usage(format!("{shown} cannot be a destination"), "name a directory or s3://bucket/prefix with --out"))
        }
        _ if out.is_file() => Err(usage(format!("{shown} is a file"), "name a directory with --out")),
        _ if break_lock => {
            Err(usage("--break-lock is for stores (s3://…)", "the lock of a directory ends with the export that holds it"))
        }
        _ => {
            signal::set_on_the_first(stop)?;
            Ok(Box::new(LocalStore::new(out)))
        }
    }
}

fn remote(address: String, break_lock: bool) -> Result<Box<dyn Store>> {
    let secrets = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].into_iter().filter_map(args::env);
    log::start(secrets.filter_map(Secret::new).collect());
    let file = |name| args::env(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let ca_file = file("BIRDTAPE_CA_FILE").or_else(|| file("AWS_CA_BUNDLE"));
    let text =
        |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let variables = std::env::vars_os().filter_map(text).collect();
    let store = S3Store::open(&S3Options { address, variables, ca_file, break_lock }).map_err(|error| match error.hint() {
        Some(hint) if error.is_usage() => usage(error.to_string(), hint),
        _ => ExportError::from(error).into(),
    })?;
    let given_back = store.clone();
    signal::on_the_way_out(move || given_back.abandon())?;
    Ok(Box::new(store))
}

/// What another export is told about us; it may run on another machine.
pub(super) fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| args::env("HOSTNAME"));
    let user = args::env("USER").or_else(|| args::env("LOGNAME"));
    let name = |name: Option<String>| name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let by = name(user).map(|user| format!(" by {user}")).unwrap_or_default();
    let on = name(host).map(|host| format!(" on {host}")).unwrap_or_default();
    format!("{}{by}{on}", args::holder("export"))
}
