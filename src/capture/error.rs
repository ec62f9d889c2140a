//! Why a source gives no frames, in words that say what happened, where, and what to do.

use std::{error::Error, io, net::SocketAddr, path::PathBuf, time::Duration};

use gstreamer::glib;

use super::pipeline_files::PipelineError;
use crate::{clip::BadWindow, view::CannotApply};

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
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("{0}: this is not a video file")]
    NotMedia(String),
    /// It is something that may name other files or addresses, or that GStreamer does not read reliably.
    #[error("{what}: this is {format}, which camscribe does not play")]
    Refused {
        /// Which source.
        what: String,
        /// What people call it.
        format: String,
    },
    /// It is a series of pictures.
    #[error(
        "{0}: its pictures have no times, as in raw MJPEG; put them into a container with their rate, for instance \
         by: ffmpeg -framerate 25 -i FILE -c copy FILE.mkv"
    )]
    NoTimes(String),
    /// It could not be read in the time that there was.
    #[error("{0}: reading it takes too long; cut it shorter")]
    TooLong(String),
    /// The frames that were to be taken of it are too much for the memory that there was.
    #[error("{what}: the frames to take have more than {} MB of pixels; take fewer", most >> 20)]
    TooManyPixels {
        /// Which source.
        what: String,
        /// Bytes.
        most: usize,
    },
    /// It holds no video.
    #[error("{0}: there is no video in it")]
    NoVideo(String),
    /// It is a video, but it cannot be played (to its end).
    #[error("{what}: the video is damaged or was cut off{}", how_much(.played))]
    Damaged {
        /// Which source.
        what: String,
        /// How much was played.
        played: Duration,
        /// GStreamer's error.
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
        /// The error of the resolver.
        #[source]
        cause: io::Error,
    },
    /// Nothing listens there.
    #[error("{what}: cannot connect to {address}; check address and port, and that the camera is on")]
    Unreachable {
        /// Which source.
        what: String,
        /// The address that was tried.
        address: SocketAddr,
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// The camera refuses the credentials, or wants some.
    #[error("{0}: the camera refuses user name or password")]
    Unauthorised(String),
    /// The camera closes the connection instead of answering.
    #[error(
        "{what}: the camera closed the connection instead of answering {method}{}",
        if *.on_login { " with a login; check user name and password" }
        else { "; perhaps it has as many viewers as it can serve, or is starting" }
    )]
    HungUp {
        /// Which source.
        what: String,
        /// The method of the request.
        method: String,
        /// The request was the first with a login.
        on_login: bool,
    },
    /// The camera wants a login of a kind that is not known here.
    #[error(
        "{what}: the camera wants a login by {methods}, which camscribe does not know; allow Digest with MD5 or SHA-256 in the camera"
    )]
    UnknownLogin {
        /// Which source.
        what: String,
        /// What the camera offers.
        methods: String,
    },
    /// There is no TLS with the camera, or none to trust.
    #[error("{what}: {why}")]
    Tls {
        /// Which source.
        what: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The camera knows no such stream.
    #[error("{0}: the camera has no stream under this path")]
    NoStream(String),
    /// Something that can be installed is missing.
    #[error("{what}: GStreamer has no {missing}; install the Debian package {package}")]
    MissingPlugin {
        /// Which source.
        what: String,
        /// GStreamer's description of the plugin.
        missing: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// There is no such device.
    #[error("{0}: there is no such video device")]
    NoDevice(String),
    /// Another program uses the device.
    #[error("{0}: the device is in use by another program")]
    Busy(String),
    /// No frames arrive, or none any more.
    #[error("{what}: no frame for {} s", .after.as_secs_f32())]
    Stalled {
        /// Which source.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The camera answers, but nothing arrives over UDP.
    #[error(
        "{0}: the camera answers, but nothing comes over UDP: is a firewall between? Set transport = \"tcp\""
    )]
    NoDatagrams(String),
    /// Data arrives, but no whole frame can be decoded.
    #[error("{what}: data comes, but no whole frame for {:.0} s: the stream is damaged", .after.as_secs_f32())]
    Undecodable {
        /// Which source.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The camera sends pictures, and not what says how to decode them.
    #[error(
        "{what}: the camera sends pictures without their parameter sets ({missing}), so none can be decoded; \
         restart it, or choose another codec or profile in its settings"
    )]
    NoParameterSets {
        /// Which source.
        what: String,
        /// The names of those that are missing.
        missing: String,
    },
    /// The camera sends packets of which no picture can be made.
    #[error(
        "{what}: the camera sends {codec}, but in a form of which no picture can be made; choose H.264, or pictures of \
         another size, in its settings"
    )]
    NoPictures {
        /// Which source.
        what: String,
        /// What the camera calls the codec.
        codec: String,
    },
    /// A live source has ended.
    #[error("{0}: the camera ended the stream")]
    Ended(String),
    /// The frames are so large that they could exhaust the memory.
    #[error("{what}: frames of {width}x{height} are too large; at most 8192x8192 can be used")]
    TooLarge {
        /// Which source.
        what: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The camera is to be seen in part, and which part of a frame that is cannot be told.
    #[error("{what}: crop and masks cannot be applied, so nothing is shown")]
    View {
        /// Which source.
        what: String,
        /// Why not.
        #[source]
        cause: CannotApply,
    },
    /// The pipeline cannot be built.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The window configuration is not valid.
    #[error(transparent)]
    Window(#[from] BadWindow),
    /// GStreamer cannot be initialised.
    #[error("GStreamer cannot be used")]
    Gstreamer(#[source] glib::Error),
    /// Any other error of a pipeline.
    #[error("{what}: {why}")]
    Other {
        /// Which source.
        what: String,
        /// GStreamer's message.
        why: String,
    },
}

/// The end of the message about a damaged file.
fn how_much(played: &Duration) -> String {
    match played.is_zero() {
        true => "; nothing of it can be played".into(),
        false => format!("; its first {:.1} s were used", played.as_secs_f32()),
    }
}

impl CaptureError {
    /// The error and its causes, separated by colons.
    pub fn in_one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = Error::source(self);
        while let Some(c) = cause {
            line = format!("{line}: {c}");
            cause = c.source();
        }
        line
    }

    /// Whether opening the source again cannot help, because something on this machine has to change.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Pipeline(_)
                | Self::Window(_)
                | Self::Gstreamer(_)
                | Self::MissingPlugin { .. }
                | Self::View { .. }
        )
    }
}
