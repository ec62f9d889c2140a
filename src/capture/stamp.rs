//! When a frame was seen, in UTC: by the camera's own clock where RTCP tells it, else by its arrival
//! here; frames of a file by the file's time. Stream times come in, UTC times go out.

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

use crate::frame::Clock;

/// NTP counts from 1900, Unix from 1970 (RFC 5905, figure 4).
const NTP_TO_UNIX: Duration = Duration::from_secs(2_208_988_800);

/// 2001-09-09: a camera that believes in an earlier time has never had its clock set.
const PLAUSIBLE: Duration = Duration::from_secs(1_000_000_000);

/// Longest time that a frame spends between arrival and us; beyond it the stream's times mean nothing.
const LONGEST_WAY: Duration = Duration::from_secs(30);

/// Turns stream times of one run of a source into UTC.
pub(super) enum Stamper {
    /// This was the start of the stream.
    From(DateTime<Utc>, Clock),
    /// A file. When it began is known once it plays, for it tells its length then.
    File { written: DateTime<Utc>, began: OnceLock<DateTime<Utc>> },
    /// Frames are stamped as they come. Holds Unix time less stream time by the camera's clock, in
    /// nanoseconds; [`UNKNOWN`] until the camera has told.
    Live(AtomicI64),
}

const UNKNOWN: i64 = i64::MIN;

impl Stamper {
    /// For a file that is played: its last modification counts as its end.
    pub fn file(path: &Path) -> Self {
        Self::File { written: written(path), began: OnceLock::new() }
    }

    /// For a file that is known to be so long.
    pub fn whole_file(path: &Path, length: Duration) -> Self {
        Self::From(written(path) - length, Clock::File)
    }

    /// For a source that starts now and runs at its own pace.
    pub fn now() -> Self {
        Self::From(Utc::now(), Clock::Arrival)
    }

    /// For a source that runs by the wall clock.
    pub fn live() -> Self {
        Self::Live(AtomicI64::new(UNKNOWN))
    }

    /// Reads the camera's clock from a packet at stream time `at`, if it carries it.
    pub fn learn(&self, buffer: &gst::BufferRef, at: Duration) {
        let Self::Live(offset) = self else { return };
        let ntp = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|m| m.reference().structure(0).is_some_and(|s| s.name() == "timestamp/x-ntp"));
        let told = ntp.and_then(|m| {
            let unix = Duration::from(m.timestamp()).checked_sub(NTP_TO_UNIX).filter(|t| *t >= PLAUSIBLE)?;
            i64::try_from(unix.checked_sub(at)?.as_nanos()).ok()
        });
        if let Some(told) = told {
            offset.store(told, Ordering::Relaxed);
        }
    }

    /// UTC of stream time `pts`, by what is known so far.
    pub fn at(&self, pts: Duration) -> (DateTime<Utc>, Clock) {
        match self {
            Self::From(start, clock) => (*start + pts, *clock),
            Self::File { written, began } => (*began.get().unwrap_or(written) + pts, Clock::File),
            Self::Live(offset) => match offset.load(Ordering::Relaxed) {
                UNKNOWN => (Utc::now(), Clock::Arrival),
                offset => (DateTime::UNIX_EPOCH + TimeDelta::nanoseconds(offset) + pts, Clock::Camera),
            },
        }
    }

    /// UTC of a frame at stream time `pts` that has reached `element`.
    pub fn stamp(&self, pts: Duration, element: &impl IsA<gst::Element>) -> (DateTime<Utc>, Clock) {
        if let Self::File { written, began } = self {
            let length = || element.query_duration::<gst::ClockTime>().map(Duration::from);
            began.get_or_init(|| *written - length().unwrap_or_default());
        }
        let (time, clock) = self.at(pts);
        let running = element.current_running_time().map(Duration::from);
        let way = running.and_then(|now| now.checked_sub(pts)).filter(|way| *way < LONGEST_WAY);
        match (self, clock) {
            (Self::Live(_), Clock::Arrival) => (time - way.unwrap_or_default(), clock),
            _ => (time, clock),
        }
    }
}

/// When a file was last written to.
fn written(path: &Path) -> DateTime<Utc> {
    fs::metadata(path).and_then(|it| it.modified()).map_or_else(|_| Utc::now(), DateTime::from)
}
