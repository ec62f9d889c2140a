//! The layouts of the database, and the steps from each to the next.
//!
//! `PRAGMA user_version` holds the number of the layout; a new file has 0. To change the layout, append
//! a migration to [`ALL`] and never change one that was released: an outbox of any released version is
//! brought up to date when it is opened, and keeps its rows.

use rusqlite::{Connection, ErrorCode};

use super::fault::Fault;

/// "camo" in `PRAGMA application_id` marks the file as an outbox of camscribe's.
const APPLICATION_ID: i32 = 0x6361_6d6f;

/// SQL that changes the database from one layout to the next.
pub(super) struct Migration(pub &'static str);

/// All migrations in order. The first makes layout 1 from an empty file.
pub(super) const ALL: [Migration; 2] = [Migration(LAYOUT_1), Migration(LAYOUT_2)];

/// A table of events and a table of snapshots. The indexes hold all that is read at the start, so that
/// no payload has to be read then.
const LAYOUT_1: &str = "
    CREATE TABLE events (row INTEGER PRIMARY KEY, camera TEXT NOT NULL, id BLOB NOT NULL, \
        description INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX events_by_camera ON events (camera, row, description, bytes, id);
    CREATE TABLE snapshots (row INTEGER PRIMARY KEY, camera TEXT NOT NULL, id BLOB NOT NULL, \
        description INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX snapshots_by_camera ON snapshots (camera, row, description, bytes, id);
";

/// A table of what is remembered of each camera's alerts. It is written together with the events that change it.
const LAYOUT_2: &str =
    "CREATE TABLE alerts (camera TEXT PRIMARY KEY, states BLOB NOT NULL) STRICT, WITHOUT ROWID;";

/// Brings the database to the newest layout of `migrations`. Each step is one transaction, so that a
/// step that is interrupted is done again at the next start. An empty database becomes an outbox.
///
/// # Errors
/// When the file is another program's or of a newer layout, or when a step fails. The file then stays as
/// it was before that step.
pub(super) fn migrate(connection: &mut Connection, migrations: &[Migration]) -> Result<(), Fault> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = (application, found, tables) == (0, 0, 0);
    if !is_empty && (application != APPLICATION_ID || found < 1) {
        return Err(Fault::Damaged("it is some other program's database".into()));
    }
    for (layout, Migration(sql)) in (1..).zip(migrations).filter(|(layout, _)| *layout > found) {
        step(connection, sql, layout).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => error.into(),
            _ => Fault::Unusable(format!("the outbox cannot be migrated to layout {layout}: {error}")),
        })?;
        if !is_empty {
            tracing::info!("the outbox is migrated to layout {layout}");
        }
    }
    let known = migrations.len() as i32;
    if found > known { Err(Fault::Newer { found, known }) } else { Ok(()) }
}

fn step(connection: &mut Connection, sql: &str, layout: i32) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", layout)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use uuid::Uuid;

    use super::{super::*, *};
    use crate::event::EventKind;

    const LIMITS: Limits = Limits { events: 1 << 20, snapshots: 1 << 20 };

    /// The number of today's layout.
    const NEWEST: i32 = ALL.len() as i32;

    /// The migrations of a later version: one step more than today.
    fn later(step: &'static str) -> [Migration; 3] {
        let [first, second] = ALL;
        [first, second, Migration(step)]
    }

    /// A layout in which every event has a note.
    const WITH_NOTES: &str = "ALTER TABLE events ADD COLUMN note TEXT NOT NULL DEFAULT '';
        UPDATE events SET note = 'from layout 1';";

    fn open(folder: &Path, migrations: &[Migration]) -> Outbox {
        Outbox::open_with(folder, LIMITS, migrations).unwrap()
    }

    fn message(event: &'static str) -> Message {
        Message {
            camera: "porch".parse().unwrap(),
            id: Uuid::now_v7(),
            kind: EventKind::Description,
            event: event.into(),
            snapshot: Some("jpeg".into()),
            alerts: None,
        }
    }

    fn append(outbox: &Outbox, event: &'static str) {
        outbox.append(message(event));
        outbox.flush();
    }

    fn events(outbox: &Outbox) -> Vec<String> {
        let events = std::iter::from_fn(|| outbox.take()).map(|it| it.event.to_vec());
        events.map(|event| String::from_utf8(event).unwrap()).collect()
    }

    fn layout(file: &Path) -> i32 {
        let file = Connection::open(file).unwrap();
        file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    /// The one file in `folder` whose name begins with `prefix`.
    fn file_named(folder: &Path, prefix: &str) -> std::path::PathBuf {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let named = |file: &std::path::PathBuf| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")
        };
        let found: Vec<_> = files.filter(named).collect();
        let [file] = &found[..] else { panic!("{found:?}") };
        file.clone()
    }

    #[test]
    fn an_older_layout_is_migrated_once_and_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join("outbox.db"));
        let outbox = open(folder, &ALL);
        append(&outbox, "one");
        append(&outbox, "two");
        drop(outbox);
        assert_eq!(layout(&file), NEWEST);
        // The step fails when it runs twice: the column exists then.
        for _ in 0..2 {
            let outbox = open(folder, &later(WITH_NOTES));
            assert_eq!(events(&outbox), ["one", "two"]);
            assert!(outbox.snapshot(&"porch".parse().unwrap()).is_some());
            assert_eq!(outbox.status().storage, Storage::Disk);
        }
        assert_eq!(layout(&file), NEWEST + 1);
        append(&open(folder, &later(WITH_NOTES)), "three");
        let notes = Connection::open(&file).unwrap();
        let mut notes = notes.prepare("SELECT note FROM events ORDER BY row").unwrap();
        let notes: Result<Vec<String>, _> = notes.query_map([], |row| row.get(0)).unwrap().collect();
        assert_eq!(notes.unwrap(), ["from layout 1", "from layout 1", ""]);
    }

    #[test]
    fn an_outbox_of_layout_1_remembers_alerts_from_now_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Connection::open(folder.path().join("outbox.db")).unwrap();
        migrate(&mut first, &ALL[..1]).unwrap();
        drop(first);
        let outbox = open(folder.path(), &ALL);
        assert!(outbox.alerts().is_empty());
        append(&outbox, "one");
        for alerts in ["old", "new"] {
            outbox.append(Message { alerts: Some(alerts.into()), ..message("two") });
        }
        append(&outbox, "three");
        drop(outbox);
        let outbox = open(folder.path(), &ALL);
        let remembered: Vec<_> =
            outbox.alerts().iter().map(|(camera, it)| (camera.as_str(), &it[..])).collect();
        assert_eq!(remembered, [("porch", &b"new"[..])]);
        assert_eq!(events(&outbox), ["one", "two", "two", "three"]);
    }

    #[test]
    fn a_new_outbox_goes_through_all_migrations() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = open(folder.path(), &later(WITH_NOTES));
        append(&outbox, "one");
        assert_eq!(events(&outbox), ["one"]);
        assert_eq!(layout(&folder.path().join("outbox.db")), NEWEST + 1);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_file_with_the_older_layout_and_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        append(&open(folder.path(), &ALL), "one");
        let steps = ["DELETE FROM events; SELECT nothing FROM nowhere;", "UPDATE events SET camera = NULL;"];
        for step in steps {
            let outbox = open(folder.path(), &later(step));
            assert!(matches!(outbox.status().storage, Storage::Memory { .. }));
            drop(outbox);
            assert_eq!(layout(&folder.path().join("outbox.db")), NEWEST);
            assert_eq!(events(&open(folder.path(), &ALL)), ["one"]);
        }
    }

    #[test]
    fn a_newer_layout_is_renamed_and_the_newer_version_can_still_deliver_it() {
        let folder = tempfile::tempdir().unwrap();
        append(&open(folder.path(), &later(WITH_NOTES)), "one");
        let outbox = open(folder.path(), &ALL);
        assert_eq!((outbox.len(), outbox.status().storage), (0, Storage::Disk));
        append(&outbox, "two");
        drop(outbox);
        assert_eq!(events(&open(folder.path(), &ALL)), ["two"]);
        let kept = file_named(folder.path(), "outbox.db.newer-");
        fs::rename(kept, folder.path().join("outbox.db")).unwrap();
        assert_eq!(events(&open(folder.path(), &later(WITH_NOTES))), ["one"]);
    }
}
