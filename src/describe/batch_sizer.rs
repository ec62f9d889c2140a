//! Finds out how many clips fit into the device's memory at once.

use std::num::NonZeroUsize;

use super::{
    describer::{Answers, DescribeError, Describer},
    warm_up::warm_up,
};
use crate::request::Request;

/// How many clips to describe at once, as far as the device's memory is known.
pub struct BatchSizer {
    /// The configured maximum.
    max: NonZeroUsize,
    /// The limit found by running out of memory: halved each time, doubled after [`GROW_AFTER`] batches that fitted.
    limit: NonZeroUsize,
    /// Batches in a row that fitted.
    fitted: u32,
    /// The describer's last estimate.
    estimate: NonZeroUsize,
    /// The smallest estimate that was logged.
    logged: NonZeroUsize,
}

/// After so many batches that fitted, larger ones are tried again: another process may have freed its memory.
const GROW_AFTER: u32 = 200;

impl BatchSizer {
    /// A sizer that knows nothing but the configured maximum.
    pub fn new(max: NonZeroUsize) -> Self {
        Self { max, limit: max, fitted: 0, estimate: max, logged: max }
    }

    /// How many clips to take out of the queue. Clips that stay in the queue can still be replaced by newer ones.
    pub fn batch_size(&self) -> NonZeroUsize {
        self.limit.min(self.estimate)
    }

    /// Answers requests, in several batches if they do not fit into one. Returns the results in order, and the error that
    /// ended it if not all requests have one.
    pub fn answer(
        &mut self,
        describer: &mut dyn Describer,
        requests: &[Request],
    ) -> (Answers, Option<DescribeError>) {
        let mut described = Vec::with_capacity(requests.len());
        while let Some(left) = requests.get(described.len()..).filter(|left| !left.is_empty()) {
            let part = &left[..self.fitting(describer, left).min(left.len())];
            match describer.answer(part, &mut |_, _| ()) {
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

    /// How many of these requests to answer at once.
    fn fitting(&mut self, describer: &dyn Describer, requests: &[Request]) -> usize {
        let frames = requests.iter().map(Request::pictures).max().unwrap_or_default();
        self.estimate = describer.max_batch(frames).unwrap_or(self.max);
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            small_device::{SmallDevice, clips},
            warm_up::grey_clip,
        },
        *,
    };
    use crate::clip::Clip;

    fn requests(count: u64) -> Vec<Request> {
        clips(count).iter().map(Request::from).collect()
    }

    fn sizer(max: usize) -> BatchSizer {
        BatchSizer::new(NonZeroUsize::new(max).unwrap())
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_until_it_does_and_so_are_those_after_it() {
        let (mut device, mut sizer) = (SmallDevice::new(3), sizer(16));
        for _ in 0..2 {
            let (described, error) = sizer.answer(&mut device, &requests(10));
            let texts: Vec<_> = described.into_iter().map(|it| it.unwrap().text).collect();
            assert_eq!(texts, (0..10).map(|seq| seq.to_string()).collect::<Vec<_>>());
            assert!(error.is_none());
        }
        assert_eq!(device.batches, [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn larger_batches_are_tried_again_after_a_while() {
        let (mut device, mut sizer) = (SmallDevice::new(3), sizer(8));
        let _ = sizer.answer(&mut device, &requests(8));
        device.memory = 8;
        for _ in 0..2 * GROW_AFTER {
            let _ = sizer.answer(&mut device, &requests(1));
        }
        assert_eq!(sizer.limit.get(), 8);
    }

    #[test]
    fn a_clip_that_does_not_fit_alone_fails_and_if_no_clip_fits_the_device_fails() {
        let (mut device, mut sizer) = (SmallDevice::new(1), sizer(3));
        let large = |seq| {
            let clip = grey_clip().unwrap();
            let clip = Clip { seq, frames: [clip.frames.clone(), clip.frames.clone()].concat(), ..clip };
            Request::from(&clip)
        };
        let (described, error) = sizer.answer(&mut device, &[large(0), large(1), large(2), large(3)]);
        assert_eq!(described.len(), 4);
        assert!(described.iter().all(|it| matches!(it, Err(DescribeError::OutOfMemory(_)))));
        assert!(error.is_none());
        assert!(sizer.answer(&mut device, &requests(1)).0[0].is_ok());
        device.memory = 0;
        let (described, error) = sizer.answer(&mut device, &requests(2));
        assert!(described.is_empty());
        assert!(matches!(error, Some(DescribeError::OutOfMemory(_))));
    }
}
