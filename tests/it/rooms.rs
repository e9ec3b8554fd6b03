//! Who may import whom: reads the source and compares it with the table of rooms.
//!
//! Plain text search after comments and string literals are blanked; good enough for `crate::room` paths, and it needs
//! no compiler. The checker is itself checked, with a planted violation of every rule.

use std::fs;
use std::path::{Path, PathBuf};

const GROUND: &[&str] = &["model"];
const JOB: &[&str] = &["model", "archive", "provider", "net"];
const CONFIG: &[&str] = &["model", "archive", "provider", "record", "backfill", "replay", "export", "upkeep"];
const ALL: &[&str] = &[
    "archive", "backfill", "catalog", "cli", "config", "export", "fixture", "import", "model", "net", "provider", "record",
    "replay", "segment", "testing", "upkeep",
];

/// A room and what it may import besides itself. A new room gets a line here.
const ROOMS: [(&str, &[&str]); 18] = [
    ("model", &[]),
    ("segment", GROUND),
    ("catalog", GROUND),
    ("provider", GROUND),
    ("net", GROUND),
    ("archive", &["model", "segment", "catalog"]),
    ("record", JOB),
    ("backfill", JOB),
    ("replay", JOB),
    ("export", JOB),
    ("import", JOB),
    ("fixture", JOB),
    ("upkeep", JOB),
    ("config", CONFIG),
    // The short way to a replay, from a path.
    ("testing", &["model", "archive", "segment", "net", "import", "replay"]),
    ("cli", ALL),
    ("main", ALL),
    // The map of the code: declares every room, has no logic.
    ("lib", ALL),
];

/// Crates, and the only rooms that may name them.
const CRATES: [(&[&str], &[&str]); 5] = [
    (&["rusqlite"], &["catalog"]),
    (
        &[
            "tokio_tungstenite",
            "tungstenite",
            "hyper",
            "hyper_util",
            "http_body_util",
            "rcgen",
            "reqwest",
            "rustls",
            "tokio_rustls",
            "webpki_roots",
        ],
        &["net"],
    ),
    (&["clap"], &["cli", "main"]),
    (&["anyhow"], &["cli", "main"]),
    (&["parquet", "arrow", "arrow_array", "arrow_schema", "object_store"], &["export"]),
];

/// Calls, the rooms that may make them, and whether tests may too.
const CALLS: [(&[&str], &[&str], Tests); 4] = [
    (&["SystemTime::now"], &["net", "cli"], Tests::May),
    // The jobs read tokio's clock, which a test or a simulation can hold; clippy keeps them from the system's.
    (&["Instant::now"], &["net", "cli", "record", "replay"], Tests::May),
    (&["println!", "eprintln!", "print!", "eprint!"], &["cli", "main"], Tests::May),
    (&["dbg!"], &[], Tests::MayNot),
];

/// Test files that look one room sideways: the archive is handed a real decoder, as it is in the program.
const SIDE_DOORS: [(&str, &str); 1] = [("archive/tests.rs", "provider")];

/// What stands before items that only tests see.
const TEST_MARK: &str = "#[cfg(test)]";

#[derive(Clone, Copy, PartialEq)]
enum Tests {
    May,
    MayNot,
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "found only {} files in {}", files.len(), src.display());
    let read = |file: &PathBuf| (file.strip_prefix(&src).unwrap().to_owned(), fs::read_to_string(file).unwrap());
    let files: Vec<(PathBuf, String)> = files.iter().map(read).collect();
    let for_tests: Vec<PathBuf> = files.iter().flat_map(|(file, text)| test_files(file, text)).collect();
    let violations: Vec<String> =
        files.iter().flat_map(|(file, text)| violations(file, text, for_tests.contains(file))).collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_checker_goes_red() {
    let planted = [
        ("model/time.rs", "use crate::archive::Options;", "model may not import archive"),
        ("segment/reader.rs", "use crate::catalog::Row;", "segment may not import catalog"),
        ("provider/mod.rs", "fn f() { crate::net::dial() }", "provider may not import net"),
        ("provider/x_live/mod.rs", "use super::super::net::dial;", "provider may not import net"),
        ("archive/mod.rs", "use crate::{model::Seq, provider::{Client, Input}};", "archive may not import provider"),
        ("archive/mod.rs", "use crate::{\n    model::{Seq, TweetId},\n    net,\n};", "archive may not import net"),
        ("record/mod.rs", "pub(crate) use crate::segment::Reader;", "record may not import segment"),
        ("record/mod.rs", "use crate :: replay :: Clock;", "record may not import replay"),
        ("replay/mod.rs", "#[cfg(test)]\nmod tests { use crate::record::run; }", "replay may not import record"),
        ("net/mod.rs", "use super::record;", "net may not import record"),
        ("config.rs", "use crate::net::Clock;", "config may not import net"),
        ("attic/mod.rs", "", "attic is no room of the table"),
        ("record/mod.rs", "use rusqlite::Connection;", "record may not name the crate rusqlite"),
        ("record/mod.rs", "fn f() -> Result<(), hyper::Error> { todo }", "record may not name the crate hyper"),
        ("config.rs", "#[derive(clap::Parser)] struct Args;", "config may not name the crate clap"),
        ("main.rs", "use tokio_rustls::rustls;", "main may not name the crate tokio_rustls"),
        ("catalog/mod.rs", "let t = std::time::Instant::now();", "catalog may not call Instant::now"),
        ("model/mod.rs", "let t = SystemTime::now();", "model may not call SystemTime::now"),
        ("archive/mod.rs", "fn f() { println!(\"x\"); }", "archive may not call println!"),
        ("net/mod.rs", "fn f() { eprintln!(\"x\"); }", "net may not call eprintln!"),
        ("net/mod.rs", "#[cfg(test)]\nmod tests { fn f() { dbg!(1); } }", "net may not call dbg!"),
        ("net/mod.rs", "#[cfg(test)]\nmod tests { }\nfn f() { println!(); }", "net may not call println!"),
    ];
    for (file, text, want) in planted {
        let found = violations(Path::new(file), text, false);
        assert!(found.len() == 1 && found[0].contains(want), "{file}: {text}\nwant {want}\nfound {found:?}");
    }
}

#[test]
fn the_checker_stays_green() {
    let innocent = [
        ("archive/mod.rs", "use crate::{model::Seq, segment::{Reader, Writer}, catalog};"),
        ("archive/mod.rs", "//! See [`crate::record`] and `rusqlite`.\n/* crate::net /* Instant::now */ */"),
        ("archive/mod.rs", "const A: &str = \"crate::net println!\"; const B: &str = r#\"crate::cli \" rusqlite::x\"#;"),
        ("archive/mod.rs", "const QUOTE: char = '\"'; const LIFE: &'static str = \"crate::net\";"),
        ("archive/mod.rs", "use super::model::Seq; mod tests { use super::*; }"),
        ("archive/mod.rs", "#[cfg(test)]\nmod tests { fn f() { let t = Instant::now(); println!(); } }"),
        ("provider/mod.rs", "pub mod x_live; use crate::provider::redial::Redial; pub(crate) fn f() {}"),
        ("cli/record.rs", "use crate::record; use super::replay; fn f() { println!(); let t = Instant::now(); }"),
        ("catalog/mod.rs", "use rusqlite::Connection;"),
        ("model/mod.rs", "fn f(my_hyper: u8, clap_hands: u8) { Later::now(); my_println!(); }"),
        ("main.rs", "fn main() { eprintln!(); }"),
    ];
    for (file, text) in innocent {
        let found = violations(Path::new(file), text, false);
        assert!(found.is_empty(), "{file}: {text}\nfound {found:?}");
    }
    let parent =
        "#[cfg(test)]\nmod script;\nmod wire;\n#[cfg(test)]\npub(crate) mod pair;\n#[cfg(test)]\nmod tests { use super::*; }";
    let found = test_files(Path::new("provider/mod.rs"), parent);
    assert_eq!(found, [Path::new("provider/script.rs"), Path::new("provider/pair.rs")]);
    assert_eq!(test_files(Path::new("config.rs"), parent)[0], Path::new("config/script.rs"));
    assert_eq!(violations(Path::new("segment/tests.rs"), "fn f() { Instant::now(); }", true), [""; 0]);
}

/// Everything in a file (its path counts from `src`) that the tables do not allow, one line each.
fn violations(file: &Path, text: &str, is_test_file: bool) -> Vec<String> {
    let parts: Vec<_> = file.iter().map(|part| part.to_str().unwrap()).collect();
    let room = parts[0].trim_end_matches(".rs");
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: {room} is no room of the table in tests/it/rooms.rs", file.display())];
    };
    let code = blanked(text);
    let shipped = if is_test_file { String::new() } else { without_tests(&code) };
    let mut found = Vec::new();
    let mut say = |at: usize, code: &str, what: String| {
        let line = 1 + code[..at].matches('\n').count();
        found.push(format!("src/{}:{line}: {room} may not {what}", file.display()));
    };

    // `mod.rs` of a room and a room of one file sit directly below the root, their neighbours one further down.
    let is_room_root = parts.len() == 1 || (parts.len() == 2 && parts[1] == "mod.rs");
    let depth = parts.len() - usize::from(parts.ends_with(&["mod.rs"]));
    let supers = "super::".repeat(if is_room_root { 1 } else { depth });
    for (at, name) in imports(&code, "crate::").into_iter().chain(imports(&code, &supers)) {
        let is_room = ALL.contains(&name.as_str()) && !SIDE_DOORS.contains(&(parts.join("/").as_str(), name.as_str()));
        if is_room && name != room && !allowed.contains(&name.as_str()) {
            say(at, &code, format!("import {name}"));
        }
    }
    for (names, rooms) in CRATES {
        for name in names.iter().filter(|_| !rooms.contains(&room)) {
            if let Some(at) = words(&code, name).find(|at| code[at + name.len()..].trim_start().starts_with("::")) {
                say(at, &code, format!("name the crate {name}"));
            } else if let Some(at) = words(&code, name).find(|at| code[..*at].trim_end().ends_with("use")) {
                say(at, &code, format!("name the crate {name}"));
            }
        }
    }
    for (names, rooms, tests) in CALLS {
        let code = if tests == Tests::May { &shipped } else { &code };
        for name in names.iter().filter(|_| !rooms.contains(&room)) {
            if let Some(at) = words(code, name).next() {
                say(at, code, format!("call {name}"));
            }
        }
    }
    found
}

/// Files that a file declares as modules for tests only.
fn test_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let dir = if file.ends_with("mod.rs") { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    let code = blanked(text);
    let declared = code.match_indices(TEST_MARK).filter_map(|(at, _)| {
        let item = &code[at + TEST_MARK.len()..];
        let (head, end) = item.find(['{', ';']).map(|end| (&item[..end], &item[end..]))?;
        let name = head.split_whitespace().skip_while(|word| *word != "mod").nth(1)?;
        end.starts_with(';').then(|| dir.join(format!("{name}.rs")))
    });
    declared.collect()
}

/// First names behind a prefix such as `crate::`, also those in braces, each with its place.
fn imports(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let squeezed = code.replace(" ::", "::").replace(":: ", "::");
    // Places shift where spaces were squeezed out; only lines are shown, and those stay.
    let mut found = Vec::new();
    for (at, _) in squeezed.match_indices(prefix) {
        let before = squeezed[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &squeezed[at + prefix.len()..];
        let at = at.min(code.len());
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level_names(group).into_iter().map(|name| (at, name))),
            None => found.push((at, first_name(rest))),
        }
    }
    found
}

/// First name of each item of a `{…}` group that has just been opened.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(first_name(&std::mem::take(&mut item))),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    names.push(first_name(&item));
    names
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Places of a name that is not part of a longer one.
fn words<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let (before, after) = (code[..*at].chars().next_back(), code[at + name.len()..].chars().next());
        let longer = before.is_some_and(part) || (name.ends_with(part) && after.is_some_and(part));
        !longer
    })
}

/// The code with its `#[cfg(test)]` items blanked; they end with the brace that closes them, or a semicolon.
fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(TEST_MARK) {
        out.push_str(&rest[..at]);
        let (mut depth, mut end) = (0, rest.len());
        for (i, c) in rest[at + TEST_MARK.len()..].char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 && (c == '}' || c == ';') {
                end = at + TEST_MARK.len() + i + 1;
                break;
            }
        }
        out.extend(rest[at..end].chars().filter(|c| *c == '\n'));
        rest = &rest[end..];
    }
    out + rest
}

/// The code with comments and the insides of string and character literals blanked; lines stay where they are.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n_skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            1 + closing_quote(&rest[1..])
        } else if let Some(hashes) = raw_string(rest, &out) {
            let (open, close) = (rest.find('"').unwrap() + 1, format!("\"{}", "#".repeat(hashes)));
            open + rest[open..].find(&close).map_or(rest.len() - open, |at| at + close.len())
        } else if c == '\'' {
            char_literal(rest)
        } else {
            0
        };
        let (skipped, kept) = rest.split_at(n_skipped);
        out.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = kept;
        if n_skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length up to and including the quote that closes a string, given what follows the opening one.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How many hashes a raw string that begins here has.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    let starts_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') || before.ends_with('b');
    let hashes = text.strip_prefix('r').filter(|_| starts_word)?;
    let n = hashes.bytes().take_while(|b| *b == b'#').count();
    hashes[n..].starts_with('"').then_some(n)
}

/// Length of a character literal; 0 for a lifetime.
fn char_literal(text: &str) -> usize {
    let inside = &text[1..];
    let n = match inside.chars().next() {
        Some('\\') => return 1 + inside[2..].find('\'').map_or(0, |at| at + 3),
        Some(c) => c.len_utf8(),
        None => return 0,
    };
    if inside[n..].starts_with('\'') { n + 2 } else { 0 }
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
