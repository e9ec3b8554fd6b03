-- The first catalog: an index over segments, so that a reader finds a record without unpacking the tape.
-- Every column can be computed again from the segments; `birdtape rebuild` does so.
-- Times are microseconds since 1970, UTC. Windows and intervals are half-open.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,              -- 'tape': id of the tape this catalog belongs to
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE source (
    name     TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    last_n   INTEGER NOT NULL,           -- last record that is durable
    last_us  INTEGER NOT NULL,           -- its received_at
    running  INTEGER NOT NULL,           -- 1 from the note that recording began to the note that it ended
    listed_us INTEGER                    -- when what selects its events was last read from its provider
) STRICT, WITHOUT ROWID;

CREATE TABLE scope (
    source     TEXT NOT NULL,
    scope      TEXT NOT NULL,            -- '*' or a topic
    version    INTEGER NOT NULL,         -- counts up with every change of what the scope promises
    since_us   INTEGER NOT NULL,         -- first instant of published time it promises to cover
    until_us   INTEGER,                  -- first instant it no longer promises
    horizon_us INTEGER NOT NULL,         -- lateness horizon
    detail     TEXT NOT NULL,
    text       TEXT,                     -- what selects its events: a rule's text, a list of accounts
    n          INTEGER NOT NULL,         -- the note that says so
    PRIMARY KEY (source, scope, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE connection (
    source      TEXT NOT NULL,
    conn        INTEGER NOT NULL,
    opened_us   INTEGER NOT NULL,
    opened_n    INTEGER NOT NULL,
    url         TEXT NOT NULL,           -- without secrets
    subprotocol TEXT,
    frames      INTEGER NOT NULL,
    evidence_us INTEGER NOT NULL,        -- last proof of life
    closed_us   INTEGER,
    closed_n    INTEGER,
    code        INTEGER,
    reason      TEXT,
    closed_by   TEXT,                    -- 'peer', 'us', 'network'
    PRIMARY KEY (source, conn)
) STRICT, WITHOUT ROWID;

CREATE TABLE segment (
    source    TEXT NOT NULL,
    first_n   INTEGER NOT NULL,          -- also the file's name
    last_n    INTEGER NOT NULL,
    state     TEXT NOT NULL,             -- 'open', 'sealed', or 'pruned': its file was removed on purpose
    day       TEXT NOT NULL,             -- directory
    first_us  INTEGER NOT NULL,
    last_us   INTEGER NOT NULL,
    records   INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,          -- of the file; of an open one: as of the last commit
    raw_bytes INTEGER NOT NULL,
    sha256    TEXT NOT NULL,             -- of a sealed file, lower-case hex; else empty
    content   TEXT NOT NULL,             -- SHA-256 of what a sealed file unpacks to: compacting does not change it
    PRIMARY KEY (source, first_n)
) STRICT, WITHOUT ROWID;

CREATE TABLE block (
    source     TEXT NOT NULL,
    segment_n  INTEGER NOT NULL,         -- first_n of its segment
    raw_offset INTEGER NOT NULL,
    raw_bytes  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    first_n    INTEGER NOT NULL,
    last_n     INTEGER NOT NULL,
    first_us   INTEGER NOT NULL,
    last_us    INTEGER NOT NULL,
    records    INTEGER NOT NULL,
    min_id     INTEGER NOT NULL,         -- smallest and largest post id in `ids`; 1 and 0 when there is none
    max_id     INTEGER NOT NULL,
    ids        BLOB NOT NULL,            -- post ids, ascending, as LEB128 differences
    PRIMARY KEY (source, segment_n, raw_offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX block_by_id ON block (max_id, min_id);
CREATE INDEX block_by_time ON block (source, last_us);

CREATE TABLE last_seen (
    source       TEXT NOT NULL,
    scope        TEXT NOT NULL,          -- rule, monitor or topic that selected it; '*' when the provider does not say
    kind         TEXT NOT NULL,
    id           TEXT NOT NULL,          -- largest post id, or the last other id
    published_us INTEGER,
    received_us  INTEGER NOT NULL,       -- of the last such event
    n            INTEGER NOT NULL,       -- the last such event
    events       INTEGER NOT NULL,
    PRIMARY KEY (source, scope, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (
    source    TEXT NOT NULL,
    n         INTEGER NOT NULL,          -- the note that opened it; the gap's id is source-n
    scope     TEXT NOT NULL,
    cause     TEXT NOT NULL,
    state     TEXT NOT NULL,
    from_us   INTEGER NOT NULL,          -- published time
    to_us     INTEGER,                   -- NULL while it grows
    opened_us INTEGER NOT NULL,          -- when it was noticed
    detail    TEXT NOT NULL,
    lost_first_n INTEGER,                -- records that are lost with it, where that is what it is
    lost_last_n  INTEGER,
    PRIMARY KEY (source, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap_step (
    source TEXT NOT NULL,
    n      INTEGER NOT NULL,             -- the note
    gap_n  INTEGER NOT NULL,
    at_us  INTEGER NOT NULL,
    state  TEXT NOT NULL,
    cause  TEXT NOT NULL,
    to_us  INTEGER,
    detail TEXT NOT NULL,
    cursor TEXT,                         -- where a walk through history stands
    requests  INTEGER NOT NULL,          -- spent on this step: requests, rows that came back, millionths of a US dollar
    rows      INTEGER NOT NULL,
    micro_usd INTEGER NOT NULL,
    PRIMARY KEY (source, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap_kind (
    source TEXT NOT NULL,
    gap_n  INTEGER NOT NULL,
    kind   TEXT NOT NULL,                -- kind of event, '*' for all
    state  TEXT NOT NULL,                -- 'filled', 'partial', 'unfillable'
    why    TEXT NOT NULL,
    rest   TEXT NOT NULL,                -- what is not proven of a partial one: JSON, [[from_us, to_us], ...]
    PRIMARY KEY (source, gap_n, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    source  TEXT NOT NULL,
    n       INTEGER NOT NULL,            -- the note
    scope   TEXT NOT NULL,
    at_us   INTEGER NOT NULL,            -- when history was asked
    from_us INTEGER NOT NULL,
    to_us   INTEGER NOT NULL,
    asked   INTEGER NOT NULL,            -- events that history has in the window
    missed  INTEGER NOT NULL,            -- of them not on the tape until then
    PRIMARY KEY (source, n)
) STRICT, WITHOUT ROWID;

-- Evidence only: what is backfilled, missing or unverifiable follows from the gaps.
CREATE TABLE coverage (
    source  TEXT NOT NULL,
    scope   TEXT NOT NULL,
    class   TEXT NOT NULL,               -- 'live', 'audited'
    from_us INTEGER NOT NULL,
    to_us   INTEGER NOT NULL,
    PRIMARY KEY (source, scope, class, from_us)
) STRICT, WITHOUT ROWID;
