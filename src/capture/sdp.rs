//! A camera's description of its streams (SDP): what it should have said is added, and the video stream to ask
//! for is chosen.

use std::{cmp::Reverse, net::IpAddr};

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

/// States the formats of video streams as GStreamer reads them: with a clock rate where the camera states zero or none,
/// and without superfluous spaces.
pub(super) fn complete_formats(sdp: &mut SDPMessageRef) {
    for media in videos_mut(sdp) {
        let completed: Vec<String> = values(media, "rtpmap").filter_map(completed_format).collect();
        for rtpmap in completed {
            // The first one of a payload type counts. It fails only without attributes, and there is one.
            let _ = media.insert_attribute(Some(0), SDPAttribute::new("rtpmap", Some(&rtpmap)));
        }
        let trimmed: Vec<String> =
            values(media, "fmtp").filter(|it| it.starts_with(' ')).map(|it| it.trim().into()).collect();
        for fmtp in trimmed {
            let _ = media.insert_attribute(Some(0), SDPAttribute::new("fmtp", Some(&fmtp)));
        }
    }
}

/// States what GStreamer needs to ask for a video stream: a URI, which is the camera's own (`camera`) where neither the
/// stream nor the description has one (RFC 2326, appendix C.1.1), and the usual name of the protocol.
pub(super) fn complete_streams(sdp: &mut SDPMessageRef, camera: &str) {
    let has_uri = sdp.attribute_val("control").is_some_and(|it| it != "*");
    for media in videos_mut(sdp) {
        if media.attribute_val("control").is_none() && !has_uri {
            media.add_attribute("control", Some(camera));
        }
        if media.proto() == Some("RTP/AVP/TCP") {
            media.set_proto("RTP/AVP");
        }
    }
}

/// Forgets the multicast addresses of streams that are not to come by multicast. GStreamer would ask for nothing else.
pub(super) fn forget_multicast(sdp: &mut SDPMessageRef) {
    let is_multicast = |address: Option<&str>| {
        let address = address.and_then(|it| it.split('/').next()?.parse::<IpAddr>().ok());
        address.is_some_and(|it| it.is_multicast())
    };
    if let Some(connection) = sdp.connection().filter(|it| is_multicast(it.address())) {
        let (version, any) =
            if connection.addrtype() == Some("IP6") { ("IP6", "::") } else { ("IP4", "0.0.0.0") };
        sdp.set_connection("IN", version, any, 0, 0);
    }
    for media in videos_mut(sdp) {
        let multicast: Vec<u32> = (0..)
            .zip(media.connections())
            .filter(|(_, it)| is_multicast(it.address()))
            .map(|(i, _)| i)
            .collect();
        for i in multicast.into_iter().rev() {
            let _ = media.remove_connection(i);
        }
    }
}

/// States the parameter sets of H.264 anew where the camera has put start codes among them, which GStreamer takes for
/// the sets themselves.
pub(super) fn remove_start_codes(sdp: &mut SDPMessageRef) {
    for media in videos_mut(sdp) {
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
    let mut videos: Vec<(u32, &SDPMediaRef)> =
        (0..).zip(sdp.medias()).filter(|(_, it)| is_video(it)).collect();
    // Some cameras say of what they send that they would take it.
    if videos.iter().any(|(_, it)| is_sent(it)) {
        videos.retain(|(_, it)| is_sent(it));
    }
    let (first, _) = *videos.first()?;
    let sizes: Option<Vec<(u64, u32)>> =
        videos.iter().map(|(number, media)| Some((pixels(media)?, *number))).collect();
    let largest =
        sizes.and_then(|it| it.into_iter().max_by_key(|(pixels, number)| (*pixels, Reverse(*number))));
    Some(largest.map_or(first, |(_, number)| number))
}

fn videos_mut(sdp: &mut SDPMessageRef) -> impl Iterator<Item = &mut SDPMediaRef> {
    sdp.medias_mut().filter(|media| is_video(media))
}

fn is_video(media: &SDPMediaRef) -> bool {
    media.media() == Some("video") && media.attribute_val("inactive").is_none()
}

/// Whether the camera sends there. (To a stream with the attribute `sendonly` a client would send.)
fn is_sent(media: &SDPMediaRef) -> bool {
    media.attribute_val("sendonly").is_none()
}

/// The values of all attributes with this name.
fn values<'a>(media: &'a SDPMediaRef, name: &str) -> impl Iterator<Item = &'a str> {
    (0..).map_while(move |n| media.attribute_val_n(name, n))
}

/// An `rtpmap` as it should be, such as `96 H264/90000`. `None`: it is so, or is none.
fn completed_format(rtpmap: &str) -> Option<String> {
    let (payload_type, encoding) = rtpmap.trim().split_once(' ')?;
    let (name, rate) = encoding.trim().split_once('/').unwrap_or((encoding.trim(), ""));
    let is_rate = |it: &str| it.trim().parse().is_ok_and(|rate: u32| rate > 0);
    let stated = rate.split('/').next().is_some_and(is_rate);
    let completed = match stated {
        true => format!("{payload_type} {name}/{rate}"),
        false => format!("{payload_type} {name}/{VIDEO_CLOCK_RATE}"),
    };
    (completed != rtpmap).then_some(completed)
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
            (" 96  H264/90000", "96 H264/90000"),
            ("nonsense", "nonsense"),
        ] {
            let mut sdp = sdp(&[SOUND, &format!("m=video 0 RTP/AVP 96\r\na=rtpmap:{stated}")]);
            complete_formats(&mut sdp);
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
        assert_eq!(largest(&[SOUND, &video("a=sendonly")]), Some(1), "if there is another");
    }

    #[test]
    fn a_stream_without_a_uri_has_that_of_the_camera() {
        let text = "m=video 0 RTP/AVP/TCP 96\r\na=rtpmap:96 H264/90000";
        let mut stated = sdp(&["a=control:track1", text]);
        complete_streams(&mut stated, "rtsp://camera/live");
        assert_eq!(stated.media(0).unwrap().attribute_val("control"), None, "the description has one");
        let mut sdp = sdp(&[text, &video("a=control:track2")]);
        complete_streams(&mut sdp, "rtsp://camera/live");
        let media = |i| sdp.media(i).unwrap();
        assert_eq!(
            (media(0).proto(), media(0).attribute_val("control")),
            (Some("RTP/AVP"), Some("rtsp://camera/live"))
        );
        assert_eq!((media(1).proto(), media(1).attribute_val("control")), (Some("RTP/AVP"), Some("track2")));
    }

    #[test]
    fn multicast_addresses_are_forgotten() {
        for (version, address, any) in [("IP4", "239.1.1.1/127", "0.0.0.0"), ("IP6", "ff15::1", "::")] {
            let line = format!("c=IN {version} {address}");
            let mut sdp = sdp(&[&line, &video(&line)]);
            forget_multicast(&mut sdp);
            let text = sdp.as_text().unwrap();
            assert!(!text.contains(address) && text.contains(&format!("c=IN {version} {any}")), "{text}");
        }
    }

    #[test]
    fn parameter_sets_count_for_more_than_attributes() {
        let wrong = video(&format!("a=framesize:96 0-0\r\na=fmtp:96 sprop-parameter-sets={LARGE}"));
        assert_eq!(largest(&[&video("a=framesize:96 320-240"), &wrong]), Some(1));
    }
}
