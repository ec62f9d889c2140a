//! `history show`: one event, and its frames as files.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::{args::ShowArgs, new_file::write_into, place::Place, text};
use crate::{
    history::{EventDetails, Reader},
    logging::tell,
    plural::plural,
};

/// Prints the event on standard output, and writes its frames where wanted.
///
/// # Errors
/// When there is no such event, it has no frames to write, or they cannot be written.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let reader = Place::find(&args.place)?.reader()?;
    let details = find(&reader, args.id)?;
    io::stdout().write_all(text::page(&details).as_bytes())?;
    match &args.frames {
        Some(folder) => write_frames(&reader, &details, folder),
        None => Ok(()),
    }
}

/// The event of this id.
///
/// # Errors
/// When there is none.
pub fn find(reader: &Reader, id: Uuid) -> anyhow::Result<EventDetails> {
    let found = reader.details(id)?;
    found.with_context(|| {
        format!(
            "the history has no event {id}: it was never there, or it was forgotten; camscribe history search finds \
             others"
        )
    })
}

fn write_frames(reader: &Reader, details: &EventDetails, folder: &Path) -> anyhow::Result<()> {
    let (id, count) = (details.event.id, details.frames.len());
    if count == 0 {
        bail!(
            "event {id} has no frames to write: history.frames of the configuration says of which events they are kept"
        );
    }
    for number in 0..count {
        let frame = reader.frame(id, number)?.context("the frames have just been forgotten")?;
        let name = format!("{id}-{number}.{}", frame.extension());
        let shown = folder.join(&name);
        write_into(folder, &name, &frame.bytes).with_context(|| {
            format!("the frame {} cannot be written: name another folder", shown.display())
        })?;
    }
    tell(format_args!("written into {}: {}", folder.display(), plural(count, "frame")));
    Ok(())
}
