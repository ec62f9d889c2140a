//! `history export`: events for other programs. No more than one of them is in memory at a time.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::Context;
use zip::ZipWriter;

use super::{
    super::usage::UsageError,
    archive::{self, Exported},
    args::{ExportArgs, ExportFormat, STDOUT},
    new_file::NewFile,
    place::Place,
    table, text,
};
use crate::{
    history::{Reader, Selection},
    logging::tell,
    plural::plural,
};

/// Writes the events into a file, which only its owner can read, or on standard output; on standard error, how many.
///
/// # Errors
/// When the history cannot be read, or the output not be written.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let selection = args.selection.selection()?;
    let is_file = args.output.as_os_str() != STDOUT;
    let is_terminal = !is_file && io::stdout().is_terminal();
    if is_terminal && args.format != ExportFormat::Jsonl {
        return Err(UsageError("csv and zip are not for a terminal: name a file with --output".into()).into());
    }
    let reader = Place::find(&args.place)?.reader()?;
    let Exported { events, frames } = match is_file {
        true => {
            let shown = args.output.display();
            let mut file = NewFile::begin(&args.output)?;
            let exported = match args.format {
                ExportFormat::Zip => archive::write(&reader, &selection, ZipWriter::new(&mut file.content))?,
                format => write(&reader, &selection, format, &mut file.content, false)?,
            };
            file.finish().with_context(|| format!("{shown} cannot be written"))?;
            exported
        }
        false => {
            let mut out = BufWriter::new(io::stdout().lock());
            let exported = match args.format {
                ExportFormat::Zip => archive::write(&reader, &selection, ZipWriter::new_stream(&mut out))?,
                format => write(&reader, &selection, format, &mut out, is_terminal)?,
            };
            out.flush()?;
            exported
        }
    };
    let with_frames = match args.format {
        ExportFormat::Zip => format!(", {}", plural(frames, "frame")),
        ExportFormat::Jsonl | ExportFormat::Csv => String::new(),
    };
    tell(format_args!("exported: {}{with_frames}", plural(events, "event")));
    Ok(())
}

/// Writes events without their frames.
fn write(
    reader: &Reader,
    selection: &Selection,
    format: ExportFormat,
    out: &mut dyn Write,
    is_terminal: bool,
) -> anyhow::Result<Exported> {
    let is_table = format == ExportFormat::Csv;
    if is_table {
        out.write_all(table::HEADER.as_bytes()).context("the export cannot be written")?;
    }
    let mut exported = Exported::default();
    reader.for_each(selection, |event, _| {
        exported.events += 1;
        let written = match is_table {
            true => out.write_all(table::row(event)?.as_bytes()),
            false => out.write_all(text::json_line(event, is_terminal)?.as_bytes()),
        };
        written.context("the export cannot be written")
    })?;
    Ok(exported)
}
