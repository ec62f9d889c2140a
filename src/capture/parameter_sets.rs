//! Whether a camera sends the parameter sets without which its pictures cannot be decoded. NAL units and the
//! payloads of RTP packets go in. Pure.

/// A codec whose pictures need parameter sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    H265,
}

impl Codec {
    /// The codec that RTP calls so. `None`: its pictures need no parameter sets.
    pub fn named(encoding: &str) -> Option<Self> {
        match encoding {
            "H264" => Some(Self::H264),
            "H265" => Some(Self::H265),
            _ => None,
        }
    }

    /// The types of its parameter sets (ITU-T H.264, table 7-1; ITU-T H.265, table 7-1), and their names.
    fn parameter_sets(self) -> &'static [(u8, &'static str)] {
        match self {
            Self::H264 => &[(7, "SPS"), (8, "PPS")],
            Self::H265 => &[(32, "VPS"), (33, "SPS"), (34, "PPS")],
        }
    }

    /// The types of slices of pictures, as bits (same tables).
    fn slices(self) -> u64 {
        match self {
            Self::H264 => 0b11_1110,
            Self::H265 => 0xFFFF_FFFF,
        }
    }

    /// The type of a NAL unit, by its first byte.
    fn unit_type(self, first: u8) -> u8 {
        match self {
            Self::H264 => first & 31,
            Self::H265 => first >> 1 & 63,
        }
    }
}

/// Which NAL units have come.
#[derive(Debug)]
pub(super) struct ParameterSets {
    codec: Codec,
    /// A bit for each type.
    found: u64,
}

impl ParameterSets {
    /// Nothing has come.
    pub fn new(codec: Codec) -> Self {
        Self { codec, found: 0 }
    }

    /// Takes note of a NAL unit.
    pub fn on_unit(&mut self, unit: &[u8]) {
        if let Some(first) = unit.first() {
            self.found |= 1 << self.codec.unit_type(*first);
        }
    }

    /// Takes note of the NAL units in the payload of an RTP packet (RFC 6184, section 5.2; RFC 7798, section 4.4).
    pub fn on_payload(&mut self, payload: &[u8]) {
        let Some(first) = payload.first() else { return };
        match (self.codec, self.codec.unit_type(*first)) {
            (Codec::H264, 24) => self.on_units(&payload[1..]),
            (Codec::H265, 48) => self.on_units(payload.get(2..).unwrap_or_default()),
            // The type of what was fragmented stands in a header of its own.
            (Codec::H264, 28) => self.found |= payload.get(1).map_or(0, |header| 1 << (header & 31)),
            (Codec::H265, 49) => self.found |= payload.get(2).map_or(0, |header| 1 << (header & 63)),
            _ => self.on_unit(payload),
        }
    }

    /// Whether there is nothing more to find.
    pub fn is_complete(&self) -> bool {
        self.absent().next().is_none()
    }

    /// The parameter sets that have not come, though a picture has: their names.
    pub fn missing(&self) -> Option<String> {
        let pictures = self.found & self.codec.slices() != 0;
        let names: Vec<&str> = self.absent().collect();
        (pictures && !names.is_empty()).then(|| names.join(", "))
    }

    fn absent(&self) -> impl Iterator<Item = &'static str> {
        let absent = |kind: u8| self.found & 1 << kind == 0;
        self.codec.parameter_sets().iter().filter(move |(kind, _)| absent(*kind)).map(|(_, name)| *name)
    }

    /// Takes note of aggregated units, each after its length.
    fn on_units(&mut self, mut units: &[u8]) {
        while let [high, low, rest @ ..] = units {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (unit, others) = rest.split_at(length);
            self.on_unit(unit);
            units = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(codec: Codec, payloads: &[&[u8]]) -> Option<String> {
        let mut sets = ParameterSets::new(codec);
        payloads.iter().for_each(|payload| sets.on_payload(payload));
        sets.missing()
    }

    #[test]
    fn pictures_without_parameter_sets_are_told_from_a_stream_without_pictures() {
        assert_eq!(missing(Codec::H264, &[]), None);
        assert_eq!(missing(Codec::H264, &[&[0x06, 1], &[0x09, 16]]), None, "no picture");
        assert_eq!(missing(Codec::H264, &[&[0x65, 1]]).as_deref(), Some("SPS, PPS"));
        assert_eq!(missing(Codec::H264, &[&[0x41, 1], &[0x67, 1]]).as_deref(), Some("PPS"));
        assert_eq!(missing(Codec::H265, &[&[0x26, 1, 1]]).as_deref(), Some("VPS, SPS, PPS"));
    }

    #[test]
    fn parameter_sets_are_found_alone_aggregated_and_fragmented() {
        let picture: &[u8] = &[0x7C, 0x85, 1];
        assert_eq!(missing(Codec::H264, &[picture]).as_deref(), Some("SPS, PPS"), "a fragment");
        assert_eq!(missing(Codec::H264, &[&[0x67, 1], &[0x68, 1], picture]), None);
        assert_eq!(missing(Codec::H264, &[&[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 1], picture]), None);
        assert_eq!(missing(Codec::H264, &[&[0x7C, 0x87, 1], &[0x68, 1], picture]), None);
        let picture: &[u8] = &[0x62, 1, 0x93, 1];
        assert_eq!(missing(Codec::H265, &[picture]).as_deref(), Some("VPS, SPS, PPS"), "a fragment");
        let sets: &[u8] = &[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1, 0, 2, 0x44, 1];
        assert_eq!(missing(Codec::H265, &[sets, picture]), None);
    }

    #[test]
    fn payloads_that_are_cut_off_are_no_reason_to_panic() {
        for codec in [Codec::H264, Codec::H265] {
            for first in 0..=255 {
                for payload in [&[first][..], &[first, 1], &[first, 1, 0xFF], &[first, 1, 0xFF, 0xFF, 7]] {
                    missing(codec, &[payload]);
                }
            }
        }
    }
}
