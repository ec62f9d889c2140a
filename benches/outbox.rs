//! Events through the outbox to a real mosquitto, beside `mosquitto_pub` that sends the same events
//! from a file.
//!
//!     cargo bench --bench outbox [-- EVENTS [ROUNDS]]
//!
//! Both publish with QoS 1 over loopback, and both are done when the broker has acknowledged all.
//! `mosquitto_pub` keeps nothing: what it has not sent when it is killed is gone. Every event of ours
//! is in SQLite's write-ahead log and synced (`synchronous = FULL`) before the next one is taken; what
//! that alone costs on this disk is shown by a plain file that is synced after each event. The
//! programs take turns; medians are printed.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use camscribe::{
    config::MqttVersion,
    event::{Event, SCHEMA},
    publish::{
        BrokerAddress, Publisher, Settings,
        outbox::{Limits, Message, Outbox},
    },
};
use serde_json::json;
use uuid::Uuid;

#[path = "../tests/support/broker.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod broker;

use broker::Mosquitto;

const LIMITS: Limits = Limits { events: 1 << 30, snapshots: 1 << 20 };

/// An event. Read from JSON, so that a field that may be absent need not be added here.
fn event(seq: u64) -> Event {
    let frames = (0..8).map(|i| json!({ "offset_s": f64::from(i), "pts_s": 1234.5 + f64::from(i) }));
    let event = json!({
        "schema": SCHEMA,
        "id": Uuid::now_v7(),
        "type": "description",
        "node": "edge1",
        "camera": "porch",
        "description": "A person walks up to the door, leaves a box on the mat and walks away.",
        "clip": {
            "seq": seq,
            "start": "2026-01-02T03:04:05.000Z",
            "end": "2026-01-02T03:04:13.000Z",
            "clock": "camera",
            "frames": frames.collect::<Vec<_>>(),
            "width": 1920,
            "height": 1080,
            "gap": false,
        },
        "prompt": "Describe what happens in this video in one or two sentences.",
        "finish_reason": "stop",
        "model": { "id": "shapes", "revision": "", "device": "cpu", "dtype": "f32" },
        "tokens": { "prompt": 682, "image": 512, "generated": 21 },
        "timing_ms": { "queued": 4, "preprocess": 9, "vision": 8, "prefill": 6, "decode": 31, "total": 58 },
        "dropped": { "clips": 0, "failed": 0 },
    });
    serde_json::from_value(event).expect("an event")
}

fn settings(port: u16) -> Settings {
    Settings {
        broker: BrokerAddress { host: "127.0.0.1".into(), port, tls: None },
        version: MqttVersion::Auto,
        login: None,
        node: "edge1".into(),
        topic_prefix: "camscribe".into(),
        discovery_prefix: String::new(),
        cameras: BTreeMap::new(),
        inboxes: None,
        response_topics: Vec::new(),
    }
}

async fn delivered(publisher: Publisher, outbox: &Outbox) {
    while !outbox.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(publisher.shutdown(Duration::from_secs(10)).await, 0);
    let status = outbox.status();
    assert!(status.dropped.is_empty() && status.dead_lettered.is_empty(), "{status:?}");
}

/// Events that are taken in while others are delivered: how long taking in took, and all.
async fn live(folder: &Path, port: u16, events: &[Message]) -> (f64, f64) {
    let outbox = Arc::new(Outbox::open(folder, LIMITS).expect("a folder of our own"));
    let publisher = Publisher::start(settings(port), Arc::clone(&outbox)).expect("good settings");
    let (there, events) = (Arc::clone(&outbox), events.to_vec());
    let start = Instant::now();
    let taken = tokio::task::spawn_blocking(move || events.into_iter().for_each(|event| there.append(event)));
    taken.await.expect("no fault");
    let taking = start.elapsed().as_secs_f64();
    while !outbox.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let all = start.elapsed().as_secs_f64();
    delivered(publisher, &outbox).await;
    (taking, all)
}

/// Events that waited on disk while there was no broker.
async fn backlog(folder: &Path, port: u16, events: &[Message]) -> f64 {
    let outbox = Arc::new(Outbox::open(folder, LIMITS).expect("a folder of our own"));
    events.iter().for_each(|event| outbox.append(event.clone()));
    let start = Instant::now();
    let publisher = Publisher::start(settings(port), Arc::clone(&outbox)).expect("good settings");
    delivered(publisher, &outbox).await;
    start.elapsed().as_secs_f64()
}

fn mosquitto_pub(file: &Path, port: u16) -> f64 {
    let start = Instant::now();
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-l", "-h", "127.0.0.1", "-t", "camscribe/edge1/porch/description"])
        .args(["-p", &port.to_string()])
        .stdin(Stdio::from(File::open(file).expect("there")))
        .status()
        .expect("mosquitto_pub is installed");
    assert!(status.success());
    start.elapsed().as_secs_f64()
}

/// What a disk costs that has to have each event before the next.
fn synced_file(file: &Path, events: &[Message]) -> f64 {
    let mut file = File::create(file).expect("a file");
    let start = Instant::now();
    for event in events {
        file.write_all(&event.event).expect("written");
        file.sync_data().expect("synced");
    }
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(20_000);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let broker = Mosquitto::start("max_inflight_messages 0\nmax_queued_messages 0");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk");
    let events: Vec<Message> =
        (0..count as u64).map(|seq| Message::new(&event(seq), None, None).expect("JSON")).collect();
    let lines = folder.path().join("events");
    let mut file = File::create(&lines).expect("a file");
    for event in &events {
        file.write_all(&event.event).and_then(|()| file.write_all(b"\n")).expect("written");
    }

    let (mut synced, mut taking, mut all, mut waiting, mut rival) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let path = |name: &str| folder.path().join(format!("{name}{round}"));
        synced.push(synced_file(&path("synced"), &events));
        let (took, done) = live(&path("live"), broker.port(), &events).await;
        taking.push(took);
        all.push(done);
        waiting.push(backlog(&path("backlog"), broker.port(), &events).await);
        rival.push(mosquitto_pub(&lines, broker.port()));
    }

    let rate = |times| count as f64 / median(times);
    let (synced, taking, all) = (rate(synced), rate(taking), rate(all));
    let (waiting, rival) = (rate(waiting), rate(rival));
    println!("{count} events of {} bytes, {rounds} rounds\n", events[0].event.len());
    println!("| | events per second | ratio |\n|---|---|---|");
    println!("| a file, synced after each event | {synced:.0} | |");
    println!(
        "| into the outbox, synced after each event | {taking:.0} | {:.2} of the file |",
        taking / synced
    );
    println!("| `mosquitto_pub -q 1 -l`, nothing kept | {rival:.0} | |");
    println!("| through the outbox to the broker | {all:.0} | {:.2} of mosquitto_pub |", all / rival);
    println!("| a backlog on disk to the broker | {waiting:.0} | {:.2} of mosquitto_pub |", waiting / rival);
}
