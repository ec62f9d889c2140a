//! Whether a Matroska file states how long it plays. GStreamer takes the start of the last cluster for its end if the
//! file does not, as while it is still being written.

use std::{
    fs::File,
    io::{self, Read},
};

/// The segment information stands at the start of a file.
const HEAD: u64 = 64 * 1024;

/// Ids of the elements Info (RFC 9559, section 5.1.2) and Duration in it.
const INFO: [u8; 4] = [0x15, 0x49, 0xa9, 0x66];
const DURATION: [u8; 2] = [0x44, 0x89];

/// Whether the file states a duration.
pub(super) fn states_duration(file: File) -> io::Result<bool> {
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    Ok(infos(&head).any(|info| has_duration(info).unwrap_or_default()))
}

/// What can be the content of the segment information: the id also stands in the index before it.
fn infos(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ids = head.windows(INFO.len()).enumerate().filter(|(_, it)| *it == INFO);
    ids.filter_map(|(at, _)| element(&head[at + INFO.len()..]).map(|(content, _)| content))
}

/// Whether a duration other than 0 is among these elements. `None`: they end with none.
fn has_duration(mut elements: &[u8]) -> Option<bool> {
    loop {
        let id_length = elements.first()?.leading_zeros() as usize + 1;
        let (content, rest) = element(elements.get(id_length..)?)?;
        if elements.starts_with(&DURATION) {
            return Some(content.iter().any(|byte| *byte != 0));
        }
        elements = rest;
    }
}

/// Splits what follows an id into the content of its element and the rest (RFC 8794, section 4).
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let coded = bytes.get(..length)?.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
    let size = coded & 1u64.checked_shl(7 * length as u32)?.wrapping_sub(1);
    bytes.get(length..)?.split_at_checked(usize::try_from(size).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_zero_is_none() {
        let file = |duration: &[u8]| [&INFO[..], &[0x8b, 0x2a, 0xd7, 0xb1, 0x81, 1], duration].concat();
        let states = |file: &[u8]| infos(file).any(|info| has_duration(info).unwrap_or_default());
        let stated = file(&[0x44, 0x89, 0x83, 0, 0, 1]);
        assert!(states(&stated));
        // An index that names the segment information, as FFmpeg writes it.
        assert!(states(&[&[0x53, 0xab, 0x84], &INFO[..], &[0x53, 0xac, 0x81, 0xa1], &stated].concat()));
        assert!(!states(&file(&[0x44, 0x89, 0x83, 0, 0, 0])));
        assert!(!states(&file(&[0x4d, 0x80, 0x83, b'x', b'y', b'z'])));
    }
}
