//! Puts the packets of a camera's video stream in order for GStreamer, which takes a stream to have one SSRC,
//! and its numbers to begin as the camera announced: cameras keep neither. Pure: headers in, headers out.
//!
//! What GStreamer reports to the camera speaks of the changed numbers. Retransmission (RFC 4588) is not asked for.

use std::time::Duration;

/// The length of an RTP header without extensions, in bytes (RFC 3550, section 5.1).
const HEADER: usize = 12;

/// The bit of the second byte that marks the last packet of a picture.
const MARKER: u8 = 0x80;
/// So many pictures must have ended with their only marker before markers are believed. Some cameras mark every slice.
const PROVEN: u32 = 2;

/// So many packets of other types must come before one of the announced type, until they are taken for that.
const OTHER_TYPES: u32 = 50;

/// What is announced as the first sequence number of every stream.
pub(super) const FIRST_SEQUENCE: u16 = 1;

/// Timestamps per second of a video stream that states none (RFC 3551, section 5).
pub(super) const VIDEO_CLOCK_RATE: u32 = 90_000;

/// Packets of another SSRC are taken for the stream's own once its last SSRC has been silent for this long. (A
/// second sender on the same channel would interleave with it.)
const SILENCE: Duration = Duration::from_millis(500);
/// The least packets of another SSRC that must come...
const LEAST: usize = 2;
/// ...and the most that are kept until it is known whose they are.
const MOST: usize = 512;

/// Types of RTCP packets (RFC 3550, section 12.1).
const SENDER_REPORT: u8 = 200;
const GOODBYE: u8 = 203;

/// The longest time between two pictures that follow each other, seconds.
const LONGEST_PAUSE: u32 = 10;
/// A packet that is fewer than so many behind was overtaken.
const REORDERED: u16 = 100;

/// The fields of an RTP header that are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RtpHeader {
    /// The picture ends with this packet (RFC 6184, section 5.1).
    pub marker: bool,
    /// What the payload is, by a number that the camera has announced.
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl RtpHeader {
    /// Reads the header of a packet. `None`: this is no RTP packet.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = packet.first_chunk()?;
        (header[0] >> 6 == 2).then(|| Self {
            marker: header[1] & MARKER != 0,
            payload_type: header[1] & !MARKER,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: read_u32(header, 4),
            ssrc: read_u32(header, 8),
        })
    }

    /// Writes the fields into a packet that [`RtpHeader::read`] could read.
    pub fn write(self, packet: &mut [u8]) {
        packet[1] = self.payload_type | if self.marker { MARKER } else { 0 };
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
    }
}

/// What an RTP packet carries (RFC 3550, section 5.1). `None`: this is no RTP packet.
pub(super) fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    let rest = packet.get(HEADER + 4 * usize::from(header[0] & 15)..)?;
    let has_extension = header[0] & 0x10 != 0;
    let extension = match rest.first_chunk::<4>() {
        Some([.., high, low]) if has_extension => 4 + 4 * usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    (header[0] >> 6 == 2).then(|| rest.get(extension..))?
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What a camera announces of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced<'a> {
    /// Timestamps per second.
    pub clock_rate: u32,
    /// The type of all packets. `None`: there are several.
    pub payload_type: Option<u8>,
    pub ssrc: Option<u32>,
    /// By the name that SDP has for it, such as `H264`.
    pub codec: &'a str,
}

/// The SSRC that the stream has now, and how its numbers are changed.
#[derive(Debug)]
struct Sender {
    ssrc: u32,
    /// Is added to sequence numbers.
    sequence_offset: u16,
    /// Is added to timestamps.
    timestamp_offset: u32,
    /// The header of its latest packet, as it came.
    last: RtpHeader,
    /// When that came.
    last_at: Duration,
    /// Pictures that ended with their only marker, unless markers are believed in any case.
    proven: Option<u32>,
    /// A packet with a marker was followed by one of the same picture.
    lied: bool,
}

/// One stream of a camera. `P` is a packet.
#[derive(Debug)]
pub(super) struct RtpStream<P> {
    /// Timestamps per second.
    clock_rate: u32,
    /// The SSRC that the camera has announced, if it has.
    announced: Option<u32>,
    /// The payload type that the camera has announced, if it is the only one.
    payload_type: Option<u8>,
    /// Packets of other types, as long as none of the announced type has come.
    other_types: Option<u32>,
    /// Pictures are told apart by their timestamps alone: markers need not be believed.
    timestamps_suffice: bool,
    /// The SSRC that packets leave with: the stream's first.
    ssrc: u32,
    sender: Option<Sender>,
    /// Packets of another SSRC, and when they came.
    undecided: Vec<(RtpHeader, P, Duration)>,
}

impl<P> RtpStream<P> {
    /// A stream of which no packet has come.
    pub fn new() -> Self {
        Self {
            clock_rate: VIDEO_CLOCK_RATE,
            announced: None,
            payload_type: None,
            other_types: Some(0),
            timestamps_suffice: false,
            ssrc: 0,
            sender: None,
            undecided: Vec::new(),
        }
    }

    /// Takes note of what the camera announces.
    pub fn announce(&mut self, announced: Announced<'_>) {
        (self.clock_rate, self.announced) = (announced.clock_rate, announced.ssrc);
        self.payload_type = announced.payload_type;
        self.timestamps_suffice = matches!(announced.codec, "H264" | "H265");
    }

    /// The payload type that a packet goes on with: the announced one, if none of that type comes.
    fn payload_type(&mut self, stated: u8) -> u8 {
        let Some(announced) = self.payload_type else { return stated };
        if stated == announced {
            self.other_types = None;
        }
        match &mut self.other_types {
            Some(others) if *others >= OTHER_TYPES => announced,
            Some(others) => {
                *others += 1;
                stated
            }
            None => stated,
        }
    }

    /// Takes a packet that has come at `now`. Returns the packets that go on, each with its new header.
    pub fn push(&mut self, header: RtpHeader, packet: P, now: Duration) -> Vec<(RtpHeader, P)> {
        let header = RtpHeader { payload_type: self.payload_type(header.payload_type), ..header };
        let Some(sender) = &mut self.sender else {
            self.hold(header, packet, now);
            let since = self.undecided.first().map_or(now, |(.., at)| *at);
            let expected = self.announced.is_none_or(|ssrc| ssrc == header.ssrc);
            return if expected { self.adopt() } else { self.adopt_after_silence(since, now) };
        };
        if sender.ssrc != header.ssrc && !sender.goes_on_with(header, self.clock_rate) {
            let since = sender.last_at;
            self.hold(header, packet, now);
            return self.adopt_after_silence(since, now);
        }
        // Some cameras change the SSRC with every group of pictures, and nothing else.
        sender.ssrc = header.ssrc;
        let mut passed = vec![(sender.pass(header, now, self.ssrc), packet)];
        // Of the new SSRC a packet may have overtaken the last of the old one, or the first of its own.
        for (header, packet, at) in std::mem::take(&mut self.undecided) {
            if header.ssrc == sender.ssrc || sender.goes_on_with(header, self.clock_rate) {
                sender.ssrc = header.ssrc;
                passed.push((sender.pass(header, at, self.ssrc), packet));
            }
        }
        passed
    }

    /// Keeps a packet until it is known whose it is.
    fn hold(&mut self, header: RtpHeader, packet: P, now: Duration) {
        self.undecided.retain(|(other, ..)| other.ssrc == header.ssrc);
        self.undecided.push((header, packet, now));
    }

    /// Adopts the sender of the undecided packets, if the stream's own has been silent since `since`.
    fn adopt_after_silence(&mut self, since: Duration, now: Duration) -> Vec<(RtpHeader, P)> {
        let silent = now.saturating_sub(since) >= SILENCE;
        if silent && self.undecided.len() >= LEAST || self.undecided.len() >= MOST {
            self.adopt()
        } else {
            Vec::new()
        }
    }

    /// Changes the SSRCs and times of a compound RTCP packet as those of the stream are changed. Returns
    /// false if the packet is of another stream.
    pub fn change_reports(&self, packet: &mut [u8]) -> bool {
        let Some(sender) = &self.sender else { return true };
        let mut at = 0;
        while packet.len() >= at + 4 {
            // The length counts words of 4 bytes, less one (RFC 3550, section 6.4.1).
            let length = 4 + 4 * usize::from(u16::from_be_bytes([packet[at + 2], packet[at + 3]]));
            let kind = packet[at + 1];
            let own = length >= 8 && packet.len() >= at + 8 && read_u32(packet, at + 4) == sender.ssrc;
            if own {
                packet[at + 4..at + 8].copy_from_slice(&self.ssrc.to_be_bytes());
            } else if kind == SENDER_REPORT || kind == GOODBYE {
                return false;
            }
            // A sender report states the RTP time behind an NTP time.
            if own && kind == SENDER_REPORT && packet.len() >= at + 20 {
                let timestamp = read_u32(packet, at + 16).wrapping_add(sender.timestamp_offset);
                packet[at + 16..at + 20].copy_from_slice(&timestamp.to_be_bytes());
            }
            at += length;
        }
        true
    }

    /// The undecided packets are the stream's: numbers go on where those of its last SSRC ended.
    fn adopt(&mut self) -> Vec<(RtpHeader, P)> {
        let undecided = std::mem::take(&mut self.undecided);
        let Some(&(first, _, at)) = undecided.first() else { return Vec::new() };
        let (sequence, timestamp) = match &self.sender {
            None => {
                self.ssrc = first.ssrc;
                (FIRST_SEQUENCE, first.timestamp)
            }
            Some(before) => {
                let pause = at.saturating_sub(before.last_at).as_secs_f64() * f64::from(self.clock_rate);
                let timestamp = before.last.timestamp.wrapping_add(before.timestamp_offset);
                let next = before.last.sequence.wrapping_add(before.sequence_offset).wrapping_add(1);
                (next, timestamp.wrapping_add(pause as u32))
            }
        };
        let mut sender = Sender {
            ssrc: first.ssrc,
            sequence_offset: sequence.wrapping_sub(first.sequence),
            timestamp_offset: timestamp.wrapping_sub(first.timestamp),
            last: first,
            last_at: at,
            proven: self.timestamps_suffice.then_some(0),
            lied: false,
        };
        let ssrc = self.ssrc;
        let passed = undecided.into_iter();
        let passed = passed.map(|(header, packet, at)| (sender.pass(header, at, ssrc), packet)).collect();
        self.sender = Some(sender);
        passed
    }
}

impl Sender {
    /// Whether a packet of another SSRC follows the latest packet in number and time.
    fn goes_on_with(&self, header: RtpHeader, clock_rate: u32) -> bool {
        let later = header.timestamp.wrapping_sub(self.last.timestamp);
        header.sequence == self.last.sequence.wrapping_add(1)
            && later <= clock_rate.saturating_mul(LONGEST_PAUSE)
    }

    /// Whether the markers of this sender end pictures, as far as is known with this packet.
    fn believes_markers(&mut self, header: RtpHeader) -> bool {
        let Some(proven) = &mut self.proven else { return true };
        if self.last.marker && header.sequence == self.last.sequence.wrapping_add(1) {
            match header.timestamp == self.last.timestamp {
                true => self.lied = true,
                false => *proven = proven.saturating_add(1),
            }
        }
        !self.lied && *proven >= PROVEN
    }

    /// The header with which a packet of this sender goes on.
    fn pass(&mut self, header: RtpHeader, now: Duration, ssrc: u32) -> RtpHeader {
        let marker = self.believes_markers(header) && header.marker;
        // A packet that was overtaken is not the latest.
        let behind = self.last.sequence.wrapping_sub(header.sequence);
        if !(1..REORDERED).contains(&behind) {
            self.last = header;
        }
        self.last_at = now;
        RtpHeader {
            marker,
            payload_type: header.payload_type,
            sequence: header.sequence.wrapping_add(self.sequence_offset),
            timestamp: header.timestamp.wrapping_add(self.timestamp_offset),
            ssrc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 0xC517_011F;
    const OTHER: u32 = 0x5BF7_3F70;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn header(ssrc: u32, sequence: u16, timestamp: u32) -> RtpHeader {
        RtpHeader { marker: false, payload_type: 96, sequence, timestamp, ssrc }
    }

    fn announced(ssrc: Option<u32>, codec: &str) -> Announced<'_> {
        Announced { clock_rate: 90_000, payload_type: Some(96), ssrc, codec }
    }

    /// A stream that has had ten packets, one every 40 ms: sequence numbers from 65530, timestamps from 0.
    fn begun() -> RtpStream<()> {
        let mut stream = RtpStream::new();
        for i in 0..10u16 {
            let passed = stream.push(
                header(OWN, 65530_u16.wrapping_add(i), 3600 * u32::from(i)),
                (),
                ms(40 * u64::from(i)),
            );
            assert_eq!(passed, [(header(OWN, FIRST_SEQUENCE + i, 3600 * u32::from(i)), ())]);
        }
        stream
    }

    #[test]
    fn a_new_ssrc_that_goes_on_counting_changes_nothing() {
        let mut stream = begun();
        assert_eq!(stream.push(header(OTHER, 4, 36_000), (), ms(400)), [(header(OWN, 11, 36_000), ())]);
        assert_eq!(stream.push(header(OTHER, 5, 39_600), (), ms(440)), [(header(OWN, 12, 39_600), ())]);
    }

    #[test]
    fn a_new_ssrc_with_new_numbers_goes_on_where_the_last_one_ended() {
        let mut stream = begun();
        let mut passed = Vec::new();
        for i in 0..20u16 {
            let packet = header(OTHER, 40_000 + i, 5_000_000 + 3600 * u32::from(i));
            passed.extend(stream.push(packet, (), ms(400 + 40 * u64::from(i))));
        }
        let expected: Vec<_> =
            (0..20u16).map(|i| (header(OWN, 11 + i, 36_000 + 3600 * u32::from(i)), ())).collect();
        assert_eq!(passed, expected, "none is lost");
    }

    #[test]
    fn packets_of_another_sender_on_the_same_channel_are_ignored() {
        let mut stream = begun();
        for i in 0..100u16 {
            let at = 400 + 40 * u64::from(i);
            for other in 0..3 {
                let foreign = header(OTHER, 40_000 + 3 * i + other, 777_777);
                assert_eq!(stream.push(foreign, (), ms(at)), []);
            }
            let own = header(OWN, 4 + i, 36_000);
            assert_eq!(stream.push(own, (), ms(at)), [(header(OWN, 11 + i, 36_000), ())]);
        }
    }

    #[test]
    fn a_foreign_packet_whose_number_happens_to_follow_is_ignored() {
        let mut stream = begun();
        assert_eq!(stream.push(header(OTHER, 4, 777_777_777), (), ms(380)), []);
        assert_eq!(stream.push(header(OWN, 4, 36_000), (), ms(400)), [(header(OWN, 11, 36_000), ())]);
    }

    #[test]
    fn packets_that_overtake_each_other_where_the_ssrc_changes_are_not_lost() {
        let mut stream = begun();
        assert_eq!(stream.push(header(OTHER, 5, 36_000), (), ms(400)), []);
        assert_eq!(
            stream.push(header(OTHER, 4, 36_000), (), ms(401)),
            [(header(OWN, 11, 36_000), ()), (header(OWN, 12, 36_000), ())]
        );
        let mut stream = begun();
        assert_eq!(stream.push(header(OTHER, 5, 39_600), (), ms(400)), []);
        assert_eq!(
            stream.push(header(OWN, 4, 36_000), (), ms(401)),
            [(header(OWN, 11, 36_000), ()), (header(OWN, 12, 39_600), ())]
        );
        // One that was overtaken is not the latest.
        assert_eq!(stream.push(header(OTHER, 3, 32_400), (), ms(402)), [(header(OWN, 10, 32_400), ())]);
        assert_eq!(stream.push(header(OTHER + 1, 6, 43_200), (), ms(403)), [(header(OWN, 13, 43_200), ())]);
    }

    #[test]
    fn the_announced_sender_is_told_from_one_that_was_first() {
        let mut stream = RtpStream::new();
        stream.announce(announced(Some(OWN), "H264"));
        assert_eq!(stream.push(header(OTHER, 40_000, 777_777), (), ms(0)), []);
        assert_eq!(stream.push(header(OWN, 9, 5), (), ms(1)), [(header(OWN, FIRST_SEQUENCE, 5), ())]);
        assert_eq!(stream.push(header(OTHER, 40_001, 777_777), (), ms(40)), []);
    }

    #[test]
    fn a_sender_that_was_announced_wrongly_loses_nothing() {
        let mut stream = RtpStream::new();
        stream.announce(announced(Some(OTHER), "H264"));
        let passed: usize =
            (0..50u16).map(|i| stream.push(header(OWN, i, 0), (), ms(40 * u64::from(i))).len()).sum();
        assert_eq!(passed, 50);
    }

    /// A sender report and a source description, as cameras send them.
    fn report(ssrc: u32, timestamp: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0; 8]);
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0; 8]);
        // An empty source description stands before the real one.
        packet.extend([0x80, 202, 0, 0, 0x81, 202, 0, 2]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    #[test]
    fn reports_are_changed_as_their_stream_is() {
        let mut stream = begun();
        let mut packet = report(OTHER, 5_000_000);
        assert!(!stream.change_reports(&mut packet), "of another sender");
        for i in 0..20u16 {
            let packet = header(OTHER, 40_000 + i, 5_000_000 + 3600 * u32::from(i));
            stream.push(packet, (), ms(400 + 40 * u64::from(i)));
        }
        let mut packet = report(OTHER, 5_000_000);
        assert!(stream.change_reports(&mut packet));
        assert_eq!(packet, report(OWN, 36_000));
    }

    #[test]
    fn the_payload_stands_behind_all_headers() {
        let plain = [&[0x80; HEADER][..], &[1, 2]].concat();
        assert_eq!(payload(&plain), Some(&[1, 2][..]));
        // A contributing source, and an extension of one word.
        let whole = [&[0x91; HEADER][..], &[7; 4], &[0, 0, 0, 1], &[7; 4], &[1, 2]].concat();
        assert_eq!(payload(&whole), Some(&[1, 2][..]));
        assert_eq!(payload(&whole[..22]), None);
    }

    /// The markers that go on of pictures with two packets each. `marked`: which of the two have one.
    fn markers(codec: &str, marked: [bool; 2]) -> Vec<bool> {
        let mut stream = RtpStream::new();
        stream.announce(announced(None, codec));
        let packets = (0..10u16).map(|i| RtpHeader {
            marker: marked[usize::from(i % 2)],
            ..header(OWN, i, 3600 * u32::from(i / 2))
        });
        packets.flat_map(|it| stream.push(it, (), ms(0))).map(|(it, ())| it.marker).collect()
    }

    #[test]
    fn markers_that_do_not_end_pictures_are_left_out() {
        assert_eq!(markers("H264", [true, true]), [false; 10]);
        let proven: Vec<bool> = (0..10).map(|i| i % 2 == 1 && i >= 2 * PROVEN).collect();
        assert_eq!(markers("H265", [false, true]), proven);
        assert_eq!(markers("JPEG", [true, true]), [true; 10]);
    }

    #[test]
    fn packets_of_a_type_that_was_not_announced_are_taken_for_it_if_no_others_come() {
        let types = |packets: &mut dyn Iterator<Item = u8>| {
            let mut stream = RtpStream::new();
            stream.announce(announced(None, "H264"));
            let packets =
                (0..).zip(packets).map(|(i, payload_type)| RtpHeader { payload_type, ..header(OWN, i, 0) });
            packets
                .flat_map(|it| stream.push(it, (), ms(0)))
                .map(|(it, ())| it.payload_type)
                .collect::<Vec<u8>>()
        };
        let taken = types(&mut [98; 60].into_iter());
        assert_eq!((taken[49], taken[50], taken[59]), (98, 96, 96));
        let mixed = types(&mut [96].into_iter().chain([98; 100]));
        assert_eq!(mixed[1..], [98; 100]);
    }

    #[test]
    fn what_is_no_rtp_is_not_read() {
        assert_eq!(RtpHeader::read(&[0x80; 11]), None);
        assert_eq!(RtpHeader::read(&[0x40; 12]), None);
        let mut packet = [0x80; 12];
        for marker in [true, false] {
            let changed = RtpHeader { marker, ..header(OWN, 7, 8) };
            changed.write(&mut packet);
            assert_eq!(RtpHeader::read(&packet), Some(changed));
        }
    }
}
