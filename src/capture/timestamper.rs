//! When a frame was captured, in UTC. Frames of a camera are dated by its clock or by their arrival, frames
//! of a file by the file's modification time.

use std::{
    fs,
    path::Path,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use chrono::{DateTime, Utc};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{
    camera_clock::{CameraClock, FrameTime},
    inspect::lock,
    playing_time::stated_length,
};
use crate::{
    config::{ClockChoice, Origin, Source},
    frame::Clock,
};

/// NTP counts from 1900, Unix from 1970 (RFC 5905, figure 4).
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);

/// Longest time that a frame may spend inside the pipeline. Beyond it, the times of the stream are wrong.
const LONGEST_LATENCY: Duration = Duration::from_secs(30);

/// Turns running times of one run of a source into UTC.
pub(super) enum Timestamper {
    /// The stream started at this time.
    FixedStart(DateTime<Utc>, Clock),
    /// A file that ended when it was last modified. Its start is known once it plays and states its
    /// length.
    File { modified: DateTime<Utc>, start: OnceLock<DateTime<Utc>> },
    /// Frames are dated as they arrive.
    Live(Mutex<CameraClock>),
}

impl Timestamper {
    /// For a source that starts to play now.
    pub fn for_source(source: &Source, clock: ClockChoice) -> Self {
        match source.origin() {
            Origin::File(path) => Self::File { modified: modified(path), start: OnceLock::new() },
            _ if source.is_live() => Self::Live(Mutex::new(CameraClock::new(clock))),
            _ => Self::FixedStart(Utc::now(), Clock::Arrival),
        }
    }

    /// For a source that is known to have this length.
    pub fn for_source_of_length(source: &Source, length: Duration) -> Self {
        match source.origin() {
            Origin::File(path) => Self::FixedStart(modified(path) - length, Clock::File),
            _ => Self::FixedStart(Utc::now(), Clock::Arrival),
        }
    }

    /// Reads the camera's clock from a packet with running time `pts`, if the packet carries it.
    pub fn observe_camera_clock(&self, buffer: &gst::BufferRef, pts: Duration) {
        let Self::Live(clock) = self else { return };
        let ntp = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|m| m.reference().structure(0).is_some_and(|s| s.name() == "timestamp/x-ntp"));
        if let Some(unix) = ntp.and_then(|m| Duration::from(m.timestamp()).checked_sub(NTP_TO_UNIX)) {
            lock(clock).observe(pts, unix);
        }
    }

    /// Whether the camera has stated its time, and why that is not used, if it is not.
    pub fn camera_clock(&self) -> (bool, Option<String>) {
        match self {
            Self::Live(clock) => {
                let clock = lock(clock);
                (clock.is_known(), clock.warning())
            }
            _ => (false, None),
        }
    }

    /// UTC of running time `pts`. Of a live source, whatever `pts` is, the time now.
    pub fn utc(&self, pts: Duration) -> (DateTime<Utc>, Clock) {
        match self {
            Self::FixedStart(start, clock) => (*start + pts, *clock),
            Self::File { modified, start } => (*start.get().unwrap_or(modified) + pts, Clock::File),
            Self::Live(_) => (Utc::now(), Clock::Arrival),
        }
    }

    /// UTC of a frame with running time `pts` that has just reached `element`. The time that the frame
    /// spent in the pipeline is subtracted from its arrival.
    pub fn utc_at(&self, element: &impl IsA<gst::Element>, pts: Duration) -> (DateTime<Utc>, Clock) {
        match self {
            Self::File { modified, start } => {
                start.get_or_init(|| *modified - stated_length(element.upcast_ref()).unwrap_or_default());
                self.utc(pts)
            }
            Self::FixedStart(..) => self.utc(pts),
            Self::Live(clock) => {
                let running = element.current_running_time().map(Duration::from);
                let latency = running.and_then(|now| now.checked_sub(pts)).filter(|it| *it < LONGEST_LATENCY);
                let FrameTime { time, clock } =
                    lock(clock).time(pts, Utc::now() - latency.unwrap_or_default());
                (time, clock)
            }
        }
    }
}

/// When a file was last modified; now, if the file system cannot tell.
fn modified(path: &Path) -> DateTime<Utc> {
    fs::metadata(path).and_then(|it| it.modified()).map_or_else(|_| Utc::now(), DateTime::from)
}
