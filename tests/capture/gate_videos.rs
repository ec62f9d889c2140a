//! The change gate on decoded video: synthetic scenes with known movement, and any video files, for which it
//! prints which clips are skipped:
//! `CAMSCRIBE_GATE_VIDEOS='a.mp4 b.mp4' cargo test --test capture gate_videos:: -- --nocapture`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use camscribe::{
    camera::CameraStatus,
    capture::{self, CameraConfig},
    clip::{Clip, WindowConfig},
    config::FrameSampling,
    gate::Fingerprint,
    prompt_spec::{GateConfig, PromptSpec},
    resize::{FrameScaling, LANCZOS3},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{playback, video};

/// Returns a letter per clip, by the default threshold: `D` is described, `.` is skipped.
async fn decisions(uri: &str, window: u64) -> String {
    let window = Duration::from_secs(window);
    let gate = Some(GateConfig { threshold: 10, heartbeat: Duration::from_secs(600) });
    let config = CameraConfig {
        sampling: FrameSampling::Rate,
        window: WindowConfig { window, stride: window, frames: 8, min_frames: 2 },
        prompt_spec: Arc::new(PromptSpec { gate, ..PromptSpec::new("What happens?", 8) }),
        // The size of the published models.
        scaling: Some(FrameScaling { edge: 512, interpolation: LANCZOS3 }),
        ..playback::camera(uri)
    };
    let clips = Arc::new(Mutex::new(Vec::<Clip>::new()));
    let taken = clips.clone();
    let sink = move |clip| taken.lock().unwrap().push(clip);
    let (status, _) = watch::channel(CameraStatus::default());
    capture::run(config, sink, status, CancellationToken::new()).await.unwrap();
    let mut described: Option<Fingerprint> = None;
    let decision = |clip: &Clip| {
        let look = Fingerprint::of(clip).unwrap();
        let still = described.as_ref().is_some_and(|described| look.repeats(described));
        if !still {
            described = Some(look.keep_last_frame());
        }
        if still { '.' } else { 'D' }
    };
    clips.lock().unwrap().iter().map(decision).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_scenes_are_described_throughout_and_still_ones_once() {
    let shapes = |options: &str| format!("test://shapes?live=false&duration=32s&{options}");
    let still =
        decisions(&shapes("object=red-circle-still&object=blue-square-still&background=white"), 2).await;
    assert_eq!(still, "D...............");
    // Clips of two seconds of a movement that takes eight.
    let moving = decisions(&shapes("object=red-circle-left&period=8s"), 2).await;
    assert_eq!(moving, "DDDDDDDDDDDDDDDD");
    // The triangle appears in the middle of its eight seconds and disappears at their end.
    let appears = decisions(&shapes("object=yellow-triangle-appears&period=8s"), 2).await;
    assert_eq!(appears, "D.D.D.D.D.D.D.D.");
    assert_eq!(decisions(&shapes("period=8s"), 8).await, "DDDD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_in_which_something_always_moves_is_described_throughout() {
    let folder = tempfile::tempdir().unwrap();
    let ball = video::ball(folder.path(), "ball.mp4", &format!("{} ! mp4mux", video::h264(30)));
    let moving = decisions(&ball.display().to_string(), 2).await;
    assert!(!moving.is_empty() && !moving.contains('.'), "{moving}");

    let named = std::env::var("CAMSCRIBE_GATE_VIDEOS").unwrap_or_default();
    for film in named.split_whitespace() {
        for window in [2, 4, 8] {
            let decisions = decisions(film, window).await;
            assert!(decisions.starts_with('D'), "there is nothing yet that a first clip could repeat");
            let skipped = decisions.matches('.').count();
            println!("{film}, {window} s: {skipped} of {} clips skipped: {decisions}", decisions.len());
        }
    }
}
