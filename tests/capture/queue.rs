//! The clip queue: its bounds, its fairness, and when it blocks and wakes threads.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use camscribe::{
    camera::CameraId,
    clip::Clip,
    frame::Clock,
    prompt_spec::PromptSpec,
    queue::{ClipQueue, Closed, LIVE_TURNS, Overflow, Queued, Room},
};
use chrono::DateTime;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
/// How long a test waits for anything before it fails.
const NEVER: Duration = Duration::from_secs(600);

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

fn camera(name: &str) -> CameraId {
    name.parse().expect("a good name")
}

fn clip(name: &str, seq: u64) -> Clip {
    Clip {
        camera: camera(name),
        seq,
        start: DateTime::UNIX_EPOCH,
        end: DateTime::UNIX_EPOCH,
        clock: Clock::File,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(8),
        frames: Vec::new(),
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec::new("", 1)),
    }
}

fn names(batch: &[Queued]) -> Vec<(&str, u64)> {
    batch.iter().map(|queued| (queued.clip.camera.as_str(), queued.clip.seq)).collect()
}

#[test]
fn a_batch_takes_the_oldest_clip_of_each_waiting_camera_in_turn() {
    let queue = ClipQueue::new(count(10));
    for (name, seq) in [("busy", 0), ("busy", 1), ("busy", 2), ("quiet", 0), ("third", 0)] {
        queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
    }
    let batch = queue.pop_batch(Room::of(4), NOW).expect("open").clips;
    assert_eq!(names(&batch), [("busy", 0), ("quiet", 0), ("third", 0), ("busy", 1)]);
    let batch = queue.pop_batch(Room::of(4), NOW).expect("open").clips;
    assert_eq!(names(&batch), [("busy", 2)]);
}

#[test]
fn a_live_camera_loses_its_own_oldest_clip_and_the_next_one_out_says_how_many() {
    let queue = ClipQueue::new(count(2));
    queue.push(clip("other", 0), Overflow::DropOldest).expect("open");
    for seq in 0..5 {
        queue.push(clip("porch", seq), Overflow::DropOldest).expect("open");
    }
    assert_eq!(queue.len(), 3);
    assert_eq!(queue.dropped(), BTreeMap::from([(camera("other"), 0), (camera("porch"), 3)]));
    let batch = queue.pop_batch(Room::of(10), NOW).expect("open").clips;
    assert_eq!(names(&batch), [("other", 0), ("porch", 3), ("porch", 4)]);
    assert_eq!(batch.iter().map(|queued| queued.dropped_before).collect::<Vec<_>>(), [0, 3, 0]);
}

#[test]
fn a_batch_that_is_not_full_waits_for_more_and_one_that_is_does_not() {
    let queue = Arc::new(ClipQueue::new(count(10)));
    queue.push(clip("porch", 0), Overflow::Block).expect("open");
    let popping = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.pop_batch(Room::of(3), NEVER).expect("open").clips.len()
    });
    for seq in 1..3 {
        queue.push(clip("porch", seq), Overflow::Block).expect("open");
    }
    assert_eq!(popping.join().expect("no panic"), 3);
}

#[test]
fn a_batch_that_never_fills_is_returned_after_the_linger_time() {
    let queue = ClipQueue::new(count(10));
    queue.push(clip("porch", 0), Overflow::Block).expect("open");
    let batch = queue.pop_batch(Room::of(3), Duration::from_millis(20)).expect("open").clips;
    assert_eq!(names(&batch), [("porch", 0)]);
}

#[test]
fn a_file_source_blocks_on_a_full_queue_and_loses_nothing() {
    const CLIPS: u64 = 200;
    let queue = Arc::new(ClipQueue::new(count(2)));
    let file = thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            for seq in 0..CLIPS {
                queue.push(clip("file", seq), Overflow::Block).expect("open");
            }
            queue.close();
        }
    });
    let mut seen = Vec::new();
    while let Some(batch) = queue.pop_batch(Room::of(3), NOW) {
        assert!(queue.len() <= 2);
        seen.extend(batch.clips.iter().map(|queued| queued.clip.seq));
    }
    file.join().expect("no panic");
    assert_eq!(seen, (0..CLIPS).collect::<Vec<_>>());
    assert_eq!(queue.dropped()[&camera("file")], 0);
}

#[test]
fn a_blocked_file_source_does_not_block_another_camera() {
    let queue = Arc::new(ClipQueue::new(count(1)));
    queue.push(clip("file", 0), Overflow::Block).expect("open");
    let file = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.push(clip("file", 1), Overflow::Block)
    });
    queue.push(clip("porch", 0), Overflow::Block).expect("open");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = queue.pop_batch(Room::of(1), NOW).expect("open").clips;
        seen.extend(batch.iter().map(|queued| (queued.clip.camera.to_string(), queued.clip.seq)));
    }
    assert_eq!(file.join().expect("no panic"), Ok(()));
    seen.sort();
    assert_eq!(seen, [("file".into(), 0), ("file".into(), 1), ("porch".to_string(), 0)]);
}

#[test]
fn a_busy_camera_cannot_starve_a_quiet_one() {
    let queue = Arc::new(ClipQueue::new(count(4)));
    let pushed = Arc::new(AtomicU64::new(0));
    let busy = thread::spawn({
        let (queue, pushed) = (Arc::clone(&queue), Arc::clone(&pushed));
        move || {
            while queue
                .push(clip("busy", pushed.fetch_add(1, Ordering::Relaxed)), Overflow::DropOldest)
                .is_ok()
            {}
        }
    });
    while pushed.load(Ordering::Relaxed) < 100 {
        thread::yield_now();
    }
    for seq in 0..50 {
        queue.push(clip("quiet", seq), Overflow::DropOldest).expect("open");
        // At worst the busy camera is served once before it.
        let mut batches = (0..2).map(|_| queue.pop_batch(Room::of(1), NEVER).expect("open").clips);
        assert!(
            batches.any(|batch| names(&batch) == [("quiet", seq)]),
            "clip {seq} was not served in its turn"
        );
    }
    queue.close();
    busy.join().expect("no panic");
}

#[test]
fn closing_wakes_all_waiters_and_leaves_queued_clips_to_be_finished() {
    let queue = Arc::new(ClipQueue::new(count(1)));
    queue.push(clip("file", 0), Overflow::Block).expect("open");
    let blocked: Vec<_> = (0..3)
        .map(|seq| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(clip("file", seq + 1), Overflow::Block))
        })
        .collect();
    let lingering = thread::spawn({
        let queue = Arc::new(ClipQueue::new(count(1)));
        let other = Arc::clone(&queue);
        let popping = thread::spawn(move || other.pop_batch(Room::of(1), NEVER).is_none());
        move || {
            queue.close();
            popping.join().expect("no panic")
        }
    });
    queue.close();
    for thread in blocked {
        assert_eq!(thread.join().expect("no panic"), Err(Closed));
    }
    assert!(lingering.join().expect("no panic"), "an empty closed queue gives nothing");
    assert_eq!(queue.push(clip("file", 9), Overflow::DropOldest), Err(Closed));
    assert_eq!(names(&queue.pop_batch(Room::of(9), NEVER).expect("one is left").clips), [("file", 0)]);
    assert!(queue.pop_batch(Room::of(9), NEVER).is_none());
}

#[test]
fn an_idle_camera_accumulates_no_credit() {
    let queue = ClipQueue::new(count(100));
    for seq in 0..50 {
        queue.push(clip("busy", seq), Overflow::DropOldest).expect("open");
    }
    queue.pop_batch(Room::of(40), NOW).expect("open");
    for seq in 0..5 {
        queue.push(clip("quiet", seq), Overflow::DropOldest).expect("open");
    }
    let batch = queue.pop_batch(Room::of(4), NOW).expect("open").clips;
    let quiet = names(&batch).iter().filter(|(name, _)| *name == "quiet").count();
    assert_eq!(quiet, 2, "{:?}", names(&batch));
}

#[test]
fn a_priority_counts_even_when_a_batch_could_hold_a_clip_of_every_camera() {
    let queue = ClipQueue::new(count(2));
    queue.register(&camera("door"), 4);
    let mut described = BTreeMap::<String, u32>::new();
    for seq in 0..1000 {
        queue.push(clip("door", seq), Overflow::DropOldest).expect("open");
        queue.push(clip("yard", seq), Overflow::DropOldest).expect("open");
        if seq % 5 == 4 {
            for queued in queue.pop_batch(Room::of(16), NOW).expect("open").clips {
                *described.entry(queued.clip.camera.to_string()).or_default() += 1;
            }
        }
    }
    assert_eq!(described["door"], 400, "the batch always has room for what the door has");
    assert!((100..=101).contains(&described["yard"]), "{described:?}");
}

#[test]
fn clips_of_live_cameras_go_first_and_a_file_waits_for_so_many_of_their_turns() {
    let queue = ClipQueue::new(count(2));
    queue.register(&camera("door"), 3);
    queue.push(clip("film", 0), Overflow::Block).expect("open");
    let mut turns = BTreeMap::<String, u32>::new();
    let (mut seq, mut since) = (0, 0);
    while turns.get("film").is_none_or(|turns| *turns < 50) {
        for name in ["door", "yard"] {
            queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
            queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
        }
        seq += 1;
        let name = queue.pop_batch(Room::of(1), NOW).expect("open").clips[0].clip.camera.to_string();
        if name == "film" {
            assert_eq!(since, LIVE_TURNS);
            queue.push(clip("film", seq), Overflow::Block).expect("open");
        }
        since = if name == "film" { 0 } else { since + 1 };
        *turns.entry(name).or_default() += 1;
    }
    assert_eq!(turns["door"], 300, "priorities hold among live cameras: {turns:?}");
}

#[test]
fn a_camera_that_becomes_a_file_or_live_does_not_pay_for_the_turns_that_it_had_before() {
    let queue = ClipQueue::new(count(2));
    let push = |name, overflow| queue.push(clip(name, 0), overflow).expect("open");
    let next = || queue.pop_batch(Room::of(1), NOW).expect("open").clips[0].clip.camera.to_string();
    for _ in 0..100 {
        push("scene", Overflow::DropOldest);
        next();
    }
    push("film", Overflow::Block);
    push("film", Overflow::Block);
    push("scene", Overflow::Block);
    assert_eq!([next(), next(), next()], ["film", "scene", "film"]);
    for _ in 0..100 {
        push("film", Overflow::Block);
        next();
    }
    push("film", Overflow::DropOldest);
    push("yard", Overflow::DropOldest);
    push("yard", Overflow::DropOldest);
    assert_eq!([next(), next(), next()], ["film", "yard", "yard"]);
}

#[test]
fn a_priority_takes_nothing_from_others_while_the_model_keeps_up() {
    let queue = ClipQueue::new(count(2));
    queue.register(&camera("door"), 10);
    for seq in 0..100 {
        for name in ["door", "yard"] {
            queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
        }
        let batch = queue.pop_batch(Room::of(16), NOW).expect("open").clips;
        assert_eq!(names(&batch).len(), 2);
    }
    assert!(queue.dropped().values().all(|dropped| *dropped == 0));
}

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Pop(usize),
}

proptest! {
    #[test]
    fn under_saturation_turns_are_shared_by_priority_and_nobody_starves(
        priorities in prop::collection::vec(1u64..=10, 2..9),
        per_camera in 1usize..4,
        max in 1usize..20,
    ) {
        let names: Vec<String> = (0..priorities.len()).map(|i| format!("cam{i}")).collect();
        let queue = ClipQueue::new(count(per_camera));
        for (name, priority) in names.iter().zip(&priorities) {
            queue.register(&camera(name), *priority);
        }
        let sum: u64 = priorities.iter().sum();
        let mut seq = 0;
        let mut turns = vec![0u64; names.len()];
        while turns.iter().sum::<u64>() < 40 * sum {
            // More clips than fit: every camera drops clips before every batch.
            for _ in 0..=per_camera {
                for name in &names {
                    queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
                }
                seq += 1;
            }
            for queued in queue.pop_batch(Room::of(max), NOW).expect("open").clips {
                let i = names.iter().position(|n| n == queued.clip.camera.as_str()).expect("known");
                turns[i] += 1;
            }
        }
        let total: u64 = turns.iter().sum();
        for (turns, priority) in turns.iter().zip(&priorities) {
            let fair = (total * priority) as f64 / sum as f64;
            prop_assert!((*turns as f64 - fair).abs() <= 0.1 * fair, "{turns} of {total}, {fair} would be fair");
        }
        for (name, turns) in names.iter().zip(turns) {
            let waiting = seq - turns - queue.dropped()[&camera(name)];
            prop_assert!(waiting <= per_camera as u64, "every clip is described, dropped or waits");
        }
    }

    #[test]
    fn every_clip_comes_out_once_in_its_cameras_order_or_is_counted_as_dropped(
        per_camera in 1usize..4,
        ops in prop::collection::vec(
            prop_oneof![3 => (0usize..3).prop_map(Op::Push), 1 => (1usize..5).prop_map(Op::Pop)],
            1..80,
        ),
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let queue = ClipQueue::new(count(per_camera));
        let mut model: [VecDeque<u64>; 3] = Default::default();
        let mut next = [0u64; 3];
        let mut dropped = [0u64; 3];
        let mut unsaid = [0u64; 3];
        for op in ops {
            match op {
                Op::Push(c) => {
                    queue.push(clip(NAMES[c], next[c]), Overflow::DropOldest).expect("open");
                    model[c].push_back(next[c]);
                    next[c] += 1;
                    if model[c].len() > per_camera {
                        model[c].pop_front();
                        dropped[c] += 1;
                        unsaid[c] += 1;
                    }
                }
                Op::Pop(max) if !queue.is_empty() => {
                    let waiting = model.iter().filter(|queue| !queue.is_empty()).count();
                    let total: usize = model.iter().map(VecDeque::len).sum();
                    let batch = queue.pop_batch(Room::of(max), NOW).expect("open").clips;
                    prop_assert_eq!(batch.len(), max.min(total));
                    // No camera is served twice before every waiting camera is served once.
                    let mut first: Vec<_> = batch.iter().take(waiting).map(|q| q.clip.camera.clone()).collect();
                    first.sort();
                    first.dedup();
                    prop_assert_eq!(first.len(), batch.len().min(waiting));
                    for queued in batch {
                        let c = NAMES.iter().position(|n| *n == queued.clip.camera.as_str()).expect("known");
                        prop_assert_eq!(Some(queued.clip.seq), model[c].pop_front());
                        prop_assert_eq!(queued.dropped_before, std::mem::take(&mut unsaid[c]));
                    }
                }
                Op::Pop(_) => {}
            }
            prop_assert_eq!(queue.len(), model.iter().map(VecDeque::len).sum::<usize>());
        }
        for c in 0..3 {
            prop_assert_eq!(queue.dropped().get(&camera(NAMES[c])).copied().unwrap_or(0), dropped[c]);
        }
    }
}

#[test]
fn a_camera_that_is_unregistered_releases_its_waiting_pusher_and_may_register_again() {
    let queue = Arc::new(ClipQueue::new(count(1)));
    queue.push(clip("file", 0), Overflow::Block).expect("open");
    let waiting = {
        let queue = Arc::clone(&queue);
        thread::spawn(move || queue.push(clip("file", 1), Overflow::Block))
    };
    thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    queue.unregister(&camera("file"));
    assert_eq!(waiting.join().expect("no panic"), Err(Closed));
    assert_eq!(queue.push(clip("file", 2), Overflow::DropOldest), Err(Closed));
    queue.push(clip("other", 0), Overflow::DropOldest).expect("it has not left");
    queue.register(&camera("file"), 1);
    let batch = queue.pop_batch(Room::of(4), NOW).expect("open").clips;
    assert_eq!(names(&batch), [("other", 0), ("file", 0)]);
    queue.push(clip("file", 3), Overflow::Block).expect("it is back");
}

#[test]
fn discarded_clips_are_counted() {
    let queue = ClipQueue::new(count(2));
    for (name, seq) in [("a", 0), ("a", 1), ("b", 0)] {
        queue.push(clip(name, seq), Overflow::DropOldest).expect("open");
    }
    queue.close();
    assert_eq!(queue.discard(), 3);
    assert_eq!(queue.dropped(), BTreeMap::from([(camera("a"), 2), (camera("b"), 1)]));
    assert!(queue.is_empty() && queue.pop_batch(Room::of(1), NEVER).is_none());
}
