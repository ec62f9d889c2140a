//! The frames of a camera's last seconds, kept for questions about what it shows now.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::frame::Frame;

/// The most frames that are kept.
pub const MOST_KEPT: usize = 32;
/// The fewest frames of an answer, if there are as many: less is no video.
const FEWEST: usize = 2;

/// Frames as the model sees them, bounded in time and number.
#[derive(Debug)]
pub struct LookBack {
    /// How long a frame is kept.
    keep: Duration,
    /// How many frames are kept.
    most: usize,
    kept: Mutex<VecDeque<(Instant, Frame)>>,
}

impl LookBack {
    /// Keeps frames for so long.
    pub fn new(keep: Duration) -> Self {
        Self { keep, most: MOST_KEPT, kept: Mutex::default() }
    }

    /// Keeps the newest frame only, for so long.
    pub fn of_newest(keep: Duration) -> Self {
        Self { most: 1, ..Self::new(keep) }
    }

    /// For how long frames are kept.
    pub fn span(&self) -> Duration {
        self.keep
    }

    /// Adds a frame that arrived now.
    pub fn push(&self, frame: &Frame) {
        let mut frame = frame.clone();
        frame.drop_original();
        self.push_at(Instant::now(), frame);
    }

    fn push_at(&self, now: Instant, frame: Frame) {
        let mut kept = self.lock();
        // The stream's time was set: what follows does not continue what was before.
        let is_set = |last: &Frame| frame.pts < last.pts || frame.pts - last.pts > self.keep;
        if kept.back().is_some_and(|(_, last)| is_set(last)) {
            kept.clear();
        }
        kept.push_back((now, frame));
        let is_old = |arrived: Instant| now.saturating_duration_since(arrived) > self.keep;
        while kept.len() > self.most || kept.front().is_some_and(|(arrived, _)| is_old(*arrived)) {
            kept.pop_front();
        }
    }

    /// How old the newest frame is, if any is kept.
    pub fn age(&self) -> Option<Duration> {
        self.lock().back().map(|(arrived, _)| arrived.elapsed())
    }

    /// Forgets all frames: those that follow do not continue them.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The frames of the last `span`, the oldest first; at most `most`, which are spread evenly. Where these are fewer than
    /// two, the newest two of those that are kept.
    pub fn last(&self, span: Duration, most: usize) -> Vec<Frame> {
        self.last_at(Instant::now(), span, most)
    }

    fn last_at(&self, now: Instant, span: Duration, most: usize) -> Vec<Frame> {
        let kept = self.lock();
        let within = |limit: Duration| {
            kept.iter().filter(move |(arrived, _)| now.saturating_duration_since(*arrived) <= limit)
        };
        let valid = within(self.keep).count();
        let count = within(span.min(self.keep)).count().max(FEWEST.min(valid));
        let frames: Vec<&Frame> = kept.iter().skip(kept.len() - count).map(|(_, frame)| frame).collect();
        let taken = count.min(most);
        let place = |i: usize| if taken < 2 { count - 1 } else { i * (count - 1) / (taken - 1) };
        (0..taken).map(|i| frames[place(i)].clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Frame)>> {
        // Nothing panics while the lock is held, so what it guards is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::frame::{Clock, Original};

    const SECOND: Duration = Duration::from_secs(1);

    fn frame(second: u64) -> Frame {
        let rgb = vec![0; 3].into();
        Frame {
            camera: "a".parse().unwrap(),
            captured_at: DateTime::UNIX_EPOCH,
            clock: Clock::Arrival,
            pts: SECOND * u32::try_from(second).unwrap(),
            width: 1,
            height: 1,
            rgb,
            original: Some(Original { width: 9, height: 9, rgb: Some(vec![0; 243].into()) }),
        }
    }

    /// A frame a second, and the seconds of those that come out.
    fn seconds(look_back: &LookBack, now: Instant, span: u32, most: usize) -> Vec<u64> {
        look_back.last_at(now, SECOND * span, most).iter().map(|frame| frame.pts.as_secs()).collect()
    }

    #[test]
    fn the_last_seconds_come_out_evenly_spread_and_no_more_is_kept() {
        let (look_back, start) = (LookBack::new(10 * SECOND), Instant::now());
        for second in 0..100 {
            look_back.push_at(start + SECOND * second, frame(second.into()));
        }
        let now = start + SECOND * 99;
        assert_eq!(look_back.lock().len(), 11);
        assert_eq!(seconds(&look_back, now, 3, 16), [96, 97, 98, 99]);
        assert_eq!(seconds(&look_back, now, 10, 3), [89, 94, 99]);
        assert_eq!(seconds(&look_back, now, 60, 1), [99]);
        // A camera of few frames: two of them, if they are not too old.
        assert_eq!(seconds(&look_back, now + SECOND / 2, 0, 16), [98, 99]);
        assert_eq!(seconds(&look_back, now + 10 * SECOND, 1, 16), [99]);
        assert_eq!(seconds(&look_back, now + 11 * SECOND, 60, 16), [0; 0]);
        // The stream's time is set back, or far ahead.
        for (second, kept) in [(5, 1), (6, 2), (1000, 1)] {
            look_back.push_at(now, frame(second));
            assert_eq!(look_back.lock().len(), kept, "{second}");
        }
        look_back.clear();
        assert!(seconds(&look_back, now, 10, 16).is_empty() && look_back.age().is_none());
    }

    #[test]
    fn a_fast_camera_keeps_a_bounded_number_and_no_large_pictures() {
        let look_back = LookBack::new(100 * SECOND);
        (0..1000).for_each(|second| look_back.push(&frame(second)));
        assert!(look_back.age().unwrap() < SECOND);
        let newest = LookBack::of_newest(100 * SECOND);
        (0..3).for_each(|second| newest.push(&frame(second)));
        assert_eq!(
            newest.last(100 * SECOND, 64).iter().map(|frame| frame.pts).collect::<Vec<_>>(),
            [2 * SECOND]
        );
        let last = look_back.last(100 * SECOND, 64);
        assert_eq!(last.len(), MOST_KEPT);
        assert_eq!(last[0].pts.as_secs(), 1000 - MOST_KEPT as u64);
        assert!(last.iter().all(|frame| !frame.has_original()));
    }
}
