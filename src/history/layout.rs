//! The tables of the history.

use crate::sqlite::{Kind, Migration};

/// The database's name in the state directory.
pub const FILE: &str = "history.db";

/// The number that stands for [`EventKind::Unchanged`](crate::event::EventKind::Unchanged). The indexes leave it out.
pub(super) const UNCHANGED: i64 = 2;

/// The history.
pub(super) const KIND: Kind<'static> = Kind {
    name: "the history",
    // "camh"
    application_id: 0x6361_6d68,
    migrations: &[Migration(LAYOUT_1)],
    when_damaged: "what it held can be read with sqlite3 from there, as far as it is whole",
    when_newer: "to read it, run the newer version with the file under its old name",
    // What is deleted is overwritten, and the file shrinks.
    before: "PRAGMA auto_vacuum = incremental;",
    // It may have gigabytes.
    is_checked: false,
};

/// Events in the order in which they came. `at` is the end of the clip, `made` when the event was made, both in
/// milliseconds since 1970; `event` is JSON, compressed (zlib). `words` is what is searched: of an unchanged clip nothing,
/// since it repeats the words of another. `frames` belong to an event with a row in `evidence`, which says what of the
/// picture they show and what it takes to describe them again.
const LAYOUT_1: &str = "
    CREATE TABLE events (row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, camera TEXT NOT NULL, \
        at INTEGER NOT NULL, made INTEGER NOT NULL, kind INTEGER NOT NULL, words TEXT NOT NULL, \
        event BLOB NOT NULL) STRICT;
    CREATE INDEX told ON events (at, row) WHERE kind <> 2;
    CREATE INDEX told_by_camera ON events (camera, at, row) WHERE kind <> 2;
    CREATE TABLE transitions (event INTEGER NOT NULL, camera TEXT NOT NULL, alert TEXT NOT NULL, \
        is_on INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (event, alert)) STRICT, WITHOUT ROWID;
    CREATE INDEX transitions_by_alert ON transitions (alert, at, event);
    CREATE TABLE evidence (event INTEGER PRIMARY KEY, camera TEXT NOT NULL, view TEXT NOT NULL, \
        is_lossless INTEGER NOT NULL, replay TEXT NOT NULL) STRICT;
    CREATE INDEX evidence_by_view ON evidence (camera, view);
    CREATE TABLE frames (frame INTEGER PRIMARY KEY, event INTEGER NOT NULL, number INTEGER NOT NULL, \
        offset_us INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, \
        picture BLOB NOT NULL) STRICT;
    CREATE UNIQUE INDEX frames_by_event ON frames (event, number);
    CREATE VIRTUAL TABLE search USING fts5(words, camera, content = 'events', content_rowid = 'row', \
        tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
    INSERT INTO search (search, rank) VALUES ('secure-delete', 1);
";
