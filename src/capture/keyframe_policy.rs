//! Whether a stream is decoded in full or by its keyframes only. Pure: PTS of keyframes in, a decision
//! out.
//!
//! By rate, every frame is decoded, and frames that no clip wants are dropped before colour conversion.
//! By keyframes, everything but keyframes is dropped before the decoder.

use std::{fmt, time::Duration};

use crate::config::FrameSampling;

/// What reaches the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeMode {
    /// Every frame.
    Rate,
    /// Keyframes only.
    Keyframes,
}

impl fmt::Display for DecodeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::Keyframes => "keyframes",
        })
    }
}

/// How many keyframe intervals in a row must be short enough before the other frames are dropped.
const SHORT_INTERVALS: u32 = 2;

/// Containers and RTP round times: an interval that is longer by no more than this is short enough.
const ROUNDING: Duration = Duration::from_millis(1);

/// Decides what reaches the decoder, from the keyframe intervals of one stream.
///
/// Under [`FrameSampling::Auto`] every frame is decoded until two keyframe intervals in a row are no longer
/// than the wanted frame interval. One longer interval after that, and every frame is decoded for the
/// rest of the stream: irregular keyframes would leave slots of the clips empty.
#[derive(Debug)]
pub(super) struct KeyframePolicy {
    sampling: FrameSampling,
    wanted_interval: Duration,
    mode: DecodeMode,
    last_keyframe: Option<Duration>,
    short_intervals: u32,
    irregular: bool,
    reported: bool,
}

/// A decision that is worth reporting: the first one of a stream, and every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SamplingDecision {
    /// What reaches the decoder from this keyframe on.
    pub mode: DecodeMode,
    /// Time between the last two keyframes.
    pub keyframe_interval: Duration,
    /// Keyframes come less often than frames are wanted.
    pub too_rare: bool,
    /// Keyframes come at most twice as often as frames are wanted.
    pub about_as_wanted: bool,
}

impl KeyframePolicy {
    /// For a stream of which one frame is wanted per `wanted_interval`.
    pub fn new(sampling: FrameSampling, wanted_interval: Duration) -> Self {
        let mode =
            if sampling == FrameSampling::Keyframes { DecodeMode::Keyframes } else { DecodeMode::Rate };
        Self {
            sampling,
            wanted_interval,
            mode,
            last_keyframe: None,
            short_intervals: 0,
            irregular: false,
            reported: false,
        }
    }

    /// What reaches the decoder.
    pub fn mode(&self) -> DecodeMode {
        self.mode
    }

    /// Takes note of a keyframe. Returns the decision, if it is worth reporting.
    pub fn on_keyframe(&mut self, pts: Duration) -> Option<SamplingDecision> {
        let keyframe_interval = pts.checked_sub(self.last_keyframe.replace(pts)?)?;
        let too_rare = keyframe_interval > self.wanted_interval + ROUNDING;
        let before = self.mode;
        if self.sampling == FrameSampling::Auto {
            self.short_intervals = if too_rare { 0 } else { self.short_intervals + 1 };
            self.irregular |= too_rare && before == DecodeMode::Keyframes;
            let proven = before == DecodeMode::Keyframes || self.short_intervals >= SHORT_INTERVALS;
            let frequent = !self.irregular && !too_rare && proven;
            self.mode = if frequent { DecodeMode::Keyframes } else { DecodeMode::Rate };
        }
        let first = !std::mem::replace(&mut self.reported, true);
        (first || self.mode != before).then_some(SamplingDecision {
            mode: self.mode,
            keyframe_interval,
            too_rare,
            about_as_wanted: keyframe_interval * 2 >= self.wanted_interval,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Duration = Duration::from_millis(500);

    /// The decisions after keyframes with these intervals, in milliseconds.
    fn decisions(sampling: FrameSampling, intervals: &[u64]) -> Vec<Option<(DecodeMode, bool)>> {
        let mut policy = KeyframePolicy::new(sampling, WANTED);
        let mut pts = Duration::ZERO;
        assert_eq!(policy.on_keyframe(pts), None, "one keyframe tells nothing");
        let decide = |interval: &u64| {
            pts += Duration::from_millis(*interval);
            policy.on_keyframe(pts).map(|decision| (decision.mode, decision.too_rare))
        };
        intervals.iter().map(decide).collect()
    }

    #[test]
    fn two_short_keyframe_intervals_stop_the_decoding_of_other_frames() {
        let rate = Some((DecodeMode::Rate, false));
        let keyframes = Some((DecodeMode::Keyframes, false));
        assert_eq!(decisions(FrameSampling::Auto, &[500, 501, 400]), [rate, keyframes, None]);
    }

    #[test]
    fn an_interval_that_is_too_long_brings_full_decoding_back_for_good() {
        let decided = decisions(FrameSampling::Auto, &[500, 500, 900, 500, 500, 500]);
        assert_eq!(decided[2], Some((DecodeMode::Rate, true)));
        assert_eq!(decided[3..], [None, None, None]);
    }

    #[test]
    fn a_mode_that_the_user_chose_stays() {
        let rare = Some((DecodeMode::Keyframes, true));
        assert_eq!(decisions(FrameSampling::Keyframes, &[2000, 2000, 100]), [rare, None, None]);
        let frequent = Some((DecodeMode::Rate, false));
        assert_eq!(decisions(FrameSampling::Rate, &[100, 100, 100]), [frequent, None, None]);
    }
}
