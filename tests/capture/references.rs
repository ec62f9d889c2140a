//! Files that name other files and addresses: nothing of what they name is opened.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use camscribe::capture::{self, CaptureError};

use crate::support::{
    playback::{file, play_all},
    video::{ball, h264},
};

/// An HTTP server and a pipe, which count who opens them.
struct Bait {
    /// Address of a file of the server.
    url: String,
    /// Path of the pipe.
    pipe: PathBuf,
    opened: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Bait {
    fn lay(folder: &Path) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let pipe = folder.join("pipe.mp4");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (opened, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        server.set_nonblocking(true).unwrap();
        let (count, stop) = (opened.clone(), done.clone());
        let serve = move || {
            while !stop.load(Ordering::SeqCst) {
                match server.accept() {
                    Ok((mut client, _)) => {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        };
        let (path, count, stop) = (pipe.clone(), opened.clone(), done.clone());
        let watch = move || {
            while !stop.load(Ordering::SeqCst) {
                // Opening a pipe to write fails while nobody has it open to read.
                let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
                if fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&path).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let threads = vec![std::thread::spawn(serve), std::thread::spawn(watch)];
        Self { url: format!("http://127.0.0.1:{port}/a.mp4"), pipe, opened, done, threads }
    }

    /// How often one of them was opened.
    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// The address of the server's file and that of the pipe.
    fn targets(&self) -> [String; 2] {
        [self.url.clone(), format!("file://{}", self.pipe.display())]
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

const HLS: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nURL\n#EXT-X-ENDLIST\n";
const DASH: &str = "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" \
    mediaPresentationDuration=\"PT6S\" minBufferTime=\"PT2S\" \
    profiles=\"urn:mpeg:dash:profile:isoff-on-demand:2011\"><Period><AdaptationSet mimeType=\"video/mp4\">\
    <Representation id=\"1\" bandwidth=\"1000\" codecs=\"avc1.42E01E\" width=\"320\" height=\"240\"><BaseURL>URL</BaseURL><SegmentBase \
    indexRange=\"0-99\"/></Representation></AdaptationSet></Period></MPD>";
const SMOOTH_STREAMING: &str = "<?xml version=\"1.0\"?>\n<SmoothStreamingMedia MajorVersion=\"2\" MinorVersion=\"0\" \
    Duration=\"60000000\"><StreamIndex Type=\"video\" Chunks=\"1\" QualityLevels=\"1\" Url=\"URL\"><QualityLevel \
    Index=\"0\" Bitrate=\"1000\" FourCC=\"H264\" MaxWidth=\"320\" MaxHeight=\"240\" CodecPrivateData=\"\"/><c \
    d=\"60000000\"/></StreamIndex></SmoothStreamingMedia>";
const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:URL\r\n\
    m=video 5000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
const SVG: &str = "<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\" \
    xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"320\" height=\"240\"><image xlink:href=\"URL\" width=\"320\" \
    height=\"240\"/></svg>";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_playlist_names_is_never_opened() {
    let folder = tempfile::tempdir().unwrap();
    let bait = Bait::lay(folder.path());
    let path = folder.path().join("door.mp4");
    let cases = [
        (HLS, "this is a playlist (HLS), which camscribe does not play"),
        ("#EXTM3U\n#EXTINF:2,door\nURL\n", "this is a list of addresses, which camscribe does not play"),
        ("URL\n", "this is a list of addresses, which camscribe does not play"),
        (DASH, "this is a playlist (DASH), which camscribe does not play"),
        (SMOOTH_STREAMING, "this is a playlist (Smooth Streaming), which camscribe does not play"),
        (
            "<?xml version=\"1.0\"?><smil xmlns=\"http://www.w3.org/2001/SMIL20/Language\"><body><video src=\"URL\"/></body></smil>",
            "this is a playlist (SMIL), which camscribe does not play",
        ),
        (
            "<?xml version=\"1.0\"?><asx><entry><ref href=\"URL\"/></entry></asx>",
            "this is a text (XML), which camscribe does not play",
        ),
        (SDP, "this is a description of a stream (SDP), which camscribe does not play"),
        (SVG, "this is a drawing (SVG), which camscribe does not play"),
        ("[playlist]\nNumberOfEntries=1\nFile1=URL\n", "this is not a video file"),
        ("<asx version=\"3.0\"><entry><ref href=\"URL\"/></entry></asx>", "this is not a video file"),
        ("[Reference]\nRef1=URL\n", "this is not a video file"),
        ("ffconcat version 1.0\nfile 'URL'\n", "this is not a video file"),
    ];
    for (text, expected) in cases {
        for target in bait.targets() {
            fs::write(&path, text.replace("URL", &target)).unwrap();
            let played = play_all(file(&path)).await;
            assert!(played.result.is_err(), "{text}: {:?}", played.result);
            assert!(played.error().ends_with(expected), "{text}: {}", played.error());
            let read = capture::read_frames_at(&file(&path), |_| vec![0]);
            assert!(read.is_err_and(|e| e.to_string().ends_with(expected)), "{text}");
            assert_eq!(bait.opened(), 0, "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_of_the_users_own_opens_no_playlist_either() {
    let folder = tempfile::tempdir().unwrap();
    let bait = Bait::lay(folder.path());
    let path = folder.path().join("door.mp4");
    fs::write(&path, HLS.replace("URL", &bait.url)).unwrap();
    for (name, decode) in
        [("nested", "parsebin ! decodebin"), ("newer", "decodebin3"), ("plain", "decodebin")]
    {
        let text = format!("filesrc name=source ! {decode} ! videoconvert ! appsink name=frames");
        fs::write(folder.path().join(format!("{name}.txt")), text).unwrap();
        let mut config = file(&path);
        config.pipelines_dir = Some(folder.path().into());
        config.pipeline = Some(name.into());
        let played = play_all(config).await;
        assert!(
            matches!(played.result, Err(CaptureError::Refused { .. } | CaptureError::NoVideo(_))),
            "{name}: {:?}",
            played.result
        );
        assert_eq!(bait.opened(), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_that_names_other_files_plays_its_own_frames_only() {
    let folder = tempfile::tempdir().unwrap();
    let bait = Bait::lay(folder.path());
    let path = folder.path().join("door.mp4");
    let mp4 = fs::read(ball(folder.path(), "a.mp4", &format!("{} ! mp4mux", h264(25)))).unwrap();
    let mkv = ball(folder.path(), "a.mkv", &format!("{} ! matroskamux streamable=true", h264(25)));
    let mkv = fs::read(mkv).unwrap();
    for target in bait.targets() {
        for bytes in [with_external_data(&mp4, &target), with_next_file(&mkv, &target)] {
            fs::write(&path, bytes).unwrap();
            let played = play_all(file(&path)).await;
            assert_eq!(played.result.unwrap().clips, 3, "{target}");
            assert_eq!(bait.opened(), 0, "{target}");
        }
        fs::write(&path, reference_movie(&target)).unwrap();
        let played = play_all(file(&path)).await;
        assert!(played.result.is_err(), "{:?}", played.result);
        assert_eq!(bait.opened(), 0, "{target}");
    }
}

/// Returns an MP4 file whose data reference (ISO 14496-12, section 8.7.2) names `url`. `mp4` has its index at its
/// end.
fn with_external_data(mp4: &[u8], url: &str) -> Vec<u8> {
    let mut bytes = mp4.to_vec();
    let location = [url.as_bytes(), b"\0"].concat();
    let mut at = 0;
    for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "] {
        at += bytes[at..].windows(4).position(|w| w == name).unwrap();
        let size = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) + location.len() as u32;
        bytes[at - 4..at].copy_from_slice(&size.to_be_bytes());
    }
    // Flag 1 says that the data are in the same file.
    bytes[at + 4..at + 8].fill(0);
    bytes.splice(at + 8..at + 8, location);
    bytes
}

/// Returns a QuickTime movie that only names another one.
fn reference_movie(url: &str) -> Vec<u8> {
    let atom = |name: &[u8; 4], content: &[u8]| {
        [&(content.len() as u32 + 8).to_be_bytes()[..], name, content].concat()
    };
    let reference =
        [&[0; 4], &b"url "[..], &(url.len() as u32 + 1).to_be_bytes(), url.as_bytes(), b"\0"].concat();
    let movie = atom(b"moov", &atom(b"rmra", &atom(b"rmda", &atom(b"rdrf", &reference))));
    [atom(b"ftyp", b"qt  \0\0\0\0qt  "), movie, atom(b"mdat", &[0; 64])].concat()
}

/// Returns a Matroska file whose segment information (RFC 9559, section 5.1.2) names `url` as the next file.
fn with_next_file(mkv: &[u8], url: &str) -> Vec<u8> {
    let mut bytes = mkv.to_vec();
    let at = bytes.windows(4).position(|w| w == [0x15, 0x49, 0xa9, 0x66]).unwrap() + 4;
    let length = bytes[at].leading_zeros() as usize + 1;
    let size = bytes[at..at + length].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let size = size ^ (1 << (7 * length));
    let name =
        [&[0x3e, 0x83, 0xbb, 0x40 | (url.len() >> 8) as u8, url.len() as u8][..], url.as_bytes()].concat();
    let end = at + length + size as usize;
    let new_size = (size + name.len() as u64) | 1 << 56;
    bytes.splice(end..end, name);
    bytes.splice(at..at + length, new_size.to_be_bytes());
    bytes
}
