//! Batches the clips of a queue for a describer, on the thread that owns it. Clips in which nothing has changed are
//! left out.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};

use super::{
    change_gate::ChangeGate,
    describer::{DescribeError, Describer, Description},
};
use crate::{
    camera::{BadCameraId, CameraId},
    clip::Clip,
    frame::{Clock, Frame},
    gate::Fingerprint,
    prompt_spec::PromptSpec,
    queue::{ClipQueue, Queued},
};

/// Longest pause of a describer that is not available, so that it does not delay the end of the program.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// How clips are batched.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most clips in a batch.
    pub max_batch: NonZeroUsize,
    /// How long an incomplete batch waits for more clips.
    pub linger: Duration,
}

/// A clip's time in the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueTiming {
    /// When it was pushed.
    pub queued_at: Instant,
    /// How long it waited.
    pub queued: Duration,
    /// Clips of its camera that were dropped before it, since the last one that left the queue.
    pub dropped_before: u64,
}

/// What became of a clip.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The model described it.
    Described(Description),
    /// Nothing has changed since the last described clip of its camera, so the model was not asked.
    Unchanged,
}

/// A clip that the worker is done with.
#[derive(Debug)]
pub struct Outcome {
    /// The clip.
    pub clip: Clip,
    /// Its time in the queue.
    pub timing: QueueTiming,
    /// What became of it, or why it was not described.
    pub answer: Result<Answer, DescribeError>,
}

/// A clip on its way through the model.
struct Pending {
    timing: QueueTiming,
    fingerprint: Option<Fingerprint>,
}

/// Describes clips until the queue is closed and empty. `on_outcome` gets every clip, in order per camera, before the
/// next batch begins.
///
/// # Errors
/// When the device fails. The clips of that batch are handed to `on_outcome` with that error.
pub fn run(
    describer: &mut dyn Describer,
    queue: &ClipQueue,
    batching: Batching,
    mut on_outcome: impl FnMut(Outcome),
) -> Result<(), DescribeError> {
    let heartbeat = describer.heartbeat();
    let mut gate = ChangeGate::default();
    let mut sizer = BatchSizer::new(batching.max_batch);
    while let Some(batch) = queue.pop_batch(sizer.batch_size(), batching.linger) {
        heartbeat.beat();
        let popped_at = Instant::now();
        let (mut pending, mut clips) = (Vec::<Pending>::new(), Vec::<Clip>::new());
        for Queued { clip, queued_at, dropped_before } in batch {
            let queued = popped_at.duration_since(queued_at);
            let timing = QueueTiming { queued_at, queued, dropped_before };
            let fingerprint = Fingerprint::of(&clip);
            // A clip is compared with a described one: not with one of this batch, whose description is not known yet.
            let first = clips.iter().all(|earlier| earlier.camera != clip.camera);
            if first && fingerprint.as_ref().is_some_and(|fingerprint| gate.is_unchanged(&clip, fingerprint))
            {
                on_outcome(Outcome { clip, timing, answer: Ok(Answer::Unchanged) });
            } else {
                pending.push(Pending { timing, fingerprint });
                clips.push(clip);
            }
        }
        if clips.is_empty() {
            heartbeat.idle();
            continue;
        }
        let (mut described, failure) = sizer.describe(describer, &clips);
        if let Some(error) = &failure {
            described.resize_with(clips.len(), || Err(error.clone()));
        }
        for ((Pending { timing, fingerprint }, clip), result) in pending.into_iter().zip(clips).zip(described)
        {
            if result.is_ok() {
                gate.described(&clip, fingerprint);
            }
            on_outcome(Outcome { clip, timing, answer: result.map(Answer::Described) });
            heartbeat.beat();
        }
        heartbeat.idle();
        match failure {
            // The describer comes back by itself; until then live cameras' clips make room for newer ones.
            Some(DescribeError::Unavailable { reason, retry_after }) => {
                let pause = retry_after.min(MAX_PAUSE);
                tracing::warn!("nothing can be described for {} s: {reason}", pause.as_secs());
                thread::sleep(pause);
            }
            Some(error) => return Err(error),
            None => {}
        }
    }
    Ok(())
}

/// How many clips to describe at once, as far as the device's memory is known.
struct BatchSizer {
    /// The configured maximum.
    max: NonZeroUsize,
    /// The limit found by running out of memory: halved each time, doubled after [`GROW_AFTER`] batches that fitted.
    limit: NonZeroUsize,
    /// Batches in a row that fitted.
    fitted: u32,
    /// What the describer last said would fit.
    estimate: NonZeroUsize,
    /// The smallest estimate that was logged.
    logged: NonZeroUsize,
}

/// After so many batches that fitted, larger ones are tried again: another process may have freed its memory.
const GROW_AFTER: u32 = 200;

impl BatchSizer {
    fn new(max: NonZeroUsize) -> Self {
        Self { max, limit: max, fitted: 0, estimate: max, logged: max }
    }

    /// How many clips to take out of the queue. Clips that stay in the queue can still be replaced by newer ones.
    fn batch_size(&self) -> NonZeroUsize {
        self.limit.min(self.estimate)
    }

    /// Describes clips, in several batches if they do not fit into one. Returns the results of the clips in order, and
    /// the error that ended it if not all clips have one.
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
                    self.batch_fitted();
                }
                Err(DescribeError::OutOfMemory(why)) => match NonZeroUsize::new(part.len() / 2) {
                    Some(half) => {
                        (self.limit, self.fitted) = (half, 0);
                        tracing::warn!(
                            "the device has too little memory for {} clips at once ({why}): at most {half} now",
                            part.len()
                        );
                    }
                    // A single clip is too large, unless not even the smallest one fits.
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

    /// How many of these clips to describe at once.
    fn fitting(&mut self, describer: &dyn Describer, clips: &[Clip]) -> usize {
        let frames = clips.iter().map(|clip| clip.frames.len()).max().unwrap_or_default();
        self.estimate = describer.max_clips(frames).unwrap_or(self.max);
        if self.estimate < self.logged {
            self.logged = self.estimate;
            tracing::info!(
                "at most {} clips of {frames} frames are described at once: there is no memory for more",
                self.estimate
            );
        }
        self.batch_size().get()
    }

    fn batch_fitted(&mut self) {
        self.fitted += 1;
        if self.fitted == GROW_AFTER {
            self.fitted = 0;
            self.limit = self.limit.saturating_mul(NonZeroUsize::MIN.saturating_add(1)).min(self.max);
        }
    }
}

/// Describes one small clip, to find what only computing can show before there are cameras: a device that fails, weights
/// that give no numbers. It also makes the first batch faster.
///
/// # Errors
/// When the model cannot describe anything.
pub fn warm_up(describer: &mut dyn Describer) -> Result<(), DescribeError> {
    let heartbeat = describer.heartbeat();
    heartbeat.beat();
    let clip = grey_clip().map_err(|error| DescribeError::Clip(error.to_string()))?;
    let described = describer.describe(&[clip])?;
    heartbeat.idle();
    described.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
}

/// A grey frame with a short question that wants one token as its answer.
fn grey_clip() -> Result<Clip, BadCameraId> {
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
        prompt_spec: Arc::new(PromptSpec::new("What is this?", 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        describe::describer::StageTimes,
        event::{FinishReason, ModelInfo, Tokens},
        heartbeat::Heartbeat,
        queue::Overflow,
    };

    /// A device with memory for so many frames; most clips here have one.
    struct SmallDevice {
        memory: usize,
        /// The memory that it reports.
        reported: Option<usize>,
        /// Sizes of the batches that it was given.
        batches: Vec<usize>,
        /// What the next call returns instead of descriptions.
        next_error: Option<DescribeError>,
    }

    impl SmallDevice {
        fn new(memory: usize) -> Self {
            Self { memory, reported: None, batches: Vec::new(), next_error: None }
        }
    }

    impl Describer for SmallDevice {
        fn model(&self) -> ModelInfo {
            ModelInfo {
                id: "small".into(),
                revision: String::new(),
                device: "gpu".into(),
                dtype: "f32".into(),
            }
        }

        fn heartbeat(&self) -> Arc<Heartbeat> {
            Arc::default()
        }

        fn max_clips(&self, frames: usize) -> Option<NonZeroUsize> {
            NonZeroUsize::new(self.reported? / frames)
        }

        fn describe(
            &mut self,
            clips: &[Clip],
        ) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
            self.batches.push(clips.len());
            if let Some(error) = self.next_error.take() {
                return Err(error);
            }
            if clips.iter().map(|clip| clip.frames.len()).sum::<usize>() > self.memory {
                return Err(DescribeError::OutOfMemory("full".into()));
            }
            Ok(clips.iter().map(described).collect())
        }
    }

    fn clips(count: u64) -> Vec<Clip> {
        (0..count).map(|seq| Clip { seq, ..grey_clip().unwrap() }).collect()
    }

    fn described(clip: &Clip) -> Result<Description, DescribeError> {
        Ok(Description {
            text: clip.seq.to_string(),
            finish_reason: FinishReason::Stop,
            tokens: Tokens::default(),
            stages: StageTimes::default(),
        })
    }

    fn sizer(max: usize) -> BatchSizer {
        BatchSizer::new(NonZeroUsize::new(max).unwrap())
    }

    /// A closed queue with these clips.
    fn queue(clips: Vec<Clip>) -> ClipQueue {
        let queue = ClipQueue::new(NonZeroUsize::new(clips.len()).unwrap());
        for clip in clips {
            queue.push(clip, Overflow::DropOldest).unwrap();
        }
        queue.close();
        queue
    }

    fn batching(max: usize) -> Batching {
        Batching { max_batch: NonZeroUsize::new(max).unwrap(), linger: Duration::ZERO }
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_until_it_does_and_so_are_those_after_it() {
        let (mut device, mut sizer) = (SmallDevice::new(3), sizer(16));
        for _ in 0..2 {
            let (described, error) = sizer.describe(&mut device, &clips(10));
            let texts: Vec<_> = described.into_iter().map(|it| it.unwrap().text).collect();
            assert_eq!(texts, (0..10).map(|seq| seq.to_string()).collect::<Vec<_>>());
            assert!(error.is_none());
        }
        assert_eq!(device.batches, [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn larger_batches_are_tried_again_after_a_while() {
        let (mut device, mut sizer) = (SmallDevice::new(3), sizer(8));
        let _ = sizer.describe(&mut device, &clips(8));
        device.memory = 8;
        for _ in 0..2 * GROW_AFTER {
            let _ = sizer.describe(&mut device, &clips(1));
        }
        assert_eq!(sizer.limit.get(), 8);
    }

    #[test]
    fn a_clip_that_does_not_fit_alone_fails_and_if_no_clip_fits_the_device_fails() {
        let (mut device, mut sizer) = (SmallDevice::new(1), sizer(3));
        let large = |seq| {
            let clip = grey_clip().unwrap();
            Clip { seq, frames: [clip.frames.clone(), clip.frames.clone()].concat(), ..clip }
        };
        let (described, error) = sizer.describe(&mut device, &[large(0), large(1), large(2), large(3)]);
        assert_eq!(described.len(), 4);
        assert!(described.iter().all(|it| matches!(it, Err(DescribeError::OutOfMemory(_)))));
        assert!(error.is_none());
        assert!(sizer.describe(&mut device, &clips(1)).0[0].is_ok());
        device.memory = 0;
        let (described, error) = sizer.describe(&mut device, &clips(2));
        assert!(described.is_empty());
        assert!(matches!(error, Some(DescribeError::OutOfMemory(_))));
    }

    #[test]
    fn no_batch_is_tried_that_is_known_not_to_fit() {
        let mut device = SmallDevice { reported: Some(3), ..SmallDevice::new(3) };
        let mut done = 0;
        run(&mut device, &queue(clips(8)), batching(16), |outcome| {
            done += usize::from(outcome.answer.is_ok())
        })
        .unwrap();
        assert_eq!((device.batches, done), (vec![3, 3, 2], 8));
    }

    #[test]
    fn a_describer_that_is_not_available_is_asked_again_later() {
        let unavailable =
            DescribeError::Unavailable { reason: "busy".into(), retry_after: Duration::from_millis(30) };
        let mut device = SmallDevice { next_error: Some(unavailable.clone()), ..SmallDevice::new(9) };
        let mut answers = Vec::new();
        let start = Instant::now();
        run(&mut device, &queue(clips(3)), batching(1), |outcome| answers.push(outcome.answer)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(answers[0], Err(unavailable));
        assert!(answers[1..].iter().all(|answer| matches!(answer, Ok(Answer::Described(_)))));
    }

    #[test]
    fn a_device_that_fails_ends_the_work_and_its_clips_are_handed_out_with_the_error() {
        let failure = DescribeError::Device("gone".into());
        let mut device = SmallDevice { next_error: Some(failure.clone()), ..SmallDevice::new(9) };
        let mut answers = Vec::new();
        let ended = run(&mut device, &queue(clips(3)), batching(2), |outcome| answers.push(outcome.answer));
        assert_eq!(ended, Err(failure.clone()));
        assert_eq!(answers, [Err(failure.clone()), Err(failure)]);
    }
}
