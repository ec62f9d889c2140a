//! Capture of files that GStreamer encodes here, of an RTSP server on loopback and of test sources. V4L2
//! needs a device: only its absence is tested.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use camscribe::{
    camera::CameraState,
    capture::{self, CaptureError, ReadBounds},
    clip::WindowConfig,
    config::{FrameSampling, Login, Origin, ParsedSource, Secret, Transport, mask, test_source::TestContent},
    frame::Clock,
    resize::{FrameScaling, LANCZOS3},
};

use crate::support::{
    playback::{camera, file, mean, offsets, play, play_all},
    rtsp::{Fault, RtspServer},
    video::{ball, h264, launch},
    watched_camera::WatchedCamera,
};

/// The stream of the server: H.264 with a keyframe a second.
fn stream(size: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,{size},framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0 pt=96"
    )
}

const SMALL: &str = "width=320,height=240";

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_container_and_codec_become_clips() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("h264.mp4", format!("{} ! mp4mux", h264(250))),
        ("h265.mp4", "x265enc speed-preset=ultrafast ! h265parse ! mp4mux".into()),
        ("h264.mov", format!("{} ! qtmux", h264(250))),
        ("h264.ts", format!("{} ! mpegtsmux", h264(250))),
        ("h264.mkv", format!("{} ! matroskamux", h264(250))),
        ("mjpeg.avi", "jpegenc ! avimux".into()),
        ("h264.avi", format!("{} ! avimux", h264(250))),
        ("vp8.webm", "vp8enc deadline=1 ! webmmux".into()),
        ("vp9.webm", "vp9enc deadline=1 cpu-used=8 ! webmmux".into()),
        ("mjpeg.mkv", "jpegenc ! matroskamux".into()),
    ];
    for (name, encode) in cases {
        let path = ball(folder.path(), name, &encode);
        let played = play_all(file(&path)).await;
        let summary = played.result.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(summary.clips, 3, "{name}: {summary:?} {:?}", played.clips);
        for clip in &played.clips {
            assert_eq!(clip.frames.len(), 4, "{name}: {:?}", clip.frames);
            assert!(
                clip.frames.iter().all(|f| (f.width, f.height, f.rgb.len()) == (320, 240, 320 * 240 * 3))
            );
            assert!(!clip.gap);
        }
        assert!(played.status.decoder.is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audio_track_neither_blocks_nor_fails_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mux, sound) in [("a.mp4", "mp4mux", "avenc_aac"), ("a.mkv", "matroskamux", "vorbisenc")] {
        let path = folder.path().join(name);
        launch(&format!(
            "videotestsrc num-buffers=150 ! video/x-raw,width=320,height=240,framerate=25/1 ! {} ! queue ! m. \
             audiotestsrc num-buffers=260 ! {sound} ! queue ! m. {mux} name=m ! filesink location={}",
            h264(50),
            path.display()
        ));
        let played = play_all(file(&path)).await;
        assert_eq!(played.result.unwrap().clips, 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_file_keep_their_presentation_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(250)));
    // Before its creation time, which is not plausible then.
    let last_year = SystemTime::now() - Duration::from_secs(365 * 24 * 3600);
    fs::File::options().append(true).open(&path).unwrap().set_modified(last_year).unwrap();
    let mut config = file(&path);
    config.sampling = FrameSampling::Rate;
    config.window.window = Duration::from_secs(8);
    config.window.frames = 8;
    let played = play_all(config).await;
    let clip = &played.clips[0];
    assert_eq!(offsets(clip), [0, 1000, 2000, 3000, 4000, 5000]);
    assert_eq!((clip.duration, clip.gap, clip.clock), (Duration::from_secs(6), false, Clock::File));
    let modified: chrono::DateTime<chrono::Utc> = fs::metadata(&path).unwrap().modified().unwrap().into();
    // A recording ends when its file was last written. The container's duration may have a frame more.
    assert!((modified - clip.end).abs() <= chrono::TimeDelta::milliseconds(40), "{} {modified}", clip.end);
    assert_eq!(clip.frames[3].captured_at, clip.start + Duration::from_secs(3));
    assert_eq!(played.status.duration, Some(Duration::from_secs(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn keyframes_alone_are_decoded_where_they_come_often_enough() {
    let folder = tempfile::tempdir().unwrap();
    // Frames are wanted every half second.
    for (gop, sampling, mode, frames) in [
        (10, FrameSampling::Auto, "keyframes", 4),
        (50, FrameSampling::Auto, "rate", 4),
        (10, FrameSampling::Rate, "rate", 4),
        (25, FrameSampling::Keyframes, "keyframes", 2),
    ] {
        let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(gop)));
        let mut config = file(&path);
        config.sampling = sampling;
        let played = play_all(config).await;
        let sampling_status = played.status.sampling.clone().unwrap();
        assert!(sampling_status.starts_with(mode), "{gop} {sampling:?}: {sampling_status}");
        let last = played.clips.last().unwrap();
        assert_eq!(last.frames.len(), frames, "{gop} {sampling:?}: {:?}", last.frames);
        let on_keyframes = played.clips[1..].iter().flat_map(|c| &c.frames).all(|f| {
            let number = (f.pts.as_millis() as f64 / 40.0).round() as u32;
            number.is_multiple_of(gop)
        });
        assert_eq!(on_keyframes, mode == "keyframes", "{gop} {sampling:?}: {:?}", played.clips);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_metadata_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    launch(&format!(
        "videotestsrc num-buffers=75 pattern=smpte ! video/x-raw,width=320,height=240,framerate=25/1 \
         ! {} ! mp4mux ! filesink location={}",
        h264(25),
        path.display()
    ));
    // GStreamer 1.22 does not write a rotation: the matrix of the track header is edited.
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|w| w == b"tkhd").unwrap() + 4;
    let matrix = [0, 65536, 0, -65536, 0, 0, 240 << 16, 0, 1 << 30].map(i32::to_be_bytes);
    bytes[header + 40..header + 76].copy_from_slice(matrix.as_flattened());
    fs::write(&path, bytes).unwrap();
    let played = play_all(file(&path)).await;
    let frame = &played.clips[0].frames[0];
    assert_eq!((frame.width, frame.height), (240, 320));
    // The grey bar on the left of the pattern is at the top after a rotation by 90 degrees.
    let top = mean(frame, (0.4, 0.9), (0.02, 0.1));
    assert!(top.iter().all(|c| *c > 150) && top[0].abs_diff(top[2]) < 20, "{top:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn non_square_pixels_are_made_square() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    launch(&format!(
        "videotestsrc num-buffers=75 ! video/x-raw,width=360,height=288,pixel-aspect-ratio=16/15,framerate=25/1 \
         ! {} ! matroskamux ! filesink location={}",
        h264(25),
        path.display()
    ));
    let played = play_all(file(&path)).await;
    let frame = &played.clips[0].frames[0];
    assert_eq!((frame.width, frame.height), (384, 288));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_continues_when_its_resolution_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut joined = Vec::new();
    for size in ["width=320,height=240", "width=480,height=272"] {
        let part = folder.path().join("part.h264");
        launch(&format!(
            "videotestsrc num-buffers=75 ! video/x-raw,format=I420,{size},framerate=25/1 ! {} \
             ! video/x-h264,stream-format=byte-stream ! filesink location={}",
            h264(25),
            part.display()
        ));
        joined.extend(fs::read(&part).unwrap());
    }
    let raw = folder.path().join("joined.h264");
    fs::write(&raw, joined).unwrap();
    let path = folder.path().join("a.ts");
    launch(&format!(
        "filesrc location={} ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au ! mpegtsmux ! filesink location={}",
        raw.display(),
        path.display()
    ));
    let mut config = file(&path);
    config.sampling = FrameSampling::Rate;
    let played = play_all(config).await;
    let sizes: Vec<_> = played.clips.iter().flat_map(|c| &c.frames).map(|f| (f.width, f.height)).collect();
    assert!(
        sizes.starts_with(&[(320, 240)]) && sizes.ends_with(&[(480, 272)]),
        "{:?} {sizes:?}",
        played.result
    );
    assert!(sizes.len() >= 11, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_video_fails_with_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text.mp4"), "This is a text, not a video. ".repeat(200)).unwrap();
    fs::write(at("empty.mp4"), "").unwrap();
    // One pixel, and the end.
    let pixel = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0";
    let gif = [&b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"[..], &pixel[..], &pixel[..], b";"].concat();
    fs::write(at("animation.gif"), gif).unwrap();
    launch(&format!(
        "audiotestsrc num-buffers=100 ! avenc_aac ! mp4mux ! filesink location={}",
        at("sound.mp4").display()
    ));
    let whole = fs::read(ball(folder.path(), "whole.mp4", &format!("{} ! mp4mux", h264(25)))).unwrap();
    fs::write(at("cut.mp4"), &whole[..whole.len() / 2]).unwrap();
    let cases = [
        ("absent.mp4", "there is no such file"),
        ("text.mp4", "this is not a video file"),
        ("empty.mp4", "this is not a video file"),
        ("animation.gif", "this is an animation (GIF), which camscribe does not play"),
        ("sound.mp4", "there is no video in it"),
        ("cut.mp4", "its index is missing, so nothing of it can be played"),
        ("", "the file cannot be read"),
    ];
    for (name, expected) in cases {
        let played = play_all(file(&at(name))).await;
        assert!(played.result.is_err(), "{name}: {played:?}");
        assert!(played.error().ends_with(expected), "{name}: {} ({:?})", played.error(), played.result);
        assert!(played.error().contains(folder.path().to_str().unwrap()));
        assert_eq!(played.status.state, CameraState::Offline);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_is_described_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = ball(folder.path(), "whole.mp4", &format!("{} ! mp4mux faststart=true", h264(25)));
    let bytes = fs::read(whole).unwrap();
    let cut = folder.path().join("cut.mp4");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let played = play_all(file(&cut)).await;
    assert!(!played.clips.is_empty());
    match &played.result {
        Ok(summary) => {
            assert!(summary.warning.as_ref().is_some_and(|w| w.contains("cut off")), "{summary:?}")
        }
        Err(error) => assert!(matches!(error, CaptureError::Damaged { .. }), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_scaled_to_the_models_size_except_one_per_clip() {
    let mut config = camera("test://smpte?width=320&height=240&live=false&duration=3s");
    let whole = play_all(config.clone()).await.clips;
    config.scaling = Some(FrameScaling { edge: 64, interpolation: LANCZOS3 });
    let small = play_all(config).await.clips;
    assert_eq!(small.len(), whole.len());
    for (small, whole) in small.iter().zip(&whole) {
        let middle = small.frames.len() / 2;
        for (i, (small, whole)) in small.frames.iter().zip(&whole.frames).enumerate() {
            assert_eq!((small.width, small.height, small.rgb.len()), (64, 48, 64 * 48 * 3));
            assert_eq!((small.source_size(), small.pts), ((320, 240), whole.pts));
            let kept = small.original.as_ref().unwrap().rgb.as_ref();
            assert_eq!(kept, (i == middle).then_some(&whole.rgb));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rtsp_camera_works_over_every_transport() {
    let server = RtspServer::start(&stream(SMALL));
    for transport in [Transport::Tcp, Transport::Udp, Transport::Auto] {
        let mut config = camera(&server.uri());
        config.transport = transport;
        let played = play(config, 2).await;
        assert_eq!(played.clips.len(), 2, "{transport:?}: {:?} {:?}", played.result, played.states);
        assert_eq!((played.clips[0].frames[0].width, played.clips[0].frames[0].height), (320, 240));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_whose_udp_packets_are_lost_is_read_over_tcp() {
    let server = RtspServer::start(&stream(SMALL));
    server.set_fault(Fault::NoDatagrams);
    let mut config = camera(&server.uri());
    config.transport = Transport::Udp;
    let played = play(config.clone(), 1).await;
    assert!(matches!(played.result, Err(CaptureError::NoDatagrams(_))), "{:?}", played.result);
    config.transport = Transport::Auto;
    let played = play(config, 1).await;
    assert_eq!(played.clips.len(), 1, "{:?} {:?}", played.result, played.states);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cameras_own_clock_is_used_once_it_is_known() {
    let server = RtspServer::start(&stream(SMALL));
    let mut config = camera(&server.uri());
    config.sampling = FrameSampling::Rate;
    let played = play(config, 5).await;
    let frames: Vec<_> = played.clips.iter().flat_map(|c| &c.frames).collect();
    let last = frames.last().unwrap();
    assert_eq!(last.clock, Clock::Camera, "{:?}", frames.iter().map(|f| f.clock).collect::<Vec<_>>());
    let off = (chrono::Utc::now() - last.captured_at).num_seconds().abs();
    assert!(off < 30, "the server runs on this machine, so its clock is ours: {off} s off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_with_audio_delivers_its_video() {
    let sound = "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=8";
    let server = RtspServer::start(&format!("{} {sound}", stream(SMALL)));
    let played = play(camera(&server.uri()), 1).await;
    assert_eq!(played.clips.len(), 1, "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_needs_the_right_password() {
    let server = RtspServer::with_password(&stream(SMALL), "viewer", "s3cret/&");
    let login = |password: &str| Some(Login { username: "viewer".into(), password: Secret::new(password) });
    let mut config = camera(&server.uri());
    config.login = login("s3cret/&");
    assert_eq!(play(config.clone(), 1).await.clips.len(), 1);
    let embedded = server.uri().replace("rtsp://", "rtsp://viewer:s3cret%2F%26@");
    assert_eq!(play(camera(&embedded), 1).await.clips.len(), 1);
    for wrong in [login("wrong-one"), None] {
        config.login = wrong;
        let played = play(config.clone(), 1).await;
        assert!(matches!(played.result, Err(CaptureError::Unauthorised(_))), "{:?}", played.result);
        assert_eq!(played.status.state, CameraState::Unauthorised);
        assert!(!format!("{:?}", played.result).contains("wrong-one"));
    }
}

#[test]
fn passwords_in_addresses_are_never_shown() {
    let addresses = [
        "rtsp://viewer:hunter2@cam/live",
        "rtsp://cam:554/user=viewer&password=hunter2&channel=1",
        "rtsps://cam/live?user=viewer&pwd=hunter2",
    ];
    for address in addresses {
        let parsed: ParsedSource = address.parse().unwrap();
        let shown = format!("{} {parsed:?} {}", parsed.source, mask(address));
        assert!(!shown.contains("hunter2"), "{shown}");
        let config = camera(address);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_camera_fails_with_one_clear_sentence() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let played = play_all(camera(&format!("rtsp://{free}/stream"))).await;
    assert!(matches!(played.result, Err(CaptureError::Unreachable { .. })), "{:?}", played.result);
    let played = play_all(camera("rtsp://no-such-host.invalid/stream")).await;
    assert!(matches!(played.result, Err(CaptureError::UnknownHost { .. })), "{:?}", played.result);
    assert!(played.error().contains("no-such-host.invalid"));
    let server = RtspServer::start(&stream(SMALL));
    let played = play_all(camera(&server.uri().replace("stream", "other"))).await;
    assert!(matches!(played.result, Err(CaptureError::NoStream(_))), "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_never_answers_times_out() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = camera(&format!("rtsp://{}/stream", mute.local_addr().unwrap()));
    config.connect_timeout = Duration::from_secs(2);
    let played = play_all(config).await;
    assert!(played.error().ends_with("no frame for 2 s"), "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_without_video_is_reported_as_such() {
    let server = RtspServer::start("audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8");
    let played = play_all(camera(&server.uri())).await;
    assert!(matches!(played.result, Err(CaptureError::NoVideo(_))), "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_disappears_and_returns_is_reconnected() {
    let server = RtspServer::start(&stream(SMALL));
    let port = server.port();
    let mut config = camera(&server.uri());
    config.retry = true;
    let mut watching = WatchedCamera::start(config);
    watching.more_clips(2).await;
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    watching.until("offline", |s| s.state == CameraState::Offline).await;
    let _server = RtspServer::start_at(&stream(SMALL), port);
    watching.until("online again", |s| s.state == CameraState::Online && s.reconnects > 0).await;
    watching.more_clips(2).await;
    let clips = watching.stop().await;
    assert!(clips.iter().map(|c| c.seq).eq(0..clips.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_cannot_add_pipeline_elements() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("written");
    for head in ["", "rtsp://127.0.0.1:1/x", "file:///dev/null"] {
        let uri = format!("{head} ! filesink location={}", target.display());
        if let Ok(ParsedSource { source, .. }) = uri.parse() {
            let config = capture::CameraConfig { source, ..camera("test://smpte") };
            assert!(play_all(config).await.result.is_err());
        }
    }
    assert!(!target.exists());
    assert!("rtsp://x ! filesink location=/tmp/x".parse::<ParsedSource>().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_v4l2_device_is_reported() {
    let played = play_all(camera("v4l2:///dev/video-none")).await;
    assert!(played.error().ends_with("there is no such video device"), "{:?}", played.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn test_patterns_play_without_a_camera() {
    let uri = "test://ball?width=160&height=120&fps=10&live=false&duration=4s";
    let played = play_all(camera(uri)).await;
    assert_eq!(played.result.unwrap().clips, 2);
    assert_eq!(played.clips[1].frames[0].rgb.len(), 160 * 120 * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_move_as_their_sentence_says() {
    let uri = "test://shapes?object=blue-square-still&object=red-circle-left&background=white&period=2s&live=false&duration=2s";
    let config = camera(uri);
    let Origin::Synthetic(test) = config.source.origin().clone() else { panic!() };
    let played = play_all(config).await;
    let clip = &played.clips[0];
    let truth = test.truth(clip.start_pts, clip.duration);
    assert_eq!(truth.as_deref(), Some("A red circle moves to the left while a blue square stays still."));
    let reds: Vec<f32> = clip.frames.iter().map(|f| centre_of(f, [255, 0, 0])).collect();
    assert!(reds.is_sorted_by(|a, b| a > b) && reds[0] > 500.0, "{reds:?}");
    let blues: Vec<f32> = clip.frames.iter().map(|f| centre_of(f, [0, 0, 255])).collect();
    assert!(blues.iter().all(|b| (b - blues[0]).abs() < 0.01), "{blues:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scene_of_which_most_is_not_wanted_keeps_its_pace() {
    let mut config = camera("test://shapes?width=160&height=120");
    let s = Duration::from_secs;
    // A pause that counts as a stall where frames do not come at their times.
    config.window = WindowConfig { window: s(1), stride: s(7), frames: 2, min_frames: 2 };
    let played = play(config, 2).await;
    assert_eq!(played.clips.len(), 2, "{:?}", played.result);
    assert_eq!(played.clips[1].start_pts, s(7));
}

/// Returns the mean column of the pixels of one colour.
fn centre_of(frame: &camscribe::frame::Frame, colour: [u8; 3]) -> f32 {
    let pixels = frame.rgb.chunks_exact(3).enumerate().filter(|(_, p)| **p == colour);
    let columns: Vec<f32> = pixels.map(|(i, _)| (i % frame.width as usize) as f32).collect();
    columns.iter().sum::<f32>() / columns.len() as f32
}

#[test]
fn the_tour_says_what_each_of_its_scenes_shows() {
    let source = camera("test://shapes?period=4s").source;
    let Origin::Synthetic(test) = source.origin() else { panic!() };
    assert!(matches!(test.content, TestContent::Shapes(_)));
    let s = Duration::from_secs;
    assert_eq!(test.truth(s(0), s(4)).as_deref(), Some("A red circle moves to the left."));
    assert_eq!(test.truth(s(4), s(4)).as_deref(), Some("A blue square moves to the right."));
    assert_eq!(
        test.truth(s(32), s(4)).as_deref(),
        Some("A red circle moves to the left."),
        "it begins again"
    );
    assert_eq!(test.truth(s(2), s(4)), None, "two scenes");
    assert_eq!(test.truth(s(0), s(2)), None, "half a scene");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_pipeline_is_used_and_its_errors_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "colourless.txt",
        "# without colour\nvideotestsrc name=source ! capsfilter name=size ! videobalance saturation=0\n! videoconvert ! appsink name=frames",
    );
    write("no-source.txt", "videotestsrc ! appsink name=frames");
    write("no-frames.txt", "videotestsrc name=source ! fakesink name=frames");
    write("no-element.txt", "videotestsrc name=source ! nosuchelement ! appsink name=frames");
    write("broken.txt", "videotestsrc name=source ! ! appsink name=frames");
    write("wrong-source.txt", "filesrc name=source ! decodebin ! videoconvert ! appsink name=frames");
    let mut config = camera("test://smpte?live=false&duration=2s");
    config.pipelines_dir = Some(folder.path().into());
    config.pipeline = Some("colourless".into());
    let played = play_all(config.clone()).await;
    // The pattern's red bar is grey now.
    let [red, green, blue] = mean(&played.clips[0].frames[0], (0.75, 0.8), (0.1, 0.5));
    assert!(red.abs_diff(green) < 8 && red.abs_diff(blue) < 8, "{red} {green} {blue}");
    let cases = [
        ("no-source", "no element is named source: add name=source"),
        ("no-frames", "name=frames"),
        ("no-element", "nosuchelement"),
        ("broken", "broken"),
        ("wrong-source", "filesrc"),
        ("absent", "there are: broken, colourless, file, file-nvdec, no-element, "),
        ("../secret", "there is no pipeline"),
    ];
    for (name, expected) in cases {
        config.pipeline = Some(name.into());
        let played = play_all(config.clone()).await;
        assert!(played.error().contains(expected), "{name}: {}", played.error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_can_be_read_by_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    launch(&format!(
        "videotestsrc num-buffers=60 pattern=ball ! video/x-raw,width=320,height=240,framerate=30000/1001 ! {} ! mp4mux ! filesink location={}",
        h264(15),
        path.display()
    ));
    let config = file(&path);
    let read = || {
        capture::read_frames_at(&config, |info| {
            assert_eq!(info.frames, 60);
            assert!(
                (info.fps - 30000.0 / 1001.0).abs() < 1e-9 && (info.duration - 60.0 / info.fps).abs() < 1e-9
            );
            vec![0, 17, 59, 60]
        })
    };
    let (frames, _) = read().unwrap();
    let times: Vec<f64> = frames.iter().map(|f| f.pts.as_secs_f64()).collect();
    assert_eq!(frames.len(), 3);
    assert!(
        times.iter().zip([0.0, 17.0, 59.0]).all(|(t, n)| (t - n * 1001.0 / 30000.0).abs() < 1e-6),
        "{times:?}"
    );
    assert!(frames[0].rgb != frames[1].rgb && frames[1].rgb != frames[2].rgb);
    // Two of the three have room.
    let within = |most_bytes, is_over: &dyn Fn() -> bool| {
        capture::read_frames_within(&config, ReadBounds { most_bytes, is_over }, |_| vec![0, 17, 59])
    };
    let frame = 320 * 240 * 3;
    assert_eq!(within(3 * frame, &|| false).unwrap().0.len(), 3);
    assert!(matches!(within(3 * frame - 1, &|| false), Err(CaptureError::TooManyPixels { .. })));
    assert!(within(3 * frame, &|| true).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_stamps_start_late_is_dated_right_and_not_reported_as_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    launch(&format!(
        "videotestsrc pattern=ball num-buffers=150 timestamp-offset=3600000000000 \
         ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! {} ! matroskamux ! filesink location={}",
        h264(25),
        path.display()
    ));
    // GStreamer states a length of 6 s. Others, such as ffmpeg, state when the last frame ends, in milliseconds.
    let mut bytes = fs::read(&path).unwrap();
    let stated = bytes.windows(3).position(|w| w == [0x44, 0x89, 0x88]).unwrap() + 3;
    for length in [6_000.0, 3_606_000.0f64] {
        bytes[stated..stated + 8].copy_from_slice(&length.to_be_bytes());
        fs::write(&path, &bytes).unwrap();
        let played = play_all(file(&path)).await;
        let summary = played.result.unwrap();
        assert_eq!((summary.clips, summary.warning), (3, None), "{length}");
        let modified: chrono::DateTime<chrono::Utc> = fs::metadata(&path).unwrap().modified().unwrap().into();
        let off = (modified - played.clips[2].end).abs();
        assert!(off <= chrono::TimeDelta::milliseconds(100), "{length}: {off}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_sound_is_longer_than_its_picture_is_not_reported_as_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mux, sound) in [("a.mp4", "mp4mux", "avenc_aac"), ("a.mkv", "matroskamux", "vorbisenc")] {
        let path = folder.path().join(name);
        launch(&format!(
            "videotestsrc num-buffers=150 ! video/x-raw,width=320,height=240,framerate=25/1 ! {} ! queue ! m. \
             audiotestsrc num-buffers=690 ! {sound} ! queue ! m. {mux} name=m ! filesink location={}",
            h264(50),
            path.display()
        ));
        let summary = play_all(file(&path)).await.result.unwrap();
        assert_eq!((summary.clips, summary.warning), (3, None), "{name}");
    }
}
