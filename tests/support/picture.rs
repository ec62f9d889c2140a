//! The test picture of the reference's generators: a formula in wrapping 32-bit integers, which gives the same bytes in
//! every language.

/// The bytes of picture `t`, RGB.
pub fn frame(t: u32, width: u32, height: u32) -> Vec<u8> {
    let mut rgb = Vec::with_capacity((width * height * 3) as usize);
    for (y, x, c) in
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3_u32).map(move |c| (y, x, c))))
    {
        let base = x
            .wrapping_mul(c + 3)
            .wrapping_add(y.wrapping_mul(5 - c))
            .wrapping_add(t.wrapping_mul(37))
            .wrapping_add(x.wrapping_mul(y) >> (c + 4));
        let noise = x.wrapping_mul(73_856_093)
            ^ y.wrapping_mul(19_349_663)
            ^ t.wrapping_mul(83_492_791)
            ^ c.wrapping_mul(2_654_435_761);
        let value = base.wrapping_add((noise >> 13) & 31) as u8;
        rgb.push(if ((x >> 5) + (y >> 5) + t) & 1 == 1 { 255 - value } else { value });
    }
    rgb
}
