//! Masks and crops: what they hide is in no frame, whatever the size, the rotation and the shape of the pixels.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use camscribe::{
    capture::{self, CameraConfig, CaptureError},
    config::FrameSampling,
    frame::Frame,
    resize::{FrameScaling, LANCZOS3, Resizer, RgbImage},
    view::{CannotApply, Polygon, SizedView, View},
};
use proptest::{prelude::*, test_runner::RngSeed};

use crate::support::{
    playback::{camera, file, play_all},
    video::{h264, launch},
};

type Corner = (f64, f64);

/// What must not be seen. No other colour has any red.
const SECRET: [u8; 3] = [255, 0, 0];
const OTHER: [u8; 3] = [0, 180, 90];
const BLACK: [u8; 3] = [0, 0, 0];
/// The pixels around a polygon, and inside of a side of a crop, that are hidden, too.
const MARGIN: f64 = 8.0;
/// How far from a polygon a mask may reach, pixels: its margin, along the diagonal, and what is rounded.
const REACH: f64 = 14.0;

/// Whether a point lies in a polygon: a ray to the right crosses its edges an odd number of times.
fn contains(polygon: &[Corner], (x, y): Corner) -> bool {
    let mut inside = false;
    for i in 0..polygon.len() {
        let (a, b) = (polygon[i], polygon[(i + 1) % polygon.len()]);
        if (a.1 > y) != (b.1 > y) && x < (b.0 - a.0) * (y - a.1) / (b.1 - a.1) + a.0 {
            inside = !inside;
        }
    }
    inside
}

/// The distance of a point from an edge.
fn distance((x, y): Corner, a: Corner, b: Corner) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let along = (((x - a.0) * dx + (y - a.1) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - a.0 - along * dx).hypot(y - a.1 - along * dy)
}

/// A case: a view, what it says once more for the test, and the size of a picture.
#[derive(Clone, Debug)]
struct Case {
    view: View,
    polygons: Vec<Vec<Corner>>,
    crop: [f64; 4],
    size: (u32, u32),
}

impl Case {
    /// The polygons in pixels.
    fn in_pixels(&self) -> Vec<Vec<Corner>> {
        let (w, h) = (f64::from(self.size.0), f64::from(self.size.1));
        self.polygons.iter().map(|polygon| polygon.iter().map(|(x, y)| (x * w, y * h)).collect()).collect()
    }

    /// Whether a pixel is secret: it is partly outside of the crop, or a part of it lies in a polygon, by a grid of
    /// points on it that has its corners and its centre.
    fn is_secret(&self, polygons: &[Vec<Corner>], x: u32, y: u32) -> bool {
        let (x, y) = (f64::from(x), f64::from(y));
        let (w, h) = (f64::from(self.size.0), f64::from(self.size.1));
        let [left, top, right, bottom] = self.crop;
        let outside = x < left * w - 1e-9
            || y < top * h - 1e-9
            || x + 1.0 > right * w + 1e-9
            || y + 1.0 > bottom * h + 1e-9;
        let grid = (0..=4).flat_map(|i| (0..=4).map(move |j| (f64::from(i) / 4.0, f64::from(j) / 4.0)));
        let mut points = grid.map(|(dx, dy)| (x + dx, y + dy));
        let is_corner = |(cx, cy): &Corner| (x..=x + 1.0).contains(cx) && (y..=y + 1.0).contains(cy);
        outside
            || polygons.iter().flatten().any(is_corner)
            || points.any(|point| polygons.iter().any(|polygon| contains(polygon, point)))
    }

    /// A picture whose secret pixels have the secret colour.
    fn picture(&self) -> Arc<[u8]> {
        let polygons = self.in_pixels();
        let pixels = (0..self.size.1).flat_map(|y| (0..self.size.0).map(move |x| (x, y)));
        pixels.flat_map(|(x, y)| if self.is_secret(&polygons, x, y) { SECRET } else { OTHER }).collect()
    }
}

/// Corners around a centre, some of them pushed to the border.
fn any_polygon() -> impl Strategy<Value = (Polygon, Vec<Corner>)> {
    let corner = (0.0..std::f64::consts::TAU, 0.01..0.8_f64);
    let around = (0.0..1.0_f64, 0.0..1.0_f64, prop::collection::vec(corner, 3..12));
    around.prop_filter_map("no polygon", |(x, y, mut around)| {
        around.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |(angle, radius): &(f64, f64)| (x + radius * angle.cos(), y + radius * angle.sin());
        let corners: Vec<Corner> =
            around.iter().map(at).map(|(x, y)| (x.clamp(0.0, 1.0), y.clamp(0.0, 1.0))).collect();
        let text: Vec<String> = corners.iter().map(|(x, y)| format!("{x},{y}")).collect();
        Some((text.join(" ").parse().ok()?, corners))
    })
}

fn any_case() -> impl Strategy<Value = Case> {
    let crop = prop::option::of((0.0..0.9_f64, 0.0..0.9_f64, 0.1..1.0_f64, 0.1..1.0_f64));
    let masks = prop::collection::vec(any_polygon(), 0..3);
    (masks, crop, 1..=200_u32, 1..=200_u32).prop_filter_map("no crop", |(masks, crop, w, h)| {
        let (crop, corners) = match crop {
            Some((x, y, w, h)) => {
                let corners = [x, y, (x + w).min(1.0), (y + h).min(1.0)];
                let [left, top, right, bottom] = corners;
                (Some(format!("{left},{top} {right},{bottom}").parse().ok()?), corners)
            }
            None => (None, [0.0, 0.0, 1.0, 1.0]),
        };
        let (masks, polygons): (Vec<_>, Vec<_>) = masks.into_iter().unzip();
        let masks = masks.into_iter().enumerate().map(|(n, mask)| (n.to_string(), mask)).collect();
        Some(Case { view: View { crop, masks }, polygons, crop: corners, size: (w, h) })
    })
}

/// The first pixel that a crop from this part of a side on leaves.
fn first(from: f64, length: u32) -> f64 {
    let first = (from * f64::from(length)).ceil();
    if first > 0.0 { first + MARGIN } else { first }
}

/// The pixel after the last one that a crop to this part of a side leaves.
fn end(to: f64, length: u32) -> f64 {
    let end = (to * f64::from(length)).floor();
    if end < f64::from(length) { end - MARGIN } else { end }
}

/// Whether a mask may reach a point.
fn is_near(polygon: &[Corner], point: Corner) -> bool {
    let mut edges = (0..polygon.len()).map(|i| (polygon[i], polygon[(i + 1) % polygon.len()]));
    contains(polygon, point) || edges.any(|(a, b)| distance(point, a, b) < REACH)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(18), ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_under_a_mask_or_outside_of_the_crop_is_left_nor_mixed_into_its_neighbours(
        case in any_case(), to in (1..150_usize, 1..150_usize), edge in 1..100_usize,
    ) {
        let (width, height) = case.size;
        let sized = match SizedView::new(&case.view, width, height) {
            Ok(sized) => sized,
            Err(why) => {
                let [left, top, right, bottom] = case.crop;
                let fits = |from: f64, to: f64, length: u32| first(from, length) < end(to, length);
                if why == (CannotApply::AllBlack { width, height }) {
                    let polygons = case.in_pixels();
                    for y in first(top, height) as u32..end(bottom, height) as u32 {
                        for x in first(left, width) as u32..end(right, width) as u32 {
                            let centre = (f64::from(x) + 0.5, f64::from(y) + 0.5);
                            prop_assert!(polygons.iter().any(|polygon| is_near(polygon, centre)), "{:?}", centre);
                        }
                    }
                } else {
                    prop_assert_eq!(why, CannotApply::TooSmall { width, height });
                    prop_assert!(!fits(left, right, width) || !fits(top, bottom, height));
                }
                return Ok(());
            }
        };
        let (seen, w, h) = sized.apply(case.picture()).unwrap();
        prop_assert_eq!(seen.len(), w as usize * h as usize * 3);
        let has_secret = |rgb: &[u8]| rgb.chunks_exact(3).any(|pixel| pixel[0] > 0);
        prop_assert!(!has_secret(&seen));
        // Scaled as by the model's code: to any size, and early.
        let image = RgbImage::new(&seen, w, h).unwrap();
        let resizer = Resizer::new(LANCZOS3);
        prop_assert!(!has_secret(image.clone().resize(to.0, to.1, &resizer).rgb()));
        let early = camscribe::resize::FrameScaler::new(FrameScaling { edge, interpolation: LANCZOS3 });
        if let Some(small) = early.scale(image) {
            prop_assert!(!has_secret(small.rgb()));
        }
        // And what is far from all masks is seen.
        let (left, top) = (first(case.crop[0], width), first(case.crop[1], height));
        let polygons = case.in_pixels();
        for (i, pixel) in seen.chunks_exact(3).enumerate() {
            let (x, y) = (i % w as usize, i / w as usize);
            let centre = (left + x as f64 + 0.5, top + y as f64 + 0.5);
            let is_masked = pixel == BLACK && polygons.iter().any(|polygon| is_near(polygon, centre));
            prop_assert!(pixel == OTHER || is_masked, "{centre:?}: {pixel:?}");
        }
    }
}

/// Where the secret of a film is: from and to in parts of its width, then of its height.
type Place = [f64; 4];

/// A second of a grey film with a red secret, as H.264. `caps` may say more of it.
fn film(path: &Path, (width, height): (u32, u32), [left, right, top, bottom]: Place, caps: &str, mux: &str) {
    let raw = path.with_extension("rgb");
    let pixel = |x: u32, y: u32| {
        let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let is_secret = (left..right).contains(&x) && (top..bottom).contains(&y);
        if is_secret { SECRET } else { [128, 128, 128] }
    };
    let frame: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    fs::write(&raw, frame.repeat(50)).unwrap();
    launch(&format!(
        "filesrc location={} ! rawvideoparse format=rgb width={width} height={height} framerate=25/1 {caps} \
         ! videoconvert ! video/x-raw,format=I420 ! {} {mux} ! filesink location={}",
        raw.display(),
        h264(25),
        path.display()
    ));
}

/// A view that is black from `left` to `right` and from `top` to `bottom`.
fn mask([left, right, top, bottom]: Place) -> View {
    let text = format!("{left},{top} {right},{top} {right},{bottom} {left},{bottom}");
    View { crop: None, masks: [("secret".into(), text.parse().unwrap())].into() }
}

/// A view of a part of the picture.
fn crop(corners: &str) -> View {
    View { crop: Some(corners.parse().unwrap()), ..View::default() }
}

/// A camera that is seen through a view.
fn through(view: View, config: CameraConfig) -> CameraConfig {
    CameraConfig { view: Some(Arc::new(view)), ..config }
}

/// The share of the pixels that are clearly red.
fn red(frame: &Frame) -> f64 {
    let is_red = |pixel: &&[u8]| pixel[0] > pixel[1].max(pixel[2]).saturating_add(24);
    frame.rgb.chunks_exact(3).filter(is_red).count() as f64 / (frame.rgb.len() / 3) as f64
}

/// Asserts that the secret is in every frame of a film, and in none through the view. Returns the frames through it.
async fn assert_hidden(config: CameraConfig, view: View) -> Vec<Frame> {
    let config = CameraConfig { sampling: FrameSampling::Rate, ..config };
    let frames = async |config: CameraConfig| -> Vec<Frame> {
        let played = play_all(config).await;
        assert!(played.result.is_ok(), "{:?}", played.result);
        played.clips.into_iter().flat_map(|clip| clip.frames).collect()
    };
    let open = frames(config.clone()).await;
    assert!(!open.is_empty() && open.iter().all(|frame| red(frame) > 0.01), "{open:?}");
    let hidden = frames(through(view, config)).await;
    assert_eq!(hidden.len(), open.len());
    for frame in &hidden {
        assert!(red(frame) == 0.0, "{frame:?}: {}", red(frame));
    }
    hidden
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_lies_where_people_see_it_in_a_film_that_is_turned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    film(&path, (320, 240), [0.1, 0.3, 0.5, 0.8], "", "! mp4mux");
    // GStreamer 1.22 does not write a rotation: the matrix of the track header is edited.
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(4).position(|w| w == b"tkhd").unwrap() + 4;
    let matrix = [0, 65536, 0, -65536, 0, 0, 240 << 16, 0, 1 << 30].map(i32::to_be_bytes);
    bytes[header + 40..header + 76].copy_from_slice(matrix.as_flattened());
    fs::write(&path, bytes).unwrap();
    // What was on the left is at the top, what was at the top is on the right.
    let place = [0.2, 0.5, 0.1, 0.3];
    let frames = assert_hidden(file(&path), mask(place)).await;
    assert_eq!((frames[0].width, frames[0].height), (240, 320));
    assert_hidden(file(&path), crop("0,0.3 1,1")).await;
    assert_hidden(file(&path), crop("0.5,0 1,1")).await;
    // Frames that are read by number are masked, too.
    let mut config = through(mask(place), file(&path));
    config.scaling = Some(FrameScaling { edge: 64, interpolation: LANCZOS3 });
    let (frames, _) = capture::read_frames_at(&config, |_| vec![0, 20]).unwrap();
    assert!(frames.len() == 2 && frames.iter().all(|frame| frame.width == 48 && red(frame) == 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_lies_where_people_see_it_in_a_film_whose_pixels_are_not_square() {
    let folder = tempfile::tempdir().unwrap();
    // Odd numbers: the secret shares colours with what is around it.
    let place = [61.0 / 360.0, 97.0 / 360.0, 47.0 / 288.0, 99.0 / 288.0];
    let [left, right, top, bottom] = place;
    for (shape, size) in [("16/15", (384, 288)), ("4/1", (1440, 288)), ("1/3", (120, 288))] {
        let path = folder.path().join("a.mkv");
        let caps = format!("! capssetter caps=video/x-raw,pixel-aspect-ratio=(fraction){shape}");
        film(&path, (360, 288), place, &caps, "! matroskamux");
        let frames = assert_hidden(file(&path), mask(place)).await;
        assert_eq!((frames[0].width, frames[0].height), size);
        for (x, y, right, bottom) in
            [(right, 0.0, 1.0, 1.0), (0.0, bottom, 1.0, 1.0), (0.0, 0.0, left, 1.0), (0.0, 0.0, 1.0, top)]
        {
            assert_hidden(file(&path), crop(&format!("{x},{y} {right},{bottom}"))).await;
        }
    }
}

/// A film that changes its size.
fn film_of_sizes(folder: &Path, sizes: [(u32, u32); 2], place: Place) -> PathBuf {
    let (mut joined, part, raw) = (Vec::new(), folder.join("part.h264"), folder.join("joined.h264"));
    for size in sizes {
        film(&part, size, place, "", "! video/x-h264,stream-format=byte-stream");
        joined.extend(fs::read(&part).unwrap());
    }
    fs::write(&raw, joined).unwrap();
    let path = folder.join("a.ts");
    launch(&format!(
        "filesrc location={} ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au ! mpegtsmux ! filesink location={}",
        raw.display(),
        path.display()
    ));
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_is_made_anew_when_a_stream_changes_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = film_of_sizes(folder.path(), [(320, 240), (480, 272)], [0.3, 0.5, 0.3, 0.5]);
    let frames = assert_hidden(file(&path), mask([0.3, 0.5, 0.3, 0.5])).await;
    let sizes: Vec<_> = frames.iter().map(|frame| (frame.width, frame.height)).collect();
    assert!(sizes.starts_with(&[(320, 240)]) && sizes.ends_with(&[(480, 272)]), "{sizes:?}");
}

/// A part that is narrower in a picture of 64x64 or less than its margins.
fn cropped(config: CameraConfig) -> CameraConfig {
    through(crop("0.4,0 0.5,1"), config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_stops_for_good_when_its_pictures_become_too_small_for_its_crop() {
    let folder = tempfile::tempdir().unwrap();
    let path = film_of_sizes(folder.path(), [(320, 240), (16, 16)], [0.0, 0.1, 0.0, 0.1]);
    let played = play_all(cropped(CameraConfig { sampling: FrameSampling::Rate, ..file(&path) })).await;
    assert!(matches!(played.result, Err(CaptureError::View { .. })), "{:?}", played.result);
    let sizes: Vec<_> =
        played.clips.iter().flat_map(|clip| &clip.frames).map(|f| (f.width, f.height)).collect();
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == (16, 240)), "{sizes:?}");

    // A live one is not opened again, either.
    let config = CameraConfig { retry: true, ..camera("test://smpte?width=64&height=64") };
    let played = play_all(cropped(config)).await;
    let error = played.result.unwrap_err().in_one_line();
    assert!(error.ends_with("nothing is shown: its pictures of 64x64 are too small for its crop"), "{error}");
    assert!(played.clips.is_empty() && played.status.why == error, "{:?}", played.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_says_what_was_seen_and_has_the_sizes_after_the_crop() {
    let mut config = camera("test://smpte?width=320&height=240&live=false&duration=2s");
    let view = Arc::new(crop("0.25,0.5 0.75,1"));
    config.view = Some(view.clone());
    config.scaling = Some(FrameScaling { edge: 64, interpolation: LANCZOS3 });
    let played = play_all(config).await;
    let clip = &played.clips[0];
    assert_eq!((clip.view.as_ref(), played.status.size), (Some(&view), Some((144, 112))));
    assert!(clip.frames.iter().all(|frame| frame.source_size() == (144, 112) && frame.width == 64));
}
