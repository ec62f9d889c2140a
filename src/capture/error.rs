//! What can go wrong between a camera and us, in words for the person at the keyboard. GStreamer's
//! messages come in; a [`CaptureError`] that says what happened, where and what to do goes out.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use gstreamer as gst;
use gstreamer::glib;

use super::library::PipelineError;
use crate::config::Source;

/// Why a source gives no (more) frames.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no such file.
    #[error("{}: there is no such file", .0.display())]
    NoFile(PathBuf),
    /// The file exists but cannot be opened.
    #[error("{}: the file cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("{0}: this is not a video file")]
    NotMedia(String),
    /// There is no picture in it.
    #[error("{0}: there is no video in it")]
    NoVideo(String),
    /// It is a video, but it cannot be played (to its end).
    #[error("{what}: the video is damaged or was cut off{}", at(.played))]
    Damaged {
        /// Which source.
        what: String,
        /// How much could be used.
        played: Duration,
        /// What GStreamer said.
        #[source]
        cause: glib::Error,
    },
    /// A recording that was never finished, or was copied in part.
    #[error("{0}: the video is damaged or was cut off: its index is missing, so nothing of it can be played")]
    NoIndex(String),
    /// The host has no address.
    #[error("{what}: the host {host:?} is unknown; check the name and the name server")]
    UnknownHost {
        /// Which source.
        what: String,
        /// The name that could not be resolved.
        host: String,
        /// What the resolver said.
        #[source]
        cause: io::Error,
    },
    /// Nothing listens there.
    #[error("{what}: cannot connect to {address}; check address and port, and that the camera is on")]
    Unreachable {
        /// Which source.
        what: String,
        /// Where we tried.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The camera wants other credentials.
    #[error("{0}: the camera refuses user name or password")]
    Unauthorised(String),
    /// The camera knows no such stream.
    #[error("{0}: the camera has no stream under this path")]
    NoStream(String),
    /// Something that can be installed is missing.
    #[error("{what}: GStreamer has no {missing}; install the Debian package {package}")]
    MissingPlugin {
        /// Which source.
        what: String,
        /// What it would be.
        missing: String,
        /// Where it is.
        package: &'static str,
    },
    /// There is no such device.
    #[error("{0}: there is no such video device")]
    NoDevice(String),
    /// Someone else has the device.
    #[error("{0}: the device is in use by another program")]
    Busy(String),
    /// Pictures stopped coming.
    #[error("{what}: no picture for {} s", .after.as_secs_f32())]
    Stalled {
        /// Which source.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// It answers, and nothing comes over UDP.
    #[error(
        "{0}: the camera answers, but nothing comes over UDP: is a firewall between? Set transport = \"tcp\""
    )]
    NoDatagrams(String),
    /// What comes cannot be decoded.
    #[error("{what}: data comes, but no whole picture for {:.0} s: the stream is damaged", .after.as_secs_f32())]
    Undecodable {
        /// Which source.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A source that should go on for ever has ended.
    #[error("{0}: the camera ended the stream")]
    Ended(String),
    /// Pictures of a size that would exhaust the memory.
    #[error("{what}: pictures of {width}x{height} are too large; at most 8192x8192 can be used")]
    TooLarge {
        /// Which source.
        what: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The pipeline cannot be built.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The window configuration makes no sense.
    #[error(transparent)]
    Window(#[from] crate::clip::BadWindow),
    /// GStreamer itself does not work.
    #[error("GStreamer cannot be used")]
    Gstreamer(#[source] glib::Error),
    /// Anything else that a pipeline reports.
    #[error("{what}: {why}")]
    Other {
        /// Which source.
        what: String,
        /// In GStreamer's words.
        why: String,
    },
}

fn at(played: &Duration) -> String {
    match played.is_zero() {
        true => "; nothing of it can be played".into(),
        false => format!("; its first {:.1} s were used", played.as_secs_f32()),
    }
}

impl CaptureError {
    /// The error and its causes.
    pub fn in_one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(c) = cause {
            line = format!("{line}: {c}");
            cause = c.source();
        }
        line
    }

    /// Whether trying again cannot help: what has to change is on this machine.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Pipeline(_) | Self::Window(_) | Self::Gstreamer(_) | Self::MissingPlugin { .. })
    }
}

/// What GStreamer reported on the bus.
#[derive(Debug)]
pub(super) struct Report {
    pub error: glib::Error,
    /// The details for developers; read for what the error alone does not say, never shown.
    pub debug: String,
}

impl From<&gst::message::Error> for Report {
    fn from(message: &gst::message::Error) -> Self {
        let debug = message.debug().map(|d| d.to_string()).unwrap_or_default();
        Self { error: message.error(), debug }
    }
}

/// The name of the plugin that an element misses, if that is what its message says.
pub(super) fn missing_plugin(message: &gst::message::Element) -> Option<String> {
    message.structure().filter(|s| s.name() == "missing-plugin")?.get("name").ok()
}

/// Puts an error report into words. `missing` are the plugins that GStreamer asked for in vain.
pub(super) fn explain(source: &Source, report: Report, missing: &[String], played: Duration) -> CaptureError {
    use gst::{CoreError, ResourceError, StreamError};
    let what = source.to_string();
    let Report { error, debug } = report;
    let other = |error: &glib::Error| CaptureError::Other {
        what: source.to_string(),
        why: plain(source, error.message()),
    };
    let lacks_plugin = error.kind::<CoreError>() == Some(CoreError::MissingPlugin)
        || error.kind::<StreamError>() == Some(StreamError::CodecNotFound);
    if lacks_plugin {
        return match missing.first() {
            Some(name) => {
                CaptureError::MissingPlugin { what, missing: name.clone(), package: package_of_codec(name) }
            }
            None => CaptureError::NoVideo(what),
        };
    }
    if let Some(kind) = error.kind::<StreamError>() {
        let is_file = matches!(source, Source::File(_));
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
        Some(ResourceError::NotFound) => match source {
            Source::File(path) => CaptureError::NoFile(path.clone()),
            Source::V4l2(_) => CaptureError::NoDevice(what),
            _ => CaptureError::NoStream(what),
        },
        _ if debug.contains("Unauthorized") => CaptureError::Unauthorised(what),
        _ if debug.contains("Could not receive any UDP packets") => CaptureError::NoDatagrams(what),
        _ => other(&error),
    }
}

/// GStreamer's words, on one line and without the address they may repeat.
fn plain(source: &Source, message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim_end_matches('.');
    match source {
        Source::Rtsp(rtsp) => line.replace(rtsp.location(), "the camera"),
        _ => line.to_owned(),
    }
}

/// Finds out why a network camera could not be opened: GStreamer does not tell an unknown host from
/// one that is switched off.
pub(super) async fn diagnose(source: &Source, error: CaptureError) -> CaptureError {
    let Source::Rtsp(rtsp) = source else { return error };
    let vague = matches!(
        error,
        CaptureError::Other { .. } | CaptureError::Stalled { .. } | CaptureError::NoStream(_)
    );
    if !vague {
        return error;
    }
    let patience = Duration::from_secs(3);
    let (host, port) = rtsp.host_port();
    let what = source.to_string();
    let found = tokio::time::timeout(patience, tokio::net::lookup_host((host.clone(), port))).await;
    let addresses = match found {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(cause)) => return CaptureError::UnknownHost { what, host, cause },
        Err(_) => return CaptureError::UnknownHost { what, host, cause: io::ErrorKind::TimedOut.into() },
    };
    let mut refusal = None;
    for address in addresses {
        match tokio::time::timeout(patience, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => return error,
            Ok(Err(cause)) => refusal = Some((address, cause)),
            Err(_) => refusal = Some((address, io::ErrorKind::TimedOut.into())),
        }
    }
    match refusal {
        Some((address, cause)) => CaptureError::Unreachable { what, address, cause },
        None => error,
    }
}

/// Debian 12's package with the decoder for what GStreamer calls, for instance, "H.265 decoder".
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

/// Debian 12's package with an element.
pub(super) fn package_of_element(name: &str) -> &'static str {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    if starts(&["av"]) {
        "gstreamer1.0-libav"
    } else if starts(&["cuda", "nvh26"]) {
        // Its elements are only there where the driver is.
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
