//! The one thread that owns the model: takes a batch of clips, has it described, hands the events on.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::{DescribeError, Describer, Description};
use crate::{
    clip::{Clip, Question},
    event::{ClipInfo, Dropped, Event, EventKind, FrameInfo, ModelInfo, SCHEMA, Timing},
    frame::{BadCameraId, CameraId, Clock, Frame},
    queue::{ClipQueue, Queued},
};

/// How clips are put together for the model.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most clips at once.
    pub max_batch: NonZeroUsize,
    /// How long an incomplete batch waits for more clips.
    pub linger: Duration,
}

/// What became of a clip.
pub struct Outcome {
    /// The clip, for a snapshot of what was described.
    pub clip: Clip,
    /// The event, or why there is none.
    pub event: Result<Event, DescribeError>,
}

/// Describes clips until the queue is closed and empty; `done` gets every clip, in order per camera,
/// before the next batch begins.
///
/// # Errors
/// When the device fails. The clips of that batch are handed to `done` with that error.
pub fn run(
    describer: &mut dyn Describer,
    queue: &ClipQueue,
    batching: Batching,
    node: &str,
    mut done: impl FnMut(Outcome),
) -> Result<(), DescribeError> {
    let model = describer.model();
    let progress = describer.progress();
    while let Some(batch) = queue.pop_batch(batching.max_batch, batching.linger) {
        progress.step();
        let started = Instant::now();
        let (waits, clips): (Vec<_>, Vec<_>) = batch.into_iter().map(Wait::split).unzip();
        let described = match describer.describe(&clips) {
            Ok(described) => described,
            Err(error) => {
                let text = error.to_string();
                for clip in clips {
                    done(Outcome { clip, event: Err(DescribeError::Device(text.clone())) });
                }
                return Err(error);
            }
        };
        for ((wait, clip), result) in waits.into_iter().zip(clips).zip(described) {
            let event = result.map(|d| event(node, &model, &clip, d, wait, started));
            done(Outcome { clip, event });
            progress.step();
        }
        progress.idle();
    }
    Ok(())
}

/// One small inference, so that what only computing can show is known before there are cameras:
/// a device that fails, weights that give no numbers. The first batch is not slower for it either.
///
/// # Errors
/// When the model cannot describe anything.
pub fn warm_up(describer: &mut dyn Describer) -> Result<(), DescribeError> {
    let progress = describer.progress();
    progress.step();
    let clip = grey().map_err(|error| DescribeError::Clip(error.to_string()))?;
    let described = describer.describe(&[clip])?;
    progress.idle();
    described.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
}

/// A clip that shows nothing, and wants one word about it.
fn grey() -> Result<Clip, BadCameraId> {
    let (start, duration) = (Utc::now(), TimeDelta::seconds(1));
    let (camera, side) = ("warm-up".parse::<CameraId>()?, 64);
    let frame = Frame {
        camera: camera.clone(),
        captured_at: start,
        clock: Clock::Arrival,
        pts: Duration::ZERO,
        width: side,
        height: side,
        rgb: vec![128; (side * side * 3) as usize].into(),
    };
    Ok(Clip {
        camera,
        seq: 0,
        start,
        end: start + duration,
        clock: Clock::Arrival,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(1),
        frames: vec![frame],
        gap: false,
        question: Arc::new(Question { prompt: "What is this?".into(), max_tokens: 1 }),
    })
}

/// A clip's time in the queue, and what was dropped before it.
struct Wait {
    queued_at: Instant,
    dropped: u64,
}

impl Wait {
    fn split(queued: Queued) -> (Self, Clip) {
        (Self { queued_at: queued.queued_at, dropped: queued.dropped_before }, queued.clip)
    }
}

fn event(node: &str, model: &ModelInfo, clip: &Clip, d: Description, wait: Wait, started: Instant) -> Event {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let first = &clip.frames[0];
    Event {
        schema: SCHEMA,
        id: Uuid::now_v7(),
        kind: EventKind::Description,
        node: node.to_owned(),
        camera: clip.camera.clone(),
        description: d.text,
        clip: ClipInfo {
            seq: clip.seq,
            start: clip.start,
            end: clip.end,
            clock: clip.clock,
            frames: clip
                .frames
                .iter()
                .enumerate()
                .map(|(i, f)| FrameInfo { offset_s: seconds(clip.offset(i)), pts_s: seconds(f.pts) })
                .collect(),
            width: first.width,
            height: first.height,
            gap: clip.gap,
        },
        prompt: clip.question.prompt.clone(),
        finish_reason: d.finish_reason,
        model: model.clone(),
        tokens: d.tokens,
        timing_ms: Timing {
            queued: ms(started.duration_since(wait.queued_at)),
            preprocess: ms(d.stages.preprocess),
            vision: ms(d.stages.vision),
            prefill: ms(d.stages.prefill),
            decode: ms(d.stages.decode),
            total: ms(wait.queued_at.elapsed()),
        },
        dropped: Dropped { clips: wait.dropped },
    }
}

/// Seconds with microsecond steps: what a PTS holds, without the binary noise of a bare f64.
fn seconds(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e6
}
