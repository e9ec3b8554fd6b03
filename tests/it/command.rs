//! `birdtape replay`: programs that it runs, and TLS.

use std::process::Stdio;

use serde_json::Value;

use crate::program::{Desk, FIXTURE, finished};
use crate::server::Replay;

/// Runs a shell script against the fixture.
fn script(desk: &Desk, args: &[&str], script: &str) -> crate::program::Run {
    finished(desk.command(["replay", FIXTURE]).args(args).args(["--", "sh", "-c", script]).stderr(Stdio::piped()))
}

#[test]
#[cfg(unix)]
fn a_command_finds_the_fake_providers_and_its_end_is_ours() {
    let desk = Desk::new();
    let run = script(&desk, &[], "env; exit 7").expect(7);
    let value = |name: &str| {
        let found = run.text().lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name} is not set")).to_owned()
    };
    let base = value("BIRDTAPE_BASE_URL");
    let ws = base.replace("http://", "ws://");
    assert_eq!(value("TWITTERAPI_IO_WS_URL"), format!("{ws}/twitter/tweet/websocket"));
    assert_eq!(value("TWEETSTREAM_WS_URL"), format!("{ws}/ws"));
    assert_eq!(value("SCRAPEBADGER_WS_URL"), format!("{ws}/v1/twitter/stream"));
    assert_eq!(value("X_LIVE_URL"), format!("{base}/live_pipeline/events"));
    for name in ["TWITTERAPI_IO_BASE_URL", "TWEETSTREAM_BASE_URL", "SCRAPEBADGER_BASE_URL", "X_BASE_URL"] {
        assert_eq!(value(name), base);
    }
    for name in ["TWITTERAPI_IO_API_KEY", "TWEETSTREAM_API_KEY", "SCRAPEBADGER_API_KEY", "X_AUTH_TOKEN", "X_CT0"] {
        assert_eq!(value(name), "replay");
    }
    let ready: Value = serde_json::from_str(run.err.lines().next().unwrap()).unwrap();
    assert_eq!(ready["base"], base);

    // stdin goes through, too, and a key that is set stays.
    let mut command = desk.command(["replay", FIXTURE, "--key", "theirs", "--", "sh", "-c"]);
    command.arg("echo $TWEETSTREAM_API_KEY $X_CT0; cat").env("X_CT0", "mine").stdin(std::fs::File::open(FIXTURE).unwrap());
    let run = finished(&mut command).expect(0);
    let rest = run.text().strip_prefix("theirs mine\n").unwrap();
    assert_eq!(rest, std::fs::read_to_string(FIXTURE).unwrap());
}

#[test]
#[cfg(unix)]
fn a_command_that_ends_badly_says_how() {
    let desk = Desk::new();
    script(&desk, &[], "kill -9 $$").expect(137);
    desk.run(&["replay", FIXTURE, "--", "./no-such-program"]).fails(127, &["cannot start `./no-such-program`", "hint: "]);
    // An empty variable of a script is no wish to serve for ever.
    desk.run(&["replay", FIXTURE, "--"]).fails(2, &["no command stands behind --", "hint: name the program"]);
    desk.run(&["replay", "no-such-file", "--", "true"]).fails(1, &["no-such-file"]);
}

#[test]
#[cfg(unix)]
fn damage_counts_only_where_the_command_is_content() {
    let desk = Desk::with_fixture();
    let segments = crate::program::files_below(&desk.path("tape/segments"));
    let segment = segments.iter().find(|file| file.to_string_lossy().contains("tweetstream")).unwrap();
    let mut bytes = std::fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(segment, bytes).unwrap();
    // Reading ahead meets the damage before anybody can come.
    let replay = |script: &str| desk.run(&["replay", "tape", "--speed", "max", "--", "sh", "-c", script]);
    replay("exit 5").expect(5);
    let run = replay("exit 0").expect(3);
    assert!(run.err.contains("damage: "), "{}", run.err);
}

#[test]
#[cfg(unix)]
fn signals_reach_the_command() {
    let desk = Desk::new();
    for signal in ["TERM", "INT", "HUP"] {
        let script = format!("trap 'exit 43' {signal}; kill -{signal} $PPID; while :; do sleep 0.05; done");
        let run = finished(desk.command(["replay", FIXTURE, "--", "sh", "-c"]).arg(&script));
        assert_eq!(run.code, 43, "{signal}: {}", run.err);
    }
}

#[test]
fn a_recorder_that_trusts_the_authority_records_over_tls() {
    let desk = Desk::new();
    let replay = Replay::start(&desk, &[FIXTURE, "--speed", "max", "--tls"]);
    let ca = replay.ready["tls"]["ca"].as_str().unwrap().to_owned();
    assert!(replay.base.starts_with("https://127.0.0.1:"), "{}", replay.base);
    let pem = std::fs::read_to_string(&ca).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"), "{pem}");

    // Who does not know the authority stays outside; the gap says why.
    let run = desk.run(&["record", "--provider", "tweetstream", "--base-url", &replay.base, "--for", "1"]).expect(3);
    assert!(run.err.contains("ca_file"), "{}", run.err);
    std::fs::remove_dir_all(desk.path("tape")).unwrap();

    let mut config = String::new();
    for provider in ["twitterapi_io", "tweetstream", "scrapebadger", "x_live"] {
        config +=
            &format!("[source.{provider}]\nprovider = \"{provider}\"\nbase_url = \"{}\"\nca_file = \"{ca}\"\n", replay.base);
    }
    desk.write("birdtape.toml", config.as_bytes());
    let keys = ["TWITTERAPI_IO_API_KEY", "TWEETSTREAM_API_KEY", "SCRAPEBADGER_API_KEY", "X_AUTH_TOKEN", "X_CT0"];
    let run = finished(desk.command(["record", "--until-idle", "1.5"]).envs(keys.map(|key| (key, "any")))).expect(0);
    assert_eq!(run.err.matches("warning").count(), 0, "{}", run.err);
    let raw = desk.run(&["cat", "--kind", "frame", "--raw"]).expect(0);
    let mut got: Vec<&str> = raw.text().lines().collect();
    let fixture = std::fs::read_to_string(FIXTURE).unwrap();
    let mut want: Vec<&str> = fixture.lines().collect();
    got.sort_unstable();
    want.sort_unstable();
    // X may say its config twice.
    got.dedup();
    want.dedup();
    assert_eq!(got, want);
}

#[test]
#[cfg(unix)]
fn the_authoritys_file_goes_with_the_replay_unless_it_was_named() {
    let desk = Desk::new();
    let same = "test \"$SSL_CERT_FILE$NODE_EXTRA_CA_CERTS\" = \"$REQUESTS_CA_BUNDLE$BIRDTAPE_CA_FILE\" && cat \"$SSL_CERT_FILE\" >seen && echo $SSL_CERT_FILE";
    let run = script(&desk, &["--tls"], same).expect(0);
    assert!(std::fs::read_to_string(desk.path("seen")).unwrap().contains("BEGIN CERTIFICATE"));
    assert!(!std::path::Path::new(run.text().trim()).exists());

    // Our own recorder as the command trusts it without being told.
    let birdtape = env!("CARGO_BIN_EXE_birdtape");
    let record = format!("{birdtape} record --provider tweetstream --base-url $BIRDTAPE_BASE_URL --until-idle 1");
    script(&desk, &["--speed", "max", "--tls"], &record).expect(0);
    assert!(desk.run(&["cat", "--kind", "frame", "--raw"]).expect(0).text().lines().count() > 100);

    // So do our own buttons.
    let run = script(
        &desk,
        &["--tls", "--start", "paused"],
        &format!("{birdtape} control && curl_ca=$CURL_CA_BUNDLE && test -f $curl_ca"),
    );
    assert!(run.expect(0).err.contains("paused at "));

    let run = script(&desk, &["--tls", "--tls-ca", "ca.pem"], same).expect(0);
    assert!(run.text().trim().ends_with("/ca.pem") && desk.path("ca.pem").exists(), "{}", run.text());
}
