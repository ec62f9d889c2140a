//! A chart of known colours, by every meaning that YUV values have: the frames show these colours.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use camscribe::capture;

use crate::support::{
    playback::{Played, camera, file, mean, play, play_all},
    rtsp::RtspServer,
    video::launch,
};

/// Encoders that keep every value as it is, or nearly.
const H265: &str = "x265enc speed-preset=ultrafast option-string=lossless=1 ! h265parse";
const VP9: &str = "vp9enc deadline=1 cpu-used=8 min-quantizer=0 max-quantizer=0 keyframe-max-dist=10";
const JPEG: &str = "jpegenc quality=100";

/// What JPEG always has: the matrix of BT.601 and the full range.
const JFIF: Coding = Coding { height: 240, matrix: Matrix::Bt601, full: true, tagged: false };

/// The bars of the chart, from left to right.
const BARS: [[u8; 3]; 8] = [
    [0, 0, 0],
    [16, 16, 16],
    [128, 128, 128],
    [235, 235, 235],
    [200, 40, 40],
    [40, 200, 40],
    [40, 40, 200],
    [220, 200, 30],
];

/// Which matrix makes YUV of RGB.
#[derive(Clone, Copy, Debug)]
enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
}

/// How the colours of a chart become YUV, and what the stream says about it.
#[derive(Clone, Copy, Debug)]
struct Coding {
    height: usize,
    matrix: Matrix,
    /// Luma goes from 0 to 255, not from 16 to 235.
    full: bool,
    /// The stream states the matrix. It states the range in any case.
    tagged: bool,
}

impl Coding {
    /// All codings that a stream can state.
    fn all() -> impl Iterator<Item = Self> {
        [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020]
            .into_iter()
            .flat_map(|matrix| [false, true].map(|full| Self { height: 240, matrix, full, tagged: true }))
    }

    /// A colour as Y, Cb and Cr (ITU-R BT.601, BT.709 and BT.2020, quantised to 8 bits).
    fn yuv(self, rgb: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = rgb.map(|v| f64::from(v) / 255.0);
        let (kr, kb) = match self.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
        };
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - y) / (2.0 - 2.0 * kb), (r - y) / (2.0 - 2.0 * kr));
        let (black, luma, chroma) = if self.full { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
        [black + luma * y, 128.0 + chroma * cb, 128.0 + chroma * cr].map(|v| v.round() as u8)
    }

    /// GStreamer's name of it: range, matrix, transfer function and primaries.
    fn colorimetry(self) -> String {
        let rest = match self.matrix {
            Matrix::Bt601 => "4:16:4",
            Matrix::Bt709 => "3:5:1",
            Matrix::Bt2020 => "6:13:7",
        };
        format!("{}:{rest}", if self.full { 1 } else { 2 })
    }

    /// Writes `frames` frames of the chart in I420, ten a second. Returns the head of a pipeline that reads them.
    fn chart(self, folder: &Path, frames: usize) -> String {
        let (width, height) = (self.height * 4 / 3, self.height);
        let plane = |channel: usize, width: usize, height: usize| {
            let row: Vec<u8> = (0..width).map(|x| self.yuv(BARS[x * BARS.len() / width])[channel]).collect();
            row.repeat(height)
        };
        let frame =
            [plane(0, width, height), plane(1, width / 2, height / 2), plane(2, width / 2, height / 2)]
                .concat();
        let path = folder.join("chart.i420");
        fs::write(&path, frame.repeat(frames)).unwrap();
        format!(
            "filesrc location={} ! rawvideoparse format=i420 width={width} height={height} framerate=10/1 \
             ! capssetter caps=video/x-raw,colorimetry=(string){}",
            path.display(),
            self.colorimetry()
        )
    }

    /// Writes the chart into a Matroska file, encoded as this piece of a pipeline says.
    fn matroska(self, folder: &Path, frames: usize, encode: &str) -> PathBuf {
        let path = folder.join("chart.mkv");
        launch(&format!(
            "{} ! videoconvert ! {encode} ! matroskamux ! filesink location={}",
            self.chart(folder, frames),
            path.display()
        ));
        path
    }

    /// Writes the chart as H.264.
    fn h264(self, folder: &Path, frames: usize) -> PathBuf {
        let path = folder.join("chart.h264");
        launch(&format!(
            "{} ! x264enc pass=quant quantizer=0 speed-preset=ultrafast key-int-max=10 \
             ! video/x-h264,stream-format=byte-stream ! filesink location={}",
            self.chart(folder, frames),
            path.display()
        ));
        if !self.tagged {
            let mut stream = fs::read(&path).unwrap();
            forget_matrix(&mut stream);
            fs::write(&path, stream).unwrap();
        }
        path
    }
}

/// Makes colour primaries, transfer function and matrix "unspecified" in every sequence parameter set of an H.264
/// byte stream (ITU-T H.264, section E.2.1).
fn forget_matrix(stream: &mut [u8]) {
    let starts_set = |i: &usize| stream[i - 4..*i] == [0, 0, 0, 1] && stream[*i] & 0x1f == 7;
    let starts: Vec<usize> = (4..stream.len()).filter(starts_set).collect();
    for start in starts {
        let bit = |stream: &[u8], i: usize| stream[start + i / 8] >> (7 - i % 8) & 1;
        let bits = |stream: &[u8], from: usize, count: usize| {
            (from..from + count).fold(0u32, |sum, i| sum << 1 | u32::from(bit(stream, i)))
        };
        // A video format of 5, a range, and a description that follows: 3 bytes, here 1 or 6 each.
        let described = |stream: &[u8], at: usize| {
            bits(stream, at, 4) == 0b1101
                && bits(stream, at + 5, 1) == 1
                && (0..3).all(|i| matches!(bits(stream, at + 6 + 8 * i, 8), 1 | 6))
        };
        let at = (0..400).find(|at| described(stream, *at)).expect("x264 describes the colours") + 6;
        for i in 0..24 {
            let (byte, mask) = (start + (at + i) / 8, 0x80 >> ((at + i) % 8));
            if i % 8 == 6 { stream[byte] |= mask } else { stream[byte] &= !mask }
        }
    }
}

/// Asserts that every bar has its colour. The wrong matrix or range would be off by more than 12 in one of them.
fn assert_colours(played: &Played, coding: Coding, what: &str) {
    let clip = played.clips.first();
    let frame = &clip.unwrap_or_else(|| panic!("{what} {coding:?}: {:?}", played.result)).frames[0];
    for (i, bar) in BARS.iter().enumerate() {
        let middle = (i as f32 + 0.5) / BARS.len() as f32;
        let shown = mean(frame, (middle - 0.02, middle + 0.02), (0.4, 0.6));
        let off = shown.iter().zip(bar).map(|(a, b)| a.abs_diff(u32::from(*b))).max();
        assert!(off <= Some(3), "{what} {coding:?}: {bar:?} is shown as {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_of_h264_are_right_whatever_is_stated_about_them() {
    let folder = tempfile::tempdir().unwrap();
    let untagged = [(576, Matrix::Bt601), (720, Matrix::Bt709)].into_iter().flat_map(|(height, matrix)| {
        [false, true].map(|full| Coding { height, matrix, full, tagged: false })
    });
    for coding in Coding::all().chain(untagged) {
        let played = play_all(file(&coding.h264(folder.path(), 20))).await;
        assert_colours(&played, coding, "H.264");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_of_h265_and_vp9_with_8_and_10_bits_are_right() {
    let folder = tempfile::tempdir().unwrap();
    for coding in Coding::all() {
        for encode in [H265, VP9] {
            for format in ["I420", "I420_10LE"] {
                let path =
                    coding.matroska(folder.path(), 20, &format!("video/x-raw,format={format} ! {encode}"));
                assert_colours(&play_all(file(&path)).await, coding, encode);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hdr_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    for (colorimetry, name) in [("bt2100-pq", Some("(PQ)")), ("bt2100-hlg", Some("(HLG)")), ("bt709", None)] {
        launch(&format!(
            "videotestsrc num-buffers=250 ! video/x-raw,format=I420_10LE,width=160,height=120,framerate=25/1 \
             ! capssetter caps=video/x-raw,colorimetry=(string){colorimetry} \
             ! x265enc speed-preset=ultrafast ! h265parse ! matroskamux ! filesink location={}",
            path.display()
        ));
        let tells = |warning: Option<String>| match name {
            Some(name) => warning.is_some_and(|it| it.contains("HDR") && it.contains(name)),
            None => warning.is_none(),
        };
        let played = play_all(file(&path)).await;
        assert!(tells(played.result.unwrap().warning), "{colorimetry}");
        let server = RtspServer::start(&format!(
            "filesrc location={} ! matroskademux ! h265parse ! rtph265pay config-interval=-1 name=pay0 pt=96",
            path.display()
        ));
        for source in [file(&path), camera(&server.uri())] {
            let facts = capture::probe(source, Duration::from_secs(10)).await.unwrap();
            assert!(tells(facts.warning), "{colorimetry}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_of_jpeg_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = JFIF.matroska(folder.path(), 20, JPEG);
    assert_colours(&play_all(file(&path)).await, JFIF, "JPEG");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_of_cameras_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let full = Coding { height: 240, matrix: Matrix::Bt601, full: true, tagged: false };
    let h264 = full.h264(folder.path(), 300);
    let head = format!("filesrc location={} ! h264parse", h264.display());
    assert_colours(&watch(&format!("{head} ! rtph264pay config-interval=-1")).await, full, "H.264");

    let bt709 = Coding { height: 240, matrix: Matrix::Bt709, full: false, tagged: true };
    let bt2020 = Coding { matrix: Matrix::Bt2020, ..bt709 };
    for (coding, encode, payload) in [
        (bt2020, H265, "h265parse ! rtph265pay config-interval=-1"),
        (bt709, VP9, "rtpvp9pay"),
        (JFIF, JPEG, "rtpjpegpay"),
    ] {
        let path = coding.matroska(folder.path(), 300, encode);
        let head = format!("filesrc location={} ! matroskademux", path.display());
        assert_colours(&watch(&format!("{head} ! {payload}")).await, coding, encode);
    }
}

/// The first clip of a camera that sends what this pipeline makes.
async fn watch(pipeline: &str) -> Played {
    let server = RtspServer::start(&format!("{pipeline} name=pay0 pt=96"));
    play(camera(&server.uri()), 1).await
}
