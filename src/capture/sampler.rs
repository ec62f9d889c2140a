//! Which frames to keep: at a fixed rate (everything is decoded, what no clip wants is let go before
//! colour conversion), keyframes only (the rest is let go before the decoder), or whichever of the
//! two the camera's rhythm of keyframes allows. Times of keyframes come in; a mode goes out.

use std::{fmt, time::Duration};

use crate::config::Sampling;

/// What reaches the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Rate,
    /// Keyframes.
    Keyframes,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "rate",
            Self::Keyframes => "keyframes",
        })
    }
}

/// Intervals that must be short enough in a row before the rest of a stream is no longer decoded.
const PROOF: u32 = 2;

/// Containers and RTP round times: an interval is not too long for that.
const ROUNDING: Duration = Duration::from_millis(1);

/// The rhythm of a stream's keyframes, and what follows from it.
///
/// Under [`Sampling::Auto`] everything is decoded until two intervals in a row are no longer than
/// the wanted one. A single longer one later, and everything is decoded for the rest of the stream:
/// a camera without a steady rhythm would leave holes in the clips.
#[derive(Debug)]
pub struct Rhythm {
    sampling: Sampling,
    wanted: Duration,
    mode: Mode,
    last: Option<Duration>,
    proof: u32,
    broken: bool,
    told: bool,
}

/// Something about the rhythm that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What reaches the decoder from this keyframe on.
    pub mode: Mode,
    /// Time between the last two keyframes.
    pub interval: Duration,
    /// Keyframes come less often than frames are wanted.
    pub rare: bool,
}

impl Rhythm {
    /// For a stream of which a frame is `wanted` that often.
    pub fn new(sampling: Sampling, wanted: Duration) -> Self {
        let mode = if sampling == Sampling::Keyframes { Mode::Keyframes } else { Mode::Rate };
        Self { sampling, wanted, mode, last: None, proof: 0, broken: false, told: false }
    }

    /// What reaches the decoder.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// A keyframe has come: whether that settles something.
    pub fn keyframe(&mut self, pts: Duration) -> Option<Finding> {
        let interval = pts.checked_sub(self.last.replace(pts)?)?;
        let rare = interval > self.wanted + ROUNDING;
        let before = self.mode;
        if self.sampling == Sampling::Auto {
            self.proof = if rare { 0 } else { self.proof + 1 };
            self.broken |= rare && before == Mode::Keyframes;
            let often = !self.broken && !rare && (before == Mode::Keyframes || self.proof >= PROOF);
            self.mode = if often { Mode::Keyframes } else { Mode::Rate };
        }
        let first = !std::mem::replace(&mut self.told, true);
        (first || self.mode != before).then_some(Finding { mode: self.mode, interval, rare })
    }
}
