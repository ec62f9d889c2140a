//! Batches the clips of a queue for a describer, on the thread that owns it. Clips in which nothing has changed are
//! left out.

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use super::{
    batch_sizer::BatchSizer,
    change_gate::ChangeGate,
    describer::{DescribeError, Describer, Description},
};
use crate::{
    clip::Clip,
    gate::Fingerprint,
    queue::{ClipQueue, Queued},
    request::Request,
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
/// next batch begins. Pauses while the describer is not available.
///
/// # Errors
/// When the device fails, or has too little memory even for the smallest clip. The clips of that batch are handed to `on_outcome` with that error.
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
        let requests: Vec<_> = clips.iter().map(Request::from).collect();
        let (mut described, failure) = sizer.answer(describer, &requests);
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
            // The describer recovers by itself. Until then the queue drops the oldest clips of live cameras.
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

#[cfg(test)]
mod tests {
    use super::{
        super::small_device::{SmallDevice, clips},
        *,
    };
    use crate::queue::Overflow;

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
