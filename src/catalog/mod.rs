//! The catalog: a SQLite index over the segments. The only room that contains SQL.
//!
//! Owns the schema (`migrations/`), the rows, and the packed id sets. Knows no file of a segment and decides
//! nothing: the archive computes changes and hands them in, one transaction a commit. The catalog is an index;
//! losing it loses nothing, and [`Catalog::dump`] is how a rebuild is compared with what was there.
//!
//! One connection writes, any number read (WAL). `synchronous` is NORMAL on purpose: after a power cut the newest
//! transactions may be missing, and the archive catches up from the segments when it opens.
//!
//! | file | holds |
//! | --- | --- |
//! | `rows.rs` | the row types and [`Change`] |
//! | `ids.rs` | [`IdSet`], packed post ids of a block |
//! | `migrate.rs` | forward-only migrations, checked by digest |

mod ids;
mod migrate;
mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

pub use ids::IdSet;
pub use rows::{
    AuditRow, BlockRow, Change, ConnectionRow, CoverageRow, GapKindRow, GapRow, GapStepRow, LastSeenRow, ScopeRow, SegmentRow,
    SourceRow,
};

use self::rows::unsigned;

/// Oldest SQLite without the WAL-reset bug (sqlite.org, "WAL-mode File Format", fixed 2026-03-13).
const OLDEST_SQLITE: i32 = 3_051_003;

/// What can go wrong with the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite refused.
    #[error("catalog {}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The linked SQLite is too old to be trusted with WAL.
    #[error("SQLite {found} has a bug that can lose transactions; 3.51.3 or newer is needed")]
    OldSqlite {
        /// Its version.
        found: String,
    },
    /// A migration that was applied is not the one in this program.
    #[error("catalog {}: migration {number} was applied in another form", .path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Which one.
        number: u32,
    },
    /// Made by a newer birdtape.
    #[error("catalog {} has schema {found}; this birdtape knows up to {known}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl CatalogError {
    /// Whether the file itself is broken, so that setting it aside and rebuilding is the cure.
    pub fn is_broken(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, SchemaChanged, TypeMismatch};
        match self {
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, message), .. } => {
                let strange = ["no such table", "no such column", "prohibited", "because it is a view"];
                let is_strange = message.as_deref().is_some_and(|m| strange.iter().any(|words| m.contains(words)));
                is_strange || matches!(error.code, DatabaseCorrupt | NotADatabase | CannotOpen | SchemaChanged | TypeMismatch)
            }
            Self::Sqlite { source, .. } => matches!(
                source,
                rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::SqlInputError { .. }
            ),
            Self::Migration { .. } => true,
            _ => false,
        }
    }
}

impl CatalogError {
    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. } if error.code == rusqlite::ErrorCode::DiskFull
        )
    }

    /// Whether the system refused to read or write the file.
    pub fn is_io(&self) -> bool {
        matches!(
            self,
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. }
                if error.code == rusqlite::ErrorCode::SystemIoFailure
        )
    }

    fn is_unwritable(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
        let code = match self {
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. } => error.code,
            _ => return false,
        };
        matches!(code, CannotOpen | ReadOnly)
    }
}

/// The address of a database that nobody changes; `None` where its log would have to be read too.
fn immutable_uri(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    let log = std::fs::metadata(format!("{path}-wal")).map_or(0, |log| log.len());
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    (log == 0 && std::fs::exists(path).unwrap_or(false)).then(|| format!("file:{escaped}?immutable=1"))
}

#[cfg(test)]
impl CatalogError {
    /// SQLite refused with that code.
    pub(crate) fn of_code(code: i32) -> Self {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        sqlite(Path::new("catalog.sqlite"), source)
    }
}

type Result<T> = std::result::Result<T, CatalogError>;

/// A catalog that is open.
#[derive(Debug)]
pub struct Catalog {
    conn: Connection,
    path: PathBuf,
}

impl Catalog {
    /// Opens the writing connection, making or migrating the schema.
    ///
    /// # Errors
    /// See [`CatalogError::is_broken`] for when a rebuild is the cure.
    pub fn open(path: &Path) -> Result<Self> {
        let conn = Connection::open(path).map_err(|e| sqlite(path, e))?;
        private(path);
        let mut catalog = Self { conn, path: path.to_owned() };
        catalog.prepare(true)?;
        Ok(catalog)
    }

    /// Opens a catalog for reading only, beside a writer if there is one.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when there is no such file.
    pub fn open_read_only(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |conn: rusqlite::Result<Connection>| -> Result<Self> {
            let catalog = Self { conn: conn.map_err(|e| sqlite(path, e))?, path: path.to_owned() };
            catalog.pragmas()?;
            migrate::check(&catalog.conn, &catalog.path)?;
            Ok(catalog)
        };
        let found = open(Connection::open_with_flags(path, flags));
        // On media that cannot be written SQLite cannot make its shared memory; nobody else writes there either.
        match (found, immutable_uri(path)) {
            (Err(error), Some(uri)) if error.is_unwritable() => {
                open(Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI))
            }
            (found, _) => found,
        }
    }

    /// Makes an empty catalog in memory: for comparing.
    ///
    /// # Errors
    /// Only when SQLite itself fails.
    pub fn in_memory() -> Result<Self> {
        let path = PathBuf::from(":memory:");
        let conn = Connection::open_in_memory().map_err(|e| sqlite(&path, e))?;
        let mut catalog = Self { conn, path };
        catalog.prepare(false)?;
        Ok(catalog)
    }

    fn prepare(&mut self, wal: bool) -> Result<()> {
        self.pragmas()?;
        if wal {
            self.conn.pragma_update(None, "journal_mode", "WAL").map_err(|e| sqlite(&self.path, e))?;
        }
        self.conn.pragma_update(None, "synchronous", "NORMAL").map_err(|e| sqlite(&self.path, e))?;
        migrate::run(&mut self.conn, &self.path)
    }

    /// What holds for every connection, that of readers too.
    fn pragmas(&self) -> Result<()> {
        new_enough(rusqlite::version_number(), rusqlite::version())?;
        let run = || {
            self.conn.busy_timeout(Duration::from_secs(5))?;
            self.conn.pragma_update(None, "trusted_schema", "OFF")?;
            self.conn.pragma_update(None, "cell_size_check", "ON")?;
            // A catalog may come from anywhere; ours has neither triggers nor views, and nobody edits a schema by hand.
            self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
            self.conn.set_prepared_statement_cache_capacity(64);
            Ok(())
        };
        run().map_err(|e| sqlite(&self.path, e))
    }

    /// Closing will not write its log back into it: the next one that opens it does. For when that would take too long.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn leave_log(&self) -> Result<()> {
        self.ask(|conn| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop))
    }

    /// The tape this catalog belongs to.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn tape(&self) -> Result<Option<String>> {
        self.ask(|c| c.query_row("SELECT value FROM meta WHERE key = 'tape'", [], |row| row.get(0)).optional())
    }

    /// Looks all of it through for pages that are broken or in the wrong place; in words what is wrong.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn fault(&self) -> Result<Option<String>> {
        let words: String = self.ask(|c| c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if words != "ok" {
            return Ok(Some(words));
        }
        // SQLite reads zeros where the last page is cut, and a number or a blob that ends in them may be as well formed.
        let page: u32 = self.ask(|c| c.query_row("PRAGMA page_size", [], |row| row.get(0)))?;
        let is_cut = std::fs::metadata(&self.path).is_ok_and(|file| file.len() % u64::from(page) != 0);
        Ok(is_cut.then(|| "its file ends within a page".to_owned()))
    }

    /// Applies changes in one transaction.
    ///
    /// # Errors
    /// When SQLite refuses; nothing was changed then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        let path = self.path.clone();
        let mut run = || {
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for change in changes {
                apply(&tx, change)?;
            }
            tx.commit()
        };
        run().map_err(|e| sqlite(&path, e))
    }

    /// All sources, by name.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn sources(&self) -> Result<Vec<SourceRow>> {
        self.list("SELECT name, provider, last_n, last_us, running, listed_us FROM source ORDER BY name", [], rows::source)
    }

    /// Segments of a source that have a file, ascending.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn segments(&self, source: &str) -> Result<Vec<SegmentRow>> {
        self.list(&format!("{SEGMENT} AND state <> 'pruned' ORDER BY first_n"), [source], rows::segment)
    }

    /// Segments of a source whose files were removed on purpose, ascending.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn pruned(&self, source: &str) -> Result<Vec<SegmentRow>> {
        self.list(&format!("{SEGMENT} AND state = 'pruned' ORDER BY first_n"), [source], rows::segment)
    }

    /// How far a source was pruned: its last record that was removed on purpose, and the last instant one of those was
    /// received.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn pruned_until(&self, source: &str) -> Result<Option<(u64, i64)>> {
        let sql = "SELECT max(last_n), max(last_us) FROM segment WHERE source = ?1 AND state = 'pruned'";
        let read = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?.map(unsigned).transpose()?, row.get::<_, Option<i64>>(1)?));
        let (last_n, last_us) = self.ask(|conn| conn.prepare_cached(sql)?.query_row([source], read))?;
        Ok(last_n.zip(last_us))
    }

    /// Blocks of a segment, ascending.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn blocks(&self, source: &str, segment_n: u64) -> Result<Vec<BlockRow>> {
        let sql = format!("SELECT {BLOCK} FROM block WHERE source = ?1 AND segment_n = ?2 ORDER BY raw_offset");
        self.list(&sql, params![source, segment_n as i64], rows::block)
    }

    /// Blocks whose id set may hold that post id.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn blocks_with_id(&self, id: u64) -> Result<Vec<BlockRow>> {
        let sql = format!("SELECT {BLOCK} FROM block WHERE max_id >= ?1 AND min_id <= ?1 ORDER BY source, segment_n, raw_offset");
        let found = self.list(&sql, [id as i64], rows::block)?;
        Ok(found.into_iter().filter(|block| block.ids.contains(id)).collect())
    }

    /// First block of a source that holds a record received at or after `at_us`.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn first_block_from(&self, source: &str, at_us: i64) -> Result<Option<BlockRow>> {
        let sql = format!(
            "SELECT {BLOCK} FROM block WHERE source = ?1 AND last_us >= ?2 ORDER BY last_us, segment_n, raw_offset LIMIT 1"
        );
        Ok(self.list(&sql, params![source, at_us], rows::block)?.pop())
    }

    /// Scopes of a source with their versions.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn scopes(&self, source: &str) -> Result<Vec<ScopeRow>> {
        let sql = "SELECT source, scope, version, since_us, until_us, horizon_us, detail, text, n FROM scope WHERE source = ?1 ORDER BY scope, version";
        self.list(sql, [source], rows::scope)
    }

    /// Connections of a source, ascending.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn connections(&self, source: &str) -> Result<Vec<ConnectionRow>> {
        let sql = "SELECT source, conn, opened_us, opened_n, url, subprotocol, frames, evidence_us, closed_us, closed_n, code, reason, closed_by
                   FROM connection WHERE source = ?1 ORDER BY conn";
        self.list(sql, [source], rows::connection)
    }

    /// Last seen ids of a source.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn last_seen(&self, source: &str) -> Result<Vec<LastSeenRow>> {
        let sql = "SELECT source, scope, kind, id, published_us, received_us, n, events FROM last_seen WHERE source = ?1 ORDER BY scope, kind";
        self.list(sql, [source], rows::last_seen)
    }

    /// Gaps, by source and number; of all sources when none is named.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn gaps(&self, source: Option<&str>) -> Result<Vec<GapRow>> {
        let sql = "SELECT source, n, scope, cause, state, from_us, to_us, opened_us, detail, lost_first_n, lost_last_n FROM gap
                   WHERE ?1 IS NULL OR source = ?1 ORDER BY source, n";
        self.list(sql, [source], rows::gap)
    }

    /// What happened to a gap, in order.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn gap_steps(&self, source: &str, gap_n: u64) -> Result<Vec<GapStepRow>> {
        let sql = "SELECT source, n, gap_n, at_us, state, cause, to_us, detail, cursor, requests, rows, micro_usd
                   FROM gap_step WHERE source = ?1 AND gap_n = ?2 ORDER BY n";
        self.list(sql, params![source, gap_n as i64], rows::gap_step)
    }

    /// What is known of each kind of event in a source's gaps, by gap and kind.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn gap_kinds(&self, source: &str) -> Result<Vec<GapKindRow>> {
        let sql = "SELECT source, gap_n, kind, state, why, rest FROM gap_kind WHERE source = ?1 ORDER BY gap_n, kind";
        self.list(sql, [source], rows::gap_kind)
    }

    /// Audits of a source, in order.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn audits(&self, source: &str) -> Result<Vec<AuditRow>> {
        let sql = "SELECT source, n, scope, at_us, from_us, to_us, asked, missed FROM audit WHERE source = ?1 ORDER BY n";
        self.list(sql, [source], rows::audit)
    }

    /// What was spent on filling gaps since an instant: requests, rows, millionths of a US dollar; of all sources when
    /// none is named.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn spent_since(&self, source: Option<&str>, at_us: i64) -> Result<(u64, u64, u64)> {
        let sql = "SELECT coalesce(sum(requests), 0), coalesce(sum(rows), 0), coalesce(sum(micro_usd), 0) FROM gap_step
                   WHERE at_us >= ?2 AND (?1 IS NULL OR source = ?1)";
        let read = |row: &Row<'_>| Ok((unsigned(row.get(0)?)?, unsigned(row.get(1)?)?, unsigned(row.get(2)?)?));
        self.ask(|conn| conn.prepare_cached(sql)?.query_row(params![source, at_us], read))
    }

    /// Coverage of a source by evidence, by scope and time.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn coverage(&self, source: &str) -> Result<Vec<CoverageRow>> {
        let sql = "SELECT source, scope, class, from_us, to_us FROM coverage WHERE source = ?1 ORDER BY scope, class, from_us";
        self.list(sql, [source], rows::coverage)
    }

    /// Bytes of the catalog's main file, by its own count.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn bytes(&self) -> Result<u64> {
        let pages: i64 = self
            .ask(|c| c.query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |r| r.get(0)))?;
        Ok(pages as u64)
    }

    /// Every row of every table as text, sorted: equal catalogs give equal dumps.
    ///
    /// `keep` is asked with the table and the row's first two columns, for leaving rows out of a comparison.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn dump(&self, mut keep: impl FnMut(&str, &str, &str) -> bool) -> Result<Vec<String>> {
        const TABLES: [&str; 12] = [
            "meta",
            "source",
            "scope",
            "connection",
            "segment",
            "block",
            "last_seen",
            "gap",
            "gap_step",
            "gap_kind",
            "audit",
            "coverage",
        ];
        let mut lines = Vec::new();
        for table in TABLES {
            let mut run = |conn: &Connection, lines: &mut Vec<String>| -> rusqlite::Result<()> {
                let mut statement = conn.prepare(&format!("SELECT * FROM {table}"))?;
                let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
                let mut found = statement.query([])?;
                while let Some(row) = found.next()? {
                    let values = (0..columns.len()).map(|i| value_text(row, i)).collect::<rusqlite::Result<Vec<_>>>()?;
                    if keep(table, &values[0], &values[1]) {
                        let cells: Vec<String> = columns.iter().zip(&values).map(|(c, v)| format!("{c}={v}")).collect();
                        lines.push(format!("{table}: {}", cells.join(" ")));
                    }
                }
                Ok(())
            };
            run(&self.conn, &mut lines).map_err(|e| sqlite(&self.path, e))?;
        }
        lines.sort();
        Ok(lines)
    }

    fn ask<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        ask(&self.conn).map_err(|e| sqlite(&self.path, e))
    }

    fn list<T>(&self, sql: &str, args: impl rusqlite::Params, read: fn(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        self.ask(|conn| conn.prepare_cached(sql)?.query_map(args, read)?.collect())
    }
}

const SEGMENT: &str = "SELECT source, first_n, last_n, state, day, first_us, last_us, records, bytes, raw_bytes, sha256, content
     FROM segment WHERE source = ?1";

const BLOCK: &str =
    "source, segment_n, raw_offset, raw_bytes, offset, bytes, first_n, last_n, first_us, last_us, records, min_id, max_id, ids";

fn apply(tx: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, args: &[&dyn rusqlite::ToSql]| tx.prepare_cached(sql)?.execute(args).map(drop);
    match change {
        Change::Tape(id) => run("INSERT OR REPLACE INTO meta VALUES ('tape', ?1)", &[id]),
        Change::Source(r) => run(
            "INSERT OR REPLACE INTO source VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            &[&r.name, &r.provider, &(r.last_n as i64), &r.last_us, &r.running, &r.listed_us],
        ),
        Change::Scope(r) => run(
            "INSERT OR REPLACE INTO scope VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            &[&r.source, &r.scope, &r.version, &r.since_us, &r.until_us, &r.horizon_us, &r.detail, &r.text, &(r.n as i64)],
        ),
        Change::Connection(r) => run(
            "INSERT OR REPLACE INTO connection VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            &[
                &r.source,
                &(r.conn as i64),
                &r.opened_us,
                &(r.opened_n as i64),
                &r.url,
                &r.subprotocol,
                &(r.frames as i64),
                &r.evidence_us,
                &r.closed_us,
                &r.closed_n.map(|n| n as i64),
                &r.code,
                &r.reason,
                &r.closed_by,
            ],
        ),
        Change::Segment(r) => run(
            "INSERT OR REPLACE INTO segment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            &[
                &r.source,
                &(r.first_n as i64),
                &(r.last_n as i64),
                &r.state,
                &r.day,
                &r.first_us,
                &r.last_us,
                &(r.records as i64),
                &(r.bytes as i64),
                &(r.raw_bytes as i64),
                &r.sha256,
                &r.content,
            ],
        ),
        Change::ForgetSegment { source, first_n } => {
            run("DELETE FROM block WHERE source = ?1 AND segment_n = ?2", &[source, &(*first_n as i64)])?;
            run("DELETE FROM segment WHERE source = ?1 AND first_n = ?2", &[source, &(*first_n as i64)])
        }
        Change::Block(r) => {
            let (min_id, max_id) = r.ids.range().unwrap_or((1, 0));
            run(
                "INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
                &[
                    &r.source,
                    &(r.segment_n as i64),
                    &(r.raw_offset as i64),
                    &(r.raw_bytes as i64),
                    &(r.offset as i64),
                    &(r.bytes as i64),
                    &(r.first_n as i64),
                    &(r.last_n as i64),
                    &r.first_us,
                    &r.last_us,
                    &(r.records as i64),
                    &(min_id as i64),
                    &(max_id as i64),
                    &r.ids.packed(),
                ],
            )
        }
        Change::ForgetBlock { source, segment_n, raw_offset } => run(
            "DELETE FROM block WHERE source = ?1 AND segment_n = ?2 AND raw_offset = ?3",
            &[source, &(*segment_n as i64), &(*raw_offset as i64)],
        ),
        Change::PlaceBlock { source, segment_n, raw_offset, offset, bytes } => run(
            "UPDATE block SET offset = ?4, bytes = ?5 WHERE source = ?1 AND segment_n = ?2 AND raw_offset = ?3",
            &[source, &(*segment_n as i64), &(*raw_offset as i64), &(*offset as i64), &(*bytes as i64)],
        ),
        Change::LastSeen(r) => run(
            "INSERT OR REPLACE INTO last_seen VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            &[&r.source, &r.scope, &r.kind, &r.id, &r.published_us, &r.received_us, &(r.n as i64), &(r.events as i64)],
        ),
        Change::Gap(r) => run(
            "INSERT OR REPLACE INTO gap VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            &[
                &r.source,
                &(r.n as i64),
                &r.scope,
                &r.cause,
                &r.state,
                &r.from_us,
                &r.to_us,
                &r.opened_us,
                &r.detail,
                &r.lost_first_n.map(|n| n as i64),
                &r.lost_last_n.map(|n| n as i64),
            ],
        ),
        Change::GapStep(r) => run(
            "INSERT OR REPLACE INTO gap_step VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            &[
                &r.source,
                &(r.n as i64),
                &(r.gap_n as i64),
                &r.at_us,
                &r.state,
                &r.cause,
                &r.to_us,
                &r.detail,
                &r.cursor,
                &(r.requests as i64),
                &(r.rows as i64),
                &(r.micro_usd as i64),
            ],
        ),
        Change::GapKind(r) => run(
            "INSERT OR REPLACE INTO gap_kind VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            &[&r.source, &(r.gap_n as i64), &r.kind, &r.state, &r.why, &r.rest],
        ),
        Change::Audit(r) => run(
            "INSERT OR REPLACE INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            &[&r.source, &(r.n as i64), &r.scope, &r.at_us, &r.from_us, &r.to_us, &(r.asked as i64), &(r.missed as i64)],
        ),
        Change::Coverage(r) => run(
            "INSERT OR REPLACE INTO coverage VALUES (?1, ?2, ?3, ?4, ?5)",
            &[&r.source, &r.scope, &r.class, &r.from_us, &r.to_us],
        ),
        Change::ForgetCoverage { source, scope } => {
            run("DELETE FROM coverage WHERE source = ?1 AND scope = ?2", &[source, scope])
        }
    }
}

fn value_text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(index)? {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => value.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(blob) => blob.iter().fold(String::new(), |text, b| text + &format!("{b:02x}")),
    })
}

/// Version of the SQLite that is linked.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

fn new_enough(number: i32, shown: &str) -> Result<()> {
    if number < OLDEST_SQLITE { Err(CatalogError::OldSqlite { found: shown.to_owned() }) } else { Ok(()) }
}

fn sqlite(path: &Path, source: rusqlite::Error) -> CatalogError {
    CatalogError::Sqlite { path: path.to_owned(), source }
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // A file system without modes keeps its own.
    drop(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)));
}

#[cfg(not(unix))]
fn private(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_sqlite_is_new_enough() {
        new_enough(rusqlite::version_number(), rusqlite::version()).unwrap();
        let error = new_enough(3_051_002, "3.51.2").unwrap_err();
        assert!(matches!(&error, CatalogError::OldSqlite { found } if found == "3.51.2"), "{error}");
        assert!(!error.is_broken(), "no rebuild cures it");
    }

    #[test]
    fn each_refusal_is_of_its_kind() {
        use rusqlite::ffi;
        let path = Path::new("catalog.sqlite");
        let of = CatalogError::of_code;
        let with = |words: &str| sqlite(path, rusqlite::Error::SqliteFailure(ffi::Error::new(1), Some(words.to_owned())));
        let kinds = |error: &CatalogError| (error.is_broken(), error.is_full(), error.is_io(), error.is_unwritable());
        for (error, wanted) in [
            (of(ffi::SQLITE_CORRUPT), (true, false, false, false)),
            (of(ffi::SQLITE_NOTADB), (true, false, false, false)),
            (of(ffi::SQLITE_SCHEMA), (true, false, false, false)),
            (of(ffi::SQLITE_MISMATCH), (true, false, false, false)),
            (of(ffi::SQLITE_CANTOPEN), (true, false, false, true)),
            (of(ffi::SQLITE_READONLY), (false, false, false, true)),
            (of(ffi::SQLITE_FULL), (false, true, false, false)),
            (of(ffi::SQLITE_IOERR), (false, false, true, false)),
            (of(ffi::SQLITE_BUSY), (false, false, false, false)),
            (with("no such table: gap"), (true, false, false, false)),
            (with("near \"x\": syntax error"), (false, false, false, false)),
            (sqlite(path, rusqlite::Error::QueryReturnedNoRows), (false, false, false, false)),
            (sqlite(path, rusqlite::Error::IntegralValueOutOfRange(0, -1)), (true, false, false, false)),
            (CatalogError::Migration { path: path.to_owned(), number: 1 }, (true, false, false, false)),
            (CatalogError::Newer { path: path.to_owned(), found: 9, known: 1 }, (false, false, false, false)),
        ] {
            assert_eq!(kinds(&error), wanted, "{error:?}");
        }
    }

    #[test]
    fn the_oldest_good_sqlite_is_good() {
        new_enough(OLDEST_SQLITE, "3.51.3").unwrap();
    }

    /// It says nothing of a catalog whose log nobody read, or that is not there; a name may have anything in it.
    #[test]
    fn only_a_whole_catalog_is_read_as_one_that_nobody_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50% of #1?.sqlite");
        assert_eq!(immutable_uri(&path), None);
        Catalog::open(&path).unwrap();
        let uri = immutable_uri(&path).unwrap();
        assert!(uri.starts_with("file:/") && uri.ends_with("/50%25 of %231%3f.sqlite?immutable=1"), "{uri}");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let conn = Connection::open_with_flags(uri, flags).unwrap();
        assert_eq!(conn.query_row("SELECT count(*) FROM source", [], |row| row.get(0)), Ok(0));
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        std::fs::write(&log, b"").unwrap();
        assert!(immutable_uri(&path).is_some(), "an empty log has nothing");
        std::fs::write(&log, b"x").unwrap();
        assert_eq!(immutable_uri(&path), None);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_a_catalog() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        Catalog::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_is_left_is_there_when_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let log = dir.path().join("catalog.sqlite-wal");
        for is_left in [false, true] {
            let mut catalog = Catalog::open(&path).unwrap();
            let row = SourceRow { name: "alpha".into(), provider: "tweetstream".into(), ..SourceRow::default() };
            catalog.apply(&[Change::Source(row)]).unwrap();
            if is_left {
                catalog.leave_log().unwrap();
            }
            drop(catalog);
            assert_eq!(log.exists(), is_left);
        }
        assert_eq!(Catalog::open(&path).unwrap().sources().unwrap().len(), 1, "the next one reads it");
    }

    #[test]
    fn what_counts_below_zero_is_broken() {
        let mut catalog = Catalog::in_memory().unwrap();
        let row = SourceRow { name: "alpha".into(), provider: "tweetstream".into(), last_n: 1, ..SourceRow::default() };
        catalog.apply(&[Change::Source(row)]).unwrap();
        catalog.conn.execute("UPDATE source SET last_n = -1", []).unwrap();
        let error = catalog.sources().unwrap_err();
        assert!(error.is_broken(), "{error:?}");
    }

    #[test]
    fn a_file_that_lacks_its_last_byte_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        assert_eq!(Catalog::open(&path).unwrap().fault().unwrap(), None);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert!(Catalog::open(&path).unwrap().fault().unwrap().is_some_and(|words| words.contains("within a page")));
    }

    #[test]
    fn a_hostile_schema_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        drop(Catalog::open(&path).unwrap());
        let plant = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        plant("CREATE TRIGGER t AFTER INSERT ON source BEGIN DELETE FROM meta; DELETE FROM source; END");
        let mut catalog = Catalog::open(&path).unwrap();
        let row = SourceRow { name: "alpha".into(), provider: "tweetstream".into(), last_n: 1, ..SourceRow::default() };
        catalog.apply(&[Change::Tape("t1".to_owned()), Change::Source(row)]).unwrap();
        assert_eq!((catalog.sources().unwrap().len(), catalog.tape().unwrap().as_deref()), (1, Some("t1")));
        let defended = catalog.conn.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema");
        assert!(defended.is_err());
        drop(catalog);
        // Rows that are computed when they are read: the file is set aside and made again.
        plant(
            "DROP TABLE source; CREATE VIEW source AS SELECT 'x' AS name, 'y' AS provider, 1 AS last_n, 1 AS last_us, 0 AS running, 0 AS listed_us",
        );
        for catalog in [Catalog::open(&path).unwrap(), Catalog::open_read_only(&path).unwrap()] {
            let error = catalog.sources().unwrap_err();
            assert!(error.is_broken(), "{error:?}");
        }
    }
}
