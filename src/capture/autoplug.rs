//! Which elements GStreamer may add to a pipeline by itself.
//!
//! The content of a stream chooses what a `decodebin` plugs. A playlist must not choose an element that opens
//! the addresses and files which the playlist names, so only elements that work on the bytes they are given are
//! plugged. What stands in a pipeline's text is the user's choice and is not touched.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::{
    glib::{EnumClass, subclass::SignalId},
    prelude::*,
};

/// The demuxers that read nothing but the bytes they are given. None of libav: those of GStreamer 1.22 may read
/// behind the end of a GIF for ever.
const DEMUXERS: [&str; 19] = [
    "aiffparse",
    "apedemux",
    "asfdemux",
    "auparse",
    "avidemux",
    "codecalphademux",
    "dvdemux",
    "flvdemux",
    "icydemux",
    "id3demux",
    "matroskademux",
    "mpegpsdemux",
    "multipartdemux",
    "mxfdemux",
    "oggdemux",
    "qtdemux",
    "rmdemux",
    "tsdemux",
    "wavparse",
];

/// Media types that are refused, and what people call them. But for GIF and encrypted ones, they name other files or
/// addresses.
const REFUSED: [(&str, &str); 11] = [
    ("application/dash+xml", "a playlist (DASH)"),
    ("application/sdp", "a description of a stream (SDP)"),
    ("application/smil", "a playlist (SMIL)"),
    ("application/x-cbcs", "encrypted (DRM)"),
    ("application/x-cenc", "encrypted (DRM)"),
    ("application/vnd.ms-sstr+xml", "a playlist (Smooth Streaming)"),
    ("application/x-hls", "a playlist (HLS)"),
    ("application/xml", "a text (XML)"),
    ("image/gif", "an animation (GIF)"),
    ("image/svg+xml", "a drawing (SVG)"),
    ("text/uri-list", "a list of addresses"),
];

/// Restricts every element of the pipeline that plugs others, now and later. Nothing is plugged for the streams
/// with the ids `unwanted`.
pub(super) fn restrict(pipeline: &gst::Pipeline, unwanted: &[String]) {
    let unwanted: Arc<[String]> = unwanted.into();
    let later = unwanted.clone();
    pipeline.connect_deep_element_added(move |_, _, element| restrict_element(element, &later));
    pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .for_each(|element| restrict_element(&element, &unwanted));
}

/// What people call a stream of that media type, if no element is plugged for it that could be.
pub(super) fn refused(media_type: &str) -> Option<String> {
    if let Some((_, name)) = REFUSED.iter().find(|(known, _)| *known == media_type) {
        return Some((*name).into());
    }
    let caps = gst::Caps::new_empty_simple(media_type);
    let demuxers =
        gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DEMUXER, gst::Rank::MARGINAL);
    let reads = |it: &gst::ElementFactory| it.can_sink_any_caps(&caps) && !is_allowed(it);
    demuxers.iter().any(reads).then(|| format!("data of the type {media_type}"))
}

/// Restricts an element, if it plugs others.
fn restrict_element(element: &gst::Element, unwanted: &Arc<[String]>) {
    let Some(signal) = SignalId::lookup("autoplug-select", element.type_()) else { return };
    let Some(answers) = EnumClass::with_type(signal.query().return_type().into()) else { return };
    let unwanted = unwanted.clone();
    element.connect("autoplug-select", false, move |values| {
        let stream = values.get(1).and_then(|v| stream_id(&v.get().ok()?));
        if stream.is_some_and(|id| unwanted.contains(&id)) {
            return answers.to_value_by_nick("expose");
        }
        let factory = values.get(3).and_then(|v| v.get::<gst::ElementFactory>().ok());
        let allowed = factory.is_some_and(|it| is_allowed(&it));
        answers.to_value_by_nick(if allowed { "try" } else { "skip" })
    });
}

/// Which stream leaves an element by a pad that an element of it is to be plugged to.
fn stream_id(pad: &gst::Pad) -> Option<String> {
    let target = pad.downcast_ref::<gst::GhostPad>().and_then(GhostPadExt::target);
    target.as_ref().unwrap_or(pad).stream_id().map(Into::into)
}

/// Whether an element may be plugged because of what a stream holds.
fn is_allowed(factory: &gst::ElementFactory) -> bool {
    let class = factory.klass();
    let is = |kind: &[&str]| class.split('/').any(|word| kind.contains(&word));
    if factory.has_interface("GstURIHandler") || is(&["Adaptive", "Bin", "Source"]) {
        return false;
    }
    if is(&["Demuxer"]) {
        return DEMUXERS.contains(&factory.name().as_str());
    }
    is(&["Decoder", "Depayloader", "Parser"]) && !factory.can_sink_any_caps(&svg())
}

/// Drawings that may name images of other files.
fn svg() -> gst::Caps {
    gst::Caps::new_empty_simple("image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_element_that_opens_other_files_or_addresses_is_allowed() {
        gst::init().unwrap();
        let allowed = |name: &str| gst::ElementFactory::find(name).map(|factory| is_allowed(&factory));
        for name in [
            "dashdemux",
            "dashdemux2",
            "decodebin",
            "filesrc",
            "hlsdemux",
            "hlsdemux2",
            "mssdemux",
            "mssdemux2",
            "parsebin",
            "playbin",
            "rsvgdec",
            "rtspsrc",
            "sdpdemux",
            "souphttpsrc",
            "splitmuxsrc",
            "uridecodebin",
            "urisourcebin",
        ] {
            assert_ne!(allowed(name), Some(true), "{name}");
        }
    }

    #[test]
    fn demuxers_parsers_depayloaders_and_decoders_are_allowed() {
        gst::init().unwrap();
        for name in
            ["avdec_h264", "h264parse", "jpegdec", "matroskademux", "qtdemux", "rtph264depay", "tsdemux"]
        {
            let factory = gst::ElementFactory::find(name).unwrap();
            assert!(is_allowed(&factory), "{name}");
        }
    }
}
