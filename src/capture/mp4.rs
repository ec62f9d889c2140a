//! What the boxes of an MP4 or QuickTime file say: whether its index is there, whether it is fragmented, and where its
//! tracks begin.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    time::Duration,
};

use super::file_patch::FilePatch;

/// The most boxes that are looked at. Recordings of many hours have fewer fragments.
const MAX_BOXES: usize = 200_000;

/// The most entries of an edit list that are looked at.
const MAX_EDITS: u32 = 64;

/// Tracks of all films begin so late, because of frames that are decoded in another order than they are shown in.
const USUAL_DELAY: Duration = Duration::from_millis(500);

/// The longest film, as GStreamer counts. A length of all ones means that it is not known.
const LONGEST: Duration = Duration::from_nanos(u64::MAX);

/// Whether this is an MP4 or QuickTime file that ends before the box with its index.
pub(super) fn lacks_index(file: &File) -> io::Result<bool> {
    let mut boxes = Boxes::of(file)?;
    match boxes.next().transpose()? {
        Some(first) if [b"ftyp", b"styp", b"sidx", b"moof"].contains(&&first.kind) => {
            Ok(!any(boxes, &[b"moov"])?)
        }
        _ => Ok(false),
    }
}

/// Whether this is a fragmented MP4 file. One that is still being written is: it states no length, or that of its
/// first fragment.
pub(super) fn is_fragmented(file: &File) -> io::Result<bool> {
    any(Boxes::of(file)?, &[b"moof"])
}

/// Where a fragmented file stops being one of boxes, in bytes: something was written over it, or was never written.
/// Nothing is read from there on. `None`: it does not, or only with space that was kept free at its end. (What stands
/// behind the index of other files does not matter.)
pub(super) fn broken_at(file: &File) -> io::Result<Option<u64>> {
    /// How much of the end is looked at.
    const END: usize = 4096;
    if !is_fragmented(file)? {
        return Ok(None);
    }
    let length = file.metadata()?.len();
    for part in Boxes::of(file)?.take(MAX_BOXES) {
        let part = part?;
        if part.kind.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            continue;
        }
        let end: [u8; END] = read_at(file, length.saturating_sub(END as u64)).unwrap_or([0; END]);
        return Ok(end.iter().any(|byte| *byte != 0).then_some(part.start));
    }
    Ok(None)
}

/// A film of which the beginning was cut off without encoding it anew: its tracks have the beginning, and say where in
/// them it begins (ISO 14496-12, section 8.6.6).
#[derive(Debug, PartialEq)]
pub(super) struct Trimmed {
    /// How long the film plays.
    pub length: Duration,
    /// States a length that reaches to the end of the tracks. GStreamer 1.22 ends a track with the first keyframe whose
    /// time *in the track* is beyond the length of the film, and so loses the last seconds.
    pub patch: FilePatch,
}

/// What has to be known of a film whose beginning was cut off. `None`: nothing was cut off, or it states no length.
pub(super) fn trimmed(file: &File) -> io::Result<Option<Trimmed>> {
    if is_fragmented(file)? {
        return Ok(None);
    }
    let Some(movie) = find(Boxes::of(file)?, b"moov")? else { return Ok(None) };
    let (mut header, mut begins) = (None, Duration::ZERO);
    for part in Boxes::within(file, movie.content).take(MAX_BOXES) {
        let part = part?;
        match &part.kind {
            b"mvhd" => header = Some(Header::read(file, &part.content)?),
            b"trak" => begins = begins.max(beginning(file, part.content)?.unwrap_or_default()),
            _ => {}
        }
    }
    let Some(Header { timescale, duration, at, length }) = header.filter(|_| begins > USUAL_DELAY) else {
        return Ok(None);
    };
    let seconds = duration as f64 / f64::from(timescale);
    let stated = Duration::try_from_secs_f64(seconds).ok().filter(|it| !it.is_zero() && *it <= LONGEST);
    let Some(stated) = stated else { return Ok(None) };
    let raised = duration.saturating_add((begins.as_secs_f64() * f64::from(timescale)).ceil() as u64);
    let raised = if length == 4 { raised.min(u32::MAX.into()) } else { raised };
    let bytes = raised.to_be_bytes()[8 - length..].to_vec();
    Ok(Some(Trimmed { length: stated, patch: FilePatch { at, bytes } }))
}

/// How far into a track the film begins. `None`: it does not say.
fn beginning(file: &File, track: Range<u64>) -> io::Result<Option<Duration>> {
    let inside = |range: &Range<u64>, kind| find(Boxes::within(file, range.clone()), kind);
    let Some(edits) = inside(&track, b"edts")? else { return Ok(None) };
    let (Some(list), Some(media)) = (inside(&edits.content, b"elst")?, inside(&track, b"mdia")?) else {
        return Ok(None);
    };
    let Some(header) = inside(&media.content, b"mdhd")? else { return Ok(None) };
    let timescale = Header::read(file, &header.content)?.timescale;
    let at = list.content.start;
    let [version, _, _, _, count @ ..] = read_at::<8>(file, at)?;
    let wide = u64::from(version == 1);
    let mut latest = 0;
    for i in 0..u32::from_be_bytes(count).min(MAX_EDITS) {
        // Length, beginning, rate. A beginning of -1 is an empty edit.
        let (edit, number) = (at + 8 + u64::from(i) * (12 + 8 * wide), 4 + 4 * wide);
        let begins = match wide {
            0 => i32::from_be_bytes(read_at(file, edit + number)?).into(),
            _ => i64::from_be_bytes(read_at(file, edit + number)?),
        };
        latest = latest.max(begins);
    }
    let begins = Duration::try_from_secs_f64(latest as f64 / f64::from(timescale));
    Ok(begins.ok())
}

/// The part of a movie's or a medium's header that says how long it plays (ISO 14496-12, sections 8.2.2 and 8.4.2).
struct Header {
    /// Units per second.
    timescale: u32,
    duration: u64,
    /// Where the duration stands, and how many bytes it has.
    at: u64,
    length: usize,
}

impl Header {
    fn read(file: &File, content: &Range<u64>) -> io::Result<Self> {
        let [version, ..] = read_at::<4>(file, content.start)?;
        let (timescale_at, length) =
            if version == 1 { (content.start + 20, 8) } else { (content.start + 12, 4) };
        let timescale = u32::from_be_bytes(read_at(file, timescale_at)?).max(1);
        let at = timescale_at + 4;
        let duration = match length {
            4 => u32::from_be_bytes(read_at(file, at)?).into(),
            _ => u64::from_be_bytes(read_at(file, at)?),
        };
        Ok(Self { timescale, duration, at, length })
    }
}

fn read_at<const N: usize>(mut file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The first box of this kind.
fn find(boxes: Boxes<'_>, kind: &[u8; 4]) -> io::Result<Option<FileBox>> {
    boxes.take(MAX_BOXES).find(|it| it.as_ref().map_or(true, |it| &it.kind == kind)).transpose()
}

/// Whether one of the boxes is of one of these kinds, or may be: too many boxes are not looked at.
fn any(boxes: Boxes<'_>, kinds: &[&[u8; 4]]) -> io::Result<bool> {
    for (i, it) in boxes.enumerate() {
        if i == MAX_BOXES || kinds.contains(&&it?.kind) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A box: where it begins in the file, its kind, and where its content lies.
struct FileBox {
    start: u64,
    kind: [u8; 4],
    content: Range<u64>,
}

/// The boxes of a part of a file, in order (ISO 14496-12, section 4.2: boxes of length, type and content).
struct Boxes<'a> {
    file: &'a File,
    end: u64,
    at: u64,
}

impl<'a> Boxes<'a> {
    /// The outermost boxes.
    fn of(file: &'a File) -> io::Result<Self> {
        Ok(Self::within(file, 0..file.metadata()?.len()))
    }

    fn within(file: &'a File, part: Range<u64>) -> Self {
        Self { file, end: part.end, at: part.start }
    }

    /// Reads the head of the box at this place, and goes to the next one.
    fn read(&mut self) -> io::Result<FileBox> {
        let start = self.at;
        let [a, b, c, d, kind @ ..] = read_at::<8>(self.file, start)?;
        let (head, size) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, self.end - start),
            1 => (16, u64::from_be_bytes(read_at(self.file, start + 8)?)),
            short => (8, short.into()),
        };
        self.at = start.saturating_add(size.max(8));
        Ok(FileBox {
            start,
            kind,
            content: start + head..self.at.clamp(start + head, self.end.max(start + head)),
        })
    }
}

impl Iterator for Boxes<'_> {
    type Item = io::Result<FileBox>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.at.saturating_add(8) <= self.end).then(|| self.read())
    }
}
