//! The layouts of a database, and the steps from each to the next.
//!
//! `PRAGMA user_version` holds the number of the layout; a new file has 0. To change the layout, append a migration and
//! never change one that was released: a database of any released version is brought up to date when it is opened.

use std::cmp::Ordering;

use rusqlite::{Connection, ErrorCode};

use super::{
    fault::Fault,
    kind::{Kind, Migration},
};

/// Checks that a database is of this kind and of its newest layout, where it is not for us to migrate it.
///
/// # Errors
/// When it is another one.
pub fn check_kind(connection: &Connection, kind: &Kind<'_>) -> Result<(), Fault> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, found, known) =
        (pragma("application_id")?, pragma("user_version")?, kind.migrations.len() as i32);
    if application != kind.application_id {
        return Err(Fault::Damaged("it is some other program's database".into()));
    }
    match found.cmp(&known) {
        Ordering::Less => Err(Fault::Unusable(format!(
            "its layout {found} is older than {known}, which this version reads: start camscribe once, which brings it up \
             to date"
        ))),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(Fault::Newer { found, known }),
    }
}

/// Brings the database to the newest layout of its kind. Each step is one transaction, so that a step that is interrupted
/// is done again at the next start. An empty database becomes one of this kind.
///
/// # Errors
/// When the file is another program's or of a newer layout, or when a step fails. The file then stays as
/// it was before that step.
pub fn migrate(connection: &mut Connection, kind: &Kind<'_>) -> Result<(), Fault> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = (application, found, tables) == (0, 0, 0);
    if !is_empty && (application != kind.application_id || found < 1) {
        return Err(Fault::Damaged("it is some other program's database".into()));
    }
    for (layout, migration) in (1..).zip(kind.migrations).filter(|(layout, _)| *layout > found) {
        step(connection, kind, migration, layout).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => error.into(),
            _ => Fault::Unusable(format!("{} cannot be migrated to layout {layout}: {error}", kind.name)),
        })?;
        if !is_empty {
            tracing::info!("{} is migrated to layout {layout}", kind.name);
        }
    }
    let known = kind.migrations.len() as i32;
    if found > known { Err(Fault::Newer { found, known }) } else { Ok(()) }
}

fn step(
    connection: &mut Connection,
    kind: &Kind<'_>,
    Migration(sql): &Migration,
    layout: i32,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "application_id", kind.application_id)?;
    transaction.pragma_update(None, "user_version", layout)?;
    transaction.commit()
}
