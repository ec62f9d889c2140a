//! `camscribe schema`: the JSON Schema of events.

use std::io::{self, Write};

use crate::event;

/// Prints the JSON Schema of [`event::Event`].
///
/// # Errors
/// When it cannot be written.
pub fn run() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &event::json_schema()).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
