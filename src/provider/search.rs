//! X's advanced search: reads a query as people type it, and says which posts it finds.
//!
//! Two fake histories and the rules of two providers speak this language, so it stands beside them and knows neither's
//! JSON: an adapter borrows what it knows about a post into a [`Candidate`]. A [`Query`] also says between which
//! instants and ids its posts can lie, so that nobody has to look at the rest.
//!
//! Words stand for all of them, `OR` (upper case) binds tighter than standing side by side, `-` turns around what
//! follows it, brackets group. Source of operators and their meaning: the community's list,
//! github.com/igorbrigadir/twitter-advanced-search, to which TwitterAPI.io's reference points (seen 2026-11).
//!
//! Not played: what needs a place, a list, a card or somebody's own follows. Such an operator is an error, not a word.

use std::ops::{Range, RangeInclusive};

use crate::model::{TweetId, UnixMicros};

/// How deep brackets may stand in each other.
const DEPTH_MAX: usize = 32;

/// Longest query that is read, in bytes; X itself stops far earlier.
const QUERY_MAX: usize = 4_096;

/// A query that finds nothing for a reason; in words for the one who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct QueryError(String);

/// What a search can know about a post. Names of accounts come without `@`, tags without `#` or `$`.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<'a> {
    /// Its id.
    pub(crate) id: TweetId,
    /// The author's time.
    pub(crate) published_at: UnixMicros,
    /// The author.
    pub(crate) handle: &'a str,
    /// All of its text.
    pub(crate) text: &'a str,
    /// Language code; may be empty.
    pub(crate) lang: &'a str,
    /// Whether it answers another post.
    pub(crate) is_reply: bool,
    /// Whom it answers.
    pub(crate) in_reply_to: Option<&'a str>,
    /// Which post it answers.
    pub(crate) in_reply_to_id: Option<TweetId>,
    /// The post its conversation began with.
    pub(crate) conversation_id: Option<TweetId>,
    /// Whether it was made with the retweet button.
    pub(crate) is_retweet: bool,
    /// Whether it quotes a post.
    pub(crate) is_quote: bool,
    /// Which post it quotes.
    pub(crate) quoted_id: Option<TweetId>,
    /// Accounts it names, besides those in the text.
    pub(crate) mentions: Vec<&'a str>,
    /// Tags it has, besides those in the text.
    pub(crate) hashtags: Vec<&'a str>,
    /// Where its links lead.
    pub(crate) urls: Vec<&'a str>,
    /// Whether it has pictures.
    pub(crate) has_images: bool,
    /// Whether it has videos or moving pictures.
    pub(crate) has_videos: bool,
    /// Whether the author has a check mark of the old kind.
    pub(crate) is_verified: bool,
    /// Whether the author pays for one.
    pub(crate) is_blue_verified: bool,
    /// Likes.
    pub(crate) n_faves: u64,
    /// Retweets.
    pub(crate) n_retweets: u64,
    /// Replies.
    pub(crate) n_replies: u64,
}

impl Candidate<'_> {
    /// A post of which nothing else is known.
    pub(crate) fn new(id: TweetId, published_at: UnixMicros) -> Self {
        Self {
            id,
            published_at,
            handle: "",
            text: "",
            lang: "",
            is_reply: false,
            in_reply_to: None,
            in_reply_to_id: None,
            conversation_id: None,
            is_retweet: false,
            is_quote: false,
            quoted_id: None,
            mentions: Vec::new(),
            hashtags: Vec::new(),
            urls: Vec::new(),
            has_images: false,
            has_videos: false,
            is_verified: false,
            is_blue_verified: false,
            n_faves: 0,
            n_retweets: 0,
            n_replies: 0,
        }
    }
}

/// A query that can find something.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    root: Node,
    with_retweets: bool,
    span: Range<UnixMicros>,
    ids: RangeInclusive<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaf {
    /// Words side by side in the text; `None` stands for any one word.
    Phrase(Vec<Option<Word>>),
    From(String),
    To(String),
    Mention(String),
    Hashtag(String),
    Cashtag(String),
    Since(UnixMicros),
    Until(UnixMicros),
    /// Larger ids only.
    SinceId(u64),
    /// This one and smaller ones.
    MaxId(u64),
    Lang(String),
    Filter(Filter),
    /// Parts of an address side by side.
    Url(Vec<String>),
    MinFaves(u64),
    MinRetweets(u64),
    MinReplies(u64),
    Conversation(TweetId),
    Quoted(TweetId),
    /// Holds for every post: `include:…` says something about the whole query.
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Replies,
    Retweets,
    NativeRetweets,
    Quote,
    Media,
    Images,
    Videos,
    Links,
    Hashtags,
    Mentions,
    Verified,
    BlueVerified,
    HasEngagement,
}

/// Documented: these names (community list), besides those that need more than a post.
const FILTERS: [(&str, Filter); 17] = [
    ("replies", Filter::Replies),
    ("retweets", Filter::Retweets),
    ("nativeretweets", Filter::NativeRetweets),
    ("quote", Filter::Quote),
    ("media", Filter::Media),
    ("images", Filter::Images),
    ("twimg", Filter::Images),
    ("videos", Filter::Videos),
    ("native_video", Filter::Videos),
    ("consumer_video", Filter::Videos),
    ("links", Filter::Links),
    ("hashtags", Filter::Hashtags),
    ("mentions", Filter::Mentions),
    ("verified", Filter::Verified),
    ("blue_verified", Filter::BlueVerified),
    ("has_engagement", Filter::HasEngagement),
    ("quotes", Filter::Quote),
];

/// The names ScrapeBadger's pages use in rules, `is:reply has:media -is:retweet` (docs.scrapebadger.com, "Filter rules",
/// 2026-03); whether X's search knows them is doubtful, but nobody means them as words.
const V2_NAMES: [(&str, Filter); 9] = [
    ("is:reply", Filter::Replies),
    ("is:retweet", Filter::NativeRetweets),
    ("is:quote", Filter::Quote),
    ("is:verified", Filter::Verified),
    ("has:media", Filter::Media),
    ("has:images", Filter::Images),
    ("has:videos", Filter::Videos),
    ("has:links", Filter::Links),
    ("has:hashtags", Filter::Hashtags),
];

/// Operators of X that ask for what no tape holds.
const NOT_PLAYED: [&str; 12] = [
    "near",
    "within",
    "within_time",
    "geocode",
    "place",
    "list",
    "source",
    "card_name",
    "card_domain",
    "card_url",
    "quoted_user_id",
    "context",
];

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// When there is nothing in it, something is open or dangling, an operator's value makes no sense, or no post can
    /// ever match.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_MAX {
            return Err(QueryError(format!("the query has {} bytes, at most {QUERY_MAX} are read", text.len())));
        }
        let mut parser = Parser { pieces: pieces(text)?, at: 0 };
        let root = parser.all(0)?;
        if parser.at < parser.pieces.len() {
            return Err(QueryError("a bracket `)` closes nothing".to_owned()));
        }
        let root = root.ok_or_else(|| QueryError("the query is empty".to_owned()))?;
        let with_retweets = parser.pieces.iter().any(asks_for_retweets) || asks_to_see_retweets(&root, true);
        let query = Self { span: span_of(&root), ids: ids_of(&root), with_retweets, root };
        query.check_possible()?;
        Ok(query)
    }

    /// When its posts can have been published: from is inside, to is not.
    pub(crate) fn span(&self) -> Range<UnixMicros> {
        self.span.clone()
    }

    /// The smallest and the largest id its posts can have.
    pub(crate) fn ids(&self) -> RangeInclusive<u64> {
        self.ids.clone()
    }

    /// Whether it finds that post.
    ///
    /// Posts made with the retweet button are left out unless the query asks for them (community list,
    /// `include:nativeretweets`).
    pub(crate) fn matches(&self, post: &Candidate<'_>) -> bool {
        if post.is_retweet && !self.with_retweets {
            return false;
        }
        self.root.matches(&Seen { post, words: words_of(post.text) })
    }

    /// Finds contradictions between things that must all hold.
    fn check_possible(&self) -> Result<(), QueryError> {
        let never = |why: String| Err(QueryError(format!("this query can never match: {why}")));
        if self.span.start >= self.span.end {
            return never(format!("nothing is published since {} and until {}", self.span.start, self.span.end));
        }
        if self.ids.is_empty() {
            return never(format!("no id is at least {} and at most {}", self.ids.start(), self.ids.end()));
        }
        let mut needed = Vec::new();
        self.root.each_needed(&mut |node| needed.push(node));
        let mut author: Option<&str> = None;
        for node in &needed {
            if let Node::Leaf(Leaf::From(handle)) = node {
                match author {
                    Some(other) if other != handle => return never(format!("it is from {other} and from {handle}")),
                    _ => author = Some(handle),
                }
            }
            if let Node::Not(inner) = node
                && needed.contains(&&**inner)
            {
                return never("it asks for something and for its opposite".to_owned());
            }
        }
        Ok(())
    }
}

/// A post with its words.
struct Seen<'a> {
    post: &'a Candidate<'a>,
    words: Vec<Word>,
}

impl Node {
    fn matches(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(seen)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(seen)),
            Self::Not(node) => !node.matches(seen),
            Self::Leaf(leaf) => leaf.matches(seen),
        }
    }

    /// Visits what must hold by itself for the whole to hold.
    fn each_needed<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.each_needed(visit)),
            other => visit(other),
        }
    }
}

impl Leaf {
    fn matches(&self, seen: &Seen<'_>) -> bool {
        let post = seen.post;
        let tagged = |mark: char, tag: &str| seen.words.iter().any(|word| word.mark == Some(mark) && word.text == tag);
        match self {
            Self::Phrase(words) => seen.words.windows(words.len()).any(|window| is_phrase(words, window)),
            Self::From(handle) => same(post.handle, handle),
            Self::To(handle) => post.in_reply_to.is_some_and(|to| same(to, handle)),
            Self::Mention(handle) => tagged('@', handle) || post.mentions.iter().any(|name| same(name, handle)),
            Self::Hashtag(tag) => tagged('#', tag) || post.hashtags.iter().any(|name| same(name, tag)),
            Self::Cashtag(tag) => tagged('$', tag),
            Self::Since(from) => post.published_at >= *from,
            Self::Until(to) => post.published_at < *to,
            Self::SinceId(id) => post.id.0 > *id,
            Self::MaxId(id) => post.id.0 <= *id,
            Self::Lang(lang) => same(post.lang, lang),
            Self::Filter(filter) => filter.lets_through(seen),
            Self::Url(parts) => {
                post.urls.iter().any(|url| url_parts(url).windows(parts.len()).any(|window| window == parts.as_slice()))
            }
            Self::MinFaves(n) => post.n_faves >= *n,
            Self::MinRetweets(n) => post.n_retweets >= *n,
            Self::MinReplies(n) => post.n_replies >= *n,
            Self::Conversation(id) => post.conversation_id == Some(*id),
            Self::Quoted(id) => post.quoted_id == Some(*id),
            Self::Everything => true,
        }
    }
}

impl Filter {
    fn lets_through(self, seen: &Seen<'_>) -> bool {
        let post = seen.post;
        let has_mark = |mark: char| seen.words.iter().any(|word| word.mark == Some(mark));
        let has_media = post.has_images || post.has_videos;
        match self {
            Self::Replies => post.is_reply || post.in_reply_to_id.is_some(),
            // Documented: posts that begin with RT, and quotes (community list).
            Self::Retweets => post.is_retweet || post.is_quote || post.text.starts_with("RT @"),
            Self::NativeRetweets => post.is_retweet,
            Self::Quote => post.is_quote || post.quoted_id.is_some(),
            Self::Media => has_media,
            Self::Images => post.has_images,
            Self::Videos => post.has_videos,
            // Documented: media count as links (community list).
            Self::Links => has_media || !post.urls.is_empty(),
            Self::Hashtags => !post.hashtags.is_empty() || has_mark('#'),
            Self::Mentions => !post.mentions.is_empty() || has_mark('@'),
            Self::Verified => post.is_verified,
            Self::BlueVerified => post.is_blue_verified,
            Self::HasEngagement => post.n_faves + post.n_retweets + post.n_replies > 0,
        }
    }
}

fn same(given: &str, lower: &str) -> bool {
    given.chars().flat_map(char::to_lowercase).eq(lower.chars())
}

fn span_of(root: &Node) -> Range<UnixMicros> {
    let mut span = UnixMicros(i64::MIN)..UnixMicros(i64::MAX);
    root.each_needed(&mut |node| match node {
        Node::Leaf(Leaf::Since(from)) => span.start = span.start.max(*from),
        Node::Leaf(Leaf::Until(to)) => span.end = span.end.min(*to),
        _ => {}
    });
    span
}

fn ids_of(root: &Node) -> RangeInclusive<u64> {
    let (mut min, mut max) = (0, u64::MAX);
    root.each_needed(&mut |node| match node {
        Node::Leaf(Leaf::SinceId(id)) => match id.checked_add(1) {
            Some(id) => min = id.max(min),
            // Nothing is larger.
            None => (min, max) = (u64::MAX, 0),
        },
        Node::Leaf(Leaf::MaxId(id)) => max = max.min(*id),
        _ => {}
    });
    min..=max
}

/// Whether a filter that stands unturned asks for retweets: it would find none of them otherwise.
fn asks_to_see_retweets(node: &Node, unturned: bool) -> bool {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(|node| asks_to_see_retweets(node, unturned)),
        Node::Not(node) => asks_to_see_retweets(node, !unturned),
        Node::Leaf(leaf) => unturned && *leaf == Leaf::Filter(Filter::NativeRetweets),
    }
}

fn asks_for_retweets(piece: &Piece) -> bool {
    matches!(piece, Piece::Word(word) if is_include(word))
}

fn is_include(word: &str) -> bool {
    ["include:nativeretweets", "include:retweets"].iter().any(|name| word.eq_ignore_ascii_case(name))
}

// What a query is made of.

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Open,
    Close,
    Or,
    Minus,
    /// Between quotation marks.
    Quoted(String),
    /// Anything else without white space; an operator has its value's quotation marks taken off.
    Word(String),
}

fn is_quotation_mark(c: char) -> bool {
    matches!(c, '"' | '“' | '”')
}

fn pieces(text: &str) -> Result<Vec<Piece>, QueryError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '(' => push(&mut pieces, Piece::Open, after),
            ')' => push(&mut pieces, Piece::Close, after),
            // A minus belongs to what stands right behind it; alone it is nothing.
            '-' if after.starts_with(|c: char| !c.is_whitespace() && c != ')') => push(&mut pieces, Piece::Minus, after),
            // Documented: a plus asks for the word as it is written; nothing here writes it otherwise.
            '-' | '+' => after,
            c if is_quotation_mark(c) => {
                let (quoted, after) = until_quotation_mark(after)?;
                push(&mut pieces, Piece::Quoted(quoted.to_owned()), after)
            }
            c if c.is_whitespace() => after,
            _ => {
                let (word, after) = word(rest)?;
                let piece = match word.as_str() {
                    "OR" => Some(Piece::Or),
                    // Side by side means the same.
                    "AND" => None,
                    _ => Some(Piece::Word(word)),
                };
                pieces.extend(piece);
                after
            }
        };
    }
    Ok(pieces)
}

fn push<'a>(pieces: &mut Vec<Piece>, piece: Piece, after: &'a str) -> &'a str {
    pieces.push(piece);
    after
}

fn until_quotation_mark(text: &str) -> Result<(&str, &str), QueryError> {
    let end = text.find(is_quotation_mark).ok_or_else(|| QueryError("a quotation mark is never closed".to_owned()))?;
    let mark = text[end..].chars().next().map_or(0, char::len_utf8);
    Ok((&text[..end], &text[end + mark..]))
}

/// The word at the beginning, with a quoted value taken in (`url:"example.org"`).
fn word(text: &str) -> Result<(String, &str), QueryError> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')') || is_quotation_mark(c);
    let (word, after) = text.split_at(text.find(ends).unwrap_or(text.len()));
    match after.strip_prefix(is_quotation_mark) {
        Some(inside) if word.ends_with(':') => {
            let (quoted, after) = until_quotation_mark(inside)?;
            Ok((format!("{word}{quoted}"), after))
        }
        _ => Ok((word.to_owned(), after)),
    }
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
}

/// What is read may turn out to be nothing, such as a lone exclamation mark.
type Read = Result<Option<Node>, QueryError>;

impl Parser {
    fn peek(&self) -> Option<&Piece> {
        self.pieces.get(self.at)
    }

    /// Things side by side, up to the end or a closing bracket.
    fn all(&mut self, depth: usize) -> Read {
        let mut nodes = Vec::new();
        while self.peek().is_some_and(|piece| *piece != Piece::Close) {
            nodes.extend(self.any(depth)?);
        }
        Ok(several(nodes, Node::All))
    }

    /// Things with `OR` between them.
    fn any(&mut self, depth: usize) -> Read {
        let mut nodes: Vec<Node> = self.one(depth)?.into_iter().collect();
        while self.peek() == Some(&Piece::Or) {
            self.at += 1;
            nodes.extend(self.one(depth)?);
        }
        Ok(several(nodes, Node::Any))
    }

    fn one(&mut self, depth: usize) -> Read {
        let mut turned = false;
        while self.peek() == Some(&Piece::Minus) {
            self.at += 1;
            turned = !turned;
        }
        let Some(piece) = self.pieces.get(self.at).cloned() else {
            return Err(QueryError("the query ends where something should follow".to_owned()));
        };
        self.at += 1;
        let node = match piece {
            Piece::Open => self.group(depth + 1)?,
            Piece::Quoted(text) => phrase(&text),
            Piece::Word(word) => leaf(&word)?,
            Piece::Or => return Err(QueryError("`OR` needs something on both sides".to_owned())),
            Piece::Close => return Err(QueryError("a bracket `)` closes where something should follow".to_owned())),
            // Counted above.
            Piece::Minus => None,
        };
        Ok(node.map(|node| if turned { Node::Not(Box::new(node)) } else { node }))
    }

    fn group(&mut self, depth: usize) -> Read {
        if depth > DEPTH_MAX {
            return Err(QueryError(format!("brackets stand more than {DEPTH_MAX} deep")));
        }
        let inside = self.all(depth)?;
        if self.peek() != Some(&Piece::Close) {
            return Err(QueryError("a bracket `(` is never closed".to_owned()));
        }
        self.at += 1;
        Ok(inside)
    }
}

fn several(mut nodes: Vec<Node>, wrap: impl FnOnce(Vec<Node>) -> Node) -> Option<Node> {
    match nodes.len() {
        0 | 1 => nodes.pop(),
        _ => Some(wrap(nodes)),
    }
}

fn phrase(text: &str) -> Option<Node> {
    // Documented: a lone star in a phrase is any one word (community list).
    let mut words = Vec::new();
    for part in text.split_whitespace() {
        match part {
            "*" => words.push(None),
            part => words.extend(words_of(part).into_iter().map(Some)),
        }
    }
    words.iter().any(Option::is_some).then_some(Node::Leaf(Leaf::Phrase(words)))
}

fn leaf(word: &str) -> Read {
    let rest = word.chars().next().map_or("", |first| &word[first.len_utf8()..]);
    let is_name = !rest.is_empty() && rest.chars().all(is_word_char);
    match word.chars().next() {
        Some('@') if is_name => return Ok(Some(Node::Leaf(Leaf::Mention(rest.to_lowercase())))),
        Some('#') if is_name => return Ok(Some(Node::Leaf(Leaf::Hashtag(rest.to_lowercase())))),
        Some('$') if is_name => return Ok(Some(Node::Leaf(Leaf::Cashtag(rest.to_lowercase())))),
        _ => {}
    }
    let lower = word.to_ascii_lowercase();
    if let Some((_, filter)) = V2_NAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(Some(Node::Leaf(Leaf::Filter(*filter))));
    }
    match word.split_once(':') {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
            let nodes = url(word).into_iter().chain(phrase(word)).collect();
            Ok(several(nodes, Node::Any))
        }
        Some((name, value)) => Ok(operator(&name.to_ascii_lowercase(), value)?.map(Node::Leaf).or_else(|| phrase(word))),
        None => Ok(phrase(word)),
    }
}

/// The operator of that name; `None` when there is none, so that it is words with a colon between them.
fn operator(name: &str, value: &str) -> Result<Option<Leaf>, QueryError> {
    let bad = |wants: &str| QueryError(format!("`{name}:` wants {wants}, not `{value}`"));
    let number = || value.parse::<u64>().map_err(|_| bad("a whole number"));
    let id = || TweetId::parse(value).ok_or_else(|| bad("a post's id"));
    let account = || {
        let handle = value.strip_prefix('@').unwrap_or(value);
        let good = !handle.is_empty() && handle.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if good { Ok(handle.to_ascii_lowercase()) } else { Err(bad("the name of an account")) }
    };
    let unix = || {
        let micros = value.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000));
        micros.map(UnixMicros).ok_or_else(|| bad("a unix time in seconds"))
    };
    let date = || read_date(value).ok_or_else(|| bad("a date such as 2026-11-20 or 2026-11-20_08:30:00_UTC"));
    Ok(Some(match name {
        "from" => Leaf::From(account()?),
        "to" => Leaf::To(account()?),
        "since_time" => Leaf::Since(unix()?),
        "until_time" => Leaf::Until(unix()?),
        "since" => Leaf::Since(date()?),
        "until" => Leaf::Until(date()?),
        "since_id" => Leaf::SinceId(id()?.0),
        "max_id" => Leaf::MaxId(id()?.0),
        "lang" if !value.is_empty() => Leaf::Lang(value.to_lowercase()),
        "lang" => return Err(bad("a language")),
        "filter" => filter(value)?,
        "include" if is_include(&format!("include:{value}")) => Leaf::Everything,
        "include" => return Err(bad("nativeretweets")),
        "min_faves" => Leaf::MinFaves(number()?),
        "min_retweets" => Leaf::MinRetweets(number()?),
        "min_replies" => Leaf::MinReplies(number()?),
        "conversation_id" => Leaf::Conversation(id()?),
        "quoted_tweet_id" => Leaf::Quoted(id()?),
        "url" => match url(value) {
            Some(Node::Leaf(leaf)) => leaf,
            _ => return Err(bad("a part of an address")),
        },
        name if NOT_PLAYED.contains(&name) => return Err(QueryError(format!("`{name}:` cannot be searched for here"))),
        _ => return Ok(None),
    }))
}

fn filter(value: &str) -> Result<Leaf, QueryError> {
    let value = value.to_ascii_lowercase();
    if value == "safe" {
        return Ok(Leaf::Everything);
    }
    let known = FILTERS.iter().find(|(name, _)| *name == value);
    known.map(|(_, filter)| Leaf::Filter(*filter)).ok_or_else(|| {
        let names: Vec<_> = FILTERS.iter().map(|(name, _)| *name).collect();
        QueryError(format!("`filter:` wants one of {}, not `{value}`", names.join(", ")))
    })
}

fn read_date(value: &str) -> Option<UnixMicros> {
    let value = value.strip_suffix("_UTC").unwrap_or(value);
    let (date, time) = value.split_once('_').unwrap_or((value, "00:00:00"));
    if !date.is_ascii() || date.len() != 10 || !time.is_ascii() || time.len() != 8 {
        return None;
    }
    UnixMicros::parse_fixed(format!("{date}T{time}.000000Z").as_bytes())
}

fn url(value: &str) -> Option<Node> {
    let parts = url_parts(value);
    (!parts.is_empty()).then_some(Node::Leaf(Leaf::Url(parts)))
}

/// Documented: addresses are cut into words, at underscores too, and a hyphen may be written as one (community list).
fn url_parts(url: &str) -> Vec<String> {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest).to_lowercase();
    url.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

// What a text is made of.

/// A word in lower case, with the mark that stood before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    mark: Option<char>,
    text: String,
}

/// Whether the words of a text are those asked for; a word without a mark is found behind a mark, too.
fn is_phrase(asked: &[Option<Word>], found: &[Word]) -> bool {
    asked.iter().zip(found).all(|(asked, found)| match asked {
        Some(asked) => asked.text == found.text && (asked.mark.is_none() || asked.mark == found.mark),
        None => true,
    })
}

fn is_word_char(c: char) -> bool {
    // The last two ranges are marks that belong to a letter before them but count as no letter themselves.
    c == '_' || c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36f}' | '\u{93c}'..='\u{94d}')
}

/// Scripts without spaces between words: every character is a word, so that a phrase finds any part of a text.
fn is_word_by_itself(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}')
        || matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Emoji and other signs are words by themselves; white space, punctuation and joiners are nothing.
fn is_sign(c: char) -> bool {
    !c.is_alphanumeric() && matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}')
}

fn words_of(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut chars = text.chars().peekable();
    // Whether the next character belongs to the last word.
    let mut open = false;
    let mut before: Option<char> = None;
    while let Some(c) = chars.next() {
        let begins_word = !before.is_some_and(is_word_char);
        if matches!(c, '#' | '@' | '$' | '＃' | '＠') && begins_word && chars.peek().is_some_and(|next| is_word_char(*next)) {
            let mark = Some(match c {
                '＃' => '#',
                '＠' => '@',
                other => other,
            });
            let mut text = String::new();
            while let Some(next) = chars.next_if(|next| is_word_char(*next)) {
                text.extend(next.to_lowercase());
            }
            words.push(Word { mark, text });
            open = false;
            before = Some('_');
            continue;
        }
        let alone = is_sign(c) || is_word_by_itself(c);
        if alone || is_word_char(c) {
            match words.last_mut() {
                Some(word) if open && !alone => word.text.extend(c.to_lowercase()),
                _ => words.push(Word { mark: None, text: c.to_lowercase().collect() }),
            }
        }
        open = !alone && is_word_char(c);
        before = Some(c);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    const NOON: i64 = 1_793_620_800; // 2026-11-02T12:00:00Z

    fn at(seconds: i64) -> UnixMicros {
        UnixMicros((NOON + seconds) * 1_000_000)
    }

    fn post(id: u64, text: &str) -> Candidate<'_> {
        Candidate { handle: "Fen_Lantern", text, lang: "en", ..Candidate::new(TweetId(id), at(id as i64)) }
    }

    /// Posts one to ten; each a second after the one before.
    fn posts() -> Vec<Candidate<'static>> {
        vec![
            post(1, "The night-train is late. #Tide"),
            Candidate { n_faves: 5, n_retweets: 2, n_replies: 1, ..post(2, "NIGHT owls, no train $LOAM") },
            Candidate {
                handle: "grebe",
                is_reply: true,
                in_reply_to: Some("Fen_Lantern"),
                in_reply_to_id: Some(TweetId(1)),
                conversation_id: Some(TweetId(1)),
                mentions: vec!["Fen_Lantern"],
                ..post(3, "@Fen_Lantern which night?")
            },
            Candidate { is_retweet: true, ..post(4, "RT @grebe: bread and tide") },
            Candidate { is_quote: true, quoted_id: Some(TweetId(1)), ..post(5, "bread, see below") },
            Candidate {
                has_images: true,
                urls: vec!["https://shop.Example.org/bread-list?x=1"],
                is_blue_verified: true,
                ..post(6, "loaf https://t.co/abc")
            },
            Candidate { has_videos: true, is_verified: true, ..post(7, "🐦🦉 at the harbour, don't wait") },
            Candidate { lang: "ja", ..post(8, "朝の夜行列車は 遅い #朝の人") },
            Candidate { hashtags: vec!["BreadClub"], ..post(9, "Café tide tide-table") },
            Candidate { handle: "other", ..post(10, "mail me@example.org or fen_lantern") },
        ]
    }

    fn found(query: &str) -> String {
        match Query::parse(query) {
            Ok(query) => {
                let found: Vec<_> = posts().iter().filter(|p| query.matches(p)).map(|p| p.id.to_string()).collect();
                found.join(" ")
            }
            Err(error) => format!("error: {error}"),
        }
    }

    fn check(queries: &[&str], want: Expect) {
        let lines: Vec<_> = queries.iter().map(|query| format!("{query} => {}\n", found(query))).collect();
        want.assert_eq(&lines.concat());
    }

    #[test]
    fn words_and_how_they_combine() {
        check(
            &[
                "night train",
                "\"night train\"",
                "“night train”",
                "\"the * train\"",
                "night OR bread late OR below",
                "night or bread",
                "late OR (bread below)",
                "tide -night",
                "-night -bread lang:en",
                "-(night OR bread OR tide) lang:en",
                "--night",
                "night AND train",
                "tide !",
                "+tide",
                "CAFÉ",
                "don't",
                "🦉",
                "列車",
                "行列車は",
                "tid",
                "unknown:thing OR late",
                "example.org",
            ],
            expect![[r#"
                night train => 1 2
                "night train" => 1
                “night train” => 1
                "the * train" => 1
                night OR bread late OR below => 1 5
                night or bread => 
                late OR (bread below) => 1 5
                tide -night => 9
                -night -bread lang:en => 6 7 9 10
                -(night OR bread OR tide) lang:en => 6 7 10
                --night => 1 2 3
                night AND train => 1 2
                tide ! => 1 9
                +tide => 1 9
                CAFÉ => 9
                don't => 7
                🦉 => 7
                列車 => 8
                行列車は => 8
                tid => 
                unknown:thing OR late => 1
                example.org => 10
            "#]],
        );
    }

    #[test]
    fn operators() {
        check(
            &[
                "from:FEN_lantern",
                "from:@grebe",
                "-from:fen_lantern",
                "from:grebe OR from:other",
                "to:fen_lantern",
                "@fen_lantern",
                "@example",
                "#tide",
                "tide",
                "#breadclub",
                "#朝の人",
                "$loam",
                "$tide",
                "lang:JA",
                "filter:replies",
                "tide include:nativeretweets",
                "filter:nativeretweets",
                "filter:retweets",
                "tide include:nativeretweets -filter:nativeretweets",
                "is:retweet",
                "filter:quote",
                "filter:media",
                "filter:images",
                "filter:videos",
                "filter:links -filter:media",
                "filter:links",
                "filter:hashtags",
                "filter:mentions",
                "filter:verified",
                "filter:blue_verified",
                "filter:has_engagement",
                "min_faves:5",
                "min_retweets:3",
                "-min_replies:1 night",
                "conversation_id:1",
                "quoted_tweet_id:1",
                "url:example.org",
                "url:\"example.org\" min_faves:0",
                "url:bread_list",
                "url:ample",
                "https://shop.example.org/bread-list",
            ],
            expect![[r#"
                from:FEN_lantern => 1 2 5 6 7 8 9
                from:@grebe => 3
                -from:fen_lantern => 3 10
                from:grebe OR from:other => 3 10
                to:fen_lantern => 3
                @fen_lantern => 3
                @example => 
                #tide => 1
                tide => 1 9
                #breadclub => 9
                #朝の人 => 8
                $loam => 2
                $tide => 
                lang:JA => 8
                filter:replies => 3
                tide include:nativeretweets => 1 4 9
                filter:nativeretweets => 4
                filter:retweets => 5
                tide include:nativeretweets -filter:nativeretweets => 1 9
                is:retweet => 4
                filter:quote => 5
                filter:media => 6 7
                filter:images => 6
                filter:videos => 7
                filter:links -filter:media => 
                filter:links => 6 7
                filter:hashtags => 1 8 9
                filter:mentions => 3
                filter:verified => 7
                filter:blue_verified => 6
                filter:has_engagement => 2
                min_faves:5 => 2
                min_retweets:3 => 
                -min_replies:1 night => 1 3
                conversation_id:1 => 3
                quoted_tweet_id:1 => 5
                url:example.org => 6
                url:"example.org" min_faves:0 => 6
                url:bread_list => 6
                url:ample => 
                https://shop.example.org/bread-list => 6
            "#]],
        );
    }

    #[test]
    fn time_and_ids() {
        check(
            &[
                "since_time:1793620807",
                "until_time:1793620803 lang:en",
                "since_time:1793620802 until_time:1793620804",
                "since:2026-11-02_12:00:08_UTC",
                "since:2026-11-02 until:2026-11-03 harbour",
                "since:2026-11-03",
                "until:2026-11-02_12:00:02",
                "since_id:8",
                "max_id:2",
                "since_id:5 max_id:7",
                "-since_id:2",
                "since_time:1793620807 OR max_id:1",
            ],
            expect![[r#"
                since_time:1793620807 => 7 8 9 10
                until_time:1793620803 lang:en => 1 2
                since_time:1793620802 until_time:1793620804 => 2 3
                since:2026-11-02_12:00:08_UTC => 8 9 10
                since:2026-11-02 until:2026-11-03 harbour => 7
                since:2026-11-03 => 
                until:2026-11-02_12:00:02 => 1
                since_id:8 => 9 10
                max_id:2 => 1 2
                since_id:5 max_id:7 => 6 7
                -since_id:2 => 1 2
                since_time:1793620807 OR max_id:1 => 1 7 8 9 10
            "#]],
        );
        let query = Query::parse("a (since_time:10 until_time:20) since_id:5 max_id:9 (since_time:15 OR b) -max_id:7").unwrap();
        assert_eq!(query.span(), UnixMicros(10_000_000)..UnixMicros(20_000_000));
        assert_eq!(query.ids(), 6..=9);
        let all = Query::parse("a").unwrap();
        assert_eq!((all.span(), all.ids()), (UnixMicros(i64::MIN)..UnixMicros(i64::MAX), 0..=u64::MAX));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let long = "a".repeat(QUERY_MAX + 1);
        let deep = "(".repeat(DEPTH_MAX + 1);
        check(
            &[
                "",
                "  ",
                "!?",
                "()",
                "-",
                "\"open",
                "url:\"open",
                "(a",
                "a)",
                "a OR",
                "OR a",
                "(a OR)",
                "(a -)",
                "from:",
                "from:a,b",
                "since:yesterday",
                "since:2026-02-30",
                "since_time:1.5",
                "since_time:9223372036854775807",
                "since_id:-4",
                "max_id:1e18",
                "min_faves:many",
                "lang:",
                "url:",
                "filter:follows",
                "include:everything",
                "near:me",
                "since_time:20 until_time:20",
                "since_id:9 max_id:9",
                "since_id:18446744073709551615",
                "from:a from:b",
                "tide -tide",
                "tide -(\"tide\")",
            ],
            expect![[r#"
                 => error: the query is empty
                   => error: the query is empty
                !? => error: the query is empty
                () => error: the query is empty
                - => error: the query is empty
                "open => error: a quotation mark is never closed
                url:"open => error: a quotation mark is never closed
                (a => error: a bracket `(` is never closed
                a) => error: a bracket `)` closes nothing
                a OR => error: the query ends where something should follow
                OR a => error: `OR` needs something on both sides
                (a OR) => error: a bracket `)` closes where something should follow
                (a -) => 
                from: => error: `from:` wants the name of an account, not ``
                from:a,b => error: `from:` wants the name of an account, not `a,b`
                since:yesterday => error: `since:` wants a date such as 2026-11-20 or 2026-11-20_08:30:00_UTC, not `yesterday`
                since:2026-02-30 => error: `since:` wants a date such as 2026-11-20 or 2026-11-20_08:30:00_UTC, not `2026-02-30`
                since_time:1.5 => error: `since_time:` wants a unix time in seconds, not `1.5`
                since_time:9223372036854775807 => error: `since_time:` wants a unix time in seconds, not `9223372036854775807`
                since_id:-4 => error: `since_id:` wants a post's id, not `-4`
                max_id:1e18 => error: `max_id:` wants a post's id, not `1e18`
                min_faves:many => error: `min_faves:` wants a whole number, not `many`
                lang: => error: `lang:` wants a language, not ``
                url: => error: `url:` wants a part of an address, not ``
                filter:follows => error: `filter:` wants one of replies, retweets, nativeretweets, quote, media, images, twimg, videos, native_video, consumer_video, links, hashtags, mentions, verified, blue_verified, has_engagement, quotes, not `follows`
                include:everything => error: `include:` wants nativeretweets, not `everything`
                near:me => error: `near:` cannot be searched for here
                since_time:20 until_time:20 => error: this query can never match: nothing is published since 1970-01-01T00:00:20.000000Z and until 1970-01-01T00:00:20.000000Z
                since_id:9 max_id:9 => error: this query can never match: no id is at least 10 and at most 9
                since_id:18446744073709551615 => error: this query can never match: no id is at least 18446744073709551615 and at most 0
                from:a from:b => error: this query can never match: it is from a and from b
                tide -tide => error: this query can never match: it asks for something and for its opposite
                tide -("tide") => error: this query can never match: it asks for something and for its opposite
            "#]],
        );
        assert!(found(&long).starts_with("error: the query has"));
        assert!(found(&deep).starts_with("error: brackets stand"));
    }

    proptest! {
        #[test]
        fn never_panics(query in any::<String>(), text in any::<String>()) {
            if let Ok(query) = Query::parse(&query) {
                query.matches(&post(1, &text));
            }
        }

        /// Made of what the language is made of, so that it gets further.
        #[test]
        fn never_panics_on_its_own_words(parts in prop::collection::vec(
            prop::sample::select(vec![
                "(", ")", "-", " ", "\"", "OR", "a", "from:", "a_b", "#", "@", "$", "since:", "2026-01-01", "max_id:", "7",
                "url:", "filter:", "replies", "é", "朝", "🐦", ":", "https://", "*", "include:nativeretweets", "“",
            ]), 0..24), text in any::<String>()) {
            if let Ok(query) = Query::parse(&parts.concat()) {
                query.matches(&post(1, &text));
                prop_assert!(query.span().start < query.span().end && !query.ids().is_empty());
            }
        }

        /// What stands in a text is found by it.
        #[test]
        fn finds_its_own_words(words in prop::collection::vec("[a-z]{1,6}", 1..6)) {
            let text = words.join(" ");
            let finds = |query: String| Query::parse(&query).unwrap().matches(&post(1, &text));
            let phrase = format!("\"{text}\"");
            prop_assert!(finds(phrase.clone()));
            prop_assert!(!finds(["-", &phrase].concat()));
        }
    }
}
