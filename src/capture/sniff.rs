//! Whether a file is a video, by its first bytes: its name does not count.

use std::{fs::File, io::Read, path::Path};

use gstreamer as gst;
use gstreamer::glib::translate::IntoGlib;

use super::{error::CaptureError, init::init};

/// How much of a file is looked at. A transport stream is known by a few of its packets.
const MAX_BYTES: u64 = 128 << 10;

/// The media types of videos that do not begin with `video/`.
const OTHERS: [&str; 5] = [
    "application/mxf",
    "application/ogg",
    "application/vnd.rn-realmedia",
    "application/x-3gp",
    "multipart/x-mixed-replace",
];

/// The media types that begin with a start code. GStreamer finds one anywhere, and takes tables and catalogues for
/// streams without a container.
const WITH_START_CODE: [&str; 3] = ["video/mpeg", "video/x-h264", "video/x-h265"];

/// Whether a file looks like a video. One that does may hold none; one that does not is not played.
///
/// # Errors
/// If the file cannot be read, or GStreamer cannot be used.
pub fn is_video(path: &Path) -> Result<bool, CaptureError> {
    init()?;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = file.metadata()?.len();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map(|_| length)
    });
    let length = read.map_err(|cause| CaptureError::Unreadable { path: path.into(), cause })?;
    let mut beginning = Beginning { bytes, length, probability: 0, media_type: String::new() };
    for factory in gst::TypeFindFactory::factories() {
        factory.call_function(&mut beginning);
    }
    Ok(beginning.is_video())
}

/// The beginning of a file, and what GStreamer takes it for.
struct Beginning {
    bytes: Vec<u8>,
    /// Of the whole file.
    length: u64,
    /// From 0 to 100.
    probability: i32,
    media_type: String,
}

impl Beginning {
    fn is_video(&self) -> bool {
        use gst::TypeFindProbability::{Likely, Possible};
        let media_type = self.media_type.as_str();
        if WITH_START_CODE.contains(&media_type) {
            let has_start_code =
                [&[0, 0, 1][..], &[0, 0, 0, 1]].iter().any(|code| self.bytes.starts_with(code));
            return has_start_code && self.probability >= Possible.into_glib();
        }
        let is_video = media_type.starts_with("video/") || OTHERS.contains(&media_type);
        is_video && self.probability >= Likely.into_glib()
    }
}

impl gst::TypeFindImpl for Beginning {
    fn peek(&mut self, offset: i64, size: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(size as usize)?)
    }

    fn suggest(&mut self, probability: gst::TypeFindProbability, caps: &gst::Caps) {
        let probability = probability.into_glib();
        if probability > self.probability
            && let Some(structure) = caps.structure(0)
        {
            (self.probability, self.media_type) = (probability, structure.name().to_string());
        }
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}
