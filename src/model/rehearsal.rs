//! Panics on purpose, to see that one of them ends what must end. In every build, because what is handed out is what is
//! tested; it costs a look at a cell that is empty.

use std::sync::OnceLock;

static ASKED: OnceLock<(String, Vec<u8>)> = OnceLock::new();

/// What can be asked to panic: parts of the recorder, once each, and the parser, at every payload that holds some bytes.
pub const PARTS: [&str; 9] =
    ["writer", "sealer", "connection", "control", "filler", "scrubber", "teller", "signals", "parser:BYTES"];

/// Asks a part to panic; of several calls the first counts. Whether there is such a part.
pub fn rehearse_panic(asked: &str) -> bool {
    let (part, bytes) = asked.split_once(':').unwrap_or((asked, ""));
    let is_known = PARTS.iter().any(|known| known.split(':').next() == Some(part)) && (part == "parser") != bytes.is_empty();
    is_known && ASKED.set((part.to_owned(), bytes.as_bytes().to_vec())).is_ok()
}

/// Panics if this part is to.
pub fn panic_point(part: &str) {
    if let Some((asked, _)) = ASKED.get() {
        assert!(asked != part, "{part} was asked to panic");
    }
}

/// Panics if the parser is to, at this payload.
pub fn poison_point(payload: &[u8]) {
    if let Some((asked, poison)) = ASKED.get() {
        let is_poison = asked == "parser" && payload.windows(poison.len()).any(|some| some == poison);
        assert!(!is_poison, "the parser was asked to panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_can_be_asked_to_panic() {
        for wrong in ["", "reader", "writer:x", "parser", "parser:", "Writer"] {
            assert!(!rehearse_panic(wrong), "{wrong}");
        }
        panic_point("writer");
    }
}
