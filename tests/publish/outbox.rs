//! The outbox's directory: what is found in it at the start, and who may use it.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use camscribe::{
    event::EventKind,
    publish::outbox::{Limits, Message, Outbox, Storage},
};
use uuid::Uuid;

const LIMITS: Limits = Limits { events: 16 << 20, snapshots: 16 << 20 };

fn message(text: &str) -> Message {
    Message {
        camera: "porch".parse().unwrap(),
        id: Uuid::now_v7(),
        kind: EventKind::Description,
        event: text.to_owned().into(),
        snapshot: None,
        alerts: None,
        is_recorded: false,
    }
}

/// Fills an outbox with enough messages for a database of many pages, and closes it. Returns its file.
fn filled(folder: &Path) -> PathBuf {
    let outbox = Outbox::open(folder, LIMITS).unwrap();
    for number in 0..200 {
        outbox.append(message(&format!("{number} {}", "x".repeat(2000))));
    }
    let file = folder.join("outbox.db");
    drop(outbox);
    // The write-ahead log was merged into the file.
    assert!(fs::metadata(&file).unwrap().len() > 300_000);
    file
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn waiting_events_survive_a_restart_in_order() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let outbox = Outbox::open(folder.path(), LIMITS).unwrap();
    for number in 0..200 {
        let taken = outbox.take().unwrap();
        assert!(taken.event.starts_with(format!("{number} x").as_bytes()));
    }
    assert!(outbox.take().is_none());
}

#[test]
fn an_event_is_kept_for_the_history_however_soon_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path(), LIMITS).unwrap();
    let messages: Vec<_> = (0..3).map(|number| message(&number.to_string())).collect();
    for (number, message) in messages.iter().enumerate() {
        outbox.append(Message { is_recorded: number > 0, ..message.clone() });
        let taken = outbox.take().unwrap();
        outbox.acknowledge(taken.row);
        outbox.flush();
    }
    let waiting = |outbox: &Outbox, after| {
        let found = outbox.unrecorded(after, 9).into_iter();
        found.map(|(id, event)| (id, String::from_utf8(event.to_vec()).unwrap())).collect::<Vec<_>>()
    };
    let [_, one, two] = [0, 1, 2].map(|number| (messages[number].id, number.to_string()));
    drop(outbox);
    let outbox = Outbox::open(folder.path(), LIMITS).unwrap();
    assert!(outbox.is_empty());
    assert_eq!(waiting(&outbox, Uuid::nil()), [one.clone(), two.clone()]);
    assert_eq!(waiting(&outbox, one.0), std::slice::from_ref(&two));
    outbox.recorded(&[one.0]);
    outbox.flush();
    assert_eq!(waiting(&outbox, Uuid::nil()), [two]);
    // So many wait at most: the first are forgotten, and counted.
    for _ in 0..10_050 {
        outbox.append(Message { is_recorded: true, ..message("more") });
    }
    assert_eq!(outbox.unrecorded_dropped(), 51);
    assert_eq!(outbox.unrecorded(Uuid::nil(), 20_000).len(), 10_000);
}

/// A database as camscribe 0.1 writes it, with rows in it.
const LAYOUT_1: &str = "
    CREATE TABLE events (row INTEGER PRIMARY KEY, camera TEXT NOT NULL, id BLOB NOT NULL, \
     description INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX events_by_camera ON events (camera, row, description, bytes, id);
    CREATE TABLE snapshots (row INTEGER PRIMARY KEY, camera TEXT NOT NULL, id BLOB NOT NULL, \
     description INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
    CREATE INDEX snapshots_by_camera ON snapshots (camera, row, description, bytes, id);
    PRAGMA application_id = 1667329391;
    PRAGMA user_version = 1;
    PRAGMA journal_mode = wal;
    INSERT INTO events VALUES
        (7, 'porch', x'019b8f0d5a1d7c6e8f00000000000001', 1, 3, CAST('one' AS BLOB)),
        (8, 'yard', x'019b8f0d5a1d7c6e8f00000000000002', 1, 3, CAST('two' AS BLOB)),
        (9, 'porch', x'019b8f0d5a1d7c6e8f00000000000003', 0, 5, CAST('three' AS BLOB));
    INSERT INTO snapshots VALUES
        (7, 'porch', x'019b8f0d5a1d7c6e8f00000000000001', 1, 4, CAST('jpeg' AS BLOB));
";

#[test]
fn every_row_of_a_database_that_version_0_1_wrote_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let file = rusqlite::Connection::open(folder.path().join("outbox.db")).unwrap();
    file.execute_batch(LAYOUT_1).unwrap();
    drop(file);
    let outbox = Outbox::open(folder.path(), LIMITS).unwrap();
    assert_eq!((outbox.len(), outbox.status().storage), (3, Storage::Disk));
    let snapshot = outbox.snapshot(&"porch".parse().unwrap()).unwrap();
    assert_eq!(snapshot.jpeg, "jpeg");
    outbox.append(message("four"));
    let taken: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
    let events = taken.iter().map(|it| (it.camera.as_str(), &it.event[..], it.newest)).collect::<Vec<_>>();
    let expected: [(&str, &[u8], bool); 4] = [
        ("porch", b"one", false),
        ("yard", b"two", true),
        ("porch", b"three", false),
        ("porch", b"four", true),
    ];
    assert_eq!(events, expected);
    assert_eq!(taken[0].id, snapshot.id);
    taken.iter().for_each(|it| outbox.acknowledge(it.row));
    outbox.flush();
    drop(outbox);
    assert!(Outbox::open(folder.path(), LIMITS).unwrap().is_empty());
    assert_eq!(names(folder.path()).iter().filter(|name| name.starts_with("outbox.db.")).count(), 0);
}

#[test]
fn a_damaged_database_is_renamed_and_replaced_by_a_new_one() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("a header of zeros", |file| overwrite(file, 0, &[0; 100])),
        ("garbage in the middle", |file| overwrite(file, 8192, &[0xa5; 40_000])),
        ("half of it", |file| {
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("a text", |file| fs::write(file, "not a database at all\n".repeat(100)).unwrap()),
        ("another program's", |file| {
            fs::remove_file(file).unwrap();
            let other = rusqlite::Connection::open(file).unwrap();
            other
                .execute_batch("CREATE TABLE birds (name TEXT); INSERT INTO birds VALUES ('robin')")
                .unwrap();
        }),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        damage(&filled(folder.path()));
        let outbox = Outbox::open(folder.path(), LIMITS).unwrap();
        assert_eq!(outbox.status().storage, Storage::Disk, "{what}");
        assert!(outbox.is_empty(), "{what}");
        let aside = |name: &&String| name.starts_with("outbox.db.damaged-") && !name.ends_with("-wal");
        assert_eq!(names(folder.path()).iter().filter(aside).count(), 1, "{what}");
        outbox.append(message("new"));
        drop(outbox);
        let again = Outbox::open(folder.path(), LIMITS).unwrap();
        assert_eq!(again.take().unwrap().event, "new", "{what}");
    }
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::File::options().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_state_directory_has_one_user_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Outbox::open(folder.path(), LIMITS).unwrap();
    let refused = Outbox::open(folder.path(), LIMITS).err().unwrap().to_string();
    for word in [folder.path().to_str().unwrap(), "another camscribe", "node.state_dir"] {
        assert!(refused.contains(word), "{refused}");
    }
    drop(first);
    Outbox::open(folder.path(), LIMITS).unwrap();
}
