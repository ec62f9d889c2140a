//! A million events in the history: how fast they are found, beside plain SQLite.
//!
//!     cargo bench --bench history [-- EVENTS [ROUNDS]]
//!
//! Plain SQLite is one table of the same events as JSON, with an index on camera and time, and an FTS5 table with its own
//! text and default settings, ranked by `ORDER BY rank`. Both are asked in turn for the newest page of a camera and for
//! words that are rare, usual, and in nearly every event; medians are printed, and the size of an event in each file.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    env, fs, iter,
    path::Path,
    time::{Duration, Instant},
};

use camscribe::{
    camera::CameraId,
    event::{Event, SCHEMA},
    history::{FILE, Reader, Record, Selection, Writer},
};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use serde_json::json;
use uuid::Uuid;

const CAMERAS: usize = 16;
const PAGE: usize = 50;
/// Events in a transaction, as when many cameras are described at once.
const BATCH: usize = 500;
/// The searches: a name, what a person writes, the same for FTS5.
const SEARCHES: [(&str, &str, &str); 4] = [
    ("one in 10 000", "unicycle", "\"unicycle\""),
    ("one in 100", "ladder", "\"ladder\""),
    ("two of one in 20", "red van", "\"red\" AND \"van\""),
    ("in nearly all", "a", "\"a\""),
];

/// Words as a model would say them: the same number makes the same words.
fn description(i: usize) -> String {
    let pick = |from: &[&str], salt: usize| {
        from[(i.wrapping_mul(2_654_435_761) >> (salt % 13)) % from.len()].to_owned()
    };
    let colour = pick(&["red", "blue", "white", "black", "green", "grey", "silver", "yellow"], 3);
    let thing = pick(&["van", "car", "person", "dog", "bicycle", "truck", "cat", "bus", "child", "box"], 7);
    let does = pick(&["crosses the street", "stops at the door", "walks away", "waits", "turns around"], 11);
    let mut text =
        format!("A {colour} {thing} {does} while the camera shows the driveway and a part of the garden.");
    if i % 100 == 37 {
        text += " Somebody carries a ladder.";
    }
    if i % 10_000 == 4321 {
        text += " A unicycle leans at the wall.";
    }
    text
}

/// An event. Read from JSON, so that a field that may be absent need not be added here.
fn event(i: usize, start: DateTime<Utc>) -> Event {
    let end = start + TimeDelta::seconds(i as i64);
    let frames = (0..8).map(|n| json!({"offset_s": f64::from(n), "pts_s": i as f64 + f64::from(n)}));
    let event = json!({
        "schema": SCHEMA, "id": Uuid::now_v7(), "type": "description", "node": "edge1",
        "camera": format!("camera-{}", i % CAMERAS), "description": description(i),
        "clip": {
            "seq": i, "start": end - TimeDelta::seconds(8), "end": end, "clock": "camera",
            "frames": frames.collect::<Vec<_>>(), "width": 1920, "height": 1080, "gap": false,
        },
        "prompt": "Describe what happens in this video in one or two sentences.", "finish_reason": "stop",
        "model": {"id": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "revision": "main", "device": "cuda:0", "dtype": "bf16"},
        "tokens": {"prompt": 661, "image": 512, "generated": 22},
        "timing_ms": {"queued": 3, "preprocess": 12, "vision": 30, "prefill": 9, "decode": 90, "total": 145},
        "dropped": {"clips": 0, "failed": 0},
    });
    serde_json::from_value(event).expect("an event")
}

/// The rival.
struct Plain(Connection);

impl Plain {
    fn make(file: &Path) -> Self {
        let connection = Connection::open(file).expect("a file");
        let sql = "PRAGMA journal_mode = wal; PRAGMA synchronous = full;
            CREATE TABLE events (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, camera TEXT NOT NULL, at INTEGER NOT NULL,
                event TEXT NOT NULL);
            CREATE INDEX by_camera ON events (camera, at);
            CREATE VIRTUAL TABLE search USING fts5(words);";
        connection.execute_batch(sql).expect("tables");
        Self(connection)
    }

    fn add(&mut self, events: &[Event]) {
        let transaction = self.0.transaction().expect("begun");
        for event in events {
            let json = serde_json::to_string(event).expect("JSON");
            let values =
                params![event.id.to_string(), event.camera.as_str(), event.clip.end.timestamp_millis(), json];
            let sql = "INSERT INTO events (id, camera, at, event) VALUES (?, ?, ?, ?)";
            transaction.prepare_cached(sql).and_then(|mut it| it.execute(values)).expect("added");
            let sql = "INSERT INTO search (rowid, words) VALUES (last_insert_rowid(), ?)";
            transaction
                .prepare_cached(sql)
                .and_then(|mut it| it.execute([&event.description]))
                .expect("added");
        }
        transaction.commit().expect("written");
    }

    fn events(&self, sql: &str, value: &str) -> Vec<Event> {
        let mut statement = self.0.prepare_cached(sql).expect("prepared");
        let rows =
            statement.query_map(params![value, PAGE as i64], |row| row.get::<_, String>(0)).expect("asked");
        rows.map(|json| serde_json::from_str(&json.expect("read")).expect("an event")).collect()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Medians of ours and of the rival, which take turns.
fn compare(
    rounds: usize,
    mut ours: impl FnMut() -> usize,
    mut plain: impl FnMut() -> usize,
) -> (Duration, Duration, usize) {
    let mut found = 0;
    let mut time = |work: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        found = found.max(work());
        start.elapsed()
    };
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(time(&mut ours));
        other.push(time(&mut plain));
    }
    (median(one), median(other), found)
}

fn main() {
    let number =
        |place: usize, default| env::args().filter_map(|it| it.parse().ok()).nth(place).unwrap_or(default);
    let (count, rounds): (usize, usize) = (number(0, 1_000_000), number(1, 21));
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::open(folder.path(), false).expect("a history");
    let file = folder.path().join("plain.db");
    let mut plain = Plain::make(&file);
    let start = Utc::now() - TimeDelta::seconds(count as i64);
    let (mut ours_took, mut plain_took) = (Duration::ZERO, Duration::ZERO);
    for first in (0..count).step_by(BATCH) {
        let events: Vec<Event> = (first..(first + BATCH).min(count)).map(|i| event(i, start)).collect();
        let records = events.iter().map(|event| Record { event: event.clone(), evidence: None }).collect();
        let before = Instant::now();
        writer.record(records).expect("recorded");
        ours_took += before.elapsed();
        let before = Instant::now();
        plain.add(&events);
        plain_took += before.elapsed();
    }
    let size = |file: &Path| fs::metadata(file).map_or(0, |it| it.len()) as f64 / count as f64;
    let [ours_bytes, plain_bytes] = [folder.path().join(FILE), file].map(|file| size(&file));
    let row = |name: &str, (ours, plain, found): (Duration, Duration, usize)| {
        let ratio = plain.as_secs_f64() / ours.as_secs_f64();
        println!(
            "{name:<28} {found:>6} {:>9.2} ms {:>9.2} ms {ratio:>8.2}",
            ours.as_secs_f64() * 1e3,
            plain.as_secs_f64() * 1e3
        );
    };
    println!("{count} events of {CAMERAS} cameras; medians of {rounds}");
    println!("{:<28} {:>6} {:>12} {:>12} {:>8}", "", "found", "history", "plain", "ratio");
    let each = |took: Duration| took / u32::try_from(count).unwrap_or(u32::MAX);
    row("an event written", (each(ours_took), each(plain_took), 1));
    let reader = Reader::open(folder.path()).expect("a history");
    let camera: CameraId = "camera-3".parse().expect("a camera");
    let selection = Selection { camera: Some(camera), ..Selection::default() };
    let sql = "SELECT event FROM events WHERE camera = ? ORDER BY at DESC LIMIT ?";
    let newest = || reader.newest(&selection, None, PAGE).expect("read").events.len();
    row("a camera's newest page", compare(rounds, newest, || plain.events(sql, "camera-3").len()));
    let sql = "SELECT event FROM search JOIN events ON events.row = search.rowid WHERE search MATCH ? ORDER BY rank LIMIT ?";
    for (name, ours, theirs) in SEARCHES {
        let search = || reader.search(ours, &Selection::default(), None, PAGE).expect("read").events.len();
        row(&format!("search: {name}"), compare(rounds, search, || plain.events(sql, theirs).len()));
    }
    let like = "SELECT event FROM events WHERE event LIKE '%' || ? || '%' ORDER BY at DESC LIMIT ?";
    let search = || reader.search("unicycle", &Selection::default(), None, PAGE).expect("read").events.len();
    row(
        "search: one in 10 000, LIKE",
        compare(iter::repeat_n((), 3.min(rounds)).count(), search, || plain.events(like, "unicycle").len()),
    );
    println!("bytes an event: {ours_bytes:.0} in the history, {plain_bytes:.0} in plain SQLite");
}
