//! When the frames of a file were captured. A file counts as having ended when it was last modified, unless its
//! metadata say when the recording began.

use std::{fs, path::Path, sync::OnceLock, time::Duration};

use chrono::{DateTime, Utc};

use super::{camera_clock::PLAUSIBLE, survey::Survey};
use crate::frame::Clock;

/// A recording that begins when its metadata say may end this much after the last modification: metadata have whole
/// seconds.
const ROUNDING: Duration = Duration::from_secs(1);

/// Turns running times of a file into UTC.
pub(super) struct FileTime {
    modified: DateTime<Utc>,
    recorded: Option<DateTime<Utc>>,
    length: Option<Duration>,
    /// UTC of the running time 0, once the length is known, and what it rests on.
    start: OnceLock<(DateTime<Utc>, Clock)>,
}

impl FileTime {
    /// For a file of which a survey was made.
    pub fn new(path: &Path, survey: &Survey) -> Self {
        // Some file systems cannot tell; some have it in local time, which may lie in the future.
        let now = Utc::now();
        let modified = fs::metadata(path).and_then(|it| it.modified()).map_or(now, DateTime::from).min(now);
        Self { modified, recorded: survey.recorded, length: survey.length, start: OnceLock::new() }
    }

    /// The file begins to play. `stated` gives the length that it states now, unless the survey has found its
    /// length.
    pub fn begin(&self, stated: impl FnOnce() -> Option<Duration>) {
        self.start.get_or_init(|| {
            let length = self.length.or_else(stated).unwrap_or_default();
            start(self.recorded, self.modified, length)
        });
    }

    /// UTC of running time `pts`. Never in the future, even if the file is longer than it seems.
    pub fn utc(&self, pts: Duration) -> (DateTime<Utc>, Clock) {
        let (start, clock) = *self.start.get().unwrap_or(&(self.modified, Clock::File));
        ((start + pts).min(Utc::now()), clock)
    }
}

/// When a file began, and what that rests on. The time in its metadata is plausible if the recording was over when
/// the file was last modified; some cameras write there when the recording ended, or the local time.
fn start(
    recorded: Option<DateTime<Utc>>,
    modified: DateTime<Utc>,
    length: Duration,
) -> (DateTime<Utc>, Clock) {
    let is_plausible = |recorded: &DateTime<Utc>| {
        let clock_was_set = recorded.timestamp_nanos_opt().is_some_and(|it| it >= PLAUSIBLE);
        clock_was_set && *recorded + length <= modified + ROUNDING
    };
    match recorded.filter(is_plausible) {
        Some(recorded) => (recorded, Clock::Camera),
        None => (modified - length, Clock::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_plausible_time_in_the_metadata_is_when_the_recording_began() {
        let modified = at("2026-03-01T12:00:00.7Z");
        for plausible in ["2026-03-01T11:59:00Z", "2026-03-01T11:59:01Z", "2019-07-01T08:00:00Z"] {
            assert_eq!(start(Some(at(plausible)), modified, MINUTE), (at(plausible), Clock::Camera));
        }
        let ended = (at("2026-03-01T11:59:00.7Z"), Clock::File);
        for implausible in
            ["2026-03-01T12:00:00Z", "2026-03-01T11:59:02Z", "2026-03-01T13:00:00Z", "1970-01-01T00:00:10Z"]
        {
            assert_eq!(start(Some(at(implausible)), modified, MINUTE), ended, "{implausible}");
        }
        assert_eq!(start(None, modified, MINUTE), ended);
    }

    #[test]
    fn no_frame_lies_in_the_future() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let time = FileTime::new(path.path(), &Survey::default());
        time.begin(|| None);
        let (captured, _) = time.utc(MINUTE);
        assert!(captured <= Utc::now(), "{captured}");
    }
}
