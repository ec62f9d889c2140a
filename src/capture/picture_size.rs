//! How large the pictures of a video are, by its sequence parameter set (SPS), a NAL unit. Pure.
//!
//! What is cropped away counts as well: sizes are compared, not shown.

/// The largest side that is believed.
const LARGEST_SIDE: u64 = 65_536;
/// The profiles of H.264 whose SPS states a chroma format (ITU-T H.264, section 7.3.2.1.1).
const WITH_CHROMA: [u64; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// The chroma format with three planes of full size.
const FULL_CHROMA: u64 = 3;

/// The pixels of a picture, by an SPS of H.264 (ITU-T H.264, section 7.3.2.1.1). `None`: it is none.
pub(super) fn of_h264(unit: &[u8]) -> Option<u64> {
    let mut bits = Bits::of_unit(unit);
    if bits.read(8)? & 31 != 7 {
        return None;
    }
    let profile = bits.read(8)?;
    // Constraints and level.
    bits.skip(16)?;
    bits.golomb()?;
    if WITH_CHROMA.contains(&profile) {
        skip_chroma_of_h264(&mut bits)?;
    }
    // log2_max_frame_num_minus4
    bits.golomb()?;
    skip_picture_order(&mut bits)?;
    // max_num_ref_frames, gaps_in_frame_num_value_allowed_flag
    bits.golomb()?;
    bits.skip(1)?;
    let (columns, rows) = (bits.golomb()? + 1, bits.golomb()? + 1);
    let fields = 2 - bits.read(1)?;
    pixels(columns * 16, rows * 16 * fields)
}

/// The pixels of a picture, by an SPS of H.265 (ITU-T H.265, section 7.3.2.2.1). `None`: it is none.
pub(super) fn of_h265(unit: &[u8]) -> Option<u64> {
    let mut bits = Bits::of_unit(unit);
    if bits.read(16)? >> 9 & 63 != 33 {
        return None;
    }
    // sps_video_parameter_set_id
    bits.skip(4)?;
    let sub_layers = bits.read(3)?;
    // sps_temporal_id_nesting_flag
    bits.skip(1)?;
    skip_profiles(&mut bits, sub_layers)?;
    // sps_seq_parameter_set_id
    bits.golomb()?;
    if bits.golomb()? == FULL_CHROMA {
        bits.skip(1)?;
    }
    let (width, height) = (bits.golomb()?, bits.golomb()?);
    pixels(width, height)
}

fn pixels(width: u64, height: u64) -> Option<u64> {
    (width.max(height) <= LARGEST_SIDE).then_some(width * height)
}

/// From `chroma_format_idc` to the scaling matrix.
fn skip_chroma_of_h264(bits: &mut Bits) -> Option<()> {
    let chroma = bits.golomb()?;
    if chroma == FULL_CHROMA {
        bits.skip(1)?;
    }
    // bit_depth_luma_minus8, bit_depth_chroma_minus8, qpprime_y_zero_transform_bypass_flag
    bits.golomb()?;
    bits.golomb()?;
    bits.skip(1)?;
    if bits.read(1)? == 1 {
        let lists = if chroma == FULL_CHROMA { 12 } else { 8 };
        for list in 0..lists {
            if bits.read(1)? == 1 {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some(())
}

/// A scaling list (ITU-T H.264, section 7.3.2.1.1.1).
fn skip_scaling_list(bits: &mut Bits, size: usize) -> Option<()> {
    let mut last = 8;
    for _ in 0..size {
        let next = (last + bits.signed_golomb()?).rem_euclid(256);
        if next == 0 {
            break;
        }
        last = next;
    }
    Some(())
}

/// What states the order of pictures in H.264.
fn skip_picture_order(bits: &mut Bits) -> Option<()> {
    match bits.golomb()? {
        0 => {
            bits.golomb()?;
        }
        1 => {
            bits.skip(1)?;
            bits.golomb()?;
            bits.golomb()?;
            for _ in 0..bits.golomb()? {
                bits.golomb()?;
            }
        }
        _ => {}
    }
    Some(())
}

/// Profile, tier and level of H.265 (ITU-T H.265, section 7.3.3).
fn skip_profiles(bits: &mut Bits, sub_layers: u64) -> Option<()> {
    const PROFILE: usize = 88;
    const LEVEL: usize = 8;
    bits.skip(PROFILE + LEVEL)?;
    let mut present = 0;
    for _ in 0..sub_layers {
        present += if bits.read(1)? == 1 { PROFILE } else { 0 };
        present += if bits.read(1)? == 1 { LEVEL } else { 0 };
    }
    // Flags are stated for eight sub-layers if there is more than one.
    let unused = if sub_layers > 0 { 8 - sub_layers } else { 0 };
    (0..unused).try_for_each(|_| bits.skip(2))?;
    bits.skip(present)
}

/// The bits of a NAL unit.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    /// The bits without the bytes that prevent start codes (ITU-T H.264, section 7.4.1).
    fn of_unit(unit: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(unit.len());
        let mut zeros = 0;
        for byte in unit {
            if zeros >= 2 && *byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            bytes.push(*byte);
        }
        Self { bytes, at: 0 }
    }

    fn read(&mut self, count: usize) -> Option<u64> {
        (0..count).try_fold(0, |value, _| {
            let byte = *self.bytes.get(self.at / 8)?;
            let bit = byte >> (7 - self.at % 8) & 1;
            self.at += 1;
            Some(value << 1 | u64::from(bit))
        })
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// An unsigned Exp-Golomb number (ITU-T H.264, section 9.1).
    fn golomb(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
        }
        (zeros <= 32).then(|| self.read(zeros).map(|rest| (1 << zeros) - 1 + rest))?
    }

    fn signed_golomb(&mut self) -> Option<i64> {
        let number = self.golomb()?.cast_signed();
        Some(if number % 2 == 1 { number / 2 + 1 } else { -(number / 2) })
    }
}
