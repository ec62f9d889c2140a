//! A camera's description of its streams (SDP): what it should have said is added, and the video stream to ask
//! for is chosen.

use std::cmp::Reverse;

use gstreamer::{
    glib::{self, translate::ToGlibPtr},
    prelude::*,
};
use gstreamer_sdp::{SDPAttribute, SDPMediaRef, SDPMessage, SDPMessageRef};

use super::{picture_size, rtp::VIDEO_CLOCK_RATE};

/// The parameter of a format that has the parameter sets of H.264 (RFC 6184, section 8.1).
const PARAMETER_SETS: &str = "sprop-parameter-sets";
/// What begins a NAL unit in a byte stream (ITU-T H.264, annex B).
const START_CODE: [u8; 3] = [0, 0, 1];

/// Hands `change` the description that a signal lends its handlers to change. `None`: it lends another thing.
pub(super) fn with_lent<T>(value: &glib::Value, change: impl FnOnce(&mut SDPMessageRef) -> T) -> Option<T> {
    if value.type_() != SDPMessage::static_type() {
        return None;
    }
    // SAFETY: the value has been checked to hold a message, which `SDPMessageRef` stands for. It is the sender's own, not
    // a copy of it, so that no reference to it exists in this program; the sender waits until its handlers return.
    unsafe {
        let message = glib::gobject_ffi::g_value_get_boxed(value.to_glib_none().0);
        message.cast::<SDPMessageRef>().as_mut().map(change)
    }
}

/// States the clock rate of video streams for which the camera states zero or none. GStreamer plays none of them.
pub(super) fn complete_clock_rates(sdp: &mut SDPMessageRef) {
    for media in sdp.medias_mut().filter(|media| is_video(media)) {
        let completed: Vec<String> = values(media, "rtpmap").filter_map(with_clock_rate).collect();
        for rtpmap in completed {
            // The first one of a payload type counts. It fails only without attributes, and there is one.
            let _ = media.insert_attribute(Some(0), SDPAttribute::new("rtpmap", Some(&rtpmap)));
        }
    }
}

/// States the parameter sets of H.264 anew where the camera has put start codes among them, which GStreamer takes for
/// the sets themselves.
pub(super) fn remove_start_codes(sdp: &mut SDPMessageRef) {
    for media in sdp.medias_mut().filter(|media| is_video(media)) {
        let cleaned: Vec<String> = values(media, "fmtp").filter_map(without_start_codes).collect();
        for fmtp in cleaned {
            // As above.
            let _ = media.insert_attribute(Some(0), SDPAttribute::new("fmtp", Some(&fmtp)));
        }
    }
}

/// The number of the video stream with the largest pictures: of several the first, and the first of all unless the
/// sizes of all are known. `None`: there is no video.
pub(super) fn largest_video(sdp: &SDPMessageRef) -> Option<u32> {
    let videos: Vec<(u32, &SDPMediaRef)> = (0..).zip(sdp.medias()).filter(|(_, it)| is_video(it)).collect();
    let (first, _) = *videos.first()?;
    let sizes: Option<Vec<(u64, u32)>> =
        videos.iter().map(|(number, media)| Some((pixels(media)?, *number))).collect();
    let largest =
        sizes.and_then(|it| it.into_iter().max_by_key(|(pixels, number)| (*pixels, Reverse(*number))));
    Some(largest.map_or(first, |(_, number)| number))
}

/// Whether the camera sends video there. (To a stream with the attribute `sendonly` a client would send.)
fn is_video(media: &SDPMediaRef) -> bool {
    let is = |attribute: &str| media.attribute_val(attribute).is_some();
    media.media() == Some("video") && !is("sendonly") && !is("inactive")
}

/// The values of all attributes with this name.
fn values<'a>(media: &'a SDPMediaRef, name: &str) -> impl Iterator<Item = &'a str> {
    (0..).map_while(move |n| media.attribute_val_n(name, n))
}

/// An `rtpmap` with a clock rate, such as `96 H264/90000`. `None`: it has one.
fn with_clock_rate(rtpmap: &str) -> Option<String> {
    let (payload_type, encoding) = rtpmap.trim().split_once(' ')?;
    let (name, rate) = encoding.trim().split_once('/').unwrap_or((encoding.trim(), ""));
    let states_rate =
        rate.split('/').next().is_some_and(|rate| rate.trim().parse().is_ok_and(|rate: u32| rate > 0));
    (!states_rate).then(|| format!("{payload_type} {name}/{VIDEO_CLOCK_RATE}"))
}

/// An `fmtp` whose parameter sets have no start codes. `None`: it has none.
fn without_start_codes(fmtp: &str) -> Option<String> {
    let (_, stated) = parameters(fmtp).find(|(name, _)| name.eq_ignore_ascii_case(PARAMETER_SETS))?;
    let units: Vec<_> = stated.split(',').map(glib::base64_decode).collect();
    let has_code = |unit: &Vec<u8>| unit.windows(START_CODE.len()).any(|bytes| bytes == START_CODE);
    if !units.iter().any(has_code) {
        return None;
    }
    let encoded: Vec<_> =
        units.iter().flat_map(|unit| split_at_start_codes(unit)).map(glib::base64_encode).collect();
    Some(fmtp.replace(stated, &encoded.join(",")))
}

/// The NAL units in a byte stream (ITU-T H.264, annex B).
fn split_at_start_codes(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    loop {
        let code = stream.windows(START_CODE.len()).position(|bytes| bytes == START_CODE);
        let unit = &stream[..code.unwrap_or(stream.len())];
        let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        units.extend((end > 0).then_some(&unit[..end]));
        let Some(code) = code else { return units };
        stream = &stream[code + START_CODE.len()..];
    }
}

/// How many pixels a picture has. `None`: the camera does not say so.
fn pixels(media: &SDPMediaRef) -> Option<u64> {
    let by_parameter_sets = values(media, "fmtp").flat_map(parameters).filter_map(|(name, value)| {
        let of_unit = match name.to_ascii_lowercase().as_str() {
            PARAMETER_SETS => picture_size::of_h264,
            "sprop-sps" => picture_size::of_h265,
            _ => return None,
        };
        value.split(',').filter_map(|unit| of_unit(&glib::base64_decode(unit))).max()
    });
    // framesize:96 1280-720, x-dimensions:1280,720 and cliprect:0,0,720,1280
    let by_attributes = || {
        let attributes = ["framesize", "x-dimensions", "cliprect"].into_iter();
        attributes.flat_map(|name| values(media, name)).find_map(product_of_last_two)
    };
    by_parameter_sets.max().or_else(by_attributes)
}

/// The parameters of a format: names and values.
fn parameters(fmtp: &str) -> impl Iterator<Item = (&str, &str)> {
    let list = fmtp.trim().split_once(' ').map_or("", |(_, list)| list);
    list.split(';').filter_map(|it| it.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

fn product_of_last_two(text: &str) -> Option<u64> {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|it| !it.is_empty());
    let numbers: Vec<u64> =
        numbers.map(|it| it.parse::<u32>().map(u64::from)).collect::<Result<_, _>>().ok()?;
    let [.., a, b] = numbers[..] else { return None };
    Some(a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 640x360, H.264.
    const LARGE: &str = "Z2QAHqy0BQF/ywgAAAMACAAAAwGQeLF1,aO8Pyw==";

    fn sdp(medias: &[&str]) -> SDPMessage {
        gstreamer::init().unwrap();
        let text =
            format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=camera\r\nt=0 0\r\n{}\r\n", medias.join("\r\n"));
        SDPMessage::parse_buffer(text.as_bytes()).unwrap()
    }

    fn video(attributes: &str) -> String {
        format!("m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n{attributes}")
    }

    const SOUND: &str = "m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000";

    /// The number of the largest video.
    fn largest(medias: &[&str]) -> Option<u32> {
        largest_video(&sdp(medias))
    }

    #[test]
    fn a_clock_rate_of_zero_or_none_is_completed() {
        for (stated, completed) in [
            ("96 H264/0", "96 H264/90000"),
            ("96 H264/", "96 H264/90000"),
            ("96 H264", "96 H264/90000"),
            ("96  H264/x ", "96 H264/90000"),
            ("96 H264/90000", "96 H264/90000"),
            ("96 H264/48000", "96 H264/48000"),
            ("nonsense", "nonsense"),
        ] {
            let mut sdp = sdp(&[SOUND, &format!("m=video 0 RTP/AVP 96\r\na=rtpmap:{stated}")]);
            complete_clock_rates(&mut sdp);
            assert_eq!(sdp.media(1).unwrap().attribute_val("rtpmap"), Some(completed), "{stated}");
            assert_eq!(sdp.media(0).unwrap().attribute_val("rtpmap"), Some("8 PCMA/8000"));
        }
    }

    #[test]
    fn start_codes_among_parameter_sets_are_removed() {
        // 00 00 00 01 67 01, 00 00 01 68 01: alone, and in one.
        for stated in ["AAAAAWcB,AAABaAE=", "AAAAAWcBAAABaAE="] {
            let format = |sets: &str| format!("96 packetization-mode=1;sprop-parameter-sets={sets};a=b");
            let mut sdp = sdp(&[&video(&format!("a=fmtp:{}", format(stated)))]);
            remove_start_codes(&mut sdp);
            let fmtp = sdp.media(0).unwrap().attribute_val("fmtp").map(str::to_owned);
            assert_eq!(fmtp, Some(format("ZwE=,aAE=")), "{stated}");
        }
        assert_eq!(without_start_codes(&format!("96 sprop-parameter-sets={LARGE}")), None);
        assert_eq!(without_start_codes("96 sprop-parameter-sets="), None);
    }

    #[test]
    fn the_first_video_is_taken_where_the_size_of_one_is_not_known() {
        let known = video("a=framesize:96 1280-720");
        assert_eq!(largest(&[]), None);
        assert_eq!(largest(&[SOUND]), None);
        assert_eq!(largest(&[SOUND, &video(""), &known]), Some(1));
        assert_eq!(largest(&[&known, &video("")]), Some(0));
    }

    #[test]
    fn the_largest_video_is_taken_however_its_size_is_stated() {
        let small = video("a=x-dimensions:320,240");
        for large in [
            "a=framesize:96 1280-720",
            "a=x-dimensions:1280,720",
            "a=cliprect:0,0,720,1280",
            &format!("a=fmtp:96 packetization-mode=1;sprop-parameter-sets={LARGE}"),
            &format!("a=fmtp:96 packetization-mode=1; Sprop-Parameter-Sets={LARGE};a=b"),
        ] {
            assert_eq!(largest(&[SOUND, &small, &video(large)]), Some(2), "{large}");
            assert_eq!(largest(&[&video(large), SOUND, &small]), Some(0), "{large}");
        }
        assert_eq!(largest(&[SOUND, &small, &small]), Some(1), "the first of equal ones");
    }

    #[test]
    fn a_stream_to_the_camera_is_no_video_of_it() {
        assert_eq!(largest(&[&video("a=sendonly"), &video("a=recvonly")]), Some(1));
        assert_eq!(largest(&[&video("a=inactive")]), None);
    }

    #[test]
    fn parameter_sets_count_for_more_than_attributes() {
        let wrong = video(&format!("a=framesize:96 0-0\r\na=fmtp:96 sprop-parameter-sets={LARGE}"));
        assert_eq!(largest(&[&video("a=framesize:96 320-240"), &wrong]), Some(1));
    }
}
