//! Faults of one RTSP camera, while its neighbour streams and must not be disturbed.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use camscribe::{
    camera::CameraState,
    capture::CameraConfig,
    clip::{Clip, WindowConfig},
    config::{FrameSampling, Login, Secret},
};

use crate::support::{
    playback,
    rtsp::{Fault, RtspServer},
    watched_camera::WatchedCamera,
};

/// H.264 with a keyframe a second.
fn stream(size: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,{size},framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 \
         ! video/x-h264,stream-format=byte-stream ! rtph264pay name=pay0 pt=96"
    )
}

const SMALL: &str = "width=320,height=240";

/// A camera that is retried for ever.
fn camera(uri: &str) -> CameraConfig {
    let window = Duration::from_secs(1);
    CameraConfig {
        retry: true,
        sampling: FrameSampling::Rate,
        window: WindowConfig { window, stride: window, frames: 4, min_frames: 2 },
        ..playback::camera(uri)
    }
}

/// A camera without faults.
struct Neighbour {
    _server: RtspServer,
    watching: WatchedCamera,
}

impl Neighbour {
    async fn start() -> Self {
        let server = RtspServer::start(&stream(SMALL));
        let mut watching = WatchedCamera::start(camera(&server.uri()));
        watching.until("online", |s| s.state == CameraState::Online).await;
        Self { _server: server, watching }
    }

    /// Asserts that it has described everything from before its neighbour's fault until after it.
    async fn assert_untouched(self) {
        self.watching.more_clips(2).await;
        assert_eq!(self.watching.status.borrow().reconnects, 0);
        let clips = self.watching.stop().await;
        assert!(clips.len() >= 3);
        assert_in_order(&clips);
        assert!(clips.iter().all(|clip| !clip.gap && clip.frames.len() == 4), "{:?}", brief(&clips));
        let next = |pair: &[Clip]| pair[0].start_pts + Duration::from_secs(1) == pair[1].start_pts;
        assert!(clips.windows(2).all(next), "{:?}", brief(&clips));
    }
}

fn assert_in_order(clips: &[Clip]) {
    assert!(clips.iter().map(|clip| clip.seq).eq(0..clips.len() as u64), "{:?}", brief(clips));
}

fn brief(clips: &[Clip]) -> Vec<(u64, Duration, usize, bool)> {
    clips.iter().map(|clip| (clip.seq, clip.start_pts, clip.frames.len(), clip.gap)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_returns_with_another_size_codec_and_rate_is_reconnected() {
    let neighbour = Neighbour::start().await;
    let server = RtspServer::start(&stream(SMALL));
    let port = server.port();
    let mut porch = WatchedCamera::start(CameraConfig {
        // Long enough that the camera disappears within one.
        window: WindowConfig {
            window: Duration::from_secs(20),
            stride: Duration::from_secs(20),
            frames: 40,
            min_frames: 2,
        },
        ..camera(&server.uri())
    });
    porch.until("well into a window", |s| s.position > Duration::from_secs(3)).await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    let gone = porch.until("offline", |s| s.state == CameraState::Offline).await;
    assert!(!gone.why.is_empty());
    porch.more_clips(0).await;
    let other = "videotestsrc is-live=true ! video/x-raw,format=I420,width=480,height=272,framerate=10/1 \
                 ! jpegenc ! rtpjpegpay name=pay0 pt=26";
    let _again = RtspServer::start_at(other, port);
    let back = porch.until("online again", |s| s.state == CameraState::Online).await;
    assert_eq!(back.size, Some((480, 272)));
    assert!(back.reconnects >= 1);
    porch.more_clips(1).await;
    let clips = porch.stop().await;
    assert_in_order(&clips);
    assert!(clips[0].gap && clips[0].duration < Duration::from_secs(20), "{:?}", brief(&clips));
    assert!(clips[0].frames.len() >= 2 && clips[0].frames.iter().all(|f| f.width == 320));
    let last = clips.last().unwrap();
    assert!(!last.gap && last.frames.iter().all(|f| f.width == 480), "{:?}", brief(&clips));
    neighbour.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_freezes_with_its_connection_open_is_restarted() {
    let neighbour = Neighbour::start().await;
    let server = RtspServer::start(&stream(SMALL));
    let mut porch = WatchedCamera::start(camera(&server.uri()));
    porch.until("online", |s| s.state == CameraState::Online).await;
    porch.more_clips(2).await;
    server.set_fault(Fault::Frozen);
    let frozen = porch.until("offline", |s| s.state == CameraState::Offline).await;
    assert!(frozen.why.ends_with("no frame for 5 s"), "{}", frozen.why);
    server.set_fault(Fault::None);
    porch.until("online again", |s| s.state == CameraState::Online && s.reconnects >= 1).await;
    porch.more_clips(2).await;
    let clips = porch.stop().await;
    assert_in_order(&clips);
    assert!(clips.iter().filter(|clip| clip.gap).count() <= 1, "{:?}", brief(&clips));
    neighbour.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_camera_is_counted_restarts_it_and_is_never_described() {
    let neighbour = Neighbour::start().await;
    let server = RtspServer::start(&stream(SMALL));
    let mut porch = WatchedCamera::start(CameraConfig {
        connect_timeout: Duration::from_secs(3),
        ..camera(&server.uri())
    });
    porch.until("online", |s| s.state == CameraState::Online).await;
    porch.more_clips(2).await;
    server.set_fault(Fault::Garbage);
    let corrupt = porch.until("offline", |s| s.state == CameraState::Offline).await;
    assert!(corrupt.why.contains("no whole frame"), "{}", corrupt.why);
    assert!(corrupt.decode_errors >= 25, "{corrupt:?}");
    server.set_fault(Fault::None);
    let well = porch.until("online again", |s| s.state == CameraState::Online).await;
    assert!(well.reconnects >= 1 && well.decode_errors >= corrupt.decode_errors, "{well:?}");
    porch.more_clips(2).await;
    let clips = porch.stop().await;
    assert_in_order(&clips);
    // The pattern is a white ball on black. Noise would be neither.
    for frame in clips.iter().flat_map(|clip| &clip.frames) {
        let grey = frame.rgb.iter().filter(|v| (60..190).contains(*v)).count();
        assert!(grey * 50 < frame.rgb.len(), "a corrupt frame at {:?}", frame.pts);
    }
    neighbour.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_breaks_the_protocol_is_retried() {
    let neighbour = Neighbour::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtsp://{}/stream", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut asked = [0; 512];
            let _ = client.read(&mut asked);
            let _ = client.write_all(b"$\xff\xff\xffHTTP/9.9 banana\r\nContent-Length: -7\r\n\r\n\0\0\0");
        }
    });
    let mut porch =
        WatchedCamera::start(CameraConfig { connect_timeout: Duration::from_secs(3), ..camera(&uri) });
    let state =
        porch.until("tried twice more", |s| s.reconnects >= 2 && s.state == CameraState::Offline).await;
    assert!(state.why.contains("127.0.0.1"), "{}", state.why);
    assert!(porch.stop().await.is_empty());
    neighbour.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_refuses_the_password_is_reported_and_retried_rarely() {
    let neighbour = Neighbour::start().await;
    let server = RtspServer::with_password(&stream(SMALL), "viewer", "right");
    let wrong = Login { username: "viewer".into(), password: Secret::new("wrong") };
    let mut porch = WatchedCamera::start(CameraConfig { login: Some(wrong), ..camera(&server.uri()) });
    let refused = porch.until("refused", |s| s.state == CameraState::Unauthorised).await;
    assert!(refused.why.contains("refuses user name or password"), "{}", refused.why);
    neighbour.watching.more_clips(5).await;
    assert_eq!(porch.status.borrow().reconnects, 0);
    assert!(porch.stop().await.is_empty());
    neighbour.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_camera_is_retried_with_growing_pauses() {
    // It sends one second of video, then it ends the stream.
    let brief = stream(SMALL).replace("pattern=ball", "pattern=ball num-buffers=25");
    let server = RtspServer::start(&brief);
    let mut porch = WatchedCamera::start(camera(&server.uri()));
    let mut pauses = Vec::new();
    for time in 0..4 {
        porch.until("online", |s| s.state == CameraState::Online && s.reconnects == time).await;
        porch.until("offline", |s| s.state == CameraState::Offline).await;
        let since = Instant::now();
        porch.until("tried again", |s| s.reconnects > time).await;
        pauses.push(since.elapsed());
    }
    // 1, 2, 4 and 8 seconds, plus a jitter of at most a quarter.
    assert!(pauses[2] > pauses[0] && pauses[3] > pauses[1], "{pauses:?}");
    porch.stop().await;
}
