//! When a frame was captured, in UTC. Frames of a camera are dated by its clock or by their arrival, frames
//! of a file by what the file and its file system say.

use std::{sync::Mutex, time::Duration};

use chrono::{DateTime, Utc};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{
    camera_clock::{CameraClock, FrameTime},
    file_time::FileTime,
    inspect::lock,
    playing_time::stated_length,
    survey::Survey,
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
    FixedStart(DateTime<Utc>),
    /// A file.
    File(FileTime),
    /// Frames are dated as they arrive.
    Live(Mutex<CameraClock>),
}

impl Timestamper {
    /// For a source that starts to play now.
    pub fn for_source(source: &Source, survey: &Survey, clock: ClockChoice) -> Self {
        match source.origin() {
            Origin::File(path) => Self::File(FileTime::new(path, survey)),
            _ if source.is_live() => Self::Live(Mutex::new(CameraClock::new(clock))),
            _ => Self::FixedStart(Utc::now()),
        }
    }

    /// For a source that is known to have this length.
    pub fn for_source_of_length(source: &Source, survey: &Survey, length: Duration) -> Self {
        let timestamper = Self::for_source(source, survey, ClockChoice::Auto);
        if let Self::File(time) = &timestamper {
            time.begin(|| Some(length));
        }
        timestamper
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
            Self::FixedStart(start) => (*start + pts, Clock::Arrival),
            Self::File(time) => time.utc(pts),
            Self::Live(_) => (Utc::now(), Clock::Arrival),
        }
    }

    /// UTC of a frame with running time `pts` that has just reached `element`. The time that the frame
    /// spent in the pipeline is subtracted from its arrival.
    pub fn utc_at(&self, element: &impl IsA<gst::Element>, pts: Duration) -> (DateTime<Utc>, Clock) {
        match self {
            Self::File(time) => {
                time.begin(|| stated_length(element.upcast_ref()));
                time.utc(pts)
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
