//! The pixels of decoded frames, as RGB, and only those that are to be seen: crop and masks are burned in here, before
//! anything else gets a picture.
//!
//! YUV is converted here: GStreamer 1.22 converts the limited range with errors of up to 5 levels in 255. It brings
//! frames with more bits or another layout into one of the formats below; interlaced ones it converts to RGB.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video::{
    VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo,
};
use yuv::{
    YuvBiPlanarImage, YuvConversionMode, YuvPlanarImage, YuvRange, YuvStandardMatrix, yuv_nv12_to_rgb,
    yuv420_to_rgb, yuv444_to_rgb,
};

use super::inspect::lock;
use crate::view::{CannotApply, SizedView, View};

/// The formats that are converted here.
const YUV: [&str; 3] = ["I420", "NV12", "Y444"];

type Readable<'a> = VideoFrameRef<&'a gst::BufferRef>;

/// The caps of the frames that [`Pixels`] takes. Their pixels are square.
pub(super) fn caps() -> gst::Caps {
    let frames =
        || gst::Structure::builder("video/x-raw").field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    let yuv = frames().field("format", gst::List::new(YUV)).field("interlace-mode", "progressive");
    gst::Caps::builder_full()
        .structure(frames().field("format", "RGB").build())
        .structure(yuv.build())
        .build()
}

/// The pixels of a picture: `height` rows of `width` RGB triples without padding, then width and height.
pub(super) type Picture = (Arc<[u8]>, u32, u32);

/// Why a frame gives no picture.
#[derive(Debug)]
pub(super) enum NoPicture {
    /// It is not as [`caps`] says.
    Format,
    /// Crop and masks cannot be applied to it.
    View(CannotApply),
}

/// Makes pictures of the frames of a camera.
pub(super) struct Pixels {
    /// `None`: all of them is seen.
    view: Option<Arc<View>>,
    /// The view for frames of the size that the last one had.
    sized: Mutex<Option<SizedView>>,
}

impl Pixels {
    /// Of frames that are seen through `view`. `None`: all of them is seen.
    pub fn seen_through(view: Option<Arc<View>>) -> Self {
        Self { view, sized: Mutex::default() }
    }

    /// What is to be seen of a frame.
    pub fn picture(&self, buffer: &gst::BufferRef, caps: &gst::CapsRef) -> Result<Picture, NoPicture> {
        let (rgb, width, height) = rgb_pixels(buffer, caps).ok_or(NoPicture::Format)?;
        match &self.view {
            Some(view) => self.apply(view, rgb, width, height).map_err(NoPicture::View),
            None => Ok((rgb, width, height)),
        }
    }

    fn apply(&self, view: &View, rgb: Arc<[u8]>, width: u32, height: u32) -> Result<Picture, CannotApply> {
        let mut last = lock(&self.sized);
        let sized = match last.take().filter(|sized| sized.size() == (width, height)) {
            Some(sized) => sized,
            None => SizedView::new(view, width, height)?,
        };
        last.insert(sized).apply(rgb)
    }
}

/// All pixels of a frame. `None`: the frame is not as [`caps`] says.
fn rgb_pixels(buffer: &gst::BufferRef, caps: &gst::CapsRef) -> Option<Picture> {
    let info = VideoInfo::from_caps(caps).ok()?;
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &info).ok()?;
    let rgb = if info.format() == VideoFormat::Rgb { packed(&frame)? } else { converted(&frame)? };
    Some((rgb, info.width(), info.height()))
}

/// The pixels of an RGB frame, without the padding of its rows.
fn packed(frame: &Readable<'_>) -> Option<Arc<[u8]>> {
    let (stride, row) = (stride(frame, 0)? as usize, frame.width() as usize * 3);
    let (data, height) = (frame.plane_data(0).ok()?, frame.height() as usize);
    if stride == row {
        return Some(data.get(..row * height)?.into());
    }
    Some(data.chunks(stride).take(height).flat_map(|padded| &padded[..row]).copied().collect())
}

/// The pixels of a YUV frame.
fn converted(frame: &Readable<'_>) -> Option<Arc<[u8]>> {
    let (width, height) = (frame.width(), frame.height());
    let row = width * 3;
    let colorimetry = frame.info().colorimetry();
    let range = match colorimetry.range() {
        VideoColorRange::Range0_255 => YuvRange::Full,
        _ => YuvRange::Limited,
    };
    // What a stream does not state was filled in before.
    let matrix = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => YuvStandardMatrix::Bt709,
        VideoColorMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
        VideoColorMatrix::Smpte240m => YuvStandardMatrix::Smpte240,
        VideoColorMatrix::Fcc => YuvStandardMatrix::Fcc,
        _ => YuvStandardMatrix::Bt601,
    };
    let mut rgb: Arc<[u8]> = std::iter::repeat_n(0, row as usize * height as usize).collect();
    let pixels = Arc::get_mut(&mut rgb)?;
    if frame.format() == VideoFormat::Nv12 {
        let image = YuvBiPlanarImage {
            y_plane: frame.plane_data(0).ok()?,
            y_stride: stride(frame, 0)?,
            uv_plane: frame.plane_data(1).ok()?,
            uv_stride: stride(frame, 1)?,
            width,
            height,
        };
        yuv_nv12_to_rgb(&image, pixels, row, range, matrix, YuvConversionMode::Balanced).ok()?;
        return Some(rgb);
    }
    let convert = match frame.format() {
        VideoFormat::I420 => yuv420_to_rgb,
        VideoFormat::Y444 => yuv444_to_rgb,
        _ => return None,
    };
    let image = YuvPlanarImage {
        y_plane: frame.plane_data(0).ok()?,
        y_stride: stride(frame, 0)?,
        u_plane: frame.plane_data(1).ok()?,
        u_stride: stride(frame, 1)?,
        v_plane: frame.plane_data(2).ok()?,
        v_stride: stride(frame, 2)?,
        width,
        height,
    };
    convert(&image, pixels, row, range, matrix).ok()?;
    Some(rgb)
}

/// Bytes from one row of a plane to the next.
fn stride(frame: &Readable<'_>, plane: usize) -> Option<u32> {
    u32::try_from(*frame.plane_stride().get(plane)?).ok()
}

#[cfg(test)]
mod tests {
    use gstreamer_video::VideoFrame;

    use super::*;

    const WIDTH: usize = 38;
    const HEIGHT: usize = 22;

    /// A frame whose left half has one colour and whose right half another, in rows that are padded.
    fn frame(format: &str, colorimetry: &str, halves: [[u8; 3]; 2]) -> (gst::Buffer, gst::Caps) {
        gst::init().unwrap();
        let caps: gst::Caps = format!(
            "video/x-raw,format={format},width={WIDTH},height={HEIGHT},framerate=1/1,pixel-aspect-ratio=1/1,\
             interlace-mode=progressive,colorimetry={colorimetry}"
        )
        .parse()
        .unwrap();
        assert!(caps.can_intersect(&super::caps()), "{caps}");
        let info = VideoInfo::from_caps(&caps).unwrap();
        let buffer = gst::Buffer::with_size(info.size()).unwrap();
        let mut frame = VideoFrame::from_buffer_writable(buffer, &info).unwrap();
        for plane in 0..frame.n_planes() {
            // Which values a sample of the plane has, and how many samples a row has.
            let channels: &[usize] = if format == "NV12" {
                [&[0][..], &[1, 2]][plane as usize]
            } else {
                &[[0], [1], [2]][plane as usize]
            };
            let samples = if format == "Y444" || plane == 0 { WIDTH } else { WIDTH / 2 };
            let stride = frame.plane_stride()[plane as usize] as usize;
            for row in frame.plane_data_mut(plane).unwrap().chunks_mut(stride) {
                row.fill(0x55);
                for (i, sample) in row.chunks_mut(channels.len()).take(samples).enumerate() {
                    let half = halves[usize::from(2 * i >= samples)];
                    sample.iter_mut().zip(channels).for_each(|(value, c)| *value = half[*c]);
                }
            }
        }
        (frame.into_buffer(), caps)
    }

    #[test]
    fn every_format_is_converted_by_what_its_values_mean() {
        const COLOURS: [[u8; 3]; 2] = [[220, 200, 30], [40, 40, 200]];
        // BT.601, BT.709 and BT.2020: Y, Cb and Cr of the colours by the definitions, rounded.
        for (colorimetry, halves) in [
            ("1:4:16:4", [[187, 40, 152], [58, 208, 115]]),
            ("2:4:16:4", [[176, 50, 149], [66, 198, 117]]),
            ("2:3:5:1", [[181, 51, 144], [60, 198, 122]]),
            ("2:6:13:7", [[184, 51, 143], [59, 198, 122]]),
        ] {
            for format in YUV {
                let (buffer, caps) = frame(format, colorimetry, halves);
                let (rgb, width, height) = rgb_pixels(&buffer, &caps).unwrap();
                assert_eq!((width as usize, height as usize, rgb.len()), (WIDTH, HEIGHT, WIDTH * HEIGHT * 3));
                for (i, pixel) in rgb.chunks_exact(3).enumerate() {
                    let colour = COLOURS[usize::from(2 * (i % WIDTH) >= WIDTH)];
                    let off = pixel.iter().zip(colour).map(|(a, b)| a.abs_diff(b)).max();
                    let middle = (i % WIDTH).abs_diff(WIDTH / 2) <= 1;
                    assert!(middle || off <= Some(2), "{format} {colorimetry}: pixel {i} is {pixel:?}");
                }
            }
        }
    }

    #[test]
    fn the_padding_of_rgb_rows_is_left_out() {
        gst::init().unwrap();
        let caps: gst::Caps = "video/x-raw,format=RGB,width=3,height=2,framerate=1/1".parse().unwrap();
        // A row of three pixels has twelve bytes.
        let row = |first: u8| (first..first + 9).chain([0; 3]);
        let buffer = gst::Buffer::from_slice(row(10).chain(row(30)).collect::<Vec<u8>>());
        let (rgb, ..) = rgb_pixels(&buffer, &caps).unwrap();
        assert_eq!(rgb.to_vec(), (10..19).chain(30..39).collect::<Vec<u8>>());
    }
}
