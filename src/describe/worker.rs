//! The one thread that owns the model: takes a batch of clips, has it described, hands the events on.
//! Clips in which nothing has changed never reach the model.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::{DescribeError, Describer, Description};
use crate::{
    camera::{BadCameraId, CameraId},
    clip::Clip,
    event::{ClipInfo, Dropped, Event, EventKind, FrameInfo, ModelInfo, SCHEMA, Timing, Tokens},
    frame::{Clock, Frame},
    gate::Fingerprint,
    prompt_spec::PromptSpec,
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
    let mut scribe = Scribe::new(node, describer.model());
    let progress = describer.progress();
    let mut room = Room::new(batching.max_batch);
    while let Some(batch) = queue.pop_batch(room.at_once(), batching.linger) {
        progress.step();
        let started = Instant::now();
        let (mut asked, mut clips) = (Vec::<Asked>::new(), Vec::<Clip>::new());
        for queued in batch {
            let (wait, clip) = Wait::split(queued, started);
            let look = Fingerprint::of(&clip);
            // What an earlier clip of this batch will be described as is not known yet.
            let first = clips.iter().all(|earlier| earlier.camera != clip.camera);
            match look.as_ref().filter(|_| first).and_then(|look| scribe.unchanged(&clip, look, &wait)) {
                Some(event) => done(Outcome { clip, event: Ok(event) }),
                None => {
                    asked.push(Asked { wait, look });
                    clips.push(clip);
                }
            }
        }
        if clips.is_empty() {
            progress.idle();
            continue;
        }
        let (mut described, failed) = room.describe(describer, &clips);
        if let Some(error) = &failed {
            described.resize_with(clips.len(), || Err(DescribeError::Device(error.to_string())));
        }
        for ((asked, clip), result) in asked.into_iter().zip(clips).zip(described) {
            let event = scribe.described(&clip, asked, result);
            done(Outcome { clip, event });
            progress.step();
        }
        if let Some(error) = failed {
            return Err(error);
        }
        progress.idle();
    }
    Ok(())
}

/// How many clips the device has memory for at once, as far as is known.
struct Room {
    /// Never more than that.
    max: NonZeroUsize,
    most: NonZeroUsize,
    /// Batches in a row that fitted.
    good: u32,
    /// What the last batch's clips left room for.
    fit: NonZeroUsize,
    /// The fewest that was told of.
    told: NonZeroUsize,
}

/// After so many batches that fitted, more clips are tried again: who took the memory may be gone.
const GOOD: u32 = 200;

impl Room {
    fn new(max: NonZeroUsize) -> Self {
        Self { max, most: max, good: 0, fit: max, told: max }
    }

    /// How many clips are worth taking out of the queue: those that wait there can still make room for newer
    /// ones.
    fn at_once(&self) -> NonZeroUsize {
        self.most.min(self.fit)
    }

    /// Describes clips, in parts of at most as many as fit: half as many, whenever the device has too
    /// little memory for one. Also gives the error that ended it before the last clip.
    fn describe(
        &mut self,
        describer: &mut dyn Describer,
        clips: &[Clip],
    ) -> (Vec<Result<Description, DescribeError>>, Option<DescribeError>) {
        let mut described = Vec::with_capacity(clips.len());
        while let Some(left) = clips.get(described.len()..).filter(|left| !left.is_empty()) {
            let part = &left[..self.fitting(describer, left).min(left.len())];
            match describer.describe(part) {
                Ok(done) => {
                    described.extend(done);
                    self.fitted();
                }
                Err(DescribeError::OutOfMemory(why)) => match NonZeroUsize::new(part.len() / 2) {
                    Some(half) => {
                        (self.most, self.good) = (half, 0);
                        tracing::warn!(
                            "the device has too little memory for {} clips at once ({why}): at most {half} now",
                            part.len()
                        );
                    }
                    // One that does not even fit alone is at fault itself, unless nothing fits.
                    None if warm_up(describer).is_err() => {
                        return (described, Some(DescribeError::OutOfMemory(why)));
                    }
                    None => described.push(Err(DescribeError::OutOfMemory(why))),
                },
                Err(error) => return (described, Some(error)),
            }
        }
        (described, None)
    }

    /// How many of these clips are tried at once.
    fn fitting(&mut self, describer: &dyn Describer, clips: &[Clip]) -> usize {
        let frames = clips.iter().map(|clip| clip.frames.len()).max().unwrap_or_default();
        self.fit = describer.most_clips(frames).unwrap_or(self.max);
        if self.fit < self.told {
            self.told = self.fit;
            tracing::info!(
                "at most {} clips of {frames} frames are described at once: there is no memory for more",
                self.fit
            );
        }
        self.at_once().get()
    }

    fn fitted(&mut self) {
        self.good += 1;
        if self.good == GOOD {
            self.good = 0;
            self.most = self.most.saturating_mul(NonZeroUsize::MIN.saturating_add(1)).min(self.max);
        }
    }
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
        original: None,
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
        prompt_spec: Arc::new(PromptSpec { prompt: "What is this?".into(), max_tokens: 1, gate: None }),
    })
}

/// What is remembered of a clip while the model looks at it.
struct Asked {
    wait: Wait,
    look: Option<Fingerprint>,
}

/// Writes events. Remembers what was last said about each camera.
struct Scribe<'a> {
    node: &'a str,
    model: ModelInfo,
    last: BTreeMap<CameraId, (Fingerprint, Event)>,
    /// What was lost since the camera's last event: clips that the model could not describe, and those that
    /// were dropped before them.
    lost: BTreeMap<CameraId, Dropped>,
}

impl<'a> Scribe<'a> {
    fn new(node: &'a str, model: ModelInfo) -> Self {
        Self { node, model, last: BTreeMap::new(), lost: BTreeMap::new() }
    }

    /// The event of a clip that shows nothing new; none if it has to be described.
    fn unchanged(&mut self, clip: &Clip, look: &Fingerprint, wait: &Wait) -> Option<Event> {
        let (described, last) = self.last.get(&clip.camera)?;
        // A camera that was started anew begins to count anew, and may look somewhere else.
        if clip.seq <= last.clip.seq || !look.repeats(described) {
            return None;
        }
        let last = last.clone();
        let total = wait.queued_at.elapsed();
        Some(Event {
            id: Uuid::now_v7(),
            kind: EventKind::Unchanged,
            repeats: Some(last.id),
            clip: info(clip),
            tokens: Tokens::default(),
            timing_ms: Timing { queued: ms(wait.queued), total: ms(total), ..Timing::default() },
            dropped: self.lost_before(&clip.camera, wait),
            ..last
        })
    }

    /// The event of a clip that the model has seen.
    fn described(
        &mut self,
        clip: &Clip,
        Asked { wait, look }: Asked,
        result: Result<Description, DescribeError>,
    ) -> Result<Event, DescribeError> {
        let camera = &clip.camera;
        let mut dropped = self.lost_before(camera, &wait);
        let description = match result {
            Ok(description) => description,
            Err(error) => {
                dropped.failed += 1;
                self.lost.insert(camera.clone(), dropped);
                return Err(error);
            }
        };
        let event = self.event(clip, description, &wait, dropped);
        match look {
            Some(look) => drop(self.last.insert(camera.clone(), (look.keep_last_frame(), event.clone()))),
            None => drop(self.last.remove(camera)),
        }
        Ok(event)
    }

    /// What was lost of a camera up to the clip that has waited so.
    fn lost_before(&mut self, camera: &CameraId, wait: &Wait) -> Dropped {
        let lost = self.lost.remove(camera).unwrap_or_default();
        Dropped { clips: lost.clips + wait.dropped, ..lost }
    }

    fn event(&self, clip: &Clip, d: Description, wait: &Wait, dropped: Dropped) -> Event {
        Event {
            schema: SCHEMA,
            id: Uuid::now_v7(),
            kind: EventKind::Description,
            node: self.node.to_owned(),
            camera: clip.camera.clone(),
            description: d.text,
            repeats: None,
            clip: info(clip),
            prompt: clip.prompt_spec.prompt.clone(),
            finish_reason: d.finish_reason,
            model: self.model.clone(),
            tokens: d.tokens,
            timing_ms: Timing {
                queued: ms(wait.queued),
                preprocess: ms(d.stages.preprocess),
                vision: ms(d.stages.vision),
                prefill: ms(d.stages.prefill),
                decode: ms(d.stages.decode),
                total: ms(wait.queued_at.elapsed()),
            },
            dropped,
        }
    }
}

/// A clip's time in the queue, and what was dropped before it.
struct Wait {
    queued_at: Instant,
    queued: Duration,
    dropped: u64,
}

impl Wait {
    fn split(Queued { clip, queued_at, dropped_before }: Queued, taken: Instant) -> (Self, Clip) {
        (Self { queued_at, queued: taken.duration_since(queued_at), dropped: dropped_before }, clip)
    }
}

fn info(clip: &Clip) -> ClipInfo {
    let (width, height) = clip.frames[0].source_size();
    ClipInfo {
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
        width,
        height,
        gap: clip.gap,
    }
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds with microsecond steps: what a PTS holds, without the binary noise of a bare f64.
fn seconds(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FinishReason;

    /// A device with room for so many frames; most clips here have one.
    struct Small {
        room: usize,
        /// What it says of that.
        said: Option<usize>,
        tried: Vec<usize>,
    }

    impl Describer for Small {
        fn model(&self) -> ModelInfo {
            ModelInfo {
                id: "small".into(),
                revision: String::new(),
                device: "gpu".into(),
                dtype: "f32".into(),
            }
        }

        fn progress(&self) -> Arc<crate::progress::Progress> {
            Arc::default()
        }

        fn most_clips(&self, frames: usize) -> Option<NonZeroUsize> {
            NonZeroUsize::new(self.said? / frames)
        }

        fn describe(
            &mut self,
            clips: &[Clip],
        ) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
            self.tried.push(clips.len());
            if clips.iter().map(|clip| clip.frames.len()).sum::<usize>() > self.room {
                return Err(DescribeError::OutOfMemory("full".into()));
            }
            Ok(clips.iter().map(described).collect())
        }
    }

    fn clips(count: u64) -> Vec<Clip> {
        (0..count).map(|seq| Clip { seq, ..grey().unwrap() }).collect()
    }

    fn look(clip: &Clip) -> Fingerprint {
        let gate = crate::prompt_spec::GateConfig { threshold: 10, heartbeat: Duration::from_secs(600) };
        let prompt_spec = Arc::new(PromptSpec { gate: Some(gate), ..(*clip.prompt_spec).clone() });
        Fingerprint::of(&Clip { prompt_spec, ..clip.clone() }).unwrap()
    }

    fn wait(dropped: u64) -> Wait {
        Wait { queued_at: Instant::now(), queued: Duration::ZERO, dropped }
    }

    fn described(clip: &Clip) -> Result<Description, DescribeError> {
        Ok(Description {
            text: clip.seq.to_string(),
            finish_reason: FinishReason::Stop,
            tokens: Tokens::default(),
            stages: super::super::Stages::default(),
        })
    }

    fn scribe() -> Scribe<'static> {
        Scribe::new("node", Small { room: 1, said: None, tried: Vec::new() }.model())
    }

    #[test]
    fn what_was_dropped_before_a_clip_that_fails_is_told_with_the_next_event() {
        let (mut scribe, clips) = (scribe(), clips(3));
        let asked = |dropped| Asked { wait: wait(dropped), look: None };
        let failed = Err(DescribeError::Clip("bad".into()));
        assert!(scribe.described(&clips[0], asked(3), failed).is_err());
        let event = scribe.described(&clips[1], asked(1), described(&clips[1])).unwrap();
        assert_eq!(event.dropped, Dropped { clips: 4, failed: 1 });
        let event = scribe.described(&clips[2], asked(0), described(&clips[2])).unwrap();
        assert_eq!(event.dropped, Dropped::default());
    }

    #[test]
    fn a_camera_that_was_started_anew_is_described_anew() {
        let (mut scribe, clips) = (scribe(), clips(6));
        let asked = Asked { wait: wait(0), look: Some(look(&clips[4])) };
        scribe.described(&clips[4], asked, described(&clips[4])).unwrap();
        let next = scribe.unchanged(&clips[5], &look(&clips[5]), &wait(0)).unwrap();
        assert_eq!((next.kind, next.description.as_str()), (EventKind::Unchanged, "4"));
        let again = Clip { seq: 0, ..clips[5].clone() };
        assert!(scribe.unchanged(&again, &look(&again), &wait(0)).is_none());
    }

    fn room(max: usize) -> Room {
        Room::new(NonZeroUsize::new(max).unwrap())
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_until_it_does_and_so_are_those_after_it() {
        let mut device = Small { room: 3, said: None, tried: Vec::new() };
        let mut room = room(16);
        for _ in 0..2 {
            let (described, error) = room.describe(&mut device, &clips(10));
            let texts: Vec<_> = described.into_iter().map(|it| it.unwrap().text).collect();
            assert_eq!(texts, (0..10).map(|seq| seq.to_string()).collect::<Vec<_>>());
            assert!(error.is_none());
        }
        assert_eq!(device.tried, [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn larger_batches_are_tried_again_after_a_while() {
        let mut device = Small { room: 3, said: None, tried: Vec::new() };
        let mut room = room(8);
        let _ = room.describe(&mut device, &clips(8));
        device.room = 8;
        for _ in 0..2 * GOOD {
            let _ = room.describe(&mut device, &clips(1));
        }
        assert_eq!(room.most.get(), 8);
    }

    #[test]
    fn a_clip_that_does_not_fit_alone_is_not_described_and_where_none_fits_it_is_the_device() {
        let mut device = Small { room: 1, said: None, tried: Vec::new() };
        let mut room = room(3);
        let large = |seq| {
            let clip = grey().unwrap();
            Clip { seq, frames: [clip.frames.clone(), clip.frames.clone()].concat(), ..clip }
        };
        // However often, and whatever comes between.
        let (described, error) = room.describe(&mut device, &[large(0), large(1), large(2), large(3)]);
        assert_eq!(described.len(), 4);
        assert!(described.iter().all(|it| matches!(it, Err(DescribeError::OutOfMemory(_)))));
        assert!(error.is_none());
        assert!(room.describe(&mut device, &clips(1)).0[0].is_ok());
        device.room = 0;
        let (described, error) = room.describe(&mut device, &clips(2));
        assert!(described.is_empty());
        assert!(matches!(error, Some(DescribeError::OutOfMemory(_))));
    }

    #[test]
    fn no_batch_is_tried_that_is_known_not_to_fit() {
        let mut device = Small { room: 3, said: Some(3), tried: Vec::new() };
        let queue = ClipQueue::new(NonZeroUsize::new(8).unwrap());
        for seq in 0..8 {
            queue.push(Clip { seq, ..grey().unwrap() }, crate::queue::Overflow::DropOldest).unwrap();
        }
        queue.close();
        let batching = Batching { max_batch: NonZeroUsize::new(16).unwrap(), linger: Duration::ZERO };
        let mut done = 0;
        run(&mut device, &queue, batching, "node", |outcome| done += usize::from(outcome.event.is_ok()))
            .unwrap();
        assert_eq!((device.tried, done), (vec![3, 3, 2], 8));
    }
}
