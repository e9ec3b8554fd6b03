//! Forward-only migrations: numbered files, applied once, never edited.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use super::{CatalogError, sqlite};

const MIGRATIONS: &[(u32, &str)] = &[(1, include_str!("../../migrations/0001_catalog.sql"))];

fn digest(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

/// Applies what is missing, each in a transaction of its own.
pub(super) fn run(conn: &mut Connection, path: &Path) -> Result<(), CatalogError> {
    let schema = "CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL) STRICT";
    conn.execute_batch(schema).map_err(|e| sqlite(path, e))?;
    check(conn, path)?;
    for &(number, sql) in MIGRATIONS {
        let mut apply = || {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let there: Option<String> = applied(&tx, number)?;
            if there.is_none() {
                tx.execute_batch(sql)?;
                tx.execute("INSERT INTO migration VALUES (?1, ?2)", params![number, digest(sql)])?;
            }
            tx.commit()
        };
        apply().map_err(|e| sqlite(path, e))?;
    }
    Ok(())
}

/// Refuses a newer schema and an edited migration.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<(), CatalogError> {
    let newest: Option<u32> =
        conn.query_row("SELECT max(number) FROM migration", [], |row| row.get(0)).map_err(|e| sqlite(path, e))?;
    let known = MIGRATIONS.len() as u32;
    if let Some(found) = newest.filter(|&n| n > known) {
        return Err(CatalogError::Newer { path: path.to_owned(), found, known });
    }
    for &(number, sql) in MIGRATIONS {
        let there = applied(conn, number).map_err(|e| sqlite(path, e))?;
        if there.is_some_and(|sha| sha != digest(sql)) {
            return Err(CatalogError::Migration { path: path.to_owned(), number });
        }
    }
    Ok(())
}

fn applied(conn: &Connection, number: u32) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT sha256 FROM migration WHERE number = ?1", [number], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn an_edited_or_newer_migration_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        drop(Catalog::open(&path).unwrap());
        drop(Catalog::open(&path).unwrap());
        let conn = Connection::open(&path).unwrap();
        conn.execute("UPDATE migration SET sha256 = 'x'", []).unwrap();
        assert!(matches!(Catalog::open(&path), Err(CatalogError::Migration { number: 1, .. })));
        conn.execute("INSERT INTO migration VALUES (99, 'x')", []).unwrap();
        assert!(matches!(Catalog::open(&path), Err(CatalogError::Newer { found: 99, .. })));
    }

    #[test]
    fn what_is_no_database_is_called_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        std::fs::write(&path, b"this is not a database, but it is long enough to be looked at").unwrap();
        assert!(Catalog::open(&path).unwrap_err().is_broken());
        assert!(Catalog::open_read_only(&dir.path().join("none")).unwrap_err().is_broken());
    }
}
