//! `birdtape --version`: this program's, and on request that of what it leans on most.

use serde_json::json;

use super::args::Common;
use super::exit::{Exit, Outcome};
use super::out::Out;
use crate::{catalog, segment};

/// What was built in, as Cargo has it; libraries that do not tell by themselves are looked up there.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"));

pub(super) fn run(common: &Common, is_verbose: bool) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    let parts = [("SQLite", catalog::sqlite_version()), ("zstd", segment::zstd_version()), ("rustls", locked("rustls"))];
    let parts = if is_verbose { &parts[..] } else { &[] };
    let mut out = Out::new();
    if common.json {
        let mut all = json!({ "birdtape": own });
        for (name, version) in parts {
            all[name.to_lowercase()] = json!(version);
        }
        out.json(&all)?;
    } else {
        out.line(&format!("birdtape {own}"))?;
        for (name, version) in parts {
            out.line(&format!("{name} {version}"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Version of a library in the lock file.
fn locked(name: &str) -> &'static str {
    let package = format!("name = \"{name}\"\nversion = \"");
    let version = LOCK.split_once(&package).and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("unknown", |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_tells_versions() {
        assert!(locked("rustls").starts_with("0.23."));
        assert_eq!(locked("rust"), "unknown");
    }
}
