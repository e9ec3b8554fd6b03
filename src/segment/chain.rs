//! The hash that vouches for all uncompressed bytes before a commit line.

use xxhash_rust::xxh3::Xxh3;

/// Running state of the commit hash; see the module docs for its definition.
#[derive(Clone)]
pub struct Chain {
    state: Xxh3,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain({:016x})", self.state.digest())
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Chain {
    /// Continues behind a commit with that hash; the bytes of its line come next.
    pub fn after(hash: u64) -> Self {
        Self { state: Xxh3::with_seed(hash) }
    }

    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The hash a commit line here must carry.
    pub fn hash(&self) -> u64 {
        self.state.digest()
    }
}
