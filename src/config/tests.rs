use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Keys as a person would have them; none of these words may show up in any message.
fn keys(name: &str) -> Option<String> {
    let value = match name {
        "TWITTERAPI_IO_API_KEY" => "planted-key-a1",
        "TWEETSTREAM_API_KEY" => "planted-key-b2",
        "SCRAPEBADGER_API_KEY" => "planted-key-c3",
        "X_AUTH_TOKEN" => "planted-cookie-d4",
        "X_CT0" => "planted-csrf-e5",
        "OTHER_KEY" => "planted-key-f6",
        _ => return None,
    };
    Some(value.to_owned())
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn load_with(text: &str, env: Env<'_>) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("birdtape.toml");
    fs::write(&file, text).unwrap();
    Config::load(&file, env)
}

/// The message and the hint, with the temporary directory taken out.
fn complaint(error: &ConfigError) -> String {
    let text = format!("{error}\n{}", error.hint().unwrap_or_default());
    let shown = match text.split_once("birdtape.toml") {
        Some((before, after)) => {
            let kept = before.rfind(' ').map_or("", |at| &before[..=at]);
            format!("{kept}birdtape.toml{after}")
        }
        None => text,
    };
    assert!(!shown.contains("planted"), "a key in a message: {shown}");
    shown.trim_end().to_owned()
}

/// What is said about a file that cannot work.
fn refused(text: &str, env: Env<'_>) -> String {
    complaint(&load_with(text, env).expect_err(text))
}

fn alpha(provider: &str, more: &str) -> String {
    format!("[source.alpha]\nprovider = {provider:?}\n{more}\n")
}

fn only_source(text: &str) -> Source {
    let mut config = load_with(text, &keys).unwrap();
    assert_eq!(config.sources.len(), 1);
    config.sources.remove(0)
}

#[test]
fn reads_everything() {
    let config = load_with(
        r#"
        tape = "/tapes/one"
        [archive]
        commit_every = "0s"
        segment_size = "1MiB"
        block_size = "64KiB"
        level = 9
        [limits]
        max_message = "1MiB"
        queue = "2 MiB"
        [source.beta]
        provider = "x_live"
        topics = ["/tweet_engagement/1", "/dm_typing/1-2"]
        direct_messages = true
        framing = "lines"
        reconnect = false
        [source.alpha]
        provider = "tweetstream"
        base_url = "http://127.0.0.1:9"
        auth = "bearer"
        connections = 5
        key_env = "OTHER_KEY"
        reconnect_floor = "90s"
        reconnect_cap = "5m"
        ping_every = "0s"
        pong_within = "1m 30s"
        lateness_horizon = "2m"
        scopes_every = "0s"
        answer_auth_ping = true
        "#,
        &keys,
    )
    .unwrap();
    assert_eq!(config.tape, Path::new("/tapes/one"));
    let archive = &config.archive;
    assert_eq!((archive.commit_every, archive.segment_bytes), (ZERO, MIB));
    assert_eq!((archive.block_bytes, archive.level), (64 * KIB, 9));
    assert_eq!(config.limits, Limits { max_message: 1 << 20, queue_bytes: 2 << 20 });
    let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta"]);

    let [alpha, beta] = &config.sources[..] else { panic!("two sources") };
    assert_eq!((alpha.connections, alpha.lateness_horizon), (5, Duration::from_secs(120)));
    assert_eq!(alpha.key_source, "environment variable OTHER_KEY");
    let settings = &alpha.settings;
    assert_eq!((settings.auth, settings.answer_auth_ping, settings.auto_reconnect), (Auth::Bearer, true, true));
    assert_eq!(settings.credentials.key.as_ref().unwrap().expose(), "planted-key-f6");
    assert_eq!((settings.ping_every, settings.pong_within), (ZERO, Duration::from_secs(90)));
    assert_eq!((settings.reconnect_floor, settings.reconnect_cap), (Duration::from_secs(90), Duration::from_secs(300)));
    assert_eq!((settings.base.as_ref().unwrap().endpoint.port, settings.scopes_every), (9, ZERO));

    let settings = &beta.settings;
    assert_eq!((settings.framing, settings.direct_messages, settings.auto_reconnect), (Framing::Lines, true, false));
    assert_eq!(settings.topics.len(), 2);
    assert_eq!(beta.key_source, "environment variables X_AUTH_TOKEN and X_CT0");
    assert_eq!(config.secrets().len(), 3);
    assert!(!format!("{config:?}").contains("planted"));
    config.require_sources().unwrap();
}

#[test]
fn an_empty_file_is_all_defaults_and_gives_a_recorder_nothing_to_do() {
    for text in ["", "# nothing\n", "[archive]\n[limits]\n"] {
        let config = load_with(text, &keys).unwrap();
        assert_eq!((config.tape.as_path(), config.limits), (Path::new("./tape"), Limits::default()));
        assert_eq!(config.archive.segment_bytes, archive::Options::default().segment_bytes);
        let said = complaint(&config.require_sources().unwrap_err());
        assert!(said.starts_with("birdtape.toml configures no source to record\ntake the `#` away"), "{said}");
    }
}

#[test]
fn names_what_is_wrong_where_and_what_is_allowed() {
    let cases: [(String, &str); 45] = [
        ("tape = ".into(), "birdtape.toml line 1: not valid TOML: "),
        ("\n\n= 3".into(), "birdtape.toml line 3: not valid TOML: "),
        ("{\"json\": true}".into(), "birdtape.toml line 1: not valid TOML: "),
        (
            "tapes = 1".into(),
            "birdtape.toml line 1: unknown key `tapes`; known here are tape, archive, limits, backfill, upkeep, webhooks, source\ndid you mean `tape`?",
        ),
        (
            "[sources.alpha]".into(),
            "birdtape.toml line 1: unknown key `sources`; known here are tape, archive, limits, backfill, upkeep, webhooks, source\ndid you mean `source`?",
        ),
        (
            "[archive]\n\nlevle = 3".into(),
            "birdtape.toml line 3, [archive]: unknown key `levle`; known here are commit_every, segment_size, block_size, level\ndid you mean `level`?",
        ),
        (alpha("tweetstream", "conections = 2"), "birdtape.toml line 3, [source.alpha]: unknown key `conections`; "),
        (alpha("tweetstream", "zzz = 2"), "birdtape.toml line 3, [source.alpha]: unknown key `zzz`; "),
        (alpha("tweetstream", "\"\\u001b[2J\" = 2"), "birdtape.toml line 3, [source.alpha]: unknown key `\\u{1b}[2J`; "),
        (
            alpha("tweatstream", ""),
            "birdtape.toml line 2, [source.alpha]: unknown provider `tweatstream`; known are twitterapi_io, tweetstream, scrapebadger, x_live\ndid you mean `tweetstream`?",
        ),
        (
            alpha("mastodon", ""),
            "birdtape.toml line 2, [source.alpha]: unknown provider `mastodon`; known are twitterapi_io, tweetstream, scrapebadger, x_live",
        ),
        (
            "[source.alpha]\nconnections = 1".into(),
            "birdtape.toml line 1, [source.alpha]: `provider` is missing; known are twitterapi_io, tweetstream, scrapebadger, x_live\nadd a line such as `provider = \"tweetstream\"`",
        ),
        (
            "[source.'a/b']\nprovider = 'tweetstream'".into(),
            "birdtape.toml line 1, [source.a/b]: source name `a/b` is not 1 to 64 of ",
        ),
        ("[archive]\nlevel = 0".into(), "birdtape.toml line 2, [archive]: `level` is 0; allowed are 1 to 19"),
        ("[archive]\nlevel = 20".into(), "birdtape.toml line 2, [archive]: `level` is 20; allowed are 1 to 19"),
        ("[archive]\nlevel = \"3\"".into(), "birdtape.toml line 2, [archive]: `level` is a string, expected a whole number"),
        (
            "[archive]\ncommit_every = \"soon\"".into(),
            "birdtape.toml line 2, [archive]: `commit_every` is \"soon\", which is no duration such as \"250ms\", \"90s\" or \"5m\"",
        ),
        (
            "[archive]\ncommit_every = 100".into(),
            "birdtape.toml line 2, [archive]: `commit_every` is a whole number, expected a string\ndurations and sizes are written in quotes, with their unit: \"90s\", \"16MiB\"",
        ),
        (
            "[archive]\ncommit_every = \"2m\"".into(),
            "birdtape.toml line 2, [archive]: `commit_every` is \"2m\"; allowed are 0s to 1m",
        ),
        (
            "[archive]\nsegment_size = \"big\"".into(),
            "birdtape.toml line 2, [archive]: `segment_size` is \"big\", which is no size such as \"64KiB\" or \"16MiB\"",
        ),
        (
            "[archive]\nblock_size = \"-4MiB\"".into(),
            "birdtape.toml line 2, [archive]: `block_size` is \"-4MiB\", which is no size",
        ),
        (
            "[archive]\nblock_size = \"2MiB\"\nsegment_size = \"1MiB\"".into(),
            "birdtape.toml line 2, [archive]: `block_size` is larger than `segment_size` (2.0 MiB > 1.0 MiB)",
        ),
        ("archive = 3".into(), "birdtape.toml line 1: `archive` is a whole number, expected a table"),
        ("[limits]\nqueue = \"0\"".into(), "birdtape.toml line 2, [limits]: `queue` is \"0\"; allowed are 1.0 KiB to 4.0 GiB"),
        (
            "[limits]\nmax_message = \"0B\"".into(),
            "birdtape.toml line 2, [limits]: `max_message` is \"0B\"; allowed are 1.0 KiB to 32.0 MiB",
        ),
        (
            "[limits]\nqueue = \"1MiB\"".into(),
            "birdtape.toml line 2, [limits]: `queue` is smaller than `max_message` (1.0 MiB < 16.0 MiB)",
        ),
        (alpha("tweetstream", "connections = 0"), "birdtape.toml line 3, [source.alpha]: `connections` is 0; allowed are 1 to 5"),
        (
            alpha("scrapebadger", "connections = 6"),
            "birdtape.toml line 3, [source.alpha]: `connections` is 6; allowed are 1 to 5",
        ),
        (
            alpha("twitterapi_io", "connections = 2"),
            "birdtape.toml line 3, [source.alpha]: `connections` is 2; twitterapi_io allows 1 per source",
        ),
        (
            alpha("tweetstream", "topics = []"),
            "birdtape.toml line 3, [source.alpha]: `topics` is for x_live only; this source is tweetstream",
        ),
        (alpha("tweetstream", "framing = 'sse'"), "birdtape.toml line 3, [source.alpha]: `framing` is for x_live only"),
        (
            alpha("scrapebadger", "answer_auth_ping = false"),
            "birdtape.toml line 3, [source.alpha]: `answer_auth_ping` is for tweetstream only",
        ),
        (
            alpha("x_live", ""),
            "birdtape.toml line 1, [source.alpha]: `topics` is missing or empty: X sends nothing that was not asked for\n",
        ),
        (
            alpha("x_live", "topics = ['/a/1', '/b/1', '/a/1']"),
            "birdtape.toml line 3, [source.alpha]: `topics` holds \"/a/1\" twice",
        ),
        (alpha("x_live", "topics = ['a,b']"), "birdtape.toml line 3, [source.alpha]: `topics` holds \"a,b\", which is no topic"),
        (
            alpha("x_live", "topics = ['/dm_update/1-2']"),
            "birdtape.toml line 3, [source.alpha]: `topics` holds \"/dm_update/1-2\", and direct messages are not switched on\n",
        ),
        (
            alpha("x_live", "topics = '/a/1'"),
            "birdtape.toml line 3, [source.alpha]: `topics` is a string, expected a list of strings",
        ),
        (
            alpha("x_live", "topics = ['/a/1']\nframing = 'xml'"),
            "birdtape.toml line 4, [source.alpha]: `framing` is \"xml\"; allowed are \"sse\" and \"lines\"",
        ),
        (
            alpha("scrapebadger", "auth = 'bearer'"),
            "birdtape.toml line 3, [source.alpha]: `auth` is \"bearer\"; scrapebadger knows \"header\", \"query\"",
        ),
        (
            alpha("tweetstream", "reconnect_floor = '10s'\nreconnect_cap = '1s'"),
            "birdtape.toml line 4, [source.alpha]: `reconnect_cap` is \"1s\", shorter than `reconnect_floor`",
        ),
        (
            alpha("tweetstream", "pong_within = '0s'"),
            "birdtape.toml line 3, [source.alpha]: `pong_within` is \"0s\"; allowed are 1ms to 1day",
        ),
        (
            alpha("tweetstream", "lateness_horizon = '1000000000years'"),
            "birdtape.toml line 3, [source.alpha]: `lateness_horizon` is ",
        ),
        (
            alpha("tweetstream", "base_url = 'ftp://x'"),
            "birdtape.toml line 3, [source.alpha]: `base_url` is \"ftp://x\": the scheme must be http, https, ws or wss",
        ),
        (
            alpha("tweetstream", "base_url = 'https://planted@h/?apiKey=planted'"),
            "birdtape.toml line 3, [source.alpha]: `base_url` is \"…@h/\": it must not carry a user",
        ),
        (
            alpha("tweetstream", "ca_file = '/nonexistent/ca.pem'"),
            "birdtape.toml line 3, [source.alpha]: `ca_file` names /nonexistent/ca.pem, which is not a file",
        ),
    ];
    for (text, want) in &cases {
        let said = refused(text, &keys);
        assert!(said.starts_with(want), "for {text:?}\nwant {want}\nsaid {said}");
    }
}

#[test]
fn keys_do_not_belong_into_the_file() {
    for key in ["key", "api_key", "token", "auth_token", "ct0", "bearer_token", "password", "client-secret"] {
        let said = refused(&alpha("tweetstream", &format!("{key} = \"planted\"")), &keys);
        let want = format!("birdtape.toml line 3, [source.alpha]: `{key}` is not allowed: keys and cookies do not belong");
        assert!(said.starts_with(&want), "{said}");
        assert!(said.contains("key_env") && said.contains("key_file"), "{said}");
    }
    let said = refused("api_key = 'planted'", &keys);
    assert!(said.starts_with("birdtape.toml line 1: `api_key` is not allowed"), "{said}");
    // The key itself where its variable's name belongs.
    let said = refused(&alpha("tweetstream", "key_env = 'planted'"), &keys);
    assert!(said.contains("`key_env` is no variable's name"), "{said}");
    // A syntax error on the line with the key.
    let said = refused(&alpha("tweetstream", "key = planted planted"), &keys);
    assert!(said.contains("not valid TOML"), "{said}");
}

#[test]
fn a_missing_key_names_its_variable() {
    let variables = [
        ("twitterapi_io", "", "TWITTERAPI_IO_API_KEY"),
        ("tweetstream", "", "TWEETSTREAM_API_KEY"),
        ("scrapebadger", "", "SCRAPEBADGER_API_KEY"),
        ("x_live", "topics = ['/tweet_engagement/1']", "X_AUTH_TOKEN"),
        ("tweetstream", "key_env = 'MY_KEY'", "MY_KEY"),
        ("tweetstream", "key_env = 'MY_KEY'\nbase_url = 'http://127.0.0.1:1'", "MY_KEY"),
    ];
    for (provider, more, variable) in variables {
        let said = refused(&alpha(provider, more), &nothing);
        let want = format!("source `alpha` has no key: environment variable {variable} is not set\n`export {variable}=…`");
        assert!(said.starts_with(&want), "{said}");
    }
    let half = |name: &str| (name == "X_AUTH_TOKEN").then(|| "planted".to_owned());
    let said = refused(&alpha("x_live", "base_url = 'http://127.0.0.1:1'"), &half);
    assert!(said.contains("X_CT0 is not set"), "{said}");
    let blank = |_: &str| Some("  ".to_owned());
    assert!(refused(&alpha("tweetstream", ""), &blank).contains("is not set"));
    let forged = |_: &str| Some("planted\r\nx-admin: 1".to_owned());
    let said = refused(&alpha("tweetstream", ""), &forged);
    assert!(said.contains("the key from environment variable TWEETSTREAM_API_KEY holds a space"), "{said}");
}

#[test]
fn webhooks_need_a_place_a_provider_and_a_secret() {
    let all = |name: &str| match name {
        "SCRAPEBADGER_WEBHOOK_SECRET" => Some("planted-hook".to_owned()),
        other => keys(other),
    };
    let listen = "[webhooks]\nlisten = '127.0.0.1:8090'\n";
    let secret = |text: &str, env: Env<'_>| load_with(text, env).map(|config| config.sources[0].webhook.clone()).unwrap();
    let known = |text| WebhookSecret::Known(Secret::new(text).unwrap());
    assert_eq!(secret(&alpha("scrapebadger", ""), &all), known("planted-hook"));
    assert_eq!(secret(&alpha("scrapebadger", "webhook = false"), &all), WebhookSecret::None);
    assert_eq!(secret(&alpha("tweetstream", ""), &all), WebhookSecret::None);
    let own = secret(&alpha("scrapebadger", "webhook_secret_env = 'MY_HOOK'"), &keys);
    assert_eq!(own, WebhookSecret::Missing("MY_HOOK".to_owned()));
    let WebhookSecret::Known(key) = secret(&alpha("twitterapi_io", ""), &all) else { panic!("its key") };
    assert_eq!(Some(key), only_source(&alpha("twitterapi_io", "")).settings.credentials.key);

    let mut config = load_with(&format!("{listen}{}", alpha("scrapebadger", "")), &all).unwrap();
    assert_eq!(config.webhooks.map(|at| at.port()), Some(8090));
    config.settle_webhooks().unwrap();
    assert_eq!(config.secrets().len(), 2);
    assert!(!format!("{config:?}").contains("planted"));
    let needs = |text: &str| complaint(&load_with(&format!("{listen}{text}"), &keys).unwrap().settle_webhooks().unwrap_err());
    let said = needs(&alpha("scrapebadger", ""));
    assert!(said.starts_with("source `alpha` has no secret for its webhooks: environment variable SCRAPEBADGER_WEBHOOK_SECRET"));
    assert!(said.contains("export SCRAPEBADGER_WEBHOOK_SECRET=") && said.contains("webhook = false"), "{said}");
    // The file may say where webhooks are received though none of what is recorded now has any; a flag may not.
    let mut none = load_with(&format!("{listen}{}", alpha("tweetstream", "")), &keys).unwrap();
    none.settle_webhooks().unwrap();
    assert_eq!(none.webhooks, None);
    let typed = none.receive_webhooks_at("127.0.0.1:1".parse().unwrap());
    assert!(complaint(&typed.unwrap_err()).starts_with("no source takes webhooks"));

    let cases = [
        (format!("[webhooks]\nlisten = '8090'\n{}", alpha("tweetstream", "")), "line 2, [webhooks]: `listen` is no address"),
        (
            format!("[webhooks]\nlisten = '0.0.0.0:8090'\n{}", alpha("tweetstream", "")),
            "line 2, [webhooks]: `listen` is 0.0.0.0:8090, which others can reach, and keys would travel readable",
        ),
        (alpha("tweetstream", "webhook = true"), "line 3, [source.alpha]: `webhook` is not for tweetstream"),
        (alpha("x_live", "topics = ['/tweet_engagement/1']\nwebhook_secret_env = 'A'"), "line 4, [source.alpha]: `webhook_"),
        (alpha("twitterapi_io", "webhook_secret_env = 'A'"), "line 3, [source.alpha]: `webhook_secret_env` is not for"),
        (alpha("scrapebadger", "webhook_secret_env = 'planted'"), "line 3, [source.alpha]: `webhook_secret_env` is no variable"),
        (
            alpha("scrapebadger", "webhook_secret_env = 'A'\nwebhook_secret_file = 'b'"),
            "line 4, [source.alpha]: `webhook_secret_f",
        ),
        (alpha("scrapebadger", "webhook_secret = 'planted'"), "line 3, [source.alpha]: `webhook_secret` is not allowed: keys"),
    ];
    for (text, want) in cases {
        let said = refused(&text, &keys);
        assert!(said.starts_with(&format!("birdtape.toml {want}")), "for {text:?}\nwant {want}\nsaid {said}");
    }
    let allowed = format!("[webhooks]\nlisten = '0.0.0.0:8090'\nallow_plain = true\n{}", alpha("scrapebadger", ""));
    load_with(&allowed, &all).unwrap().settle_webhooks().unwrap();
    let mut config = load_with(&alpha("scrapebadger", ""), &all).unwrap();
    assert!(complaint(&config.receive_webhooks_at("192.0.2.1:1".parse().unwrap()).unwrap_err()).starts_with("--webhooks"));
    config.receive_webhooks_at("[::1]:1".parse().unwrap()).unwrap();
    config.settle_webhooks().unwrap();
}

#[test]
fn one_sources_missing_key_does_not_stop_another() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("birdtape.toml");
    fs::write(&file, format!("{}[source.beta]\nprovider = 'scrapebadger'\n", alpha("tweetstream", ""))).unwrap();
    let env = |name: &str| keys(name).filter(|_| name == "SCRAPEBADGER_API_KEY");
    assert!(Config::load(&file, &env).is_err());
    let config = Config::load_only(&file, &env, &["beta".to_owned()]).unwrap();
    assert_eq!((config.sources.len(), config.sources[0].name.as_str()), (1, "beta"));
    let error = Config::load_only(&file, &env, &["gamma".to_owned()]).unwrap_err();
    assert!(complaint(&error).ends_with("there is no source `gamma`; configured are alpha, beta"), "{error}");
    assert_eq!(Config::tape_of(&file, &nothing).unwrap(), Path::new("./tape"), "needs no key");
}

#[test]
fn key_files_must_be_private() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "planted-in-file\n").unwrap();
    let text = alpha("tweetstream", &format!("key_file = {file:?}"));
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_with(&text, &nothing).unwrap_err();
        assert!(matches!(error, ConfigError::KeyFileMode { mode: found, .. } if found == mode), "{error}");
        assert_eq!(error.hint().unwrap(), format!("`chmod 600 {}`", file.display()));
        complaint(&error);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let source = load_with(&text, &nothing).unwrap().sources.remove(0);
    assert_eq!(source.settings.credentials.key.unwrap().expose(), "planted-in-file");
    assert_eq!(source.key_source, format!("file {}", file.display()));

    fs::write(&file, "X_AUTH_TOKEN=planted1\nX_CT0 = planted2\n").unwrap();
    let text = alpha("x_live", &format!("topics = ['/tweet_engagement/1']\nkey_file = {file:?}"));
    let credentials = load_with(&text, &nothing).unwrap().sources.remove(0).settings.credentials;
    assert_eq!((credentials.auth_token, credentials.ct0), (Secret::new("planted1"), Secret::new("planted2")));

    fs::write(&file, "X_AUTH_TOKEN=planted1\n").unwrap();
    assert!(refused(&text, &nothing).contains("does not give X_CT0"));
    fs::write(&file, "").unwrap();
    assert!(refused(&alpha("tweetstream", &format!("key_file = {file:?}")), &nothing).contains("which is empty"));
    fs::remove_file(&file).unwrap();
    assert!(refused(&alpha("tweetstream", &format!("key_file = {file:?}")), &nothing).contains("cannot be read"));
    let both = format!("key_file = {file:?}\nkey_env = 'OTHER_KEY'");
    assert!(refused(&alpha("tweetstream", &both), &keys).contains("stands beside `key_env`"));
    assert!(refused(&alpha("x_live", "topics=['/a/1']\nkey_env = 'OTHER_KEY'"), &keys).contains("not for x_live"));
}

#[test]
fn a_missing_or_foreign_file_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("birdtape.toml");
    let error = Config::load(&file, &keys).unwrap_err();
    assert!(complaint(&error).ends_with("`birdtape init` writes a commented one; `--config FILE` names another"));
    assert_eq!(Config::tape_of(&file, &nothing).unwrap(), Path::new("./tape"));
    let error = Config::load(dir.path(), &keys).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    fs::write(&file, b"tape = \"\xff\"").unwrap();
    assert!(matches!(Config::load(&file, &keys).unwrap_err(), ConfigError::Unreadable { .. }));
    fs::write(&file, vec![b'\n'; MAX_FILE as usize + 1]).unwrap();
    assert!(matches!(Config::load(&file, &keys).unwrap_err(), ConfigError::Unreadable { .. }));
}

#[test]
fn plain_addresses_are_for_this_machine_unless_allowed() {
    for here in ["http://127.0.0.1:1", "ws://localhost:1/ws", "http://[::1]:1", "http://127.9.9.9"] {
        only_source(&alpha("tweetstream", &format!("base_url = {here:?}")));
    }
    for there in ["http://example.test", "ws://10.0.0.1", "http://127.0.0.1.example.test", "http://0.0.0.0:1"] {
        let said = refused(&alpha("tweetstream", &format!("base_url = {there:?}")), &keys);
        assert!(said.contains("`base_url` would send the key to ") && said.contains("allow_plain = true"), "{said}");
        let source = only_source(&alpha("tweetstream", &format!("base_url = {there:?}\nallow_plain = true")));
        assert!(source.allow_plain);
    }
    only_source(&alpha("tweetstream", "base_url = 'https://example.test'"));
}

fn at(base_url: &str) -> ProviderFlags {
    ProviderFlags { base_url: Some(base_url.to_owned()), ..ProviderFlags::default() }
}

#[test]
fn a_provider_named_by_flag_needs_only_its_key() {
    let config = Config::for_provider(Provider::Tweetstream, &ProviderFlags::default(), &keys).unwrap();
    assert_eq!((config.sources.len(), config.sources[0].name.as_str()), (1, "tweetstream"));
    let error = Config::for_provider(Provider::Tweetstream, &ProviderFlags::default(), &nothing).unwrap_err();
    assert!(complaint(&error).contains("TWEETSTREAM_API_KEY is not set"));
    let error = Config::for_provider(Provider::Tweetstream, &at("https://example.test"), &nothing).unwrap_err();
    assert!(complaint(&error).contains("TWEETSTREAM_API_KEY is not set"));
    let error = Config::for_provider(Provider::Tweetstream, &at("localhost"), &keys).unwrap_err();
    assert!(complaint(&error).starts_with("--provider tweetstream: `base_url` is \"localhost\": it has no scheme"));
    let error = Config::for_provider(Provider::XLive, &ProviderFlags::default(), &keys).unwrap_err();
    assert!(complaint(&error).starts_with("--provider x_live: `topics` is missing"));
    for provider in Provider::ALL {
        let config = Config::for_provider(provider, &at("http://127.0.0.1:9"), &nothing).unwrap();
        assert_eq!(config.sources[0].key_source, "the placeholder for loopback addresses");
        assert!(config.secrets().is_empty(), "the placeholder is no secret");
        let config = Config::for_provider(provider, &at("http://127.0.0.1:9"), &keys).unwrap();
        assert!(!config.secrets().is_empty(), "a key that is set is used");
    }
}

#[test]
fn the_environment_beats_the_file() {
    let env = |name: &str| (name == "BIRDTAPE_TAPE").then(|| "/from/env".to_owned());
    assert_eq!(load_with("tape = '/from/file'", &env).unwrap().tape, Path::new("/from/env"));
    assert_eq!(load_with("tape = '/from/file'", &nothing).unwrap().tape, Path::new("/from/file"));

    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let env = |name: &str| (name == "BIRDTAPE_CA_FILE").then(|| here.to_owned()).or_else(|| keys(name));
    let text = alpha("tweetstream", "ca_file = '/nonexistent/ca.pem'");
    assert_eq!(load_with(&text, &env).unwrap().sources[0].ca_file.as_deref(), Some(Path::new(here)));
}

#[test]
fn unknown_variables_of_ours_are_mistakes() {
    let fine = ["PATH", "BIRDTAPE_TAPE", "BIRDTAPE_LOG", "BIRDTAPE_TEST_PYTHON", "TWEETSTREAM_API_KEY", "XBIRDTAPE_Y"];
    check_environment(fine.map(str::to_owned)).unwrap();
    let error = check_environment(["BIRDTAPE_TAPES".to_owned()]).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `BIRDTAPE_TAPE`?");
    assert!(error.to_string().starts_with("unknown environment variable BIRDTAPE_TAPES; known are BIRDTAPE_BASE_URL, "));
    let error = check_environment(["BIRDTAPE_EVERYTHING_ELSE".to_owned()]).unwrap_err();
    assert_eq!(error.hint().unwrap(), "unset it: `unset BIRDTAPE_EVERYTHING_ELSE`");
}

#[test]
fn one_typed_bound_moves_the_other_default() {
    let source = only_source(&alpha("tweetstream", "reconnect_floor = '20h'"));
    assert_eq!(source.settings.reconnect_cap, Duration::from_secs(20 * 3_600));
    let config = load_with("[limits]\nmax_message = '32MiB'\n[archive]\nsegment_size = '1KiB'", &keys).unwrap();
    assert_eq!((config.limits.queue_bytes, config.archive.block_bytes), (32 << 20, 1_024));
}

#[test]
fn two_sources_do_not_share_a_key_that_allows_one_connection() {
    let text = format!("{}\n[source.beta]\nprovider = 'twitterapi_io'\n", alpha("twitterapi_io", ""));
    let said = refused(&text, &keys);
    assert!(said.contains("line 5, [source.beta]: sources `alpha` and `beta` use the same key"), "{said}");
    load_with(&format!("{text}key_env = 'OTHER_KEY'\n"), &keys).unwrap();
}

#[test]
fn knows_what_was_meant() {
    assert_eq!(edits("", "abc"), 3);
    assert_eq!(edits("kitten", "sitting"), 3);
    assert_eq!(nearest("base-url", TypedSource::KEYS).as_deref(), Some("base_url"));
    assert_eq!(nearest("q", TypedSource::KEYS), None);
}
