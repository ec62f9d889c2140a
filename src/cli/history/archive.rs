//! Events with their frames as a ZIP file, and the SHA-256 of each file in it, as `sha256sum -c` reads them.

use std::{
    io::{self, Seek, Write},
    mem::ManuallyDrop,
};

use anyhow::Context;
use chrono::{DateTime, Datelike, Local, Timelike, Utc};
use sha2::{Digest, Sha256};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::text::json_line;
use crate::history::{Reader, Selection};

/// The file of the sums.
const SUMS: &str = "SHA256SUMS";

/// What was exported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exported {
    /// Events.
    pub events: usize,
    /// Frames.
    pub frames: usize,
}

/// Writes `events.jsonl`, `frames/<id>/<number>.jpg` or `.png`, and the sums. All is as it was at the beginning,
/// whatever is recorded or forgotten meanwhile.
///
/// # Errors
/// When the history cannot be read, or the archive not be written.
pub fn write<W: Write + Seek>(
    reader: &Reader,
    selection: &Selection,
    zip: ZipWriter<W>,
) -> anyhow::Result<Exported> {
    reader.at_once(|reader| write_all(reader, selection, zip))
}

fn write_all<W: Write + Seek>(
    reader: &Reader,
    selection: &Selection,
    zip: ZipWriter<W>,
) -> anyhow::Result<Exported> {
    let cannot = "the export cannot be written";
    let mut archive = Archive { zip: ManuallyDrop::new(zip), sums: String::new() };
    let mut exported = Exported::default();
    // It is the only one that may have more than 4 GiB.
    let options = options(Utc::now()).large_file(true);
    archive.zip.start_file("events.jsonl", options).map_err(io::Error::from).context(cannot)?;
    let mut events = Summed { out: &mut *archive.zip, hash: Sha256::new() };
    reader.for_each(selection, |event, _| {
        exported.events += 1;
        events.write_all(json_line(event, false)?.as_bytes()).context(cannot)
    })?;
    let hash = events.hash;
    archive.sum("events.jsonl", hash);
    reader.for_each(selection, |event, frames| {
        for number in 0..frames {
            let frame = reader.frame(event.id, number)?.context("a frame is missing")?;
            let name = format!("frames/{}/{number}.{}", event.id, frame.extension());
            archive.add(&name, event.clip.end, &frame.bytes).context(cannot)?;
            exported.frames += 1;
        }
        anyhow::Ok(())
    })?;
    archive.finish().context(cannot)?;
    Ok(exported)
}

struct Archive<W: Write + Seek> {
    /// One that is dropped before its end writes what is missing, and says on standard error if that fails, too: there
    /// is nothing to end where nothing can be written.
    zip: ManuallyDrop<ZipWriter<W>>,
    /// A line a file.
    sums: String,
}

impl<W: Write + Seek> Archive<W> {
    fn add(&mut self, name: &str, time: DateTime<Utc>, bytes: &[u8]) -> io::Result<()> {
        self.zip.start_file(name, options(time))?;
        self.zip.write_all(bytes)?;
        self.sum(name, Sha256::new_with_prefix(bytes));
        Ok(())
    }

    fn sum(&mut self, name: &str, hash: Sha256) {
        self.sums += &format!("{:x}  {name}\n", hash.finalize());
    }

    fn finish(mut self) -> io::Result<()> {
        self.zip.start_file(SUMS, options(Utc::now()))?;
        self.zip.write_all(self.sums.as_bytes())?;
        ManuallyDrop::into_inner(self.zip).finish()?.flush()
    }
}

/// How a file is stored that is of this time. Frames are compressed already.
fn options(time: DateTime<Utc>) -> SimpleFileOptions {
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Stored).unix_permissions(0o600);
    // ZIP has local times, and only those of some years.
    let time = time.with_timezone(&Local);
    let small = |number: u32| u8::try_from(number).unwrap_or_default();
    let time = zip::DateTime::from_date_and_time(
        u16::try_from(time.year()).unwrap_or_default(),
        small(time.month()),
        small(time.day()),
        small(time.hour()),
        small(time.minute()),
        small(time.second()),
    );
    time.map_or(options, |time| options.last_modified_time(time))
}

/// A writer that hashes what passes.
struct Summed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
