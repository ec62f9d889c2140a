//! What GStreamer's RTSP client needs beyond its properties.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::{
    inspect::{DROP_BUFFER, lock},
    rtp::{Announced, FIRST_SEQUENCE, RtpHeader, RtpStream, VIDEO_CLOCK_RATE},
    sdp,
};

/// Makes an `rtspsrc` ask for the video stream with the largest pictures only, pass on the camera's clock, and take
/// streams as cameras describe and send them. Other elements stay as they are. `by_multicast`: packets may come by
/// multicast.
pub(super) fn configure(element: &gst::Element, by_multicast: bool) {
    if element.factory().is_none_or(|factory| factory.name() != "rtspsrc") {
        return;
    }
    let chosen = Arc::new(Mutex::new(None));
    let choice = chosen.clone();
    let one_format = Arc::new(AtomicBool::new(false));
    let has_one_format = one_format.clone();
    element.connect("on-sdp", false, move |values| {
        let location: String = values.first()?.get::<gst::Element>().ok()?.property("location");
        let chosen = sdp::with_lent(values.get(1)?, |sdp| {
            sdp::complete_formats(sdp);
            sdp::complete_streams(sdp, &location);
            sdp::remove_start_codes(sdp);
            if !by_multicast {
                sdp::forget_multicast(sdp);
            }
            let chosen = sdp::largest_video(sdp)?;
            has_one_format.store(sdp.media(chosen)?.formats_len() == 1, Ordering::Relaxed);
            Some(chosen)
        });
        *lock(&choice) = chosen.flatten();
        None
    });
    // The streams are offered again when rtspsrc falls back from UDP to TCP: the choice stays.
    element.connect("select-stream", false, move |values| {
        let number = values.get(1).and_then(|v| v.get::<u32>().ok());
        Some((number.is_some() && *lock(&chosen) == number).to_value())
    });
    element.connect("new-manager", false, move |values| {
        let manager = values.get(1).and_then(|v| v.get::<gst::Element>().ok())?;
        if manager.has_property("add-reference-timestamp-meta") {
            manager.set_property("add-reference-timestamp-meta", true);
        }
        put_packets_in_order(&manager, &one_format);
        None
    });
}

/// The packets of one session of an `rtpbin`.
struct Session {
    started: Instant,
    stream: Mutex<RtpStream<gst::Buffer>>,
    /// Packets go on that were held back.
    releasing: AtomicBool,
    /// Packets are encrypted (SRTP): their headers are signed and must stay.
    encrypted: AtomicBool,
    /// The camera has announced one payload type for the stream.
    one_format: Arc<AtomicBool>,
}

/// Puts the streams that a manager (an `rtpbin`) receives through an [`RtpStream`] each.
fn put_packets_in_order(manager: &gst::Element, one_format: &Arc<AtomicBool>) {
    let one_format = one_format.clone();
    let sessions = Mutex::new(HashMap::<String, Arc<Session>>::new());
    manager.connect_pad_added(move |_, pad| {
        let name = pad.name();
        let (number, reports) =
            match (name.strip_prefix("recv_rtp_sink_"), name.strip_prefix("recv_rtcp_sink_")) {
                (Some(number), _) => (number, false),
                (None, Some(number)) => (number, true),
                (None, None) => return,
            };
        let new_session = || {
            let stream = Mutex::new(RtpStream::new());
            Arc::new(Session {
                started: Instant::now(),
                stream,
                releasing: AtomicBool::new(false),
                encrypted: AtomicBool::new(false),
                one_format: one_format.clone(),
            })
        };
        let session = lock(&sessions).entry(number.into()).or_insert_with(new_session).clone();
        if reports {
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| session.on_reports(info));
        } else {
            let which = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
            pad.add_probe(which, move |pad, info| session.on_packet(pad, info));
        }
    });
}

impl Session {
    fn on_packet(&self, pad: &gst::Pad, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        let passes_as_it_is =
            self.releasing.load(Ordering::Relaxed) || self.encrypted.load(Ordering::Relaxed);
        match info.data.take() {
            Some(gst::PadProbeData::Buffer(packet)) if !passes_as_it_is => {
                let last = self.pass(pad, packet);
                let passes = last.is_some();
                info.data = last.map(gst::PadProbeData::Buffer);
                if passes { gst::PadProbeReturn::Ok } else { DROP_BUFFER }
            }
            Some(gst::PadProbeData::Event(event)) => {
                info.data = Some(gst::PadProbeData::Event(self.announce(event)));
                gst::PadProbeReturn::Ok
            }
            other => {
                info.data = other;
                gst::PadProbeReturn::Ok
            }
        }
    }

    /// Puts a packet through the stream. Pushes what goes on, but for the last of it, which is returned.
    fn pass(&self, pad: &gst::Pad, packet: gst::Buffer) -> Option<gst::Buffer> {
        let header = RtpHeader::read(&packet.map_readable().ok()?)?;
        let passed = lock(&self.stream).push(header, packet, self.started.elapsed());
        let mut changed = passed.into_iter().filter_map(|(header, mut packet)| {
            header.write(&mut packet.make_mut().map_writable().ok()?);
            Some(packet)
        });
        let mut last = changed.next()?;
        for packet in changed {
            // This probe sees the packet once more.
            self.releasing.store(true, Ordering::Relaxed);
            let _ = pad.chain(std::mem::replace(&mut last, packet));
            self.releasing.store(false, Ordering::Relaxed);
        }
        Some(last)
    }

    fn on_reports(&self, info: &mut gst::PadProbeInfo<'_>) -> gst::PadProbeReturn {
        let Some(gst::PadProbeData::Buffer(packet)) = &mut info.data else { return gst::PadProbeReturn::Ok };
        if self.encrypted.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        let changed =
            packet.make_mut().map_writable().map(|mut it| lock(&self.stream).change_reports(&mut it));
        if changed.unwrap_or(false) { gst::PadProbeReturn::Ok } else { DROP_BUFFER }
    }

    /// Announces the numbers that [`RtpStream`] gives packets, in place of those that the camera has announced. A
    /// jitter buffer waits for the first one, and drops what comes before it.
    fn announce(&self, event: gst::Event) -> gst::Event {
        let gst::EventView::Caps(caps) = event.view() else { return event };
        let seqnum = event.seqnum();
        let mut caps = caps.caps_owned();
        if let Some(structure) = caps.make_mut().structure_mut(0) {
            if structure.name() == "application/x-srtp" || structure.has_field("srtp-key") {
                self.encrypted.store(true, Ordering::Relaxed);
                return event;
            }
            let clock_rate =
                structure.get::<i32>("clock-rate").ok().and_then(|rate| u32::try_from(rate).ok());
            let clock_rate = clock_rate.filter(|rate| *rate > 0).unwrap_or(VIDEO_CLOCK_RATE);
            let payload_type = structure.get::<i32>("payload").ok().and_then(|it| u8::try_from(it).ok());
            let payload_type = payload_type.filter(|it| *it < 128 && self.one_format.load(Ordering::Relaxed));
            let codec = structure.get("encoding-name").unwrap_or_default();
            let ssrc = structure.get("ssrc").ok();
            lock(&self.stream).announce(Announced { clock_rate, payload_type, ssrc, codec });
            structure.set("seqnum-base", u32::from(FIRST_SEQUENCE));
            structure.remove_field("clock-base");
            structure.remove_field("ssrc");
        }
        gst::event::Caps::builder(&caps).seqnum(seqnum).build()
    }
}
