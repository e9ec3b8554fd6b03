//! Only in the copy that `scripts/mutants` makes: which change is on, and which were met.

use std::{
    env,
    fs::File,
    io::Write,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

static CHOSEN: LazyLock<Option<usize>> = LazyLock::new(|| env::var("MUTANT").ok()?.parse().ok());
static LIST: LazyLock<Option<File>> = LazyLock::new(|| File::options().append(true).open(env::var_os("MUTANTS_MET")?).ok());
static MET: [AtomicBool; 10_000] = [const { AtomicBool::new(false) }; 10_000];

/// Whether change `n` is on.
pub fn on(n: usize) -> bool {
    if let Some(mut list) = LIST.as_ref()
        && !MET[n].swap(true, Ordering::Relaxed)
    {
        list.write_all(format!("{n}\n").as_bytes()).unwrap();
    }
    *CHOSEN == Some(n)
}
