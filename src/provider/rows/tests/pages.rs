//! Pages of history as the fake providers give them out over made-up worlds: their events are the decoder's, each row says
//! all of itself, and what a page and the stream both say of a post is the same.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::provider::past::{Index, Past};
use crate::provider::synthetic::Language;
use crate::provider::{Asked, Rest, RestSettings, percent_encode};

/// The columns that a row says something in.
type Columns = BTreeMap<&'static str, String>;

/// A provider with a past.
struct Fake {
    provider: Provider,
    tape: Vec<Bytes>,
    index: Index,
    now: UnixMicros,
    rest: Rest,
}

impl Fake {
    fn new(provider: Provider, options: Options, switches: &[&str]) -> Self {
        let mut mix = [0.0; 4];
        mix[Provider::ALL.into_iter().position(|one| one == provider).unwrap()] = 1.0;
        let (mut index, mut tape, mut now) = (Index::default(), Vec::new(), UnixMicros(0));
        for envelope in
            World::new(Options { mix, authors: 30, ..options }).take(if provider == Provider::Tweetstream { 700 } else { 300 })
        {
            index.note(envelope.at, &decode_record(provider, Via::Ws, &envelope.bytes), tape.len() as u64);
            tape.push(envelope.bytes);
            now = envelope.at;
        }
        let mut settings = RestSettings { rate_limits: false, ..RestSettings::default() };
        for switch in switches {
            settings.switches.set(&format!("{}.{switch}", provider.name())).unwrap();
        }
        Self { provider, tape, index, now: now.plus(Duration::from_secs(60)), rest: Rest::new(provider, settings) }
    }

    fn ask(&mut self, line: &str, body: &str) -> String {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = [("x-api-key", "k"), ("authorization", "Bearer k"), ("cookie", "auth_token=k; ct0=c")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let asked = Asked { method, path, query, headers: &headers, body: body.as_bytes(), wants_upgrade: false };
        let mut past = Past::new(self.provider, &mut self.index, &mut self.tape, self.now);
        let answer = self.rest.asked(&asked, &mut past, instant());
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, 200, "{line}: {text}");
        text
    }

    /// What the tape says last of each thing; of counters, what it said last of each.
    fn live(&self) -> HashMap<(EventKind, EventId), Columns> {
        let mut live = HashMap::new();
        for bytes in &self.tape {
            let text = std::str::from_utf8(bytes).unwrap();
            // What the fast lane and the short dialects say of these the fakes do not give out again.
            let is_short =
                text.contains("\"fast_tweet\"") || self.provider == Provider::Scrapebadger && !text.contains("\"tweet\":{");
            for (event, mut columns) in columns(self.provider, Via::Ws, bytes) {
                // A page does not say what selected its rows.
                columns.remove("selector_name");
                if is_short {
                    columns.retain(|name, _| !["kind", "media", "url"].contains(name));
                }
                let known: &mut Columns = live.entry((event.kind, event.id)).or_default();
                if event.kind != EventKind::Engagement {
                    known.clear();
                }
                known.extend(columns);
            }
        }
        live
    }

    fn tweet_ids(&self) -> Vec<String> {
        let live = self.live();
        let mut ids: Vec<_> =
            live.keys().filter_map(|(_, id)| if let EventId::Tweet(id) = id { Some(id.0) } else { None }).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| id.to_string()).collect()
    }

    fn handles(&self) -> Vec<String> {
        let mut handles: Vec<_> = self.live().into_values().filter_map(|mut columns| columns.remove("handle")).collect();
        handles.sort();
        handles.dedup();
        handles.into_iter().map(|handle| handle.trim_matches('"').to_owned()).collect()
    }

    /// An answer to each sort of question that walks ask, and some others.
    fn pages(&mut self) -> Vec<String> {
        let since = percent_encode("since_time:1767614400");
        let (ids, handles) = (self.tweet_ids(), self.handles());
        let some = ids.iter().rev().take(40).cloned().collect::<Vec<_>>().join(",");
        let mut lines: Vec<String> = Vec::new();
        match self.provider {
            Provider::TwitterapiIo => {
                lines.push(format!("GET /twitter/tweet/advanced_search?query={since}"));
                lines.push(format!("GET /twitter/tweet/advanced_search?queryType=Top&query={since}"));
                lines.push(format!("GET /twitter/tweets?tweet_ids={some}"));
                lines.push("POST /twitter/tweet/bulk_advanced_search".to_owned());
                for handle in handles.iter().take(3) {
                    lines.push(format!(
                        "GET /twitter/user/last_tweets?includeReplies=true&includeParentTweet=true&userName={handle}"
                    ));
                    lines.push(format!("GET /twitter/user/mentions?userName={handle}"));
                }
                for id in ids.iter().take(4) {
                    lines.push(format!("GET /twitter/tweet/replies?tweetId={id}"));
                    lines.push(format!("GET /twitter/tweet/quotes?tweetId={id}"));
                }
            }
            Provider::Tweetstream => {
                lines.extend(["TWEET", "PROFILE", "FOLLOW"].map(|family| format!("GET /api/history?limit=1000&type={family}")));
                lines.push("GET /api/me".to_owned());
            }
            Provider::Scrapebadger => {
                lines.push(format!("GET /v1/twitter/tweets/advanced_search?count=100&query={since}"));
                lines.push(format!("GET /v1/twitter/tweets/?tweets={some}"));
                lines.push("GET /v1/twitter/stream/logs?page_size=100".to_owned());
                lines.push("GET /v1/twitter/stream/filter-rules".to_owned());
                for (handle, id) in handles.iter().zip(&ids).take(6) {
                    lines.push(format!("GET /v1/twitter/users/{handle}/latest_tweets"));
                    lines.push(format!("GET /v1/twitter/tweets/tweet/{id}"));
                    lines.push(format!("GET /v1/twitter/tweets/tweet/{id}/edit_history"));
                }
            }
            Provider::XLive => {
                let graphql = |operation: &str, variables: Value| {
                    format!("GET /i/api/graphql/q/{operation}?variables={}", percent_encode(&variables.to_string()))
                };
                lines.push(graphql("TweetResultsByRestIds", json!({ "tweetIds": ids })));
                lines.push(graphql("TweetResultByRestId", json!({ "tweetId": ids[0] })));
                lines.push(graphql("TweetResultByRestId", json!({ "tweetId": "7" })));
                lines.push(graphql("TweetDetail", json!({ "focalTweetId": ids[0] })));
                let live = self.live();
                let mut talks: Vec<_> = live.keys().filter(|(kind, _)| *kind == EventKind::DmUpdate).collect();
                talks.sort_by_key(|(_, id)| format!("{id:?}"));
                lines.extend(talks.into_iter().map(|(_, id)| {
                    let EventId::Text(id) = id else { panic!("{id:?}") };
                    format!("GET /i/api/1.1/dm/conversation/{id}.json?include_conversation_info=true")
                }));
            }
        }
        let body = r#"{"queries":[{"query":"lang:en"},{"query":"lang:ja"},{"query":""}]}"#;
        lines.iter().map(|line| self.ask(line, body)).collect()
    }
}

/// Fakes of a provider, in every dialect of its history.
fn fakes(provider: Provider) -> Vec<Fake> {
    let switches: &[&[&str]] = match provider {
        Provider::TwitterapiIo => &[&["last_tweets=half"], &["last_tweets=flat", "replies_list=replies"], &["last_tweets=data"]],
        Provider::Tweetstream => &[&[], &["history_updates=merged"]],
        Provider::Scrapebadger => &[&[], &[], &[], &["log_words=guide"]],
        Provider::XLive => &[&["dm_page=50"], &["unsaid_counters=zero"]],
    };
    let dialects = [Dialect::A, Dialect::B, Dialect::C, Dialect::Merged];
    let make = |(at, switches): (usize, &&[&str])| {
        let options = Options {
            seed: 70 + at as u64,
            dialect: dialects[at],
            edits: 0.1,
            deletes: Some(0.1),
            dms: 0.4,
            truth_social: 0.2,
            languages: if at == 1 { Language::all().map(|l| (l, 1.0)).collect() } else { Vec::new() },
            ..Options::default()
        };
        Fake::new(provider, options, switches)
    };
    switches.iter().enumerate().map(make).collect()
}

/// The rows of a page that say something, each as a page of its own.
fn rows_alone(provider: Provider, page: &Value) -> Vec<Value> {
    let list = |place: &str| page.pointer(place).and_then(Value::as_array).cloned().unwrap_or_default();
    let pages: Vec<Value> = match provider {
        Provider::TwitterapiIo => {
            let mut rows = [list("/tweets"), list("/replies"), list("/data/tweets")].concat();
            let results = page.get("results").and_then(Value::as_object);
            rows.extend(results.into_iter().flat_map(Map::values).filter_map(|one| one["tweets"].as_array()).flatten().cloned());
            rows.into_iter().map(|row| json!({ "tweets": [row] })).collect()
        }
        Provider::Tweetstream => list("/data").into_iter().map(|row| json!({ "data": [row], "metadata": {} })).collect(),
        Provider::Scrapebadger => list("/data").into_iter().map(|row| json!({ "data": [row] })).collect(),
        Provider::XLive => {
            let mut results = list("/data/tweetResult");
            results.extend(page.pointer("/data/tweetResult").filter(|one| one.is_object()).cloned());
            let results = results.into_iter().map(|one| json!({ "data": { "tweetResult": { "result": one["result"] } } }));
            let entries = list("/conversation_timeline/entries").into_iter();
            results
                .chain(entries.map(|one| json!({ "conversation_timeline": { "entries": [{ "message": one["message"] }] } })))
                .collect()
        }
    };
    let says = |page: &Value| !decode_record(provider, Via::History, page.to_string().as_bytes()).events.is_empty();
    pages.into_iter().filter(says).collect()
}

/// What the columns of a row say, under names that frames and pages share.
fn columns(provider: Provider, via: Via, bytes: &[u8]) -> Vec<(crate::model::Event, Columns)> {
    struct Sink(Vec<(crate::model::Event, Columns)>);
    impl RowSink for Sink {
        fn row(&mut self, row: Row<'_>) {
            let mut columns = Columns::new();
            let mut put = |name: &'static str, shown: String| {
                if !matches!(shown.as_str(), "None" | "[]" | "Some(\"\")") {
                    columns
                        .insert(name, shown.strip_prefix("Some(").and_then(|s| s.strip_suffix(')')).unwrap_or(&shown).to_owned());
                }
            };
            if row.event.kind != EventKind::DmUpdate {
                put("published_at", format!("{:?}", row.event.published_at));
            }
            put("selector_name", format!("{:?}", row.selector_name));
            match &row.said {
                Said::Post(post) => {
                    account(&post.author, &mut put);
                    counts(&post.counts, &mut put);
                    put("platform", format!("{:?}", post.platform));
                    put("kind", format!("{:?}", post.kind));
                    put("text", format!("{:?}", post.text));
                    put("lang", format!("{:?}", post.lang));
                    put("url", format!("{:?}", post.url));
                    put("client", format!("{:?}", post.client));
                    put("conversation_id", format!("{:?}", post.conversation_id));
                    put("in_reply_to_tweet_id", format!("{:?}", post.in_reply_to_tweet_id));
                    put("in_reply_to_user_id", format!("{:?}", post.in_reply_to_user_id));
                    put("in_reply_to_handle", format!("{:?}", post.in_reply_to_handle));
                    put("quoted", format!("{:?}", post.quoted));
                    put("reposted", format!("{:?}", post.reposted));
                    put("is_sensitive", format!("{:?}", post.is_sensitive));
                    put("hashtags", format!("{:?}", post.hashtags));
                    put("symbols", format!("{:?}", post.symbols));
                    put("mentions", format!("{:?}", post.mentions));
                    put("urls", format!("{:?}", post.urls));
                    put("media", format!("{:?}", post.media));
                    put("tokens", format!("{:?}", post.tokens));
                    put("ocr_text", format!("{:?}", post.ocr_text));
                }
                Said::Profile(said) => {
                    account(&said.account, &mut put);
                    put("platform", format!("{:?}", said.platform));
                    put("observed_at", format!("{:?}", said.observed_at));
                    put("changes", format!("{:?}", said.changes));
                }
                Said::Follow(said) => {
                    account(&said.actor, &mut put);
                    put("platform", format!("{:?}", said.platform));
                    put("observed_at", format!("{:?}", said.observed_at));
                    put("target", format!("{:?}", said.target));
                }
                Said::Engagement(said) => {
                    counts(&said.counts, &mut put);
                    put("view_state", format!("{:?}", said.view_state));
                }
                Said::Dm(said) => {
                    put("conversation", format!("{:?}", said.conversation_id));
                    put("user", format!("{:?}", said.user_id));
                }
                Said::Other(_) => {}
            }
            self.0.push((row.event, columns));
        }
        fn surprise(&mut self, _: Surprise<'_>) {}
    }
    let mut sink = Sink(Vec::new());
    read_rows(provider, via, bytes, &mut sink);
    sink.0
}

fn account(account: &crate::model::Account<'_>, put: &mut impl FnMut(&'static str, String)) {
    put("author_id", format!("{:?}", account.id));
    // ScrapeBadger has it in lower case here and as it is there.
    put("handle", format!("{:?}", account.handle.as_ref().map(|handle| handle.to_ascii_lowercase())));
    put("name", format!("{:?}", account.name));
    put("bio", format!("{:?}", account.bio));
    put("location", format!("{:?}", account.location));
    put("picture_url", format!("{:?}", account.picture_url));
    put("created_at", format!("{:?}", account.created_at));
    put("followers", format!("{:?}", account.followers));
    put("following", format!("{:?}", account.following));
    put("posts", format!("{:?}", account.posts));
    put("is_blue_verified", format!("{:?}", account.is_blue_verified));
    put("verified_type", format!("{:?}", account.verified_type));
}

fn counts(counts: &crate::model::Counts, put: &mut impl FnMut(&'static str, String)) {
    put("likes", format!("{:?}", counts.likes));
    put("reposts", format!("{:?}", counts.reposts));
    put("replies", format!("{:?}", counts.replies));
    put("quotes", format!("{:?}", counts.quotes));
    put("bookmarks", format!("{:?}", counts.bookmarks));
    put("views", format!("{:?}", counts.views));
}

#[test]
fn pages_are_read_whole() {
    for provider in Provider::ALL {
        let mut n_by_kind: BTreeMap<&str, usize> = BTreeMap::new();
        for mut fake in fakes(provider) {
            for text in fake.pages() {
                let heard = read(provider, Via::History, text.as_bytes());
                assert_eq!(heard.surprises, [], "{text}");
                let alone = rows_alone(provider, &serde_json::from_str(&text).unwrap());
                let mut events = Vec::new();
                for page in &alone {
                    let page = page.to_string();
                    nothing_is_lost(provider, Via::History, page.as_bytes());
                    events.extend(read(provider, Via::History, page.as_bytes()).events);
                }
                assert_eq!(heard.events, events, "each row is read for itself: {text}");
                heard.events.iter().for_each(|event| *n_by_kind.entry(event.kind.name()).or_default() += 1);
            }
        }
        let least: &[&str] = match provider {
            Provider::TwitterapiIo | Provider::Scrapebadger => &["tweet"],
            Provider::Tweetstream => &["tweet", "meta", "profile", "follow"],
            Provider::XLive => &["engagement", "dm_update"],
        };
        for kind in least {
            assert!(n_by_kind.get(kind).is_some_and(|n| *n > 10), "{kind}: {n_by_kind:?}");
        }
    }
}

#[test]
fn a_page_says_what_the_stream_said() {
    for provider in Provider::ALL {
        let mut n_same: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, mut fake) in fakes(provider).into_iter().enumerate() {
            let live = fake.live();
            // There an update changes what the content said, and here the fake makes up what the tape does not name.
            let skipped: &[&str] = match (provider, at) {
                (Provider::Tweetstream, 1) => &["text", "kind", "urls", "quoted", "reposted", "in_reply_to_tweet_id"],
                _ => &[],
            };
            let talks: HashSet<_> = live
                .iter()
                .filter(|((kind, _), _)| *kind == EventKind::DmUpdate)
                .map(|(_, c)| c["conversation"].clone())
                .collect();
            for text in fake.pages() {
                for (event, said) in columns(provider, Via::History, text.as_bytes()) {
                    if event.kind == EventKind::DmUpdate {
                        assert!(talks.contains(&said["conversation"]) && said.contains_key("user"), "{said:?}");
                        *n_same.entry("dm").or_default() += 1;
                        continue;
                    }
                    let Some(then) = live.get(&(event.kind, event.id.clone())) else { panic!("{event:?} was never there") };
                    for (name, then) in then.iter().filter(|(name, _)| !skipped.contains(name)) {
                        let now = said.get(name).unwrap_or_else(|| panic!("{name} of {event:?} was {then}\n{text}"));
                        assert_eq!(then, now, "{name} of {event:?}\n{text}");
                        *n_same.entry(name).or_default() += 1;
                    }
                }
            }
        }
        let least: &[&str] = match provider {
            Provider::XLive => &["likes", "views", "view_state", "dm"],
            Provider::Tweetstream => &["text", "handle", "published_at", "kind", "urls", "quoted", "target", "changes", "tokens"],
            Provider::Scrapebadger => &["text", "handle", "published_at", "urls", "likes", "hashtags"],
            Provider::TwitterapiIo => {
                &["text", "handle", "published_at", "kind", "urls", "media", "mentions", "likes", "hashtags"]
            }
        };
        for name in least {
            assert!(n_same.get(name).is_some_and(|n| *n > 5), "{name} of {}: {n_same:?}", provider.name());
        }
    }
}

/// What stands in which column: of the fixtures, and of the first row of each sort on the fakes' pages.
///
/// The other tests hold for a value in the wrong column, too, where frames and pages have it in the same one.
#[test]
fn columns_are_these() {
    let mut all = String::new();
    let mut show = |provider: Provider, via: Via, name: &str, bytes: &[u8]| {
        let extras = read(provider, via, bytes).extras;
        for ((event, columns), extra) in columns(provider, via, bytes).into_iter().zip(extras) {
            let crate::model::Event { kind, id, selector, .. } = event;
            all += &format!("{} {name}: {} {id:?} by {selector:?}\n", provider.name(), kind.name());
            columns.iter().for_each(|(name, value)| all += &format!("    {name}: {value}\n"));
            if !extra.is_empty() {
                all += &format!("    + {extra}\n");
            }
        }
    };
    for provider in Provider::ALL {
        for (name, text) in fixtures(provider) {
            show(provider, Via::Ws, &name, text.as_bytes());
        }
        let mut seen = HashSet::new();
        let mut fake = fakes(provider).remove(0);
        for text in fake.pages() {
            for page in rows_alone(provider, &serde_json::from_str(&text).unwrap()) {
                let bytes = page.to_string().into_bytes();
                let sorts = columns(provider, Via::History, &bytes);
                if sorts.iter().any(|(event, columns)| seen.insert((event.kind, columns.get("kind").cloned()))) {
                    show(provider, Via::History, "page", &bytes);
                }
            }
        }
    }
    expect_test::expect_file!["columns.txt"].assert_eq(&all);
}

/// Pages of few rows, of every sort, to change.
fn small_pages() -> Vec<(Provider, Value)> {
    let mut all = Vec::new();
    for provider in Provider::ALL {
        for mut fake in fakes(provider) {
            for text in fake.pages() {
                let page: Value = serde_json::from_str(&text).unwrap();
                all.extend(rows_alone(provider, &page).into_iter().step_by(17).take(12).map(|page| (provider, page)));
                if text.len() < 20_000 {
                    all.push((provider, page));
                }
            }
        }
    }
    all
}

#[test]
fn types_swapped_in_pages_lose_nothing() {
    let material = small_pages();
    let changes = prop::collection::vec((prop::collection::vec(0usize..1_000, 10), any_value()), 1..4);
    let strategy = (any::<prop::sample::Index>(), changes);
    proptest!(cases(2_000), |((at, changes) in strategy)| {
        let (provider, mut page) = material[at.index(material.len())].clone();
        for (path, new) in changes {
            put_somewhere(&mut page, &mut path.into_iter(), new);
        }
        read(provider, Via::History, page.to_string().as_bytes());
        for alone in rows_alone(provider, &page) {
            nothing_is_lost(provider, Via::History, alone.to_string().as_bytes());
        }
    });
}

#[test]
fn doubled_keys_and_broken_pages_are_read_as_the_decoder_does() {
    let material = small_pages();
    let strategy = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any_value(), any::<u8>());
    proptest!(cases(2_000), |((which, place, new, byte) in strategy)| {
        let (provider, page) = &material[which.index(material.len())];
        double_and_break(*provider, Via::History, &page.to_string(), place, &new, byte);
    });
}

#[test]
fn a_page_of_its_own_sort_is_no_surprise() {
    let post = r#"{"id":"2117164813577617415","text":"é","username":"a"}"#;
    let page =
        format!(r#"{{"data":[{post}],"logs":[],"total":3,"page":1,"page_size":20,"limit":20,"offset":0,"next_cursor":null}}"#);
    let heard = read(Provider::Scrapebadger, Via::History, page.as_bytes());
    assert_eq!((heard.surprises, heard.events.len()), (Vec::new(), 1));
    let log = r#"{"logs":[{"id":"r","tweet_id":"2117164813577617415","tweet_text":"é"}],"total":1,"page":1,"colour":"red"}"#;
    let heard = read(Provider::Scrapebadger, Via::History, log.as_bytes());
    assert_eq!((heard.surprises, heard.events.len()), (Vec::new(), 0), "a row of a log is no post");
}

#[test]
fn a_quote_is_no_repost() {
    let page = r#"{"data":[{"id":"2117164813577617415","text":"é","quoted_status_id":"7","is_retweet":false},{"id":"2117164813577617416","text":"é","retweeted_status_id":"8"}]}"#;
    let rows = columns(Provider::Scrapebadger, Via::History, page.as_bytes());
    let said = |at: usize, name: &str| rows[at].1.get(name).cloned().unwrap_or_default();
    assert!(said(0, "kind") == "Quote" && said(0, "quoted").contains("Some(7)") && said(0, "reposted").is_empty());
    assert!(said(1, "kind") == "Repost" && said(1, "reposted").contains("Some(8)") && said(1, "quoted").is_empty());
}

/// The columns of a single post in an envelope of TweetStream.
fn urls_of(urls: &str) -> (String, Heard) {
    let text = format!(
        r#"{{"v":1,"t":"tweet","op":"content","id":"2117164813577617415","ts":1,"d":{{"tweetId":"2117164813577617415","text":"é","urls":[{urls}]}}}}"#
    );
    nothing_is_lost(Provider::Tweetstream, Via::Ws, text.as_bytes());
    let mut rows = columns(Provider::Tweetstream, Via::Ws, text.as_bytes());
    (rows.remove(0).1.remove("urls").unwrap(), read(Provider::Tweetstream, Via::Ws, text.as_bytes()))
}

#[test]
fn links_have_two_sets_of_names() {
    let link = |url: &str| {
        format!(r#"[Link {{ url: Some("{url}"), expanded_url: Some("https://a.example/b"), display_url: Some("a.example/b") }}]"#)
    };
    for (urls, extra) in [
        (r#"{"url":"https://a.example/b","name":"a.example/b","tco":"https://t.co/x"}"#, ""),
        (
            r#"{"url":"https://t.co/x","expanded_url":"https://a.example/b","display_url":"a.example/b","indices":[3,9]}"#,
            r#"{"urls":[{"indices":[3,9]}]}"#,
        ),
        (r#"{"display_url":"a.example/b","expanded_url":"https://a.example/b","url":"https://t.co/x","indices":[]}"#, ""),
        (
            r#"{"url":"https://a.example/b","tco":"https://t.co/x","name":"a.example/b","expanded_url":"https://a.example/b","display_url":"b"}"#,
            r#"{"urls":[{"display_url":"b"}]}"#,
        ),
    ] {
        let (shown, heard) = urls_of(urls);
        assert_eq!((shown, heard.extras[0].as_str()), (link("https://t.co/x"), extra), "{urls}");
        assert_eq!(heard.surprises, [], "{urls}");
    }
}

#[test]
fn the_state_of_views_has_two_places() {
    for (body, state, extra) in [
        (r#""view_count":7,"view_count_state":"EnabledWithCount""#, "\"EnabledWithCount\"", ""),
        (r#""view_count_info":{"count":"7","state":"Enabled"},"view_count_state":"Enabled""#, "\"Enabled\"", ""),
        (
            r#""view_count_state":"Enabled","view_count_info":{"count":"7","state":"Other"}"#,
            "\"Enabled\"",
            r#"{"view_count_info":{"state":"Other"}}"#,
        ),
    ] {
        let text = format!(r#"{{"topic":"/tweet_engagement/2102038470875676672","payload":{{"tweet_engagement":{{{body}}}}}}}"#);
        let heard = read(Provider::XLive, Via::Ws, text.as_bytes());
        let said = columns(Provider::XLive, Via::Ws, text.as_bytes()).remove(0).1;
        assert_eq!((said["views"].as_str(), said["view_state"].as_str(), heard.extras[0].as_str()), ("7", state, extra));
        assert_eq!(heard.surprises, [], "{body}");
    }
}

#[test]
fn what_no_row_has_room_for_is_kept() {
    // A profile has no meta of its own.
    let page = r#"{"data":[{"tweetId":"p-1","messageType":"PROFILE","time":"2026-01-05T12:00:00.000Z","content":{"kind":"PROFILE","eventId":"p-1","observedAt":1767614400000},"meta":{"ocr":{"text":"lost?"}}}],"metadata":{}}"#;
    nothing_is_lost(Provider::Tweetstream, Via::History, page.as_bytes());
    // A post that not everybody may see.
    let page = r#"{"data":{"tweetResult":{"result":{"__typename":"TweetWithVisibilityResults","limitedActionResults":{"limited_actions":[{"action":"Reply"}]},"tweet":{"rest_id":"2102038470875676672","legacy":{"favorite_count":3}}}}}}"#;
    nothing_is_lost(Provider::XLive, Via::Snapshot, page.as_bytes());
}
