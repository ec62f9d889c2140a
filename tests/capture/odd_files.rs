//! Files as cameras and recorders really write them: several tracks, no stated length, stamps that wrap, few frames.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use camscribe::{
    capture::{self, CaptureError},
    clip::Clip,
    config::FrameSampling,
    frame::Clock,
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::support::{
    playback::{Played, file, play_all},
    video::{ball, h264, launch},
};

/// A time before this test makes its files: what they state about their creation is later, so not plausible.
const MODIFIED: &str = "2024-05-06T07:08:09Z";

/// Plays a file that was last modified at [`MODIFIED`].
async fn play_old(path: &Path) -> Played {
    set_modified(path, MODIFIED.parse().unwrap());
    play_all(file(path)).await
}

fn set_modified(path: &Path, time: DateTime<Utc>) {
    fs::File::options().append(true).open(path).unwrap().set_modified(SystemTime::from(time)).unwrap();
}

/// Asserts that the last clip ends, but for a frame, when its file was last modified.
fn assert_ends_when_modified(clips: &[Clip], what: &str) {
    let off = MODIFIED.parse::<DateTime<Utc>>().unwrap() - clips.last().unwrap().end;
    assert!(off.abs() <= TimeDelta::milliseconds(90), "{what}: {off}");
}

/// A video track of `frames` frames, 25 a second, for the muxer `m`.
fn track(size: &str, frames: u32) -> String {
    format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,{size},framerate=25/1 ! {} \
         ! queue ! m.",
        h264(25)
    )
}

const LARGE: &str = "width=320,height=240";
const SMALL: &str = "width=160,height=120";

#[tokio::test(flavor = "multi_thread")]
async fn a_cover_picture_as_the_first_track_is_not_described() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    launch(&format!(
        "videotestsrc num-buffers=1 ! video/x-raw,width=800,height=800,framerate=1/1 ! jpegenc ! queue ! m. {} \
         matroskamux name=m ! filesink location={}",
        track(LARGE, 150),
        path.display()
    ));
    let played = play_old(&path).await;
    assert_eq!(played.result.unwrap().clips, 3);
    assert!(played.clips.iter().flat_map(|c| &c.frames).all(|f| f.width == 320), "{:?}", played.clips);
    assert!(played.status.decoder.as_ref().is_some_and(|it| it.contains("264")), "{:?}", played.status);
    let (_, info) = capture::read_frames_at(&file(&path), |_| vec![0]).unwrap();
    assert_eq!(info.frames, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_video_tracks_the_default_one_is_described_or_else_the_largest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    for (first, second) in [(SMALL, LARGE), (LARGE, SMALL)] {
        for mux in ["matroskamux streamable=true", "mp4mux"] {
            launch(&format!(
                "{} {} {mux} name=m ! filesink location={}",
                track(first, 150),
                track(second, 150),
                path.display()
            ));
            let width = |played: &Played| played.clips.first().unwrap().frames[0].width;
            let played = play_old(&path).await;
            assert_eq!(width(&played), 320, "{first} {mux}");
            if mux.starts_with("matroska") {
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, without_default(&bytes, if first == LARGE { 0 } else { 1 })).unwrap();
                assert_eq!(width(&play_old(&path).await), 160, "{first} is the default");
            }
        }
    }
}

/// Returns a Matroska file of which that track is not a default one (RFC 9559, section 5.1.4.1.5). All sizes have
/// eight bytes, as GStreamer writes them.
fn without_default(mkv: &[u8], track: usize) -> Vec<u8> {
    let mut bytes = mkv.to_vec();
    let tracks = bytes.windows(5).position(|w| w == [0x16, 0x54, 0xae, 0x6b, 1]).unwrap() + 4;
    let entries: Vec<usize> =
        (tracks..bytes.len() - 3).filter(|i| bytes[*i..*i + 3] == [0xae, 1, 0]).collect();
    let entry = entries[track] + 1;
    let flag_default = [0x88, 0x81, 0];
    for size in [tracks, entry] {
        let at = size + 6..size + 8;
        let new = u16::from_be_bytes([bytes[at.start], bytes[at.start + 1]]) + 3;
        bytes[at].copy_from_slice(&new.to_be_bytes());
    }
    bytes.splice(entry + 8..entry + 8, flag_default);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_without_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mjpeg", "jpegenc");
    let played = play_all(file(&path)).await;
    assert!(matches!(played.result, Err(CaptureError::NoTimes(_))), "{:?}", played.result);
    assert!(played.error().contains("raw MJPEG") && played.error().contains("ffmpeg -framerate"));
    assert!(matches!(capture::read_frames_at(&file(&path), |_| vec![0]), Err(CaptureError::NoTimes(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_state_their_length_end_when_they_were_last_modified() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = "video/x-h264,stream-format=byte-stream";
    for (name, mux, whole) in [
        ("a.mp4", "mp4mux fragment-duration=1000".into(), false),
        ("b.mp4", "mp4mux fragment-duration=1000 streamable=true".into(), false),
        ("c.mkv", "matroskamux streamable=true".into(), false),
        ("d.ts", "mpegtsmux".into(), false),
        ("e.h264", bytes.to_string(), false),
        ("f.mp4", "mp4mux".to_string(), true),
        ("g.mkv", "matroskamux".into(), true),
    ] {
        let path = ball(folder.path(), name, &format!("{} ! {mux}", h264(25)));
        let played = play_old(&path).await;
        let summary = played.result.unwrap();
        assert_eq!((summary.clips, summary.warning), (3, None), "{name}");
        assert!(played.clips.iter().all(|c| c.clock == Clock::File), "{name}");
        assert_ends_when_modified(&played.clips, name);
        if whole {
            continue;
        }
        // It is still being written.
        let written = fs::read(&path).unwrap();
        fs::write(&path, &written[..written.len() * 8 / 10]).unwrap();
        let played = play_old(&path).await;
        assert!(played.clips.len() >= 2, "{name}: {:?}", played.result);
        let last = played.clips.iter().flat_map(|c| &c.frames).map(|f| f.captured_at).max().unwrap();
        let off = MODIFIED.parse::<DateTime<Utc>>().unwrap() - last;
        assert!(off >= TimeDelta::zero() && off <= TimeDelta::milliseconds(1100), "{name}: {off}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stamps_of_an_mpeg_transport_stream_may_wrap() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.ts", &format!("{} ! mpegtsmux", h264(25)));
    let stream = fs::read(&path).unwrap();
    // GStreamer's first stamp is an hour.
    for before in [50, 1_000, 2_700, 5_900] {
        let mut stream = stream.clone();
        let wrap = (1u64 << 33) - 90 * before;
        stream.chunks_exact_mut(188).for_each(|packet| shift(packet, wrap - 90_000 * 3600));
        fs::write(&path, stream).unwrap();
        let played = play_old(&path).await;
        let summary = played.result.unwrap();
        assert_eq!((summary.clips, summary.warning), (3, None), "{before}");
        assert!(played.clips.iter().all(|c| !c.gap), "{before}");
        assert_eq!(played.clips[2].start_pts, Duration::from_secs(4), "{before}");
        assert_ends_when_modified(&played.clips, "a.ts");
    }
}

/// Adds to the PCR, PTS and DTS of a packet (ISO 13818-1, sections 2.4.3.5 and 2.4.3.7).
fn shift(packet: &mut [u8], by: u64) {
    let has_adaptation = packet[3] & 0x20 != 0;
    if has_adaptation && packet[4] > 0 && packet[5] & 0x10 != 0 {
        let pcr = packet[6..11].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let new = (((pcr >> 7) + by) % (1 << 33)) << 7 | pcr & 0x7f;
        packet[6..11].copy_from_slice(&new.to_be_bytes()[3..]);
    }
    let at = 4 + if has_adaptation { 1 + usize::from(packet[4]) } else { 0 };
    if packet[1] & 0x40 == 0 || packet.get(at..at + 3) != Some(&[0, 0, 1]) || packet[at + 3] & 0xf0 != 0xe0 {
        return;
    }
    let stamps = usize::from(packet[at + 7] >> 6 & 1) + usize::from(packet[at + 7] >> 7);
    for stamp in packet[at + 9..].chunks_exact_mut(5).take(stamps) {
        let part = |i: usize, mask: u8| u64::from(stamp[i] & mask) >> 1;
        let old = part(0, 0x0e) << 30 | u64::from(stamp[1]) << 22 | part(2, 0xfe) << 15;
        let new = ((old | u64::from(stamp[3]) << 7 | part(4, 0xfe)) + by) % (1 << 33);
        stamp[0] = stamp[0] & 0xf1 | (new >> 30 << 1) as u8;
        stamp[1] = (new >> 22) as u8;
        stamp[2] = (new >> 15 << 1) as u8 | 1;
        stamp[3] = (new >> 7) as u8;
        stamp[4] = (new << 1) as u8 | 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_begins_after_the_sound_is_dated_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    // An empty edit of 5 s.
    launch(&format!(
        "videotestsrc pattern=ball num-buffers=150 timestamp-offset=5000000000 ! video/x-raw,{LARGE},framerate=25/1 \
         ! {} ! queue ! m. audiotestsrc num-buffers=474 ! avenc_aac ! queue ! m. mp4mux name=m ! filesink location={}",
        h264(25),
        path.display()
    ));
    let played = play_old(&path).await;
    let summary = played.result.unwrap();
    assert_eq!((summary.clips, summary.warning), (3, None));
    assert_eq!(played.clips[0].start_pts, Duration::from_secs(5));
    assert_ends_when_modified(&played.clips, "a.mp4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_begins_at_its_creation_time_if_that_is_plausible() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(25)));
    let created: DateTime<Utc> = "2024-05-06T07:00:00Z".parse().unwrap();
    // Seconds since 1904 (ISO 14496-12, section 8.2.2).
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|w| w == b"mvhd").unwrap() + 8;
    let since_1904 = (created.timestamp() + 2_082_844_800) as u32;
    bytes[header..header + 4].copy_from_slice(&since_1904.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    for (modified, plausible) in [
        (created + TimeDelta::seconds(7), true),
        (created + TimeDelta::days(400), true),
        // Then the camera writes when the recording ended, or the local time.
        (created, false),
        (created - TimeDelta::hours(2), false),
    ] {
        set_modified(&path, modified);
        let played = play_all(file(&path)).await;
        let (start, clock) = (played.clips[0].start, played.clips[0].clock);
        let expected = if plausible {
            (created, Clock::Camera)
        } else {
            (modified - TimeDelta::seconds(6), Clock::File)
        };
        assert_eq!((start, clock), expected, "{modified}");
        let (frames, _) = capture::read_frames_at(&file(&path), |_| vec![25]).unwrap();
        assert_eq!((frames[0].captured_at, frames[0].clock), (expected.0 + TimeDelta::seconds(1), clock));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_with_a_frame_every_ten_seconds_or_every_minute_is_described_in_longer_windows() {
    let folder = tempfile::tempdir().unwrap();
    for (seconds, mux) in [(10, "matroskamux"), (60, "mp4mux"), (60, "matroskamux"), (10, "avimux")] {
        let path = folder.path().join("a");
        launch(&format!(
            "videotestsrc pattern=ball num-buffers=12 ! video/x-raw,format=I420,{LARGE},framerate=1/{seconds} ! {} \
             ! {mux} ! filesink location={}",
            h264(1),
            path.display()
        ));
        let mut config = file(&path);
        config.window.window = Duration::from_secs(4 * seconds);
        config.window.stride = config.window.window;
        set_modified(&path, MODIFIED.parse().unwrap());
        let played = play_all(config).await;
        let summary = played.result.unwrap();
        assert_eq!((summary.clips, summary.warning), (3, None), "{seconds} {mux}");
        assert!(
            played.clips.iter().all(|c| c.frames.len() == 4 && !c.gap),
            "{seconds} {mux} {:?}",
            played.clips
        );
        // In shorter windows there is nothing, which is told.
        let summary = play_old(&path).await.result.unwrap();
        assert_eq!((summary.clips, summary.too_few, summary.warning), (0, 12, None), "{seconds} {mux}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_whose_beginning_was_cut_off_is_described_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(25)));
    let whole = play_old(&path).await.clips;
    trim(&path, 3.3);
    let played = play_old(&path).await;
    let seconds = whole.last().unwrap().end - whole[0].start - TimeDelta::milliseconds(3300);
    let trimmed = played.clips.last().unwrap().end - played.clips[0].start;
    assert!((trimmed - seconds).abs() <= TimeDelta::milliseconds(90), "{trimmed} of {seconds}");
    assert_ends_when_modified(&played.clips, "a.mp4");
    assert_eq!(played.result.unwrap().warning, None);
}

/// Cuts off the beginning of an MP4 file with one track, as editors do that encode nothing anew: the edit list and the
/// stated lengths change (ISO 14496-12, sections 8.2.2, 8.4.2 and 8.6.6).
fn trim(path: &Path, seconds: f64) {
    let mut file = fs::read(path).unwrap();
    // Where the content of a box begins behind version and flags.
    let content = |file: &[u8], kind: &[u8; 4]| file.windows(4).rposition(|it| it == kind).unwrap() + 8;
    let number = |file: &[u8], at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let (movie, media, edits) = (content(&file, b"mvhd"), content(&file, b"mdhd"), content(&file, b"elst"));
    let cut = |scale: u32| (seconds * f64::from(scale)) as u32;
    let begins = cut(number(&file, media + 8));
    let off = cut(number(&file, movie + 8));
    for (at, value) in [
        (movie + 12, number(&file, movie + 12) - off),
        (edits + 4, number(&file, edits + 4) - off),
        (edits + 8, begins),
    ] {
        file[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    fs::write(path, file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_avi_whose_other_frames_have_no_times_shows_what_full_decoding_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.avi", &format!("{} ! avimux", h264(12)));
    let shown = async |sampling, frames| {
        let mut config = file(&path);
        (config.sampling, config.window.frames) = (sampling, frames);
        let clips = play_all(config).await.clips;
        clips.into_iter().flat_map(|clip| clip.frames).collect::<Vec<_>>()
    };
    let (all, keyframes) = (shown(FrameSampling::Rate, 50).await, shown(FrameSampling::Keyframes, 4).await);
    let compared = keyframes.iter().filter_map(|frame| {
        let same = all.iter().find(|other| other.pts == frame.pts)?;
        Some(same.rgb == frame.rgb)
    });
    let compared: Vec<bool> = compared.collect();
    assert!(compared.len() >= 8 && compared.iter().all(|same| *same), "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_the_future_ended_just_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(25)));
    let before = Utc::now();
    set_modified(&path, before + TimeDelta::hours(2));
    let clips = play_all(file(&path)).await.clips;
    let lengths: Vec<_> =
        clips.windows(2).map(|two| (two[1].start - two[0].start).num_milliseconds()).collect();
    assert_eq!(lengths, vec![2000; clips.len() - 1]);
    assert!(clips.last().unwrap().end <= Utc::now() && clips[0].start >= before - TimeDelta::seconds(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_a_recording_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = ball(folder.path(), "a.mp4", &format!("{} ! mp4mux fragment-duration=1000", h264(25)));
    assert_eq!(play_all(file(&path)).await.result.unwrap().warning, None);
    let mut content = fs::read(&path).unwrap();
    let fragment = content.windows(4).enumerate().filter(|(_, it)| *it == b"moof").nth(3).unwrap().0 - 4;
    content[fragment..fragment + 64].fill(0);
    fs::write(&path, content).unwrap();
    let warning = play_all(file(&path)).await.result.unwrap().warning.unwrap_or_default();
    assert!(warning.starts_with(&format!("the file is damaged at byte {fragment}:")), "{warning}");
}
