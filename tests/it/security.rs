//! What the program owes to those who trust it with keys and with files of strangers: each rule, and the test that shows it.
//!
//! | rule | shown by |
//! | --- | --- |
//! | S1 keys only by environment or a private file, never by flag or in the configuration | `cli::tests::keys_never_come_by_flag`, `config::tests::{keys_do_not_belong_into_the_file, key_files_must_be_private}`, [`keys_stand_in_no_command_line`] |
//! | S2 a secret prints as `***`, and only an address without it can be printed | `model::secret::tests::never_prints_itself`; every opening of `net::testing` |
//! | S3 other crates are held at `warn`, and every line loses its secrets in whatever form | `cli::log::tests::*`, `model::secret::tests::secrets_are_found_however_they_are_written`, `scripts/leakcheck` |
//! | S4 answers and messages that echo the key are kept with a marker in its place | `net::client::tests::{refusals_come_whole, a_subprotocol_may_be_absent_chosen_or_the_key_itself}`, `net::redact::tests::*`, `record::tests::a_key_that_comes_back_is_not_kept`, `scripts/leakcheck` |
//! | S5 no redirect is followed; without TLS only to this machine | `net::client::tests::refusals_come_whole`, `net::pool::tests`, `net::network::tests::keys_do_not_leave_the_machine_without_tls`, `config::tests::plain_addresses_are_for_this_machine_unless_allowed`, `scripts/leakcheck` (a second host that hears nothing) |
//! | S6 TLS by rustls with built-in roots, bad certificates refused, no log of session keys | `net::network::tests::{certificates_that_must_not_be_trusted, a_server_without_tls_is_a_tls_fault}`, `net::server::tests::a_failed_handshake_harms_nobody`, `scripts/leakcheck` (SSLKEYLOGFILE is set and stays unused) |
//! | S7 webhooks | there are none to receive |
//! | S8 servers bind loopback, elsewhere they want a key; foreign `Host` and `Origin` refused | [`the_replay_answers_to_this_machine_only`], `net::server::tests::plain_requests_are_answered_within_bounds`, `live::a_replay_ends_by_itself_and_says_what_it_played` |
//! | S9 limits on heads, bodies, messages, connections, waits | `net::server::tests::{bounds_hold_at_the_limit_one_beyond_it_and_far_beyond, a_full_house_turns_away_and_the_shutdown_is_bounded, one_address_does_not_take_all_places, slow_headers_are_cut_off}`, `net::live::tests::{an_oversized_message_is_kept_up_to_the_limit, endless_fragments_and_pings_are_bounded, waits_are_bounded}`, `net::client::tests::{a_request_is_bounded, long_and_slow_refusals_are_cut, bad_upgrades_are_handshake_faults}` |
//! | S10 a tape of strangers: no link in it is written through | [`a_strangers_tape_changes_nothing_outside_it`], [`a_strangers_directories_are_not_followed`]; damage of every sort: `cli::a_segment_that_is_damaged_truncated_empty_or_no_zstd_is_told`, `segment::tests::*` |
//! | S11 no text commands a terminal, forges a line of the log or is computed by a spreadsheet | `cli::log::tests::an_event_is_one_line_without_commands`, `cli::out::tests::*`, `cli::tweets_command_no_terminal`, `export::text::tests::cells_are_quoted_and_command_no_spreadsheet`, `scripts/leakcheck` (through a pseudo-terminal) |
//! | S12 SQL by parameters only; a catalog's triggers, views and schema do nothing | [`values_reach_sql_as_parameters_only`], `catalog::tests::a_hostile_schema_does_nothing` |
//! | S13 a tape is its owner's alone, whatever the umask | [`a_tape_is_private_whatever_the_umask`] |
//! | S14 no core files, no reading of its memory | [`memory_is_nobody_elses`], `scripts/leakcheck` (SIGABRT) |
//! | S15 no unsafe code; what reads bytes of strangers never panics | [`there_is_no_unsafe_code`], `fuzzed::*`, `scripts/fuzz` |
//! | S16 licences, sources and versions of what is built in | `scripts/supply-chain` |
//! | S17 SQLite without the WAL-reset bug | `catalog::tests::the_linked_sqlite_is_new_enough`, `cli::versions_are_told` |
//! | S18 direct messages only when switched on, and not in a redacted fixture | `config::tests::names_what_is_wrong_where_and_what_is_allowed`, `fixture::redacted_nothing_of_anybody_is_left` |
//! | S19 a budget is not exceeded by more than a request | `backfill::purse::tests::*`, `backfill::*` |
//! | S20 errors say cause and cure, and of a refusal only its words | `provider::twitterapi_io::client::tests::a_refusal_never_loops`, `provider::closes::*` |

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::program::{Desk, FIXTURE, files_below, finished};
use crate::server::{Replay, events};

const KEY: &str = "planted-key-7f3a91";

fn source_of(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn keys_stand_in_no_command_line() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE, "--linger", "60"]);
    let mut command = desk.command(["--json", "record", "--provider", "tweetstream", "--base-url", &replay.base]);
    let mut recorder = command.env("TWEETSTREAM_API_KEY", KEY).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert!(events(recorder.stdout.take().unwrap()).any(|event| event["event"] == "connected"));
    for name in ["cmdline", "comm", "status"] {
        // Elsewhere there is no such place.
        let Ok(shown) = std::fs::read(format!("/proc/{}/{name}", recorder.id())) else { continue };
        assert!(!String::from_utf8_lossy(&shown).contains(KEY), "{name}");
    }
    recorder.kill().unwrap();
    recorder.wait().unwrap();
}

#[test]
fn a_tape_is_private_whatever_the_umask() {
    let desk = Desk::new();
    let program = env!("CARGO_BIN_EXE_birdtape");
    let script =
        format!("umask 000 && '{program}' import --provider auto '{FIXTURE}' && '{program}' rebuild && '{program}' recover");
    finished(std::process::Command::new("sh").args(["-c", &script]).current_dir(desk.path(".")).env_remove("BIRDTAPE_TAPE"))
        .expect(0);
    let tape = desk.path("tape");
    let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
    let files = files_below(&tape);
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        for dir in file.ancestors().skip(1).take_while(|dir| dir.starts_with(&tape)) {
            assert_eq!(mode(dir), 0o700, "{}", dir.display());
        }
    }
}

#[test]
fn a_strangers_tape_changes_nothing_outside_it() {
    let words = "somebody's file, longer than the name of a holder ".repeat(20);
    for name in ["lock", "catalog.sqlite", "tape.json.new", "catalog.sqlite.new"] {
        let desk = Desk::with_fixture();
        let canary = desk.write("canary", words.as_bytes());
        let link = desk.path("tape").join(name);
        // Not all of them are there.
        std::fs::remove_file(&link).ok();
        symlink(&canary, &link).unwrap();
        for args in [&["recover"][..], &["rebuild"], &["verify"], &["import", "--provider", "auto", FIXTURE]] {
            let run = desk.run(args);
            assert!([0, 1, 3].contains(&run.code), "{name} {args:?}: {}", run.err);
            assert_eq!(std::fs::read_to_string(&canary).unwrap(), words, "{name} {args:?}: {}", run.err);
        }
    }
    // A database of somebody's in the place of the catalog gets no tables of ours.
    let (desk, other) = (Desk::with_fixture(), Desk::with_fixture());
    let (theirs, link) = (other.path("tape/catalog.sqlite"), desk.path("tape/catalog.sqlite"));
    let before = std::fs::read(&theirs).unwrap();
    std::fs::remove_file(&link).unwrap();
    symlink(&theirs, &link).unwrap();
    desk.run(&["recover"]).expect(0);
    assert!(std::fs::read(&theirs).unwrap() == before && !link.is_symlink());
    desk.run(&["verify"]).expect(0);
}

#[test]
fn a_strangers_directories_are_not_followed() {
    for link in ["segments", "segments/tweetstream", "segments/tweetstream/DAY"] {
        let (desk, other) = (Desk::with_fixture(), Desk::with_fixture());
        let day = std::fs::read_dir(desk.path("tape/segments/tweetstream")).unwrap().next().unwrap().unwrap().file_name();
        let link = link.replace("DAY", day.to_str().unwrap());
        // What a careless recovery would remove, seal or write beside.
        let theirs = other.path("tape").join(&link);
        let canary = other.path("tape/segments/tweetstream").join(&day).join("00000000000000000001.jsonl.zst.partial");
        std::fs::write(&canary, b"somebody's").unwrap();
        let before: Vec<_> = files_below(&theirs).into_iter().map(|file| (std::fs::read(&file).unwrap(), file)).collect();
        let place = desk.path("tape").join(&link);
        std::fs::remove_dir_all(&place).unwrap();
        symlink(&theirs, &place).unwrap();
        for args in [&["recover"][..], &["rebuild"], &["import", "--provider", "auto", FIXTURE], &["verify"], &["scrub"]] {
            let run = desk.run(args);
            assert!(run.code == 1 && run.err.contains("symbolic link"), "{link} {args:?}: {} {}", run.code, run.err);
            let after: Vec<_> = files_below(&theirs).into_iter().map(|file| (std::fs::read(&file).unwrap(), file)).collect();
            assert!(before == after, "{link} {args:?}");
        }
    }
}

#[test]
fn the_replay_answers_to_this_machine_only() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE]);
    let address = replay.base.strip_prefix("http://").unwrap();
    assert!(address.parse::<std::net::SocketAddr>().unwrap().ip().is_loopback(), "{address}");
    let asked = |host: &str, more: &str| {
        use std::io::{Read, Write};
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        write!(tcp, "GET /twitter/tweet/websocket HTTP/1.1\r\nHost: {host}\r\nx-api-key: k\r\n{more}Connection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_ne!(asked(address, ""), "403");
    assert_ne!(asked("localhost", "Origin: http://localhost:3000\r\n"), "403");
    let foreign = [("evil.test", ""), ("localhost.evil.test", ""), ("0.0.0.0", ""), (address, "Origin: https://evil.test\r\n")];
    for (host, more) in foreign {
        assert_eq!(asked(host, more), "403", "{host} {more}");
    }
    desk.run(&["replay", FIXTURE, "--listen", "0.0.0.0:0"]).fails(1, &["so the replay needs a key"]);
}

#[test]
fn values_reach_sql_as_parameters_only() {
    // What is put into SQL by `format!` are constants of ours: lists of columns, and tables of the schema.
    let allowed = ["{BLOCK}", "{table}"];
    for file in ["src/catalog/mod.rs", "src/catalog/migrate.rs", "src/catalog/rows.rs"] {
        let text = source_of(file);
        for at in text.match_indices("format!(").map(|(at, _)| at) {
            let rest = &text[at..];
            let mut depth = 0;
            let end = rest.find(|c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ')' && depth == 0
            });
            let call = &rest[..end.unwrap_or(rest.len())];
            let is_sql = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "PRAGMA "]
                .iter()
                .any(|word| call.contains(word));
            let mut holes =
                call.split('{').skip(1).map(|hole| format!("{{{}", hole.split_inclusive('}').next().unwrap_or_default()));
            assert!(!is_sql || holes.all(|hole| allowed.contains(&hole.as_str())), "{file}: {call}");
        }
    }
}

#[test]
fn there_is_no_unsafe_code() {
    assert!(source_of("Cargo.toml").contains("unsafe_code = \"forbid\""));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_nobody_elses() {
    use std::os::unix::process::CommandExt;

    let desk = Desk::new();
    std::fs::set_permissions(desk.path("."), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = desk.command(["replay", FIXTURE]);
    // For root nothing can be seen: everything is root's already.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534);
    }
    let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        return println!("skipped: another user cannot run the program here");
    };
    let is_up = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap())).next().is_some();
    // The kernel gives the memory of a process that must not be dumped to root alone.
    let owner = std::fs::metadata(format!("/proc/{}/mem", child.id())).map(|place| place.uid());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    if !is_up {
        return println!("skipped: another user cannot run the program here");
    }
    assert_eq!(owner.unwrap(), 0);
    let limits = limits.unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}
