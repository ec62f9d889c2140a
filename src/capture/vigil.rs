//! Whether a live stream is well. Signs of life come in, each with its time since the stream was
//! opened; what is wrong comes out. Pure.

use std::time::Duration;

use crate::interval::IntervalTracker;

/// A stream is dead when nothing has come for so many times its usual interval…
const INTERVALS: u32 = 5;
/// …but not before so long: networks stumble. And a dead camera is not waited for all day.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);
/// Intervals that must be known before a limit below that for opening is trusted.
const USUAL: usize = 8;
/// After the first sign of life, so many times the limit for opening: the interval is not known yet.
const FIRST_INTERVAL: u32 = 3;

/// Keyframes in a row that give no picture: the next will not do so either. A decoder may hold back
/// two or three.
const KEYFRAMES: u32 = 4;
/// Where no keyframes come: so many pieces of data, for so many times the limit for opening. A camera
/// may take as long to its first keyframe.
const PIECES: u32 = 100;
const WITHOUT_KEYFRAMES: u32 = 6;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing came for so long.
    Silent(Duration),
    /// Data came for so long, but no picture that is whole; so many pieces of it the decoder took
    /// without a word.
    Damaged(Duration, u32),
}

/// Watches one run of a stream.
#[derive(Debug)]
pub(super) struct Vigil {
    /// Longest time until the first sign of life.
    opening: Duration,
    latest: Duration,
    begun: bool,
    intervals: IntervalTracker,
    first_picture: Option<Duration>,
    wasted: Option<Wasted>,
}

/// Data since the last whole picture.
#[derive(Debug)]
struct Wasted {
    from: Duration,
    to: Duration,
    keyframes: u32,
    pieces: u32,
    errors: u32,
}

impl Vigil {
    pub fn new(opening: Duration) -> Self {
        let start = Duration::ZERO;
        Self {
            opening,
            latest: start,
            begun: false,
            intervals: IntervalTracker::default(),
            first_picture: None,
            wasted: None,
        }
    }

    /// Something has come from the camera.
    pub fn alive(&mut self, now: Duration) {
        if std::mem::replace(&mut self.begun, true) {
            self.intervals.record(now.saturating_sub(self.latest));
        }
        self.latest = now;
    }

    /// The decoder has got something to work on.
    pub fn fed(&mut self, now: Duration, keyframe: bool) {
        let wasted =
            self.wasted.get_or_insert(Wasted { from: now, to: now, keyframes: 0, pieces: 0, errors: 0 });
        wasted.to = now;
        wasted.pieces = wasted.pieces.saturating_add(1);
        wasted.keyframes = wasted.keyframes.saturating_add(keyframe.into());
    }

    /// The decoder has complained, or has given a picture that is not whole.
    pub fn error(&mut self) {
        if let Some(wasted) = &mut self.wasted {
            wasted.errors = wasted.errors.saturating_add(1);
        }
    }

    /// A whole picture has come out.
    pub fn picture(&mut self, now: Duration) {
        self.alive(now);
        self.first_picture.get_or_insert(now);
        self.wasted = None;
    }

    /// Whether there was a whole picture.
    pub fn has_shown(&self) -> bool {
        self.first_picture.is_some()
    }

    /// For how long pictures came.
    pub fn up(&self) -> Duration {
        self.first_picture.map_or(Duration::ZERO, |first| self.latest.saturating_sub(first))
    }

    /// What is wrong, if anything.
    pub fn trouble(&self, now: Duration) -> Option<Trouble> {
        let limit = self.limit();
        if now.saturating_sub(self.latest) > limit {
            return Some(Trouble::Silent(limit));
        }
        let wasted = self.wasted.as_ref()?;
        let time = wasted.to - wasted.from;
        let hopeless = wasted.keyframes >= KEYFRAMES && time >= self.opening
            || wasted.pieces >= PIECES && time >= self.opening * WITHOUT_KEYFRAMES;
        hopeless.then(|| Trouble::Damaged(time, wasted.pieces.saturating_sub(wasted.errors)))
    }

    /// How long the stream may be silent.
    fn limit(&self) -> Duration {
        let by_pace = |longest: Duration| (longest * INTERVALS).clamp(SHORTEST, LONGEST);
        match (self.intervals.longest(USUAL), self.intervals.longest(1)) {
            (Some(longest), _) => by_pace(longest),
            (None, Some(longest)) => by_pace(longest).max(self.opening),
            (None, None) if self.begun => self.opening * FIRST_INTERVAL,
            (None, None) => self.opening,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A stream with a picture every `interval`, `count` of them, from second 1 on.
    fn streamed(interval: u64, count: u64) -> (Vigil, Duration) {
        let mut vigil = Vigil::new(OPENING);
        let times = (0..count).map(|i| ms(1000 + i * interval));
        let last = times.inspect(|t| {
            assert_eq!(vigil.trouble(*t), None, "at {t:?}");
            vigil.picture(*t);
        });
        let last = last.last().unwrap();
        (vigil, last)
    }

    /// When a stream that falls silent now is given up.
    fn given_up(vigil: &Vigil, from: Duration) -> Duration {
        let silent = |t: &u64| vigil.trouble(from + ms(*t)).is_some();
        ms((0..1_000_000).step_by(100).find(silent).unwrap() - 100)
    }

    #[test]
    fn a_stream_that_never_begins_is_given_up_after_the_limit_for_opening() {
        assert_eq!(given_up(&Vigil::new(OPENING), ms(0)), OPENING);
    }

    #[test]
    fn the_limit_follows_the_streams_own_pace_within_bounds() {
        for (interval, limit) in
            [(40, 5000), (500, 5000), (2000, 10_000), (20_000, 100_000), (28_000, 120_000)]
        {
            let (vigil, last) = streamed(interval, 30);
            assert_eq!(given_up(&vigil, last), ms(limit), "a picture every {interval} ms");
        }
    }

    #[test]
    fn a_stream_whose_pace_is_not_known_yet_gets_more_time() {
        let (vigil, last) = streamed(40, 1);
        assert_eq!(given_up(&vigil, last), 3 * OPENING);
        let (vigil, last) = streamed(40, 3);
        assert_eq!(given_up(&vigil, last), OPENING);
    }

    #[test]
    fn a_stream_that_becomes_slower_is_not_given_up() {
        let (mut vigil, last) = streamed(40, 500);
        for t in (1..40).map(|i| last + i * ms(4500)) {
            assert_eq!(vigil.trouble(t), None);
            vigil.picture(t);
        }
    }

    #[test]
    fn data_without_whole_pictures_is_damage() {
        let mut vigil = Vigil::new(OPENING);
        let trouble = (0..400u64).find_map(|i| {
            vigil.alive(ms(i * 40));
            vigil.fed(ms(i * 40), i % 25 == 0);
            if i % 2 == 0 {
                vigil.error();
            }
            vigil.trouble(ms(i * 40))
        });
        assert_eq!(trouble, Some(Trouble::Damaged(OPENING, 125)));
        vigil.picture(ms(20_000));
        assert_eq!(vigil.trouble(ms(20_000)), None);
    }

    #[test]
    fn a_long_wait_for_the_first_keyframe_is_no_damage() {
        let mut vigil = Vigil::new(OPENING);
        for t in (0..58_000).step_by(40).map(ms) {
            vigil.alive(t);
            vigil.fed(t, false);
            assert_eq!(vigil.trouble(t), None, "at {t:?}");
        }
    }

    #[test]
    fn keyframes_that_wait_in_a_decoder_between_windows_are_no_damage() {
        let mut vigil = Vigil::new(OPENING);
        for t in (0..3_600_000).step_by(1000).map(ms) {
            vigil.alive(t);
            // Two keyframes a quarter of an hour; the decoder gives each when it gets the next but one.
            let wanted = t.as_secs() % 900 < 2;
            if wanted {
                if t.as_secs() > 900 {
                    vigil.picture(t);
                }
                vigil.fed(t, true);
            }
            assert_eq!(vigil.trouble(t), None, "at {t:?}");
        }
    }
}
