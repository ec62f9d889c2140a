//! What capture has to know about one camera.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    camera::CameraId,
    clip::{TimeRange, WindowConfig},
    config::{ClockChoice, FrameSampling, Login, Source, StreamOptions, TlsVerify, Transport},
    look_back::LookBack,
    prompt_spec::PromptSpec,
    resize::FrameScaling,
    view::View,
};

/// One source, and how its frames become clips.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// The name of the camera.
    pub id: CameraId,
    /// Where the frames come from.
    pub source: Source,
    /// How RTSP transports its media.
    pub transport: Transport,
    /// Whom to trust at an `rtsps://` address.
    pub tls: TlsVerify,
    /// User name and password, if the camera asks for them.
    pub login: Option<Login>,
    /// Name of the pipeline. `None`: the default pipeline of the source.
    pub pipeline: Option<String>,
    /// Folder with the user's own pipelines, `NAME.txt`.
    pub pipelines_dir: Option<PathBuf>,
    /// What of the frames is seen. `None`: all. It is applied before anything else gets a frame.
    pub view: Option<Arc<View>>,
    /// How frames are scaled down before anything else looks at them. `None`: frames keep their size.
    pub scaling: Option<FrameScaling>,
    /// Which frames are decoded.
    pub sampling: FrameSampling,
    /// What dates the frames of a live source.
    pub clock: ClockChoice,
    /// How frames are cut into clips.
    pub window: WindowConfig,
    /// Which part of the stream is cut into clips.
    pub range: TimeRange,
    /// What to ask about each clip.
    pub prompt_spec: Arc<PromptSpec>,
    /// Keeps the newest frames. `None`: nobody asks for them.
    pub look_back: Option<Arc<LookBack>>,
    /// A source that gives no data within this time after it was opened has failed. Its first frame may take a
    /// multiple of it. Later on, the limit of a live source follows from its own frame intervals.
    pub connect_timeout: Duration,
    /// Whether a live source that fails is opened again, for ever.
    pub retry: bool,
}

impl CameraConfig {
    /// What the source element may need to know.
    pub(super) fn stream_options(&self) -> StreamOptions {
        StreamOptions { transport: self.transport, connect_timeout: self.connect_timeout }
    }
}
