//! `[history]`: what is kept of events and of what the model saw.

use std::time::Duration;

use super::{
    key::{Key, Kind, names},
    section::Section,
};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// The longest time that events are kept: ten years.
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);

const KEPT: [(&str, KeptFrames); 3] =
    [("all", KeptFrames::All), ("alerts", KeptFrames::Alerts), ("none", KeptFrames::None)];
const FORMATS: [(&str, bool); 2] = [("jpeg", false), ("lossless", true)];

pub const KEYS: &[Key] = &[
    Key::new(
        "keep",
        Kind::Duration(Duration::ZERO, LONGEST),
        "30d",
        "How long events and their frames are kept in the state directory; 0s: there is no history",
    ),
    Key::new(
        "max_bytes",
        Kind::Size(MIB, TIB),
        "5GiB",
        "The most bytes of the history; beyond that the oldest events go, with their frames",
    ),
    Key::new(
        "frames",
        Kind::Choice(&names(&KEPT)),
        "alerts",
        "Of which events the frames that the model saw are kept: all, alerts (those that switch an alert), or none",
    ),
    Key::new(
        "frame_format",
        Kind::Choice(&names(&FORMATS)),
        "jpeg",
        "How frames are kept: jpeg, or lossless, which takes about six times the room and lets `camscribe replay` prove a \
         description",
    ),
];

/// Of which events frames are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFrames {
    /// Of all that the model was asked about.
    All,
    /// Of those that switch an alert.
    Alerts,
    /// Of none.
    None,
}

/// `[history]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// How long events and their frames are kept. Zero: there is no history.
    pub keep: Duration,
    /// The most bytes that it has.
    pub max_bytes: u64,
    /// Of which events frames are kept.
    pub frames: KeptFrames,
    /// Whether frames are kept pixel by pixel.
    pub is_lossless: bool,
}

impl HistorySettings {
    /// The settings of a checked section.
    pub(super) fn read(section: &Section) -> Self {
        Self {
            keep: section.duration("keep"),
            max_bytes: section.number("max_bytes"),
            frames: section.choice("frames", &KEPT),
            is_lossless: section.choice("frame_format", &FORMATS),
        }
    }
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self::read(&Section::defaults("history", KEYS))
    }
}
