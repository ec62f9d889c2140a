//! When a live frame was captured: by the camera's own clock, as RTCP states it for each packet, or by the
//! frame's arrival here. Pure: stated and arrival times in, a time out.

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{config::ClockChoice, frame::Clock};

/// Pictures whose stated times are kept. Windows and decoders hold back less.
const KEPT: usize = 1024;

/// A stated time that is further than this from what the times before it lead to is an outlier...
const TOLERANCE: i64 = 10_000_000_000;
/// ...unless all pictures agree on it, to within [`AGREEMENT`], for so long: then the clock was set. A stream whose
/// RTP timestamps jump is put right by the next sender report, which comes every five seconds.
const SETTLING: i64 = 6_000_000_000;
const AGREEMENT: i64 = 1_000_000_000;
/// The pictures that must agree before the first time is believed.
const WITNESSES: usize = 3;

/// 2001-09-09: a camera that states an earlier time has never had its clock set.
pub(super) const PLAUSIBLE: i64 = 1_000_000_000_000_000_000;

/// With `clock = "auto"` a camera's clock is used while it is no further than this from ours...
const LIMIT: TimeDelta = TimeDelta::seconds(60);
/// ...and, once it was further off, from when it is no further than this.
const LIMIT_TO_RETURN: TimeDelta = TimeDelta::seconds(30);

/// The clock of one camera, for one run of its stream. Times are nanoseconds.
#[derive(Debug)]
pub(super) struct CameraClock {
    choice: ClockChoice,
    /// Unix time minus running time, as several pictures agree.
    offset: Option<i64>,
    /// Running and Unix time of the latest pictures.
    stated: VecDeque<(i64, i64)>,
    /// What the latest pictures state instead of [`CameraClock::offset`].
    contradiction: Option<Contradiction>,
    /// How far the camera's clock is ahead of ours, if so far that it is not used.
    off: Option<TimeDelta>,
}

/// Pictures in a row that agree on another offset.
#[derive(Debug)]
struct Contradiction {
    offset: i64,
    /// Running time of the first.
    since: i64,
    pictures: usize,
}

/// The time of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FrameTime {
    pub time: DateTime<Utc>,
    pub clock: Clock,
}

impl CameraClock {
    pub fn new(choice: ClockChoice) -> Self {
        Self { choice, offset: None, stated: VecDeque::new(), contradiction: None, off: None }
    }

    /// Takes note of the time, since 1970, that the camera states for the picture with running time `pts`.
    pub fn observe(&mut self, pts: Duration, unix: Duration) {
        let nanos = |it: Duration| i64::try_from(it.as_nanos()).ok();
        let (Some(pts), Some(unix)) = (nanos(pts), nanos(unix)) else { return };
        if self.stated.back().is_some_and(|(last, _)| *last == pts) {
            return;
        }
        let observed = unix - pts;
        let is_near = |offset: i64, limit| (observed - offset).abs() <= limit;
        if !self.offset.is_some_and(|offset| is_near(offset, TOLERANCE)) {
            let agreeing = self.contradiction.take().filter(|it| is_near(it.offset, AGREEMENT));
            let before = agreeing.unwrap_or(Contradiction { offset: observed, since: pts, pictures: 0 });
            let now = Contradiction { pictures: before.pictures + 1, ..before };
            let settled = if self.offset.is_some() { SETTLING } else { 0 };
            if now.pictures < WITNESSES || pts - now.since < settled {
                self.contradiction = Some(now);
                return;
            }
            self.stated.clear();
        }
        self.contradiction = None;
        self.offset = Some(observed);
        self.stated.push_back((pts, unix));
        if self.stated.len() > KEPT {
            self.stated.pop_front();
        }
    }

    /// The time of the frame with running time `pts`, which arrived at `arrival`.
    pub fn time(&mut self, pts: Duration, arrival: DateTime<Utc>) -> FrameTime {
        let by_arrival = FrameTime { time: arrival, clock: Clock::Arrival };
        if self.choice == ClockChoice::Arrival {
            return by_arrival;
        }
        let Some(stated) = self.stated_time(pts) else { return by_arrival };
        let by_camera = FrameTime { time: stated, clock: Clock::Camera };
        let set = stated.timestamp_nanos_opt().is_none_or(|it| it >= PLAUSIBLE);
        let difference = stated - arrival;
        let limit = if self.off.is_some() { LIMIT_TO_RETURN } else { LIMIT };
        let trusted = set && (self.choice == ClockChoice::Camera || difference.abs() <= limit);
        // The text of the warning must not change with every frame.
        let near = |before: &TimeDelta| (*before - difference).abs() < TimeDelta::seconds(30);
        self.off = (!trusted).then(|| self.off.filter(near).unwrap_or(difference));
        if trusted { by_camera } else { by_arrival }
    }

    /// Whether the camera has stated its time.
    pub fn is_known(&self) -> bool {
        self.offset.is_some()
    }

    /// Why the camera's clock is not used, if it states a time.
    pub fn warning(&self) -> Option<String> {
        let off = self.off?;
        let rounded = |unit: TimeDelta| (off.abs() + unit / 2).num_seconds() / unit.num_seconds();
        let amount = match rounded(TimeDelta::minutes(1)) {
            ..2 => "about a minute".to_owned(),
            minutes @ 2..120 => format!("{minutes} minutes"),
            120..2880 => format!("{} hours", rounded(TimeDelta::hours(1))),
            _ => format!("{} days", rounded(TimeDelta::days(1))),
        };
        let direction = if off > TimeDelta::zero() { "ahead of" } else { "behind" };
        let advice = match self.choice {
            ClockChoice::Camera => "set the camera's clock",
            _ => "set the camera's clock, or write clock = \"camera\" to use it all the same",
        };
        Some(format!(
            "the camera's clock is {amount} {direction} ours, so frames are dated by their arrival: {advice}"
        ))
    }

    /// The time that the camera states for the picture itself, or that the times of others lead to.
    fn stated_time(&self, pts: Duration) -> Option<DateTime<Utc>> {
        let pts = i64::try_from(pts.as_nanos()).ok()?;
        let itself = self.stated.iter().rev().find(|(at, _)| *at == pts).map(|(_, unix)| *unix);
        let unix = itself.or_else(|| Some(self.offset? + pts))?;
        Some(DateTime::from_timestamp_nanos(unix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01, by our clock, at running time zero.
    const START: u64 = 1_767_225_600;

    fn ours(millis: u64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis((START * 1000 + millis) as i64).unwrap()
    }

    /// A camera whose clock is `ahead` seconds ahead of ours. It sends 25 pictures a second for
    /// `seconds`, from `from` on.
    fn sent(clock: &mut CameraClock, ahead: i64, from: u64, seconds: u64) {
        for millis in (from..from + seconds * 1000).step_by(40) {
            let unix = Duration::from_millis((START * 1000 + millis).wrapping_add_signed(ahead * 1000));
            clock.observe(Duration::from_millis(millis), unix);
        }
    }

    /// Seconds between the time of the picture at `millis` and our clock, and where the time comes from.
    fn seen(clock: &mut CameraClock, millis: u64) -> (f64, Clock) {
        let FrameTime { time, clock } = clock.time(Duration::from_millis(millis), ours(millis));
        ((time - ours(millis)).as_seconds_f64(), clock)
    }

    #[test]
    fn a_camera_that_states_no_time_is_dated_by_arrival() {
        let mut clock = CameraClock::new(ClockChoice::Auto);
        assert_eq!(seen(&mut clock, 40), (0.0, Clock::Arrival));
        assert!(!clock.is_known() && clock.warning().is_none());
    }

    #[test]
    fn a_clock_near_ours_is_used_and_one_far_off_only_if_told_to() {
        for (choice, ahead, expected, warns) in [
            (ClockChoice::Auto, 20, (20.0, Clock::Camera), false),
            (ClockChoice::Auto, -3 * 24 * 3600, (0.0, Clock::Arrival), true),
            (ClockChoice::Camera, -3 * 24 * 3600, (-3.0 * 24.0 * 3600.0, Clock::Camera), false),
            // 1974.
            (ClockChoice::Camera, -(START as i64) + 126_230_400, (0.0, Clock::Arrival), true),
            (ClockChoice::Arrival, 20, (0.0, Clock::Arrival), false),
        ] {
            let mut clock = CameraClock::new(choice);
            sent(&mut clock, ahead, 0, 2);
            assert_eq!(seen(&mut clock, 1960), expected, "{choice:?} {ahead}");
            assert_eq!(clock.warning().is_some(), warns, "{choice:?} {ahead}: {:?}", clock.warning());
        }
    }

    #[test]
    fn the_warning_says_how_far_off_the_clock_is() {
        for (ahead, expected) in [
            (-100 * 24 * 3600, "100 days behind"),
            (-299, "5 minutes behind"),
            (7200 - 1, "2 hours ahead of"),
            (-64, "about a minute behind"),
        ] {
            let mut clock = CameraClock::new(ClockChoice::Auto);
            sent(&mut clock, ahead, 0, 1);
            seen(&mut clock, 960);
            let warning = clock.warning().unwrap();
            assert!(warning.starts_with(&format!("the camera's clock is {expected} ours, so")), "{warning}");
            assert!(warning.contains("clock = \"camera\""), "{warning}");
        }
    }

    #[test]
    fn the_warning_does_not_waver() {
        let mut clock = CameraClock::new(ClockChoice::Auto);
        sent(&mut clock, 180, 0, 1);
        let warnings = (0..100u64).map(|i| {
            let pts = 960 + i;
            clock.time(Duration::from_millis(pts), ours(pts + (i % 2) * 100));
            clock.warning().unwrap()
        });
        let warnings: std::collections::BTreeSet<_> = warnings.collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn one_picture_with_another_time_moves_nothing() {
        let mut clock = CameraClock::new(ClockChoice::Camera);
        sent(&mut clock, 0, 0, 2);
        for second in 2..20 {
            let odd = Duration::from_millis(second * 1000);
            clock.observe(odd, Duration::from_secs(START + second + 37_600));
            assert_eq!(seen(&mut clock, second * 1000), (0.0, Clock::Camera));
            sent(&mut clock, 0, second * 1000 + 40, 1);
            assert_eq!(seen(&mut clock, second * 1000 + 40), (0.0, Clock::Camera));
        }
    }

    #[test]
    fn a_clock_that_is_set_is_followed() {
        let mut clock = CameraClock::new(ClockChoice::Auto);
        sent(&mut clock, 86_400, 0, 5);
        assert_eq!(seen(&mut clock, 4960), (0.0, Clock::Arrival));
        sent(&mut clock, 1, 5000, 5);
        assert_eq!(seen(&mut clock, 9960), (0.0, Clock::Arrival), "it may be a slip");
        sent(&mut clock, 1, 10_000, 2);
        assert_eq!(seen(&mut clock, 11_960), (1.0, Clock::Camera));
        assert_eq!(clock.warning(), None);
    }

    #[test]
    fn a_picture_that_was_held_up_has_the_time_that_was_stated_for_it() {
        let mut clock = CameraClock::new(ClockChoice::Auto);
        sent(&mut clock, 0, 0, 2);
        // It was captured at 2 s, stood still in the network, and got a running time of 4.5 s.
        clock.observe(Duration::from_millis(4500), Duration::from_secs(START + 2));
        let FrameTime { time, .. } = clock.time(Duration::from_millis(4500), ours(4500));
        assert_eq!(time, ours(2000));
    }
}
