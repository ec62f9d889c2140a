//! The history as a whole, with a stand-in for the outbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    record::{EvidenceRow, Row},
    *,
};
use crate::{
    camera::CameraId,
    event::{
        AlertInfo, ClipInfo, Dropped, Event, EventKind, FinishReason, ModelInfo, SCHEMA, Timing, Tokens,
    },
    frame::{Clock, Frame},
};

const LIMITS: Limits = Limits { keep: Duration::from_secs(1 << 30), max_bytes: 1 << 40, least_free: 0 };

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

/// An event of a clip that ended `seconds` after the start.
fn event(camera: &str, seconds: i64, description: &str) -> Event {
    let end = start() + TimeDelta::seconds(seconds);
    Event {
        schema: SCHEMA,
        id: Uuid::now_v7(),
        kind: EventKind::Description,
        node: "edge1".into(),
        camera: camera.parse().unwrap(),
        description: description.into(),
        answers: BTreeMap::new(),
        alerts: BTreeMap::new(),
        repeats: None,
        clip: ClipInfo {
            seq: 0,
            start: end - TimeDelta::seconds(4),
            end,
            clock: Clock::Camera,
            frames: Vec::new(),
            width: 4,
            height: 2,
            gap: false,
        },
        view: None,
        evidence: None,
        prompt: "?".into(),
        finish_reason: FinishReason::Stop,
        model: ModelInfo {
            id: "m".into(),
            revision: String::new(),
            device: "cpu".into(),
            dtype: "f32".into(),
        },
        tokens: Tokens::default(),
        timing_ms: Timing::default(),
        dropped: Dropped::default(),
        published: None,
        part: None,
    }
}

/// Two frames with these lines of a view.
fn evidence(camera: &str, view: &str, is_lossless: bool) -> Evidence {
    let frame = |shade: u8| Frame {
        camera: camera.parse().unwrap(),
        captured_at: start(),
        clock: Clock::Camera,
        pts: Duration::ZERO,
        width: 4,
        height: 2,
        rgb: (0..24).map(|i| i * 10 + shade).collect(),
        original: None,
    };
    let replay = Replay {
        prompt: "?".into(),
        max_tokens: 8,
        questions: vec![("Is it?".into(), vec!["yes".into(), "no".into()])],
        duration_ns: 4_000_000_000,
        offsets_ns: vec![0, 2_000_000_001],
        labels: vec![vec![-0.5, -1.0]],
    };
    Evidence { frames: vec![frame(0), frame(5)], view: view.into(), is_lossless, replay }
}

fn open(folder: &std::path::Path) -> (Writer, Reader) {
    (Writer::open(folder, false).unwrap(), Reader::open(folder).unwrap())
}

fn add(writer: &mut Writer, event: Event, evidence: Option<Evidence>) -> Uuid {
    let id = event.id;
    writer.add(&[Row::new(Record { event, evidence })]).unwrap();
    id
}

fn texts(page: &Page) -> Vec<&str> {
    page.events.iter().map(|listed| listed.event.description.as_str()).collect()
}

#[test]
fn the_newest_events_come_page_by_page_by_camera_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for i in 0..7 {
        add(&mut writer, event(["porch", "gate"][i % 2], i as i64, &i.to_string()), None);
    }
    // A clip of the same time, and one of before that comes late.
    add(&mut writer, event("porch", 6, "same"), None);
    add(&mut writer, event("porch", 3, "late"), None);
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = reader.newest(&Selection::default(), cursor, 2).unwrap();
        all.extend(texts(&page).into_iter().map(str::to_owned));
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(all, ["same", "6", "5", "4", "late", "3", "2", "1", "0"]);
    let porch = Selection { camera: Some("porch".parse().unwrap()), ..Selection::default() };
    assert_eq!(texts(&reader.newest(&porch, None, 3).unwrap()), ["same", "6", "4"]);
    let at = |seconds| Some(start() + TimeDelta::seconds(seconds));
    let span = Selection { from: at(2), to: at(4), ..porch };
    assert_eq!(texts(&reader.newest(&span, None, 9).unwrap()), ["4", "late", "2"]);
    let id = |page: &Page, text: &str| {
        page.events.iter().find(|it| it.event.description == text).map(|it| it.event.id)
    };
    let all = reader.newest(&Selection::default(), None, 99).unwrap();
    let details = reader.details(id(&all, "4").unwrap()).unwrap().unwrap();
    assert_eq!((details.older, details.newer), (id(&all, "late"), id(&all, "6")));
    let details = reader.details(id(&all, "0").unwrap()).unwrap().unwrap();
    assert_eq!((details.older, details.newer), (None, id(&all, "2")));
}

#[test]
fn words_are_found_whatever_their_case_and_accents_and_the_best_match_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let long = format!("A red van. {}", "Nothing else of note happens here. ".repeat(9));
    for (camera, text) in
        [("porch", "A Café with a red Vän"), ("gate", &long), ("porch", "red red van"), ("gate", "a tree")]
    {
        add(&mut writer, event(camera, 1, text), None);
    }
    let search = |text: &str| {
        let page = reader.search(text, &Selection::default(), None, 9).unwrap();
        texts(&page).into_iter().map(|it| it[..5.min(it.len())].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(search("red van"), ["red r", "A Caf", "A red"]);
    assert_eq!(search("cafe"), ["A Caf"]);
    assert_eq!(search("tre*"), ["a tre"]);
    assert_eq!(search("\"red red\""), ["red r"]);
    assert_eq!(search("gate van"), ["A red"], "the camera's name counts as a word");
    assert!(search("nothing there").is_empty() && search("\"'(").is_empty());
    let gate = Selection { camera: Some("gate".parse().unwrap()), ..Selection::default() };
    assert_eq!(reader.search("red", &gate, None, 9).unwrap().events.len(), 1);
    let page = reader.search("red", &Selection::default(), None, 2).unwrap();
    let rest = reader.search("red", &Selection::default(), page.next, 2).unwrap();
    assert_eq!((page.events.len(), rest.events.len(), rest.next), (2, 1, None));
    let snippet = page.events[0].snippet.clone().unwrap();
    assert!(snippet.iter().any(|part| part.hit && part.text == "red"));
}

#[test]
fn an_alert_is_found_by_its_switchings_and_an_unchanged_clip_only_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let with = |on, changed, kind, seconds| {
        let info = AlertInfo { on, changed, since: None, probability: 0.9 };
        let alerts = BTreeMap::from([("parcel".to_owned(), info)]);
        Event { alerts, kind, ..event("porch", seconds, &format!("{seconds}")) }
    };
    add(&mut writer, with(true, true, EventKind::Description, 1), None);
    add(&mut writer, with(true, false, EventKind::Description, 2), None);
    add(&mut writer, with(false, true, EventKind::Unchanged, 3), None);
    add(&mut writer, with(false, false, EventKind::Unchanged, 4), None);
    let alert = Selection { alert: Some("parcel".into()), ..Selection::default() };
    assert_eq!(texts(&reader.newest(&alert, None, 9).unwrap()), ["3", "1"]);
    assert_eq!(texts(&reader.newest(&Selection::default(), None, 9).unwrap()), ["2", "1"]);
    assert_eq!(reader.search("alert parcel on", &Selection::default(), None, 9).unwrap().events.len(), 1);
    let mut count = 0;
    let counted = reader.for_each(&Selection::default(), |_, _| {
        count += 1;
        Ok::<_, HistoryError>(())
    });
    counted.unwrap();
    assert_eq!(count, 4);
}

#[test]
fn lossless_frames_come_back_pixel_by_pixel_and_others_as_jpeg() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let kept = evidence("porch", "", true);
    let pixels: Vec<_> = kept.frames.iter().map(|frame| frame.rgb.clone()).collect();
    let replay = kept.replay.clone();
    let id = add(&mut writer, event("porch", 1, "x"), Some(kept));
    let details = reader.details(id).unwrap().unwrap();
    assert!(details.is_lossless && details.replay == Some(replay));
    let offsets: Vec<_> = details.frames.iter().map(|frame| frame.offset).collect();
    assert_eq!(offsets, [Duration::ZERO, Duration::from_secs(2)]);
    for (number, pixels) in pixels.iter().enumerate() {
        let frame = reader.frame(id, number).unwrap().unwrap();
        assert_eq!(&read_lossless(&frame.bytes).unwrap().rgb, pixels);
        assert!(frame.into_jpeg().unwrap().starts_with(&[0xff, 0xd8]));
    }
    assert!(reader.frame(id, 2).unwrap().is_none() && reader.frame(Uuid::nil(), 0).unwrap().is_none());
    // An event that came without frames gets them, and no second time.
    let late = event("porch", 2, "y");
    let without = add(&mut writer, late.clone(), None);
    for _ in 0..2 {
        add(&mut writer, late.clone(), Some(evidence("porch", "", false)));
    }
    let details = reader.details(without).unwrap().unwrap();
    assert!(details.frames.len() == 2 && !details.is_lossless);
    assert_eq!(reader.newest(&Selection::default(), None, 9).unwrap().events.len(), 2);
}

/// Whether a text stands in any file of a folder.
fn is_in_files(folder: &std::path::Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|it| it == text.as_bytes()))
}

#[test]
fn what_is_forgotten_is_gone_from_the_file_with_its_frames_and_from_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    add(&mut writer, event("porch", 1, "unspeakable"), Some(evidence("porch", "", false)));
    let stays = add(&mut writer, event("gate", 2, "speakable"), Some(evidence("gate", "", false)));
    assert!(is_in_files(folder.path(), "unspeakable"));
    drop(reader);
    let porch = Selection { camera: Some("porch".parse().unwrap()), ..Selection::default() };
    assert_eq!(writer.forget(&porch).unwrap(), Forgotten { events: 1, frames: 2 });
    assert!(writer.erase().unwrap());
    assert!(!is_in_files(folder.path(), "unspeakable") && is_in_files(folder.path(), "speakable"));
    let reader = Reader::open(folder.path()).unwrap();
    assert!(reader.search("unspeakable", &Selection::default(), None, 9).unwrap().events.is_empty());
    assert_eq!(reader.details(stays).unwrap().unwrap().frames.len(), 2);
    assert_eq!(writer.forget(&Selection::default()).unwrap(), Forgotten { events: 1, frames: 2 });
    assert_eq!(writer.contents().unwrap().0, 0);
}

/// A stand-in for an outbox.
#[derive(Default)]
struct Fake {
    waiting: Mutex<BTreeMap<Uuid, Bytes>>,
    recorded: Mutex<BTreeSet<Uuid>>,
}

impl Fake {
    /// Takes an event as the outbox does, before the history.
    fn append(&self, event: &Event) {
        self.waiting.lock().unwrap().insert(event.id, serde_json::to_vec(event).unwrap().into());
    }

    fn outboxed(self: &Arc<Self>) -> Outboxed {
        let (waiting, recorded) = (Arc::clone(self), Arc::clone(self));
        Outboxed {
            waiting: Box::new(move |after, most| {
                let all = waiting.waiting.lock().unwrap();
                let later = all.iter().filter(|(id, _)| **id > after).take(most);
                later.map(|(id, event)| (*id, event.clone())).collect()
            }),
            recorded: Box::new(move |ids| {
                recorded.recorded.lock().unwrap().extend(ids);
                recorded.waiting.lock().unwrap().retain(|id, _| !ids.contains(id));
            }),
            is_durable: Box::new(|| true),
            dropped: Box::new(|| 0),
        }
    }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !until() {
        assert!(Instant::now() < limit, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_the_outbox_has_is_recorded_at_the_next_start_and_what_waits_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let before = event("porch", 1, "before");
    fake.append(&before);
    let history = History::start(folder.path(), LIMITS, fake.outboxed()).unwrap();
    wait("the event of before", || history.status().events == 1);
    let now = event("porch", 2, "now");
    fake.append(&now);
    history.record(Record { event: now.clone(), evidence: Some(evidence("porch", "", false)) });
    history.close(Duration::from_secs(60));
    assert!(fake.waiting.lock().unwrap().is_empty());
    assert_eq!(*fake.recorded.lock().unwrap(), BTreeSet::from([before.id, now.id]));
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(texts(&reader.newest(&Selection::default(), None, 9).unwrap()), ["now", "before"]);
    assert_eq!(reader.after(before.id, 9).unwrap().unwrap().len(), 1);
    assert!(reader.after(Uuid::nil(), 9).unwrap().is_none());
}

#[test]
fn a_disk_without_room_stops_the_history_only_and_it_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let full = Limits { least_free: u64::MAX, ..LIMITS };
    let history = History::start(folder.path(), full, fake.outboxed()).unwrap();
    wait("it stops", || matches!(history.status().state, State::Stopped { .. }));
    assert!(!history.has_room_for(1));
    let lost = event("porch", 1, "waits");
    fake.append(&lost);
    history.record(Record { event: lost, evidence: Some(evidence("porch", "", false)) });
    wait("the frames are dropped", || history.status().dropped_frames == 1);
    history.close(Duration::from_secs(60));
    assert_eq!(fake.waiting.lock().unwrap().len(), 1);
    let history = History::start(folder.path(), LIMITS, fake.outboxed()).unwrap();
    wait("it catches up", || history.status().events == 1);
    assert_eq!(history.status().dropped_events, 0);
    history.close(Duration::from_secs(60));
}

#[test]
fn a_write_that_fails_leaves_nothing_of_it_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer.set_full(true);
    let large = event("porch", 1, &"many different words ".repeat(5000));
    assert!(writer.add(&[Row::new(Record { event: large.clone(), evidence: None })]).is_err());
    assert!(reader.newest(&Selection::default(), None, 9).unwrap().events.is_empty());
    writer.set_full(false);
    add(&mut writer, large, None);
    assert_eq!(reader.newest(&Selection::default(), None, 9).unwrap().events.len(), 1);
}

#[test]
fn the_oldest_go_first_by_age_and_by_size_and_the_file_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for i in 0..200 {
        add(&mut writer, event("porch", i, &i.to_string()), Some(evidence("porch", "", true)));
    }
    let size = || std::fs::metadata(folder.path().join(FILE)).unwrap().len();
    let bytes = writer.bytes().unwrap();
    assert_eq!(writer.forget_before(Utc::now() - TimeDelta::hours(1)).unwrap(), Forgotten::default());
    drop(reader);
    drop(writer);
    let before = size();
    let fake = Arc::new(Fake::default());
    let limits = Limits { max_bytes: bytes / 2, ..LIMITS };
    let history = History::start(folder.path(), limits, fake.outboxed()).unwrap();
    wait("half of it goes", || history.status().state == State::On && history.status().bytes <= bytes / 2);
    let left = history.status().events;
    assert!((1..180).contains(&left), "{left}");
    history.close(Duration::from_secs(60));
    assert!(size() < before, "{} {before}", size());
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(texts(&reader.newest(&Selection::default(), None, 1).unwrap()), ["199"]);
    drop(reader);
    let limits = Limits { keep: Duration::ZERO, ..LIMITS };
    let history = History::start(folder.path(), limits, fake.outboxed()).unwrap();
    wait("all of it goes", || history.status().state == State::On && history.status().events == 0);
    history.close(Duration::from_secs(60));
}

#[test]
fn frames_that_show_what_is_hidden_now_are_deleted_and_not_taken_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(folder.path());
    let old = add(&mut writer, event("porch", 1, "old"), Some(evidence("porch", "", false)));
    let masked = add(&mut writer, event("porch", 2, "masked"), Some(evidence("porch", "mask", false)));
    let other = add(&mut writer, event("gate", 3, "other"), Some(evidence("gate", "", false)));
    drop(writer);
    let history = History::start(folder.path(), LIMITS, Arc::new(Fake::default()).outboxed()).unwrap();
    history
        .keep_frames(Arc::new(|camera: &CameraId, view: &str| camera.as_str() != "porch" || view == "mask"));
    let frames = |id: Uuid| history.read(|reader| Ok(reader.details(id)?.unwrap().frames.len())).ok();
    wait("the frames go", || frames(old) == Some(0));
    assert_eq!((frames(masked), frames(other)), (Some(2), Some(2)));
    let late = event("porch", 4, "late");
    history.record(Record { event: late.clone(), evidence: Some(evidence("porch", "", false)) });
    wait("the event comes", || history.status().events == 4);
    assert_eq!(frames(late.id), Some(0));
    history.close(Duration::from_secs(60));
}

#[test]
fn a_damaged_history_is_set_aside_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), "no database at all, but long enough to be one".repeat(100))
        .unwrap();
    let fake = Arc::new(Fake::default());
    let waiting = event("porch", 1, "x");
    fake.append(&waiting);
    let history = History::start(folder.path(), LIMITS, fake.outboxed()).unwrap();
    wait("a new one is begun", || history.status().events == 1);
    history.close(Duration::from_secs(60));
    let names = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_str().unwrap().starts_with("history.db.damaged-")));
}

#[test]
fn a_row_of_a_frame_that_cannot_be_encoded_has_no_frames() {
    let mut broken = evidence("porch", "", true);
    broken.frames[1].rgb = vec![0; 3].into();
    let row = Row::new(Record { event: event("porch", 1, "x"), evidence: Some(broken) });
    assert!(row.evidence.is_none());
    let EvidenceRow { pictures, .. } =
        Row::new(Record { event: event("porch", 1, "x"), evidence: Some(evidence("porch", "", true)) })
            .evidence
            .unwrap();
    assert_eq!(pictures.len(), 2);
}

#[test]
fn what_is_forgotten_while_others_write_waits_for_them_and_they_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for i in 0..300 {
        add(&mut writer, event("porch", i, "x"), None);
    }
    let mut other = Writer::open_existing(folder.path()).unwrap();
    let porch = Selection { camera: Some("porch".parse().unwrap()), ..Selection::default() };
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..200 {
                add(&mut writer, event("gate", i, "y"), Some(evidence("gate", "", false)));
            }
        });
        assert_eq!(other.forget(&porch).unwrap(), Forgotten { events: 300, frames: 0 });
    });
    assert_eq!(reader.count(&Selection::default()).unwrap(), Forgotten { events: 200, frames: 400 });
    // The log cannot be emptied while somebody reads what was before.
    reader
        .at_once(|reader| {
            reader.count(&porch)?;
            add(&mut other, event("gate", 1, "z"), None);
            assert!(!other.erase()?);
            Ok::<_, HistoryError>(())
        })
        .unwrap();
    assert!(other.erase().unwrap());
}

#[test]
fn an_event_that_is_damaged_is_left_out_and_another_layout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    for i in 0..3 {
        add(&mut writer, event("porch", i, &i.to_string()), None);
    }
    let file = rusqlite::Connection::open(folder.path().join(FILE)).unwrap();
    file.execute("UPDATE events SET event = x'00' WHERE row = 2", []).unwrap();
    assert_eq!(texts(&reader.newest(&Selection::default(), None, 9).unwrap()), ["2", "0"]);
    assert_eq!(reader.search("porch", &Selection::default(), None, 9).unwrap().events.len(), 2);
    for layout in [0, 99] {
        file.pragma_update(None, "user_version", layout).unwrap();
        assert!(Reader::open(folder.path()).is_err() && Writer::open_existing(folder.path()).is_err());
    }
}

#[test]
fn what_the_outbox_had_in_memory_comes_once_it_is_on_disk_again() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let is_durable = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let of_outbox = Arc::clone(&is_durable);
    let outboxed = Outboxed {
        is_durable: Box::new(move || of_outbox.load(std::sync::atomic::Ordering::Relaxed)),
        ..fake.outboxed()
    };
    let history = History::start(folder.path(), LIMITS, outboxed).unwrap();
    wait("it is open", || history.status().state == State::On);
    thread::sleep(Duration::from_millis(700));
    fake.append(&event("porch", 1, "spilled"));
    is_durable.store(true, std::sync::atomic::Ordering::Relaxed);
    wait("the event", || history.status().events == 1);
    history.close(Duration::from_secs(60));
}

#[test]
fn a_file_that_is_removed_while_it_is_in_use_is_told_and_another_one_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let history = History::start(folder.path(), LIMITS, fake.outboxed()).unwrap();
    history.record(Record { event: event("porch", 1, "lost"), evidence: None });
    wait("an event", || history.status().events == 1);
    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    wait("it is told", || matches!(history.status().state, State::Stopped { .. }));
    let later = event("porch", 2, "later");
    fake.append(&later);
    wait("another one", || history.status().state == State::On && history.status().events == 1);
    history.close(Duration::from_secs(60));
    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(texts(&reader.newest(&Selection::default(), None, 9).unwrap()), ["later"]);
}
