//! Cameras with the faults of real ones: their frames come, and have the right times.

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use camscribe::{
    clip::Clip,
    config::{ClockChoice, FrameSampling},
    frame::Clock,
};
use chrono::{DateTime, Utc};

use crate::support::{
    hostile_camera::{Faults, HostileCamera, RtpInfo},
    playback::{Played, camera, mean, play},
    rtsp::RtspServer,
};

/// The times of frames are read here, so that no two of these tests may compete for the processor.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches a camera for `clips` windows of two seconds. Returns what came, and when the camera began to send.
fn watch(faults: Faults, clock: ClockChoice, clips: usize) -> (Played, DateTime<Utc>) {
    let _alone = alone();
    let server = HostileCamera::start(faults);
    let mut config = camera(&server.uri());
    (config.clock, config.sampling) = (clock, FrameSampling::Rate);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let played = runtime.block_on(play(config, clips));
    assert_eq!(played.clips.len(), clips, "{faults:?}: {:?} {:?}", played.result, played.status);
    (played, server.began().into())
}

/// Asserts that windows follow each other from the moment on at which the camera began.
fn assert_in_time(clips: &[Clip], began: DateTime<Utc>, faults: Faults) {
    let first = clips[0].frames[0].captured_at;
    let start = (first - began).as_seconds_f64();
    assert!((-1. ..5.).contains(&start), "{faults:?}: the first window starts {start} s late");
    for (i, clip) in clips.iter().enumerate() {
        let start = (clip.frames[0].captured_at - first).as_seconds_f64() - 2. * i as f64;
        assert!(start.abs() < 0.9, "{faults:?}: window {i} starts {start} s late");
    }
}

#[test]
fn the_first_picture_is_seen_whatever_a_camera_says_of_its_numbers() {
    for rtp_info in [RtpInfo::Right, RtpInfo::Absent, RtpInfo::Zero, RtpInfo::Wrong] {
        // A first picture that is lost would cost ten seconds.
        let faults = Faults { rtp_info, one_keyframe: true, ..Faults::default() };
        let (played, began) = watch(faults, ClockChoice::Auto, 2);
        assert_in_time(&played.clips, began, faults);
    }
}

#[test]
fn a_camera_that_changes_its_ssrc_goes_on() {
    for faults in [
        Faults { ssrc_every: Some(25), ..Faults::default() },
        Faults { ssrc_change: Some(60), ..Faults::default() },
    ] {
        let (played, began) = watch(faults, ClockChoice::Auto, 3);
        assert_in_time(&played.clips, began, faults);
        assert!(!played.clips.iter().any(|clip| clip.gap), "{faults:?}");
    }
}

#[test]
fn packets_of_another_sender_are_ignored() {
    let faults = Faults { foreign: true, ..Faults::default() };
    let (played, began) = watch(faults, ClockChoice::Auto, 2);
    assert_in_time(&played.clips, began, faults);
    assert_eq!(played.status.decode_errors, 0);
}

#[test]
fn a_clock_that_is_days_off_dates_nothing_unless_it_is_told_to() {
    for (clock, days) in [(ClockChoice::Auto, 0.), (ClockChoice::Camera, -100.25)] {
        let faults = Faults { clock_ahead: -100.25 * 86_400., ..Faults::default() };
        let (played, began) = watch(faults, clock, 2);
        let last = played.clips.last().unwrap();
        let off = (last.frames[0].captured_at - began).as_seconds_f64() / 86_400.;
        assert!((off - days).abs() < 0.001, "{clock:?}: {off} days");
        let by_camera = clock == ClockChoice::Camera;
        assert_eq!(last.clock == Clock::Camera, by_camera);
        assert_eq!(played.status.why.contains("100 days behind ours"), !by_camera, "{:?}", played.status);
    }
}

#[test]
fn pictures_of_several_slices_are_whole_whatever_is_marked() {
    let shown = |marks| {
        let (played, _) = watch(Faults { marks, ..Faults::default() }, ClockChoice::Auto, 2);
        assert_eq!(played.status.decode_errors, 0);
        let frames = played.clips.iter().flat_map(|clip| &clip.frames);
        // The ball moves; the lower half of all the picture is decoded from the second and third slice.
        frames
            .map(|frame| [(0., 0.3), (0.4, 0.6), (0.7, 1.)].map(|y| mean(frame, (0., 1.), y)))
            .collect::<Vec<_>>()
    };
    let (expected, marked) = (shown(false), shown(true));
    assert_eq!(marked.len(), expected.len());
    for part in marked.iter().flatten() {
        // Without its slice a part of the picture is green: 0, 135, 0.
        assert!(part.iter().all(|channel| *channel <= 60), "{marked:?}, not {expected:?}");
    }
}

#[test]
fn a_camera_with_odd_words_and_stray_bytes_is_watched() {
    let faults = Faults { odd_words: true, stray_every: Some(40), ..Faults::default() };
    let (played, began) = watch(faults, ClockChoice::Auto, 2);
    assert_in_time(&played.clips, began, faults);
}

#[test]
fn a_picture_with_a_timestamp_hours_away_moves_no_clip() {
    let faults = Faults { slip_every: Some(20), ..Faults::default() };
    let (played, began) = watch(faults, ClockChoice::Auto, 3);
    for clip in &played.clips {
        for frame in &clip.frames {
            let at = frame.captured_at - began;
            assert!((-1..30).contains(&at.num_seconds()), "{at}");
        }
    }
}

#[test]
fn pictures_that_the_network_held_up_have_the_times_of_their_capture() {
    let faults = Faults { stall: Some(75), ..Faults::default() };
    let (played, began) = watch(faults, ClockChoice::Auto, 3);
    // Before the camera's first report nothing is known of its clock.
    let frames = played.clips[1..].iter().flat_map(|clip| &clip.frames);
    let dated = frames.filter(|frame| frame.clock == Clock::Camera);
    let micros: Vec<i64> =
        dated.map(|frame| (frame.captured_at - began).num_microseconds().unwrap()).collect();
    assert!(micros.len() >= 4, "{micros:?}");
    // Each picture is due at a multiple of 40 ms.
    for time in micros {
        let off = time.rem_euclid(40_000);
        assert!(off <= 4000 || off >= 36_000, "{time} µs");
    }
}

#[test]
fn a_camera_that_states_no_clock_rate_has_the_usual_one() {
    for clock_rate in ["", "/", "/0", "/x"] {
        let faults = Faults { clock_rate: Some(clock_rate), ..Faults::default() };
        let (played, began) = watch(faults, ClockChoice::Auto, 2);
        assert_in_time(&played.clips, began, faults);
    }
}

#[test]
fn a_camera_without_parameter_sets_is_told_from_one_that_sends_nothing() {
    let server = HostileCamera::start(Faults { no_parameter_sets: true, ..Faults::default() });
    let mut config = camera(&server.uri());
    config.connect_timeout = Duration::from_secs(3);
    let played = tokio::runtime::Runtime::new().unwrap().block_on(play(config, 1));
    let error = played.error();
    assert!(error.contains("without their parameter sets (SPS, PPS)"), "{error}");
}

#[test]
fn of_two_video_streams_the_one_with_the_larger_pictures_is_watched() {
    let stream = |number: u32, width: u32, codec: u32| {
        format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width={width},height=240,framerate=25/1 \
             ! x{codec}enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! h{codec}parse \
             ! rtph{codec}pay name=pay{number} pt={}",
            96 + number
        )
    };
    for (widths, codec) in [([160, 320, 240], 264), ([320, 160, 240], 264), ([160, 320, 240], 265)] {
        let streams: Vec<String> =
            (0..).zip(widths).map(|(number, width)| stream(number, width, codec)).collect();
        let server = RtspServer::start(&streams.join(" "));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let played = runtime.block_on(play(camera(&server.uri()), 1));
        assert_eq!(played.status.size, Some((320, 240)), "{widths:?} H.{codec}: {:?}", played.result);
    }
}
