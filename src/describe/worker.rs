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
    clip::{Clip, Question},
    event::{ClipInfo, Dropped, Event, EventKind, FrameInfo, ModelInfo, SCHEMA, Timing, Tokens},
    frame::{BadCameraId, CameraId, Clock, Frame},
    gate::Look,
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
    let fit = describer.most_clips().filter(|fit| *fit < batching.max_batch);
    if let Some(fit) = fit {
        tracing::info!("at most {fit} clips are described at once: the device has no memory for more");
    }
    let mut most = fit.unwrap_or(batching.max_batch);
    while let Some(batch) = queue.pop_batch(most, batching.linger) {
        progress.step();
        let started = Instant::now();
        let (mut asked, mut clips) = (Vec::<Asked>::new(), Vec::<Clip>::new());
        for queued in batch {
            let (wait, clip) = Wait::split(queued, started);
            let look = Look::at(&clip);
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
        let described = match describe(describer, &clips, &mut most) {
            Ok(described) => described,
            Err(error) => {
                let text = error.to_string();
                for clip in clips {
                    done(Outcome { clip, event: Err(DescribeError::Device(text.clone())) });
                }
                return Err(error);
            }
        };
        for ((asked, clip), result) in asked.into_iter().zip(clips).zip(described) {
            let event = scribe.described(&clip, asked, result);
            done(Outcome { clip, event });
            progress.step();
        }
        progress.idle();
    }
    Ok(())
}

/// Describes all clips, in parts of at most `most`: half as many, from now on, whenever the device has
/// too little memory for one.
fn describe(
    describer: &mut dyn Describer,
    clips: &[Clip],
    most: &mut NonZeroUsize,
) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
    let mut described = Vec::with_capacity(clips.len());
    while let Some(left) = clips.get(described.len()..).filter(|left| !left.is_empty()) {
        let part = &left[..most.get().min(left.len())];
        match describer.describe(part) {
            Ok(done) => described.extend(done),
            Err(DescribeError::OutOfMemory(why)) => match NonZeroUsize::new(part.len() / 2) {
                Some(half) => {
                    *most = half;
                    tracing::warn!(
                        "the device has too little memory for {} clips at once ({why}): at most {half} from now on",
                        part.len()
                    );
                }
                None => described.push(Err(DescribeError::OutOfMemory(why))),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(described)
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
        question: Arc::new(Question { prompt: "What is this?".into(), max_tokens: 1, gate: None }),
    })
}

/// What is remembered of a clip while the model looks at it.
struct Asked {
    wait: Wait,
    look: Option<Look>,
}

/// Writes events. Remembers what was last said about each camera.
struct Scribe<'a> {
    node: &'a str,
    model: ModelInfo,
    last: BTreeMap<CameraId, (Look, Event)>,
    /// Clips that the model could not describe, since the camera's last event.
    failed: BTreeMap<CameraId, u64>,
}

impl<'a> Scribe<'a> {
    fn new(node: &'a str, model: ModelInfo) -> Self {
        Self { node, model, last: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// The event of a clip that shows nothing new; none if it has to be described.
    fn unchanged(&mut self, clip: &Clip, look: &Look, wait: &Wait) -> Option<Event> {
        let (described, last) = self.last.get(&clip.camera)?;
        // An answer to another question is none to this one.
        if last.prompt != clip.question.prompt || !look.repeats(described) {
            return None;
        }
        let total = wait.queued_at.elapsed();
        Some(Event {
            id: Uuid::now_v7(),
            kind: EventKind::Unchanged,
            repeats: Some(last.id),
            clip: info(clip),
            tokens: Tokens::default(),
            timing_ms: Timing { queued: ms(wait.queued), total: ms(total), ..Timing::default() },
            dropped: Dropped {
                clips: wait.dropped,
                failed: self.failed.remove(&clip.camera).unwrap_or_default(),
            },
            ..last.clone()
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
        let description = result.inspect_err(|_| *self.failed.entry(camera.clone()).or_default() += 1)?;
        let failed = self.failed.remove(camera).unwrap_or_default();
        let event = self.event(clip, description, &wait, failed);
        match look {
            Some(look) => drop(self.last.insert(camera.clone(), (look.end(), event.clone()))),
            None => drop(self.last.remove(camera)),
        }
        Ok(event)
    }

    fn event(&self, clip: &Clip, d: Description, wait: &Wait, failed: u64) -> Event {
        Event {
            schema: SCHEMA,
            id: Uuid::now_v7(),
            kind: EventKind::Description,
            node: self.node.to_owned(),
            camera: clip.camera.clone(),
            description: d.text,
            repeats: None,
            clip: info(clip),
            prompt: clip.question.prompt.clone(),
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
            dropped: Dropped { clips: wait.dropped, failed },
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

    /// A device with room for so many clips.
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

        fn most_clips(&self) -> Option<NonZeroUsize> {
            self.said.and_then(NonZeroUsize::new)
        }

        fn describe(
            &mut self,
            clips: &[Clip],
        ) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
            self.tried.push(clips.len());
            if clips.len() > self.room {
                return Err(DescribeError::OutOfMemory("full".into()));
            }
            let describe = |clip: &Clip| Description {
                text: clip.seq.to_string(),
                finish_reason: FinishReason::Stop,
                tokens: Tokens::default(),
                stages: super::super::Stages::default(),
            };
            Ok(clips.iter().map(|clip| Ok(describe(clip))).collect())
        }
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_until_it_does_and_so_are_those_after_it() {
        let mut device = Small { room: 3, said: None, tried: Vec::new() };
        let clips: Vec<Clip> = (0..10).map(|seq| Clip { seq, ..grey().unwrap() }).collect();
        let mut most = NonZeroUsize::new(16).unwrap();
        for _ in 0..2 {
            let described = describe(&mut device, &clips, &mut most).unwrap();
            let texts: Vec<_> = described.into_iter().map(|it| it.unwrap().text).collect();
            assert_eq!(texts, (0..10).map(|seq| seq.to_string()).collect::<Vec<_>>());
        }
        assert_eq!(device.tried, [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_clip_that_does_not_even_fit_alone_is_the_only_one_that_is_not_described() {
        let mut device = Small { room: 0, said: None, tried: Vec::new() };
        let clips = [grey().unwrap(), grey().unwrap()];
        let mut most = NonZeroUsize::new(2).unwrap();
        let described = describe(&mut device, &clips, &mut most).unwrap();
        assert!(matches!(
            described[..],
            [Err(DescribeError::OutOfMemory(_)), Err(DescribeError::OutOfMemory(_))]
        ));
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
