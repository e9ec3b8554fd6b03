use expect_test::expect;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, PutMode};

use super::*;

/// A destination in memory; the same memory is the same store.
fn store(memory: &Arc<InMemory>, term: Duration, break_lock: bool) -> S3Store {
    let place = Place::parse("s3://bucket/some/lake/").unwrap();
    let remote = || Arc::clone(memory) as Arc<dyn Remote>;
    S3Store::over(runtime().unwrap(), (remote(), remote()), place, break_lock, term).unwrap()
}

fn patient(memory: &Arc<InMemory>) -> S3Store {
    store(memory, TERM, false)
}

fn keys(memory: &InMemory) -> Vec<String> {
    let all = runtime().unwrap().block_on(memory.list(None).try_collect::<Vec<ObjectMeta>>()).unwrap();
    all.into_iter().map(|meta| meta.location.to_string()).collect()
}

fn local(store: &S3Store, bytes: &[u8]) -> PathBuf {
    let path = store.scratch().unwrap().join("file");
    fs::write(&path, bytes).unwrap();
    path
}

fn refusal(refused: Result<Box<dyn Send>, ExportError>) -> String {
    refused.map(drop).unwrap_err().to_string()
}

#[test]
fn files_come_and_go_whole() {
    let memory = Arc::new(InMemory::new());
    let store = patient(&memory);
    let held = store.lock("a test").unwrap();
    assert_eq!(store.get("tweets/date=2026-01-05/part-0.parquet").unwrap(), None);
    let big: Vec<u8> = (0..2 * PART_BYTES + 5).map(|n| ((n * n) >> 7) as u8).collect();
    for (name, bytes) in [("tweets/date=2026-01-05/part-0.parquet", &big[..]), ("small", b"x"), ("none", b"")] {
        let path = local(&store, bytes);
        store.put(name, &path).unwrap();
        assert!(!path.exists(), "the local file is used up");
        assert!(store.get(name).unwrap().unwrap() == bytes, "{name}");
    }
    assert!(store.inner.uploads().is_empty());
    let listed = store.list().unwrap();
    let names: Vec<_> = listed.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let lock = names[0];
    assert_eq!(lock.0, "_birdtape/lock");
    assert_eq!(names[1..], [("none", 0), ("small", 1), ("tweets/date=2026-01-05/part-0.parquet", big.len() as u64)]);
    store.delete("small").unwrap();
    store.delete("small").unwrap();
    store.delete("none").unwrap();
    drop(held);
    assert_eq!(keys(&memory), ["some/lake/tweets/date=2026-01-05/part-0.parquet"]);
}

#[test]
fn names_below_another_prefix_are_not_ours() {
    let place = Place::parse("s3://bucket/lake").unwrap();
    let name = |key| place.name(&Key::parse(key).unwrap());
    assert_eq!((name("lake/a/b"), name("lakes/a"), name("other")), (Some("a/b".to_owned()), None, None));
    let root = Place::parse("s3://bucket").unwrap();
    assert_eq!(root.name(&Key::parse("a/b").unwrap()), Some("a/b".to_owned()));
    assert_eq!((root.key("a/b").unwrap().as_ref(), root.shown("").as_str()), ("a/b", "s3://bucket"));
}

#[test]
fn addresses() {
    for bad in ["s3://", "s3://ab", "s3://bucket//lake", "s3://buc ket/x", "s3://bucket/../x", "gs://bucket/lake"] {
        assert!(matches!(Place::parse(bad), Err(S3Error::Address { .. })), "{bad}");
    }
    let place = Place::parse("s3://my.bucket-1/a/b=c/").unwrap();
    assert_eq!((place.bucket.as_str(), place.prefix.as_ref()), ("my.bucket-1", "a/b=c"));
}

#[test]
fn a_second_export_is_refused_until_the_first_has_ended() {
    let memory = Arc::new(InMemory::new());
    let (first, second) = (patient(&memory), patient(&memory));
    let held = first.lock("the first").unwrap();
    let refused = refusal(second.lock("the second"));
    assert!(refused.starts_with("another export writes to s3://bucket/some/lake (the first; last heard of "), "{refused}");
    first.put("small", &local(&first, b"x")).unwrap();
    drop(held);
    drop(second.lock("the second").unwrap());
    assert_eq!(keys(&memory), ["some/lake/small"], "neither the lock nor the look at the clock is left");
}

/// The term is over at once here; a holder that was killed does not renew.
#[test]
fn a_hold_that_is_not_renewed_is_taken_over_and_the_loser_notices() {
    for (term, break_lock) in [(Duration::ZERO, false), (TERM, true)] {
        let memory = Arc::new(InMemory::new());
        let (first, second) = (patient(&memory), store(&memory, term, break_lock));
        let held = first.lock("the first").unwrap();
        // What is taken over is not renewed behind our back.
        let holding = second.wait(second.inner.lease.take("the second", break_lock));
        holding.unwrap();
        first.put("small", &local(&first, b"x")).unwrap();
        let lost = first.put("_birdtape/manifest.json", &local(&first, b"{}")).unwrap_err().to_string();
        assert_eq!(lost, "s3://bucket/some/lake is no longer held by this export: the second");
        assert!(first.put("small", &local(&first, b"y")).is_err() && first.delete("small").is_err());
        drop(held);
        assert!(keys(&memory).contains(&"some/lake/_birdtape/lock".to_owned()), "the lock is the second's");
        second.put("_birdtape/manifest.json", &local(&second, b"{}")).unwrap();
    }
}

#[test]
fn an_answer_that_was_lost_on_the_way_costs_nothing() {
    let memory = Arc::new(InMemory::new());
    let store = patient(&memory);
    let held = store.lock("a test").unwrap();
    let key = store.inner.place.key("_birdtape/lock").unwrap();
    let now = store.get("_birdtape/lock").unwrap().unwrap();
    // The same holder has written it once more, and does not know.
    store.wait(memory.put(&key, now.into())).unwrap();
    store.wait(store.inner.lease.renew()).unwrap();
    store.wait(memory.delete(&key)).unwrap();
    let lost = store.wait(store.inner.lease.renew()).unwrap_err().to_string();
    assert!(lost.ends_with("somebody removed the lock"), "{lost}");
    drop(held);
}

#[test]
fn what_is_no_note_of_ours_is_a_lock_too() {
    let memory = Arc::new(InMemory::new());
    let store = patient(&memory);
    let key = store.inner.place.key("_birdtape/lock").unwrap();
    store.wait(memory.put_opts(&key, "keep out".into(), PutMode::Create.into())).unwrap();
    let refused = refusal(store.lock("a test"));
    assert!(refused.contains("whoever put something else there"), "{refused}");
}

#[test]
fn a_signal_takes_back_what_was_begun() {
    let memory = Arc::new(InMemory::new());
    let store = patient(&memory);
    let held = store.lock("a test").unwrap();
    let key = store.inner.place.key("big").unwrap();
    let id = store.wait(memory.create_multipart(&key)).unwrap();
    store.inner.uploads().insert(id.clone(), key.clone());
    let scratch = store.scratch().unwrap();
    // Whoever works with the store waits from now on, and so would the end of the hold.
    std::mem::forget(held);
    store.abandon();
    assert!(keys(&memory).is_empty() && !scratch.exists());
    let late = store.inner.runtime.block_on(memory.put_part(&key, &id, 0, "x".into()));
    assert!(late.is_err(), "the upload is gone");
}

#[test]
fn what_a_killed_export_left_on_this_machine_is_removed() {
    let memory = Arc::new(InMemory::new());
    let of = |address: &str| {
        let remote = || Arc::clone(&memory) as Arc<dyn Remote>;
        S3Store::over(runtime().unwrap(), (remote(), remote()), Place::parse(address).unwrap(), false, TERM).unwrap()
    };
    let name = format!("s3://bucket/left-{}", std::process::id());
    let (killed, other, next) = (of(&name), of(&format!("{name}-other")), of(&name));
    let (left, others) = (killed.scratch().unwrap(), other.scratch().unwrap());
    let held = next.lock("a test").unwrap();
    assert!(!left.exists() && others.exists());
    let own = next.scratch().unwrap();
    assert!(own.is_dir() && own != left);
    drop(held);
    assert!(!own.exists());
}

fn variables(given: &[(&str, &str)]) -> Result<String, String> {
    let given: Vec<_> = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    builder(&given, None).map(|(_, endpoint)| endpoint).map_err(|error| error.to_string())
}

#[test]
fn the_environment_says_where_the_store_is() {
    let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")];
    let with = |more: &[(&str, &str)]| variables(&[&key[..], more].concat());
    assert_eq!(with(&[]).unwrap(), "Amazon S3 in us-east-1");
    assert_eq!(with(&[("AWS_DEFAULT_REGION", "eu-west-1")]).unwrap(), "Amazon S3 in eu-west-1");
    assert_eq!(with(&[("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_REGION", "us-west-2")]).unwrap(), "Amazon S3 in us-west-2");
    assert_eq!(with(&[("AWS_ENDPOINT_URL", "")]).unwrap(), "Amazon S3 in us-east-1");
    let endpoint = |url| with(&[("AWS_ENDPOINT_URL", url)]);
    for here in ["http://127.0.0.1:9000", "http://localhost:9000/", "http://[::1]:9000", "https://store.example"] {
        assert_eq!(endpoint(here).unwrap(), here);
    }
    for plain in ["http://store.example:9000", "http://localhost.example", "http://127.0.0.1@store.example/", "http://192.0.2.1"]
    {
        assert!(endpoint(plain).unwrap_err().contains("without TLS"), "{plain}");
        assert!(with(&[("AWS_ENDPOINT_URL", plain), ("AWS_ALLOW_HTTP", "false")]).is_err());
        assert_eq!(with(&[("AWS_ENDPOINT_URL", plain), ("AWS_ALLOW_HTTP", "true")]).unwrap(), plain);
    }
    assert!(endpoint("store.example:9000").unwrap_err().contains("does not begin with https://"));
    assert!(variables(&key[..1]).unwrap_err().contains("AWS_SECRET_ACCESS_KEY is not"));
    assert!(variables(&key[1..]).unwrap_err().contains("AWS_ACCESS_KEY_ID is not"));
    assert!(variables(&[("AWS_ENDPOINT_URL", "http://localhost:1")]).unwrap_err().contains("AWS_ACCESS_KEY_ID is not set"));
}

#[test]
fn a_stores_answer_in_our_words() {
    let xml = |status: &str, code: &str, more: &str| {
        format!("Server returned non-2xx status code: {status}: <?xml?><Error><Code>{code}</Code>{more}</Error>")
    };
    let answers = [
        xml("403 Forbidden", "SignatureDoesNotMatch", "<Message>no</Message><StringToSign>AWS4</StringToSign>"),
        xml("403 Forbidden", "InvalidAccessKeyId", ""),
        xml("400 Bad Request", "ExpiredToken", ""),
        xml("403 Forbidden", "RequestTimeTooSkewed", ""),
        xml("403 Forbidden", "AccessDenied", "<Message>Access Denied</Message>"),
        xml("404 Not Found", "NoSuchBucket", ""),
        xml("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
        "Received redirect without LOCATION, this normally indicates an incorrectly configured region".to_owned(),
        xml("507 Insufficient Storage", "XMinioStorageFull", ""),
        xml("503 Service Unavailable", "SlowDown", "<Message>Please reduce your request rate.</Message>"),
        "Server returned non-2xx status code: 502 Bad Gateway: <html>nginx</html>".to_owned(),
        xml("400 Bad Request", "EntityTooLarge", "<Message>Too big.\nMuch.</Message>"),
        "Error performing PUT http://169.254.169.254/latest/api/token in 3s - HTTP error".to_owned(),
        "what is this".to_owned(),
    ];
    let told = answers.map(|text| {
        let error = Error::Generic { store: "S3", source: text.into() };
        let told = trouble::refused("cannot write", "s3://b/k".to_owned(), "https://store.example", &error);
        format!("{told}\n  {}\n", told.hint().unwrap())
    });
    expect![[r#"
        cannot write s3://b/k: the secret key does not fit the access key (SignatureDoesNotMatch)
          check AWS_SECRET_ACCESS_KEY, and AWS_REGION
        cannot write s3://b/k: the store does not know the access key (InvalidAccessKeyId)
          check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the store it is for
        cannot write s3://b/k: the session token is no longer valid (ExpiredToken)
          get new credentials; AWS_SESSION_TOKEN belongs to temporary keys only
        cannot write s3://b/k: the clocks differ too much (RequestTimeTooSkewed)
          set this machine's clock
        cannot write s3://b/k: the store denies it (AccessDenied)
          allow the key to list the bucket and to get, put and delete objects below the prefix
        cannot write s3://b/k: there is no such bucket (NoSuchBucket)
          make the bucket, or check its name, AWS_ENDPOINT_URL and AWS_REGION
        cannot write s3://b/k: the bucket is in another region (AuthorizationHeaderMalformed)
          set AWS_REGION to the bucket's region
        cannot write s3://b/k: the bucket is in another region
          set AWS_REGION to the bucket's region
        cannot write s3://b/k: the store is full (XMinioStorageFull)
          free some space there and run it again; files that are in their place are whole
        cannot write s3://b/k: Please reduce your request rate. (SlowDown)
          try again later; files that are in their place are whole
        cannot write s3://b/k: the store answers 502
          try again later; files that are in their place are whole
        cannot write s3://b/k: Too big. (EntityTooLarge)
          check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION
        cannot write s3://b/k: there are no credentials: none in the environment, and this machine has none of its own
          set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
        cannot write s3://b/k: what is this
          check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION
    "#]]
    .assert_eq(&told.concat());
}
