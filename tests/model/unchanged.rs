//! Clips in which nothing has changed: they never reach the model, and their events repeat the last
//! description.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use camscribe::{
    answer::{DescribeError, Description, StageTimes},
    clip::Clip,
    describe::{
        Describer, Work, in_batches,
        worker::{self, Batching},
    },
    device::GpuInfo,
    event::{Event, EventKind, FinishReason, ModelInfo, Tokens},
    events::EventBuilder,
    frame::{Clock, Frame},
    heartbeat::Heartbeat,
    prompt_spec::{GateConfig, PromptSpec},
    queue::{ClipQueue, Overflow},
    request::{Content, Request},
};
use chrono::{DateTime, TimeDelta};

/// A describer that records the clips it gets. It fails on a clip whose first pixel is [`BAD`].
#[derive(Default)]
struct Model(Seen);

const BAD: u8 = 13;

impl Describer for Model {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "words".into(), revision: String::new(), device: "cpu".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::default()
    }

    /// It describes clips together.
    fn gpu(&self) -> Option<GpuInfo> {
        Some(GpuInfo {
            name: "words".into(),
            compute_capability: "9.0".into(),
            cuda: "13.0".into(),
            memory_bytes: 0,
            free_bytes: 0,
        })
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        in_batches(work, &|_| None, |requests| {
            let describe = |request: &Request| {
                let Content::Video(video) = &request.messages[0].content[0] else {
                    panic!("a clip has frames")
                };
                // See `clip`.
                let seq = video.duration.as_secs() - 8;
                self.0.push((request.camera.as_ref().unwrap().to_string(), seq));
                let grey = video.frames[0].1.rgb[0];
                if grey == BAD {
                    return Err(DescribeError::Request("bad".into()));
                }
                Ok(Description {
                    text: format!("Grey {grey}."),
                    labels: Vec::new(),
                    finish_reason: FinishReason::Stop,
                    tokens: Tokens { prompt: 9, image: 6, generated: 3 },
                    stages: StageTimes::default(),
                })
            };
            Ok(requests.iter().map(describe).collect())
        })
    }
}

/// Two frames with a square of this grey on white. The duration tells the number of the clip.
fn clip(camera: &str, seq: u64, grey: u8, gate: Option<GateConfig>) -> Clip {
    let start = DateTime::UNIX_EPOCH + TimeDelta::seconds(8 * seq as i64);
    let pixel = |i: usize| if i % 64 < 32 { grey } else { 255 };
    let frame = Frame {
        camera: camera.parse().unwrap(),
        captured_at: start,
        clock: Clock::Camera,
        pts: Duration::from_secs(8 * seq),
        width: 64,
        height: 36,
        rgb: (0..64 * 36).flat_map(|i| [pixel(i); 3]).collect(),
        original: None,
    };
    Clip {
        camera: frame.camera.clone(),
        seq,
        start,
        end: start + TimeDelta::seconds(8),
        clock: Clock::Camera,
        start_pts: frame.pts,
        duration: Duration::from_secs(8 + seq),
        frames: vec![frame.clone(), frame],
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec { gate, ..PromptSpec::new("What happens?", 8) }),
    }
}

fn gate() -> Option<GateConfig> {
    Some(GateConfig { threshold: 10, heartbeat: Duration::from_secs(40) })
}

/// Cameras and sequence numbers of the clips that reached the model.
type Seen = Vec<(String, u64)>;

/// Runs the worker on clips, `batch` at a time. Returns the events, and the clips that reached the model.
fn run(clips: Vec<Clip>, batch: usize) -> (Vec<Result<Event, DescribeError>>, Seen) {
    let queue = ClipQueue::new(NonZeroUsize::new(100).unwrap());
    for clip in clips {
        queue.push(clip, Overflow::Block).unwrap();
    }
    queue.close();
    let batching =
        Batching { max_batch: NonZeroUsize::new(batch).unwrap(), linger: Duration::ZERO, client_share: 0.0 };
    let (mut model, mut events) = (Model::default(), Vec::new());
    let mut builder = EventBuilder::new("edge1", model.model());
    worker::run(&mut model, &queue, batching, |outcome| events.push(builder.build(outcome).1)).unwrap();
    (events, model.0)
}

fn of(greys: &[u8]) -> Vec<Clip> {
    greys.iter().enumerate().map(|(seq, grey)| clip("porch", seq as u64, *grey, gate())).collect()
}

#[test]
fn a_still_clip_repeats_the_last_description_and_never_reaches_the_model() {
    let (events, seen) = run(of(&[40, 40, 40, 120, 120]), 1);
    let events: Vec<Event> = events.into_iter().map(Result::unwrap).collect();
    let kinds: Vec<_> = events.iter().map(|e| e.kind == EventKind::Unchanged).collect();
    assert_eq!(kinds, [false, true, true, false, true]);
    assert_eq!(seen, [("porch".into(), 0), ("porch".into(), 3)]);
    let repeats: Vec<_> = events.iter().map(|e| e.repeats).collect();
    assert_eq!(repeats, [None, Some(events[0].id), Some(events[0].id), None, Some(events[3].id)]);
    assert_eq!(events.iter().map(|e| e.clip.seq).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let texts: Vec<_> = events.iter().map(|e| e.description.as_str()).collect();
    assert_eq!(texts, ["Grey 40.", "Grey 40.", "Grey 40.", "Grey 120.", "Grey 120."]);
    assert_eq!((events[1].tokens.prompt, events[1].timing_ms.decode), (0, 0));
    let mut ids: Vec<_> = events.iter().map(|e| e.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each event has an id of its own");
}

#[test]
fn a_still_scene_is_described_again_after_the_heartbeat() {
    let (_, seen) = run(of(&[40; 12]), 1);
    // A clip every eight seconds, a description every forty.
    assert_eq!(seen.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [0, 5, 10]);
}

#[test]
fn clips_of_one_batch_stay_in_order_and_none_repeats_an_event_that_is_not_made_yet() {
    let yard = (0..3).map(|seq| clip("yard", seq, 200, None));
    let (events, seen) = run(of(&[40, 40, 120, 120]).into_iter().chain(yard).collect(), 16);
    assert_eq!(seen.iter().filter(|(camera, _)| camera == "porch").count(), 4, "none was known before");
    assert_eq!(seen.iter().filter(|(camera, _)| camera == "yard").count(), 3, "it has no gate");
    for camera in ["porch", "yard"] {
        let seqs: Vec<_> = events.iter().flatten().filter(|e| e.camera.as_str() == camera).collect();
        assert!(seqs.iter().map(|e| e.clip.seq).eq(0..seqs.len() as u64));
    }
    // Three at a time: the descriptions of the batch before are known.
    let (events, seen) = run(of(&[40, 40, 40, 40, 120, 40]), 3);
    assert_eq!(seen.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [0, 1, 2, 4, 5]);
    let events: Vec<Event> = events.into_iter().map(Result::unwrap).collect();
    assert_eq!(events[3].repeats, Some(events[2].id));
    assert!(events.iter().map(|e| e.clip.seq).eq(0..6));
}

#[test]
fn a_clip_that_could_not_be_described_is_counted_and_nothing_repeats_it() {
    let (events, seen) = run(of(&[BAD, BAD, 120, 120]), 1);
    assert_eq!(seen.len(), 3);
    let failed: Vec<_> = events.iter().map(|e| e.as_ref().map(|e| e.dropped.failed).ok()).collect();
    assert_eq!(failed, [None, None, Some(2), Some(0)]);
}

#[test]
fn an_event_of_an_unchanged_clip_conforms_to_the_schema() {
    let (events, _) = run(of(&[40, 40]), 1);
    let schema = serde_json::to_value(camscribe::event::json_schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for event in events {
        let json = serde_json::to_value(event.unwrap()).unwrap();
        let faults: Vec<_> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{json:#}: {faults:?}");
        assert_eq!(json.get("repeats").is_some(), json["type"] == "unchanged");
    }
}
