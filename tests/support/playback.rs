//! Capture of one source, and what is asserted about its clips.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use camscribe::{
    camera::CameraStatus,
    capture::{self, CameraConfig, CaptureError, Summary},
    clip::{Clip, TimeRange, WindowConfig},
    config::{ClockChoice, FrameSampling, ParsedSource, TlsVerify, Transport},
    prompt_spec::PromptSpec,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Returns the configuration of a camera with two-second windows of four frames.
pub fn camera(uri: &str) -> CameraConfig {
    let s = Duration::from_secs;
    let ParsedSource { source, login } = uri.parse().unwrap();
    CameraConfig {
        id: "porch".parse().unwrap(),
        source,
        tls: TlsVerify::Full(None),
        transport: Transport::Tcp,
        login,
        pipeline: None,
        pipelines_dir: None,
        view: None,
        scaling: None,
        sampling: FrameSampling::Auto,
        clock: ClockChoice::Auto,
        window: WindowConfig { window: s(2), stride: s(2), frames: 4, min_frames: 2 },
        range: TimeRange::default(),
        prompt_spec: Arc::new(PromptSpec::new("What happens?", 16)),
        look_back: None,
        connect_timeout: s(10),
        retry: false,
    }
}

pub fn file(path: &Path) -> CameraConfig {
    camera(path.to_str().unwrap())
}

/// What came of a source.
#[derive(Debug)]
pub struct Played {
    pub result: Result<Summary, CaptureError>,
    pub clips: Vec<Clip>,
    pub status: CameraStatus,
    pub states: Vec<CameraStatus>,
}

impl Played {
    pub fn error(&self) -> String {
        self.result.as_ref().expect_err("the source has played").to_string()
    }
}

/// Captures a source until its end, until `enough` clips, or for a minute.
pub async fn play(config: CameraConfig, enough: usize) -> Played {
    // A critical warning of GLib is a programming error: it ends this process.
    gstreamer::glib::log_set_always_fatal(
        gstreamer::glib::LogLevels::LEVEL_ERROR | gstreamer::glib::LogLevels::LEVEL_CRITICAL,
    );
    let (status, mut watching) = watch::channel(CameraStatus::default());
    let cancel = CancellationToken::new();
    let clips = Arc::new(Mutex::new(Vec::new()));
    let (taken, stop) = (clips.clone(), cancel.clone());
    let sink = move |clip| {
        let mut taken = taken.lock().unwrap();
        taken.push(clip);
        if taken.len() == enough {
            stop.cancel();
        }
    };
    let states = tokio::spawn(async move {
        let mut states: Vec<CameraStatus> = Vec::new();
        while watching.changed().await.is_ok() {
            let now = watching.borrow_and_update().clone();
            if states.last().is_none_or(|s| s.state != now.state) {
                states.push(now);
            }
        }
        (states, watching.borrow().clone())
    });
    let limit = cancel.clone();
    let timer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        limit.cancel();
    });
    let result = capture::run(config, sink, status, cancel).await;
    timer.abort();
    let (states, status) = states.await.unwrap();
    let clips = std::mem::take(&mut *clips.lock().unwrap());
    Played { result, clips, status, states }
}

pub async fn play_all(config: CameraConfig) -> Played {
    play(config, usize::MAX).await
}

/// Returns the offsets of a clip's frames in milliseconds.
pub fn offsets(clip: &Clip) -> Vec<u128> {
    (0..clip.frames.len()).map(|i| clip.offset(i).as_millis()).collect()
}

/// Returns the mean red, green and blue over a part of a frame, given in fractions of its width and height.
pub fn mean(frame: &camscribe::frame::Frame, x: (f32, f32), y: (f32, f32)) -> [u32; 3] {
    let (w, h) = (frame.width as f32, frame.height as f32);
    let (columns, rows) = ((x.0 * w) as usize..(x.1 * w) as usize, (y.0 * h) as usize..(y.1 * h) as usize);
    let count = (columns.len() * rows.len()) as u32;
    let mut sum = [0u32; 3];
    for row in rows {
        for column in columns.clone() {
            let at = (row * frame.width as usize + column) * 3;
            (0..3).for_each(|c| sum[c] += u32::from(frame.rgb[at + c]));
        }
    }
    sum.map(|s| s / count)
}
