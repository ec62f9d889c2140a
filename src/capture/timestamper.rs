//! When a frame was captured, in UTC: by the camera's own clock if RTCP states it, otherwise by its
//! arrival here. Frames of a file are dated by the file's modification time.

use std::{
    fs,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::playing_time::stated_length;
use crate::{
    config::{Origin, Source},
    frame::Clock,
};

/// NTP counts from 1900, Unix from 1970 (RFC 5905, figure 4).
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);

/// 2001-09-09: a camera that reports an earlier time has never had its clock set.
const PLAUSIBLE: Duration = Duration::from_secs(1_000_000_000);

/// Longest time that a frame may spend inside the pipeline. Beyond it, the times of the stream are wrong.
const LONGEST_LATENCY: Duration = Duration::from_secs(30);

/// Turns running times of one run of a source into UTC.
pub(super) enum Timestamper {
    /// The stream started at this time.
    FixedStart(DateTime<Utc>, Clock),
    /// A file that ended when it was last modified. Its start is known once it plays and states its
    /// length.
    File { modified: DateTime<Utc>, start: OnceLock<DateTime<Utc>> },
    /// Frames are dated as they arrive. Holds Unix time minus running time by the camera's clock, in
    /// nanoseconds; [`UNKNOWN`] until the camera has stated its time.
    Live(AtomicI64),
}

const UNKNOWN: i64 = i64::MIN;

impl Timestamper {
    /// For a source that starts to play now.
    pub fn for_source(source: &Source) -> Self {
        match source.origin() {
            Origin::File(path) => Self::File { modified: modified(path), start: OnceLock::new() },
            _ if source.is_live() => Self::Live(AtomicI64::new(UNKNOWN)),
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
        let Self::Live(offset) = self else { return };
        let ntp = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|m| m.reference().structure(0).is_some_and(|s| s.name() == "timestamp/x-ntp"));
        let observed = ntp.and_then(|m| {
            let unix = Duration::from(m.timestamp()).checked_sub(NTP_TO_UNIX).filter(|t| *t >= PLAUSIBLE)?;
            i64::try_from(unix.checked_sub(pts)?.as_nanos()).ok()
        });
        if let Some(observed) = observed {
            offset.store(observed, Ordering::Relaxed);
        }
    }

    /// UTC of running time `pts`, by what is known so far.
    pub fn utc(&self, pts: Duration) -> (DateTime<Utc>, Clock) {
        match self {
            Self::FixedStart(start, clock) => (*start + pts, *clock),
            Self::File { modified, start } => (*start.get().unwrap_or(modified) + pts, Clock::File),
            Self::Live(offset) => match offset.load(Ordering::Relaxed) {
                UNKNOWN => (Utc::now(), Clock::Arrival),
                offset => (DateTime::UNIX_EPOCH + TimeDelta::nanoseconds(offset) + pts, Clock::Camera),
            },
        }
    }

    /// UTC of a frame with running time `pts` that has just reached `element`. The time that the frame
    /// spent in the pipeline is subtracted from its arrival.
    pub fn utc_at(&self, element: &impl IsA<gst::Element>, pts: Duration) -> (DateTime<Utc>, Clock) {
        if let Self::File { modified, start } = self {
            start.get_or_init(|| *modified - stated_length(element.upcast_ref()).unwrap_or_default());
        }
        let (time, clock) = self.utc(pts);
        let running = element.current_running_time().map(Duration::from);
        let latency = running.and_then(|now| now.checked_sub(pts)).filter(|it| *it < LONGEST_LATENCY);
        match (self, clock) {
            (Self::Live(_), Clock::Arrival) => (time - latency.unwrap_or_default(), clock),
            _ => (time, clock),
        }
    }
}

/// When a file was last modified; now, if the file system cannot tell.
fn modified(path: &Path) -> DateTime<Utc> {
    fs::metadata(path).and_then(|it| it.modified()).map_or_else(|_| Utc::now(), DateTime::from)
}
