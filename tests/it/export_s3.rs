//! Exports into a store: a real server of the S3 protocol, other people's.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::program::{Desk, FIXTURE, Run, files_below, finished};

/// Serves S3 with moto, and answers what we ask of it: a line of JSON each way.
const SERVER: &str = r#"
import base64, json, sys
try:
    import boto3
    from moto import settings
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from moto.server import ThreadedMotoServer
except ImportError:
    print("null", flush=True)
    sys.exit()

deaf = False
make_environ = MotoRequestHandler.make_environ
def without_conditions(self):
    environ = make_environ(self)
    if deaf:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        environ.pop("HTTP_IF_MATCH", None)
    return environ
MotoRequestHandler.make_environ = without_conditions

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://%s:%d" % server.get_host_and_port()
client = lambda service: boto3.client(
    service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
s3 = client("s3")
s3.create_bucket(Bucket="tapes")
print(json.dumps(url), flush=True)

def objects():
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="tapes")
    return [entry for page in pages for entry in page.get("Contents", [])]

for line in sys.stdin:
    ask, answer = json.loads(line), None
    if "keys" in ask:
        answer = {entry["Key"]: entry["ETag"] for entry in objects()}
    elif "bytes" in ask:
        get = lambda key: s3.get_object(Bucket="tapes", Key=key)["Body"].read()
        answer = {entry["Key"]: base64.b64encode(get(entry["Key"])).decode() for entry in objects()}
    elif "uploads" in ask:
        answer = [upload["Key"] for upload in s3.list_multipart_uploads(Bucket="tapes").get("Uploads", [])]
    elif "put" in ask:
        s3.put_object(Bucket="tapes", Key=ask["put"], Body=ask["text"].encode())
    elif "deaf" in ask:
        deaf = ask["deaf"]
    elif "guard" in ask:
        iam = client("iam")
        iam.create_user(UserName="bird")
        rule = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName="bird", PolicyName="all", PolicyDocument=json.dumps(rule))
        key = iam.create_access_key(UserName="bird")["AccessKey"]
        answer = [key["AccessKeyId"], key["SecretAccessKey"]]
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(json.dumps(answer), flush=True)
"#;

/// The server; it ends when its stdin does.
struct Moto {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl Moto {
    /// `None`, with a word about it, where there is no Python that has it.
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("BIRDTAPE_TEST_PYTHON").filter(|path| !path.is_empty()) else {
            println!("skipped: BIRDTAPE_TEST_PYTHON names no Python with moto");
            return None;
        };
        let mut command = Command::new(python);
        command.arg("-c").arg(SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut moto = Self { child, stdin, stdout, url: String::new() };
        let Value::String(url) = moto.answer() else {
            println!("skipped: BIRDTAPE_TEST_PYTHON has no moto");
            return None;
        };
        moto.url = url;
        Some(moto)
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, ask: &Value) -> Value {
        writeln!(self.stdin.as_mut().unwrap(), "{ask}").unwrap();
        self.answer()
    }

    fn keys(&mut self) -> BTreeMap<String, String> {
        serde_json::from_value(self.ask(&json!({ "keys": 1 }))).unwrap()
    }

    /// Every object below a prefix, but the lock.
    fn content(&mut self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let all: BTreeMap<String, String> = serde_json::from_value(self.ask(&json!({ "bytes": 1 }))).unwrap();
        let below = all.into_iter().filter_map(|(key, text)| Some((key.strip_prefix(prefix)?.to_owned(), text)));
        let plain = |text: String| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        below.filter(|(key, _)| key != "_birdtape/lock").map(|(key, text)| (key, plain(text))).collect()
    }

    /// The program with what leads here in its environment; temporary files go into `tmp` of the desk.
    fn command(&self, desk: &Desk, args: &[&str]) -> Command {
        std::fs::create_dir_all(desk.path("tmp")).unwrap();
        let mut command = desk.command(args);
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "hush-hush");
        command.env("TMPDIR", desk.path("tmp"));
        command
    }

    fn export(&self, desk: &Desk, more: &[&str]) -> Run {
        finished(&mut self.command(desk, &[&TO_STORE[..], more].concat()))
    }

    /// Starts an export and waits until it holds the destination and has put so many files, or has ended.
    fn begin(&mut self, desk: &Desk, out: &str, n_files: usize) -> Child {
        let mut command = self.command(desk, &["export", "parquet", "--out", &format!("s3://tapes/{out}")]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            let keys: Vec<String> = self.keys().into_keys().filter(|key| key.starts_with(&format!("{out}/"))).collect();
            let n_there = keys.iter().filter(|key| key.ends_with(".parquet")).count();
            if n_there >= n_files && keys.iter().any(|key| key.ends_with("_birdtape/lock")) {
                break;
            }
        }
        child
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

const TO_STORE: [&str; 4] = ["export", "parquet", "--out", "s3://tapes/lake"];

/// What a directory's export has, but the lock.
fn local(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |file: &Path| file.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    let files = files_below(dir).into_iter().filter(|file| !file.ends_with("_birdtape/lock"));
    files.map(|file| (name(&file), std::fs::read(&file).unwrap())).collect()
}

#[track_caller]
fn assert_same(store: &BTreeMap<String, Vec<u8>>, dir: &Path) {
    let dir = local(dir);
    assert_eq!(store.keys().collect::<Vec<_>>(), dir.keys().collect::<Vec<_>>());
    let differ: Vec<_> = store.iter().filter(|(name, bytes)| dir[*name] != **bytes).map(|(name, _)| name).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[track_caller]
fn assert_tidy(desk: &Desk) {
    assert_eq!(std::fs::read_dir(desk.path("tmp")).unwrap().count(), 0, "temporary files are left");
}

#[test]
fn a_store_gets_what_a_directory_gets() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::with_fixture();
    desk.run(&["export", "parquet", "--out", "fresh"]).expect(0);
    let run = moto.export(&desk, &["--memory", "1KiB"]).expect(0);
    assert!(run.err.contains("in s3://tapes/lake"), "{}", run.err);
    assert_same(&moto.content("lake/"), &desk.path("fresh"));
    assert_tidy(&desk);

    let before = moto.keys();
    let report = moto.export(&desk, &["--json"]).expect(0).json();
    assert_eq!(report["files_written"], 0, "{report}");
    assert_eq!(moto.keys(), before);

    desk.run(&["import", "--provider", "auto", FIXTURE]).expect(0);
    moto.export(&desk, &[]).expect(0);
    desk.run(&["export", "parquet", "--out", "more"]).expect(0);
    assert_same(&moto.content("lake/"), &desk.path("more"));

    moto.ask(&json!({ "put": "desk/diary", "text": "dear diary" }));
    let elsewhere = ["export", "parquet", "--out", "s3://tapes/desk"];
    finished(&mut moto.command(&desk, &elsewhere)).fails(1, &["s3://tapes/desk holds other files, such as `diary`", "hint: "]);
}

/// Bytes that no compression makes smaller than three quarters, so that files are longer than a part.
#[test]
fn big_files_go_in_parts() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::new();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(state >> 58) as usize])
    };
    let mut lines = String::new();
    for n in 0..5 {
        let text: String = (0..4 << 20).map(|_| noise()).collect();
        let post = json!({ "event_type": "tweet", "tweets": [], "timestamp": 1_767_614_400_000_u64 + n, "noise": text });
        lines += &format!("{post}\n");
    }
    desk.write("big.jsonl", lines.as_bytes());
    desk.run(&["import", "--provider", "twitterapi_io", "big.jsonl"]).expect(0);
    desk.run(&["export", "parquet", "--out", "fresh"]).expect(0);
    moto.export(&desk, &[]).expect(0);
    assert_same(&moto.content("lake/"), &desk.path("fresh"));
    // That is how the protocol marks what came in parts.
    assert!(moto.keys().values().any(|etag| etag.contains('-')), "{:?}", moto.keys());
    assert_eq!(moto.ask(&json!({ "uploads": 1 })), json!([]));
    assert_tidy(&desk);
}

#[test]
fn killed_it_leaves_its_hold_and_can_go_on() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::with_fixture();
    desk.run(&["export", "parquet", "--out", "fresh"]).expect(0);
    let fresh = local(&desk.path("fresh"));
    let mut left = None;
    for round in 0..20 {
        let out = format!("lake-{round}");
        let mut child = moto.begin(&desk, &out, 2);
        child.kill().ok();
        child.wait().unwrap();
        if moto.keys().contains_key(&format!("{out}/_birdtape/lock")) {
            left = Some(out);
            break;
        }
    }
    let out = left.expect("every export ended before it could be killed");
    for (name, bytes) in moto.content(&format!("{out}/")) {
        assert!(fresh.get(&name) == Some(&bytes), "{name} is not whole");
    }
    let address = format!("s3://tapes/{out}");
    let again = ["export", "parquet", "--out", &address];
    let words = format!("another export writes to {address} (birdtape export, process ");
    finished(&mut moto.command(&desk, &again)).fails(1, &[&words, "last heard of ", "hint: wait until", "--break-lock"]);
    finished(&mut moto.command(&desk, &[&again[..], &["--break-lock"]].concat())).expect(0);
    assert_same(&moto.content(&format!("{out}/")), &desk.path("fresh"));
    assert!(!moto.keys().contains_key(&format!("{out}/_birdtape/lock")));
    assert_tidy(&desk);
}

#[cfg(unix)]
#[test]
fn a_signal_leaves_no_hold_and_no_temporary_files() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::with_fixture();
    for round in 0..20 {
        let out = format!("lake-{round}");
        let child = moto.begin(&desk, &out, 1);
        // One that has ended already is not reaped yet, so its number is still its own.
        finished(Command::new("kill").arg("-INT").arg(child.id().to_string())).expect(0);
        let ended = child.wait_with_output().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        let keys = moto.keys();
        assert!(!keys.contains_key(&format!("{out}/_birdtape/lock")), "{keys:?}\n{err}");
        if ended.status.code() == Some(130) {
            assert!(err.contains("stopping"), "{err}");
            assert!(!keys.contains_key(&format!("{out}/_birdtape/manifest.json")));
            assert_tidy(&desk);
            return;
        }
        assert_eq!(ended.status.code(), Some(0), "{err}");
    }
    panic!("every export ended before the signal came");
}

#[test]
fn keys_that_do_not_open() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::with_fixture();
    let key: [String; 2] = serde_json::from_value(moto.ask(&json!({ "guard": 1 }))).unwrap();
    let with = |id: &str, secret: &str| {
        let mut command = moto.command(&desk, &TO_STORE);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret).env("BIRDTAPE_LOG", "trace");
        let run = finished(&mut command);
        assert!(!run.err.contains(secret), "{}", run.err);
        run
    };
    with(&key[0], "hush-hush-hush").fails(
        1,
        &[
            "error: cannot read s3://tapes/lake: the secret key does not fit",
            "SignatureDoesNotMatch",
            "hint: check AWS_SECRET_ACCESS_KEY",
        ],
    );
    with("AKIANOBODY", "hush-hush-hush").fails(1, &["the store does not know the access key", "hint: check AWS_ACCESS_KEY_ID"]);
    with(&key[0], &key[1]).expect(0);
}

#[test]
fn stores_that_cannot_be_used() {
    let Some(mut moto) = Moto::start() else { return };
    let desk = Desk::with_fixture();
    let nowhere = ["export", "parquet", "--out", "s3://nowhere/lake"];
    finished(&mut moto.command(&desk, &nowhere))
        .fails(1, &["cannot read s3://nowhere/lake: there is no such bucket", "hint: make"]);

    let cannot = ["the store cannot put s3://tapes/lake/_birdtape/lock only if it is not there", "hint: export to a directory"];
    finished(moto.command(&desk, &TO_STORE).env("AWS_CONDITIONAL_PUT", "disabled")).fails(1, &cannot);
    moto.ask(&json!({ "deaf": true }));
    moto.export(&desk, &[]).fails(1, &cannot);
    moto.ask(&json!({ "deaf": false }));
    assert!(moto.keys().is_empty(), "{:?}", moto.keys());
}

#[test]
fn destinations_that_cannot_work_are_refused() {
    let desk = Desk::with_fixture();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = desk.command([&["export", "parquet", "--out"], args].concat());
        finished(command.envs(variables.iter().copied()))
    };
    let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush-hush")];
    let at = |url| [&key[..], &[("AWS_ENDPOINT_URL", url)]].concat();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let words = [&format!("cannot read s3://tapes/lake: {url} cannot be reached"), "hint: check AWS_ENDPOINT_URL"];
    run(&["s3://tapes/lake"], &at(&url)).fails(1, &words);
    run(&["s3://tapes/lake"], &at("http://store.example")).fails(2, &["without TLS", "AWS_ALLOW_HTTP=true"]);
    run(&["s3://tapes/lake"], &[key[0]]).fails(2, &["AWS_SECRET_ACCESS_KEY is not", "hint: "]);
    run(&["s3://tapes/lake"], &[("AWS_ENDPOINT_URL", "https://store.example")])
        .fails(2, &["no credentials", "AWS_ACCESS_KEY_ID"]);
    run(&["s3://t/lake"], &key).fails(2, &["s3://t/lake cannot be a destination: a bucket's name", "hint: name a bucket"]);
    run(&["gs://tapes/lake"], &key).fails(2, &["gs://tapes/lake cannot be a destination", "hint: "]);
    run(&["lake", "--break-lock"], &key).fails(2, &["--break-lock is for stores", "hint: "]);
    assert!(!desk.path("lake").exists());
}
