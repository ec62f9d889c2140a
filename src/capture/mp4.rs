//! The outermost boxes of an MP4 or QuickTime file: whether its index is there, and whether it is fragmented.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// The most boxes that are looked at. Recordings of many hours have fewer fragments.
const MAX_BOXES: usize = 200_000;

/// Whether this is an MP4 or QuickTime file that ends before the box with its index.
pub(super) fn lacks_index(file: &File) -> io::Result<bool> {
    let mut boxes = Boxes::of(file)?;
    match boxes.next().transpose()? {
        Some(kind) if &kind == b"ftyp" => Ok(!any(boxes, &[b"moov", b"moof"])?),
        _ => Ok(false),
    }
}

/// Whether this is a fragmented MP4 file. One that is still being written is: it states no length, or that of its
/// first fragment.
pub(super) fn is_fragmented(file: &File) -> io::Result<bool> {
    any(Boxes::of(file)?, &[b"moof"])
}

/// Whether one of the boxes is of one of these kinds, or may be: too many boxes are not looked at.
fn any(boxes: Boxes<'_>, kinds: &[&[u8; 4]]) -> io::Result<bool> {
    for (i, kind) in boxes.enumerate() {
        if i == MAX_BOXES || kinds.contains(&&kind?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kinds of the outermost boxes of a file, in order (ISO 14496-12, section 4.2: boxes of length, type and
/// content).
struct Boxes<'a> {
    file: &'a File,
    length: u64,
    at: u64,
}

impl<'a> Boxes<'a> {
    fn of(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, at: 0 })
    }

    /// Reads the head of the box at this place, and goes to the next one.
    fn read(&mut self) -> io::Result<[u8; 4]> {
        let mut head = [0; 16];
        self.file.seek(SeekFrom::Start(self.at))?;
        let available = if self.at + 16 <= self.length { 16 } else { 8 };
        self.file.read_exact(&mut head[..available])?;
        let [a, b, c, d, kind @ .., _, _, _, _, _, _, _, _] = head;
        let size = match u32::from_be_bytes([a, b, c, d]) {
            0 => self.length - self.at,
            1 => head[8..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte)),
            short => u64::from(short),
        };
        self.at = self.at.saturating_add(size.max(8));
        Ok(kind)
    }
}

impl Iterator for Boxes<'_> {
    type Item = io::Result<[u8; 4]>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at.saturating_add(8) <= self.length).then(|| self.read())
    }
}
