//! The layouts of the outbox's database, and the steps from each to the next. To change the layout, append a step: an
//! outbox of any released version is brought up to date when it is opened, and keeps its rows.

use crate::sqlite::{Kind, Migration};

/// All migrations in order. The first makes layout 1 from an empty file.
pub(super) const ALL: [Migration; 3] = [Migration(LAYOUT_1), Migration(LAYOUT_2), Migration(LAYOUT_3)];

/// The outbox, with these migrations.
pub(super) fn kind(migrations: &[Migration]) -> Kind<'_> {
    Kind {
        name: "the outbox",
        // "camo"
        application_id: 0x6361_6d6f,
        migrations,
        when_damaged: "the descriptions that waited in it are not delivered",
        when_newer: "to deliver the descriptions in it, run the newer version with the file under its old name",
        before: "",
        is_checked: true,
    }
}

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

/// A table of events that the history has not confirmed. An event is written to it and to `events` together, and leaves
/// each by itself.
const LAYOUT_3: &str =
    "CREATE TABLE unrecorded (id BLOB PRIMARY KEY, payload BLOB NOT NULL) STRICT, WITHOUT ROWID;";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rusqlite::Connection;
    use uuid::Uuid;

    use super::{super::*, *};
    use crate::{event::EventKind, sqlite::migrate};

    const LIMITS: Limits = Limits { events: 1 << 20, snapshots: 1 << 20 };

    /// The number of today's layout.
    const NEWEST: i32 = ALL.len() as i32;

    /// The migrations of a later version: one step more than today.
    fn later(step: &'static str) -> [Migration; 4] {
        let [first, second, third] = ALL;
        [first, second, third, Migration(step)]
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
            is_recorded: false,
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
        migrate(&mut first, &kind(&ALL[..1])).unwrap();
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
