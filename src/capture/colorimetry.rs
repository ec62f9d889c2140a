//! What the values of decoded YUV frames mean, where a stream says so in part or not at all.
//!
//! GStreamer forgets a stated range when no matrix is stated, and converts the frames as if they had the default
//! range. So what is not stated is filled in before frames are converted to RGB: the limited range; the matrix of
//! BT.709 for frames of more than 576 lines (HD and above), and that of BT.601 for others.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoFormat, VideoFormatInfo,
    VideoTransferFunction,
};

/// Lines of the largest picture in standard definition (ITU-R BT.601, 625-line systems).
const SD_LINES: i32 = 576;

/// The transfer functions of HDR (ITU-R BT.2100), as GStreamer and as people call them.
const HDR: [(&str, &str); 2] = [("bt2100-pq", "PQ"), ("bt2100-hlg", "HLG")];

/// What the user should know about the colours of frames with these caps.
pub(super) fn warning(caps: &gst::CapsRef) -> Option<String> {
    let transfer = |text: &str| text.parse().ok().map(|it: VideoColorimetry| it.transfer());
    let stated = transfer(caps.structure(0)?.get("colorimetry").ok()?)?;
    let (_, name) = HDR.into_iter().find(|(known, _)| transfer(known) == Some(stated))?;
    Some(format!(
        "the video is HDR ({name}), which is not tone-mapped, so its colours look pale: let the camera send SDR, or \
         convert the file"
    ))
}

/// Completes the caps that frames arrive with at `pad`.
pub(super) fn complete_caps_at(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view())
            && let Some(caps) = completed(event.caps())
        {
            let event = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
            info.data = Some(gst::PadProbeData::Event(event));
        }
        gst::PadProbeReturn::Ok
    });
}

/// The caps with a whole colorimetry. `None`: nothing is missing, or the frames are not YUV.
fn completed(caps: &gst::CapsRef) -> Option<gst::Caps> {
    let frames = caps.structure(0)?;
    let format = VideoFormat::from_string(frames.get::<&str>("format").ok()?);
    if format == VideoFormat::Unknown || !VideoFormatInfo::from_format(format).is_yuv() {
        return None;
    }
    let stated = frames.get::<&str>("colorimetry").ok().and_then(|text| text.parse().ok());
    let colorimetry = complete(stated.as_ref(), frames.get("height").ok()?)?;
    let mut caps = caps.to_owned();
    caps.make_mut().set("colorimetry", colorimetry.to_string());
    Some(caps)
}

/// A stated colorimetry of YUV frames of `height` lines, and what it lacks. `None`: it lacks nothing.
fn complete(stated: Option<&VideoColorimetry>, height: i32) -> Option<VideoColorimetry> {
    use VideoColorMatrix as Matrix;
    let range = stated.map_or(VideoColorRange::Unknown, VideoColorimetry::range);
    let matrix = stated.map_or(Matrix::Unknown, VideoColorimetry::matrix);
    // There is no YUV of which the matrix is that of RGB.
    let has_matrix = !matches!(matrix, Matrix::Unknown | Matrix::Rgb);
    if range != VideoColorRange::Unknown && has_matrix {
        return None;
    }
    let usual = if height > SD_LINES { Matrix::Bt709 } else { Matrix::Bt601 };
    Some(VideoColorimetry::new(
        if range == VideoColorRange::Unknown { VideoColorRange::Range16_235 } else { range },
        if has_matrix { matrix } else { usual },
        stated.map_or(VideoTransferFunction::Unknown, VideoColorimetry::transfer),
        stated.map_or(VideoColorPrimaries::Unknown, VideoColorimetry::primaries),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colorimetry of caps once it is complete. `None`: it is left as it is.
    fn complete_text(caps: &str) -> Option<String> {
        gst::init().unwrap();
        let caps = completed(&caps.parse::<gst::Caps>().unwrap())?;
        Some(caps.structure(0).unwrap().get("colorimetry").unwrap())
    }

    #[test]
    fn a_range_is_kept_whatever_else_is_missing() {
        let text = |colorimetry: &str, height: u32| {
            complete_text(&format!(
                "video/x-raw,format=I420,width=640,height={height},colorimetry={colorimetry}"
            ))
        };
        assert_eq!(text("1:0:0:0", 480).as_deref(), Some("1:4:0:0"));
        assert_eq!(text("1:0:0:0", 1080).as_deref(), Some("1:3:0:0"));
        assert_eq!(text("2:0:5:1", 480).as_deref(), Some("2:4:5:1"));
        assert_eq!(text("0:3:0:0", 480).as_deref(), Some("2:3:0:0"));
    }

    #[test]
    fn untagged_frames_are_limited_and_by_their_height_of_bt601_or_bt709() {
        let text = |height: u32| complete_text(&format!("video/x-raw,format=NV12,width=640,height={height}"));
        assert_eq!(text(576).as_deref(), Some("2:4:0:0"));
        assert_eq!(text(577).as_deref(), Some("2:3:0:0"));
        assert_eq!(text(2160).as_deref(), Some("2:3:0:0"));
    }

    #[test]
    fn hdr_is_told_by_its_transfer_function() {
        gst::init().unwrap();
        let text = |colorimetry: &str| {
            let caps: gst::Caps = format!("video/x-raw,colorimetry={colorimetry}").parse().unwrap();
            warning(&caps)
        };
        for (colorimetry, name) in [("bt2100-pq", "(PQ)"), ("2:6:15:7", "(HLG)"), ("1:0:14:0", "(PQ)")] {
            assert!(text(colorimetry).is_some_and(|it| it.contains(name)), "{colorimetry}");
        }
        for colorimetry in ["bt709", "bt2020", "2:6:0:7", "nonsense"] {
            assert_eq!(text(colorimetry), None, "{colorimetry}");
        }
    }

    #[test]
    fn what_is_whole_or_not_yuv_is_left_as_it_is() {
        for rest in
            ["format=I420,colorimetry=bt709", "format=I420,colorimetry=1:4:0:0", "format=RGB", "format=GRAY8"]
        {
            assert_eq!(complete_text(&format!("video/x-raw,width=640,height=480,{rest}")), None, "{rest}");
        }
    }
}
