//! Whether a live stream is alive. Activity goes in, each with its time since the stream was opened; a
//! [`StallReason`] comes out. Pure.

use std::time::Duration;

use crate::interval::IntervalTracker;

/// A stream has stalled when nothing has come for this many times its usual interval...
const INTERVALS: u32 = 5;
/// ...but not sooner than this, because networks stutter, and not later than [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);
/// Intervals that must be known before a limit below the connect timeout is trusted.
const MIN_INTERVALS: usize = 8;
/// After the first activity, while no interval is known: this many times the connect timeout.
const FIRST_INTERVAL: u32 = 3;

/// A stream cannot be decoded after this many keyframes in a row without a frame. A decoder may hold two
/// or three back.
const KEYFRAMES: u32 = 4;
/// Nor after this many buffers, with or without keyframes, and this many times the connect timeout. A camera may
/// take as long to send its first keyframe.
const BUFFERS: u32 = 100;
const WITHOUT_KEYFRAMES: u32 = 6;

/// Why a stream counts as stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StallReason {
    /// Nothing has come for this time.
    Silent {
        /// The limit that was exceeded.
        after: Duration,
    },
    /// Data comes, but no whole frame.
    Undecodable {
        /// For how long.
        after: Duration,
        /// Buffers that the decoder took without reporting an error.
        swallowed: u32,
    },
}

/// Watches one run of a stream.
#[derive(Debug)]
pub(super) struct StallDetector {
    connect_timeout: Duration,
    last_activity: Duration,
    active: bool,
    intervals: IntervalTracker,
    first_frame: Option<Duration>,
    undecoded: Option<Undecoded>,
}

/// What the decoder has taken since the last whole frame.
#[derive(Debug)]
struct Undecoded {
    first: Duration,
    last: Duration,
    keyframes: u32,
    buffers: u32,
    errors: u32,
}

impl StallDetector {
    /// `connect_timeout`: longest time until the first activity.
    pub fn new(connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            last_activity: Duration::ZERO,
            active: false,
            intervals: IntervalTracker::default(),
            first_frame: None,
            undecoded: None,
        }
    }

    /// Something has come from the source.
    pub fn on_activity(&mut self, now: Duration) {
        if std::mem::replace(&mut self.active, true) {
            self.intervals.record(now.saturating_sub(self.last_activity));
        }
        self.last_activity = now;
    }

    /// Whether packets have come, and nothing for the decoder.
    pub fn has_only_packets(&self) -> bool {
        self.active && self.undecoded.is_none() && self.first_frame.is_none()
    }

    /// A packet has come, which need not be a whole picture.
    pub fn on_packet(&mut self, now: Duration) {
        if !self.active {
            self.on_activity(now);
        }
    }

    /// The decoder has been given a buffer.
    pub fn on_decoder_input(&mut self, now: Duration, keyframe: bool) {
        let undecoded = self.undecoded.get_or_insert(Undecoded {
            first: now,
            last: now,
            keyframes: 0,
            buffers: 0,
            errors: 0,
        });
        undecoded.last = now;
        undecoded.buffers = undecoded.buffers.saturating_add(1);
        undecoded.keyframes = undecoded.keyframes.saturating_add(keyframe.into());
    }

    /// The decoder has reported an error, or has given an incomplete frame.
    pub fn on_decoder_error(&mut self) {
        if let Some(undecoded) = &mut self.undecoded {
            undecoded.errors = undecoded.errors.saturating_add(1);
        }
    }

    /// The decoder has given a whole frame.
    pub fn on_frame(&mut self, now: Duration) {
        self.on_activity(now);
        self.first_frame.get_or_insert(now);
        self.undecoded = None;
    }

    /// Whether there was a whole frame.
    pub fn has_frame(&self) -> bool {
        self.first_frame.is_some()
    }

    /// Time from the first whole frame to the latest activity.
    pub fn uptime(&self) -> Duration {
        self.first_frame.map_or(Duration::ZERO, |first| self.last_activity.saturating_sub(first))
    }

    /// Why the stream counts as stalled at `now`. `None`: it is alive.
    pub fn check(&self, now: Duration) -> Option<StallReason> {
        let limit = self.silence_limit();
        if now.saturating_sub(self.last_activity) > limit {
            return Some(StallReason::Silent { after: limit });
        }
        let undecoded = self.undecoded.as_ref()?;
        let after = undecoded.last - undecoded.first;
        let hopeless = undecoded.keyframes >= KEYFRAMES && after >= self.connect_timeout
            || undecoded.buffers >= BUFFERS && after >= self.connect_timeout * WITHOUT_KEYFRAMES;
        let swallowed = undecoded.buffers.saturating_sub(undecoded.errors);
        hopeless.then_some(StallReason::Undecodable { after, swallowed })
    }

    /// How long the stream may be silent.
    fn silence_limit(&self) -> Duration {
        let by_interval = |longest: Duration| (longest * INTERVALS).clamp(SHORTEST, LONGEST);
        match (self.intervals.longest(MIN_INTERVALS), self.intervals.longest(1)) {
            (Some(longest), _) => by_interval(longest),
            (None, Some(longest)) => by_interval(longest).max(self.connect_timeout),
            (None, None) if self.active => self.connect_timeout * FIRST_INTERVAL,
            (None, None) => self.connect_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A stream with a frame every `interval` milliseconds, `count` of them, from second 1 on.
    fn streamed(interval: u64, count: u64) -> (StallDetector, Duration) {
        let mut detector = StallDetector::new(CONNECT_TIMEOUT);
        let times = (0..count).map(|i| ms(1000 + i * interval));
        let last = times.inspect(|t| {
            assert_eq!(detector.check(*t), None, "at {t:?}");
            detector.on_frame(*t);
        });
        let last = last.last().unwrap();
        (detector, last)
    }

    /// How long after `from` a stream that falls silent then counts as stalled.
    fn stalls_after(detector: &StallDetector, from: Duration) -> Duration {
        let stalled = |t: &u64| detector.check(from + ms(*t)).is_some();
        ms((0..1_000_000).step_by(100).find(stalled).unwrap() - 100)
    }

    #[test]
    fn a_stream_that_never_starts_stalls_after_the_connect_timeout() {
        assert_eq!(stalls_after(&StallDetector::new(CONNECT_TIMEOUT), ms(0)), CONNECT_TIMEOUT);
    }

    #[test]
    fn the_limit_follows_the_streams_own_intervals_within_bounds() {
        for (interval, limit) in
            [(40, 5000), (500, 5000), (2000, 10_000), (20_000, 100_000), (28_000, 120_000)]
        {
            let (detector, last) = streamed(interval, 30);
            assert_eq!(stalls_after(&detector, last), ms(limit), "a frame every {interval} ms");
        }
    }

    #[test]
    fn a_stream_whose_interval_is_not_known_yet_gets_more_time() {
        let (detector, last) = streamed(40, 1);
        assert_eq!(stalls_after(&detector, last), 3 * CONNECT_TIMEOUT);
        let (detector, last) = streamed(40, 3);
        assert_eq!(stalls_after(&detector, last), CONNECT_TIMEOUT);
    }

    #[test]
    fn a_picture_that_is_known_to_be_whole_with_the_next_one_gets_more_time() {
        let mut detector = StallDetector::new(CONNECT_TIMEOUT);
        for t in [ms(1000), ms(1010)] {
            detector.on_packet(t);
        }
        assert_eq!(stalls_after(&detector, ms(1000)), 3 * CONNECT_TIMEOUT);
        assert!(detector.has_only_packets());
        detector.on_decoder_input(ms(1020), true);
        assert!(!detector.has_only_packets());
    }

    #[test]
    fn a_stream_that_becomes_slower_does_not_stall() {
        let (mut detector, last) = streamed(40, 500);
        for t in (1..40).map(|i| last + i * ms(4500)) {
            assert_eq!(detector.check(t), None);
            detector.on_frame(t);
        }
    }

    #[test]
    fn data_without_whole_frames_is_undecodable() {
        let mut detector = StallDetector::new(CONNECT_TIMEOUT);
        let stalled = (0..400u64).find_map(|i| {
            detector.on_activity(ms(i * 40));
            detector.on_decoder_input(ms(i * 40), i % 25 == 0);
            if i % 2 == 0 {
                detector.on_decoder_error();
            }
            detector.check(ms(i * 40))
        });
        assert_eq!(stalled, Some(StallReason::Undecodable { after: CONNECT_TIMEOUT, swallowed: 125 }));
        detector.on_frame(ms(20_000));
        assert_eq!(detector.check(ms(20_000)), None);
    }

    #[test]
    fn a_long_wait_for_the_first_keyframe_is_no_stall() {
        let mut detector = StallDetector::new(CONNECT_TIMEOUT);
        for t in (0..58_000).step_by(40).map(ms) {
            detector.on_activity(t);
            detector.on_decoder_input(t, false);
            assert_eq!(detector.check(t), None, "at {t:?}");
        }
    }

    #[test]
    fn keyframes_that_a_decoder_holds_back_between_windows_are_no_stall() {
        let mut detector = StallDetector::new(CONNECT_TIMEOUT);
        for t in (0..3_600_000).step_by(1000).map(ms) {
            detector.on_activity(t);
            // Two keyframes per quarter of an hour; the decoder outputs each when it gets the next but one.
            let wanted = t.as_secs() % 900 < 2;
            if wanted {
                if t.as_secs() > 900 {
                    detector.on_frame(t);
                }
                detector.on_decoder_input(t, true);
            }
            assert_eq!(detector.check(t), None, "at {t:?}");
        }
    }
}
