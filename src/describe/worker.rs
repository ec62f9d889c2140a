//! Gives the clips and requests of a queue to a describer, on the thread that owns it. They join those that are being
//! answered as soon as there is room. Clips in which nothing has changed are left out.

use std::{thread, time::Duration};

pub use super::outcome::{Answer, Batching, Outcome, QueueTiming};
use super::{describer::Describer, in_flight::InFlight};
use crate::{answer::DescribeError, queue::ClipQueue};

/// Longest pause of a describer that is not available, so that it does not delay the end of the program.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Answers clips and requests until the queue is closed and empty. `on_outcome` gets every clip, in order per camera.
/// Pauses while the describer is not available.
///
/// # Errors
/// When the device fails, or has too little memory even for the smallest clip. What is being answered then gets that
/// error.
pub fn run(
    describer: &mut dyn Describer,
    queue: &ClipQueue,
    batching: Batching,
    mut on_outcome: impl FnMut(Outcome) + Send,
) -> Result<(), DescribeError> {
    let heartbeat = describer.heartbeat();
    let mut in_flight = InFlight::new(queue, batching, describer, &mut on_outcome);
    while in_flight.wait() {
        match in_flight.answer_all(describer) {
            // The describer recovers by itself. Until then the queue drops the oldest clips of live cameras.
            Err(DescribeError::Unavailable { reason, retry_after }) => {
                heartbeat.idle();
                let pause = retry_after.min(MAX_PAUSE);
                tracing::warn!("nothing can be described for {} s: {reason}", pause.as_secs());
                thread::sleep(pause);
            }
            ended => ended?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::Arc, time::Instant};

    use super::{
        super::{
            batch_sizer::GROW_AFTER,
            small_device::{SmallDevice, clips},
            warm_up::grey_clip,
        },
        *,
    };
    use crate::{
        answer::Part,
        clip::Clip,
        prompt_spec::PromptSpec,
        queue::{Asked, Overflow},
        request::{Content, Message, Request, Role},
    };

    /// What becomes of these clips.
    fn outcomes(
        device: &mut SmallDevice,
        clips: Vec<Clip>,
        max: usize,
    ) -> (Vec<Result<String, DescribeError>>, Result<(), DescribeError>) {
        let mut outcomes = Vec::new();
        let ended = run(device, &queue(clips), batching(max), |outcome| {
            outcomes.push(outcome.answer.map(|answer| match answer {
                Answer::Described(description) => description.text,
                Answer::Unchanged => panic!("there is no gate"),
            }));
        });
        (outcomes, ended)
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_until_it_does_and_so_are_those_after_it() {
        let mut device = SmallDevice::new(3);
        let (texts, ended) = outcomes(&mut device, clips(10), 16);
        assert_eq!(texts, (0..10).map(|seq| Ok(seq.to_string())).collect::<Vec<_>>());
        assert!(ended.is_ok());
        assert_eq!(device.batches, [10, 5, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn larger_batches_are_tried_again_after_a_while() {
        let mut device = SmallDevice::new(3);
        let (texts, _) = outcomes(&mut device, clips(2 * u64::from(GROW_AFTER)), 8);
        assert!(texts.iter().all(Result::is_ok));
        assert_eq!(device.batches[..4], [8, 4, 2, 2]);
        assert_eq!(device.batches.iter().filter(|batch| **batch == 4).count(), 2, "at first, and after 200");
    }

    #[test]
    fn a_clip_that_does_not_fit_alone_fails_and_if_no_clip_fits_the_device_fails() {
        let large = |seq| {
            let clip = grey_clip().unwrap();
            Clip { seq, frames: [clip.frames.clone(), clip.frames.clone()].concat(), ..clip }
        };
        let mut device = SmallDevice::new(1);
        let (texts, ended) = outcomes(&mut device, [(0..4).map(large).collect(), clips(1)].concat(), 3);
        assert!(texts[..4].iter().all(|it| matches!(it, Err(DescribeError::TooLarge(_)))));
        assert!(texts[4].is_ok() && ended.is_ok());
        device.memory = 0;
        let (texts, ended) = outcomes(&mut device, clips(2), 3);
        assert!(texts.iter().all(Result::is_err));
        assert!(matches!(ended, Err(DescribeError::OutOfMemory(_))));
    }

    #[test]
    fn a_client_is_answered_beside_cameras_and_one_that_is_gone_is_not() {
        let queue = queue(clips(3));
        let ask = |text: &str| {
            #[expect(clippy::disallowed_methods, reason = "the daemon's answers come like this")]
            let (reply, answer) = tokio::sync::mpsc::unbounded_channel();
            let content = vec![Content::Text(text.into())];
            let messages = vec![Message { role: Role::User, content }];
            let request = Request { messages, max_tokens: 1, ..Request::default() };
            (Asked { request, reply, is_urgent: false }, answer)
        };
        assert!(queue.ask(ask("closed").0).is_err(), "the queue is closed");
        let queue = ClipQueue::new(NonZeroUsize::MIN);
        let (asked, mut answer) = ask("who?");
        queue.ask(asked).unwrap();
        let (gone, receiver) = ask("gone");
        queue.ask(gone).unwrap();
        drop(receiver);
        let mut device = SmallDevice::new(9);
        thread::scope(|scope| {
            let work = scope.spawn(|| run(&mut device, &queue, batching(4), |_| panic!("there is no clip")));
            assert!(matches!(answer.blocking_recv(), Some(Part::Piece(piece)) if piece.text == "who?"));
            assert!(matches!(answer.blocking_recv(), Some(Part::End(Ok(told))) if told.text == "who?"));
            queue.close();
            work.join().unwrap().unwrap();
        });
        assert_eq!(device.batches, [1]);
    }

    #[test]
    fn at_the_end_clients_are_sent_away_and_clips_are_described() {
        let queue = ClipQueue::new(NonZeroUsize::MIN);
        queue.push(clips(1).remove(0), Overflow::DropOldest).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the daemon's answers come like this")]
        let (reply, mut answer) = tokio::sync::mpsc::unbounded_channel();
        let messages = vec![Message { role: Role::User, content: vec![Content::Text("who?".into())] }];
        let request = Request { messages, ..Request::default() };
        queue.ask(Asked { request, reply, is_urgent: false }).unwrap();
        queue.close();
        let mut described = 0;
        run(&mut SmallDevice::new(9), &queue, batching(4), |outcome| {
            described += usize::from(outcome.answer.is_ok())
        })
        .unwrap();
        assert_eq!(described, 1);
        assert!(matches!(answer.try_recv(), Ok(Part::End(Err(DescribeError::Unavailable { .. })))));
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
        Batching { max_batch: NonZeroUsize::new(max).unwrap(), linger: Duration::ZERO, client_share: 0.25 }
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
    fn on_a_cpu_clips_are_described_together_only_if_that_pays_and_those_of_files_last() {
        // Three live cameras and a file with four clips each.
        let clips = || {
            let cameras = ["a", "b", "c", "file"]
                .iter()
                .zip([Overflow::DropOldest; 3].into_iter().chain([Overflow::Block]));
            cameras.flat_map(|(camera, overflow)| {
                (0..4).map(move |seq| {
                    let prompt_spec = Arc::new(PromptSpec::new(format!("{camera}{seq}"), 1));
                    let camera = camera.parse().unwrap();
                    (Clip { camera, seq, prompt_spec, ..grey_clip().unwrap() }, overflow)
                })
            })
        };
        let described = |cpu_seconds| {
            let queue = ClipQueue::new(NonZeroUsize::new(4).unwrap());
            clips().for_each(|(clip, overflow)| queue.push(clip, overflow).unwrap());
            queue.close();
            let mut device = SmallDevice { cpu_seconds, ..SmallDevice::new(99) };
            let mut order = Vec::new();
            run(&mut device, &queue, batching(5), |outcome| {
                assert!(matches!(outcome.answer, Ok(Answer::Described(_))));
                order.push(format!("{}{}", outcome.clip.camera, outcome.clip.seq));
            })
            .unwrap();
            (device.batches, order.join(" "))
        };
        let order = "a0 b0 c0 a1 b1 c1 a2 b2 file0 c2 a3 b3 c3 file1 file2 file3";
        assert_eq!(described(Some((9, 1))), (vec![1; 16], order.into()), "the frames take longest");
        assert_eq!(described(Some((1, 9))), (vec![1, 5, 5, 5], order.into()), "the answers do");
        assert_eq!(described(None), (vec![5, 5, 5, 1], order.into()), "a GPU");
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
