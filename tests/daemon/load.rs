//! Many clients beside cameras that want all of the model's time: who gets how much of it, and whether anything is lost.
//!
//! `cargo test` makes a short run; `CAMSCRIBE_LOAD_SECONDS` makes a longer one.

use std::{
    collections::BTreeSet,
    env, iter,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use image::ImageFormat;
use serde_json::{Value, json};

use crate::support::{
    api::{ask, image_part, model_server, picture, question, text_part, wait_ready},
    broker::{Mosquitto, Subscriber},
    daemon::{self, Daemon, wait},
};

/// Seconds of the short run.
const SHORT: u64 = 30;
const CLIENTS: usize = 64;
const CAMERAS: [&str; 4] = ["north", "east", "south", "west"];
/// The clients' part of the model's time.
const SHARE: f64 = 0.25;

/// Texts and pictures, with short and long answers.
fn questions() -> Vec<Value> {
    let colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]];
    let content = |i: usize| match i % 4 {
        0 => json!(format!("Describe story {i}.")),
        k => json!([image_part(picture(ImageFormat::Png, colours[k])), text_part("What is shown?")]),
    };
    (0..8)
        .map(|i| {
            question(
                content(i),
                json!({"max_tokens": 4 + 4 * (i % 4), "mm_processor_kwargs": {"do_image_splitting": false}}),
            )
        })
        .collect()
}

/// Clips that the cameras lost because the model was behind.
fn lost(daemon: &Daemon) -> f64 {
    let (_, page) = daemon.get("/metrics");
    let of = |camera: &&str| {
        let name = format!("camscribe_clips_dropped_total{{camera=\"{camera}\",reason=\"overload\"}}");
        daemon::number(&page, &name).unwrap_or(0.0)
    };
    CAMERAS.iter().map(of).sum()
}

/// Tells the clients to stop, whatever fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The model's seconds that each camera had so far.
fn camera_seconds(daemon: &Daemon) -> Vec<f64> {
    let (_, page) = daemon.get("/metrics");
    let of_stage = |camera: &str, stage: &str| {
        let labels = format!("camera=\"{camera}\",stage=\"{stage}\"");
        daemon::number(&page, &format!("camscribe_camera_model_seconds_total{{{labels}}}")).unwrap_or(0.0)
    };
    let stages = ["preprocess", "vision", "prefill", "decode"];
    CAMERAS.iter().map(|camera| stages.iter().map(|stage| of_stage(camera, stage)).sum()).collect()
}

#[test]
fn beside_many_clients_cameras_keep_their_share_and_nothing_is_lost() {
    let seconds = env::var("CAMSCRIBE_LOAD_SECONDS").map_or(SHORT, |text| text.parse().unwrap());
    let questions = questions();
    let server = model_server("");
    let alone: Vec<String> = questions.iter().map(|body| ask(&server, body).text()).collect();
    drop(server);

    let broker = Mosquitto::start("");
    let events = Subscriber::to(broker.port(), "camscribe/n/+/description");
    let cameras: String =
        CAMERAS.iter().map(|camera| format!("[cameras.{camera}]\nuri = \"test://shapes\"\n")).collect();
    let daemon = Daemon::start(&format!(
        "model.id = \"shapes\"\nnode.id = \"n\"\nlog.level = \"debug\"\nmqtt.url = \"mqtt://127.0.0.1:{}\"\nhttp.api = true\n\
         http.api_share = {SHARE}\n\
         defaults = {{ window = \"500ms\", frames = 10, max_tokens = 32, change_threshold = 0 }}\n{cameras}",
        broker.port()
    ));
    wait_ready(&daemon);
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (had, elapsed, memory, lost) = thread::scope(|scope| {
        let (daemon, stop, answered, questions, alone) = (&daemon, &stop, &answered, &questions, &alone);
        let client = move |number: usize| {
            let mut next = number;
            while !stop.load(Ordering::Relaxed) {
                let reply = ask(daemon, &questions[next % questions.len()]);
                if reply.status == 429 {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
                assert_eq!(reply.text(), alone[next % alone.len()], "question {}", next % alone.len());
                answered.fetch_add(1, Ordering::Relaxed);
                next += 1;
            }
        };
        for number in 0..CLIENTS {
            scope.spawn(move || client(number));
        }
        let _stop = StopOnDrop(stop);
        wait("answers", || (answered.load(Ordering::Relaxed) > 8).then_some(()));
        let memory = || daemon.metric("process_resident_memory_bytes").unwrap();
        let (before, lost_before, start) = (camera_seconds(daemon), lost(daemon), Instant::now());
        let half = Duration::from_secs(seconds) / 2;
        thread::sleep(half);
        // By now everything that is kept was used once.
        let memory_before = memory();
        thread::sleep(half);
        let (after, elapsed, memory_after) = (camera_seconds(daemon), start.elapsed(), memory());
        let had: Vec<f64> = iter::zip(after, before).map(|(after, before)| after - before).collect();
        (had, elapsed.as_secs_f64(), [memory_before, memory_after], lost(daemon) - lost_before)
    });
    let all: f64 = had.iter().sum();
    let part = all / elapsed;
    let megabytes = memory.map(|bytes| bytes / 1e6);
    println!(
        "{:.0} s: cameras had {part:.3} of the time, {had:.1?} s each; {lost} clips lost; {} answers to clients; \
         {megabytes:.0?} MB",
        elapsed,
        answered.load(Ordering::Relaxed)
    );
    let wanted = 1.0 - SHARE;
    // Cameras that lost nothing had all the time that they wanted. The model is not at work all of the time.
    let share = part / wanted;
    assert!(lost == 0.0 || (0.85..1.1).contains(&share), "the cameras had {part:.3} of the time");
    for (camera, had) in CAMERAS.iter().zip(had) {
        let part = had / all * CAMERAS.len() as f64;
        // In a short run a camera has few clips.
        assert!((part - 1.0).abs() < 0.25, "{camera} had {part:.3} times its part");
    }
    assert!(megabytes[1] < megabytes[0] * 1.1 + 16.0, "the memory grew: {megabytes:.0?} MB");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    let stored: BTreeSet<String> = daemon::stored_ids(&log).into_values().flatten().collect();
    let mut missing = stored.clone();
    while !missing.is_empty() {
        missing.remove(events.next().json()["id"].as_str().unwrap());
    }
    assert!(stored.len() > 4 * CAMERAS.len(), "{} were described", stored.len());
}
