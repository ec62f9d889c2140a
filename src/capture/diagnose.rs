//! Turns GStreamer's errors into a [`CaptureError`], and finds out what GStreamer does not tell.

use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;

use super::{
    autoplug,
    bus::{BusError, MissingPlugin},
    error::CaptureError,
    network,
};
use crate::config::{Origin, Source};

/// How long a name server or a camera may take to answer while a fault is diagnosed.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(3);

/// The [`CaptureError`] of an error that `source` has reported. `missing_plugins`: the plugins that
/// GStreamer has looked for in vain. `played`: how much of the source was played before.
pub(super) fn explain(
    source: &Source,
    BusError { error, debug }: BusError,
    missing_plugins: &[MissingPlugin],
    played: Duration,
) -> CaptureError {
    use gst::{CoreError, ResourceError, StreamError};
    let what = source.to_string();
    let other = |error: &glib::Error| CaptureError::Other {
        what: source.to_string(),
        why: without_address(source, error.message()),
    };
    let lacks_plugin = error.kind::<CoreError>() == Some(CoreError::MissingPlugin)
        || error.kind::<StreamError>() == Some(StreamError::CodecNotFound);
    if lacks_plugin {
        let Some(MissingPlugin { name, media_type }) = missing_plugins.first() else {
            return CaptureError::NoVideo(what);
        };
        return match media_type.as_deref().and_then(autoplug::refused) {
            Some(format) => CaptureError::Refused { what, format },
            None => {
                CaptureError::MissingPlugin { what, missing: name.clone(), package: package_of_codec(name) }
            }
        };
    }
    if let Some(kind) = error.kind::<StreamError>() {
        let is_file = matches!(source.origin(), Origin::File(_));
        return match kind {
            StreamError::TypeNotFound | StreamError::WrongType if is_file => CaptureError::NotMedia(what),
            StreamError::Demux | StreamError::Decode | StreamError::Failed if is_file => {
                if debug.contains("not-linked") && played.is_zero() {
                    CaptureError::NoVideo(what)
                } else {
                    CaptureError::Damaged { what, played, cause: error }
                }
            }
            _ => other(&error),
        };
    }
    match error.kind::<ResourceError>() {
        Some(ResourceError::NotAuthorized) => CaptureError::Unauthorised(what),
        Some(ResourceError::Busy) => CaptureError::Busy(what),
        Some(ResourceError::NotFound) => match source.origin() {
            Origin::File(path) => CaptureError::NoFile(path.clone()),
            Origin::Device(_) => CaptureError::NoDevice(what),
            Origin::Network(_) | Origin::Synthetic(_) => CaptureError::NoStream(what),
        },
        _ if debug.contains("Unauthorized") => CaptureError::Unauthorised(what),
        _ if debug.contains("Could not receive any UDP packets") => CaptureError::NoDatagrams(what),
        _ => other(&error),
    }
}

/// The first line of GStreamer's message, without an address.
fn without_address(source: &Source, message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim_end_matches('.');
    match source.origin() {
        // GStreamer knows the address that the relay has.
        Origin::Network(_) => {
            let words = line.split(' ').map(|word| if word.contains("://") { "the camera" } else { word });
            words.collect::<Vec<_>>().join(" ")
        }
        _ => line.to_owned(),
    }
}

/// Finds out why a network camera could not be opened: GStreamer does not distinguish an unknown host from
/// one that is switched off. Returns `error` if that is no question, or if the camera can be reached.
pub(super) async fn find_network_cause(source: &Source, error: CaptureError) -> CaptureError {
    let vague = matches!(
        error,
        CaptureError::Other { .. } | CaptureError::Stalled { .. } | CaptureError::NoStream(_)
    );
    match source.origin() {
        Origin::Network(address) if vague => {
            let reached = network::connect(&source.to_string(), address, DIAGNOSIS_TIMEOUT).await;
            reached.err().unwrap_or(error)
        }
        _ => error,
    }
}

/// The package of Debian 12 that has a plugin which GStreamer describes as, for instance, "H.265 decoder".
fn package_of_codec(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    if has(&["vp8", "vp9", "jpeg", "rtp", "quicktime", "matroska", "avi", "webm"]) {
        "gstreamer1.0-plugins-good"
    } else if has(&["mpeg-ts", "mpeg ts", "transport stream", "av1"]) {
        "gstreamer1.0-plugins-bad"
    } else {
        "gstreamer1.0-libav"
    }
}

/// The package of Debian 12 that has an element.
pub(super) fn package_of_element(name: &str) -> &'static str {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    if starts(&["av"]) {
        "gstreamer1.0-libav"
    } else if starts(&["cuda", "nvh26"]) {
        // The plugin has elements only where NVIDIA's driver is installed.
        "gstreamer1.0-plugins-bad, and needs NVIDIA's driver"
    } else if starts(&["nvv"]) {
        "nvidia-l4t-gstreamer of a Jetson"
    } else if starts(&[
        "rtspsrc",
        "rtp",
        "v4l2",
        "videoflip",
        "vp8",
        "vp9",
        "jpeg",
        "qtdemux",
        "matroska",
        "deinterlace",
    ]) {
        "gstreamer1.0-plugins-good"
    } else if starts(&["decodebin", "uridecodebin", "video", "app", "parsebin"]) {
        "gstreamer1.0-plugins-base"
    } else {
        "gstreamer1.0-plugins-bad"
    }
}
