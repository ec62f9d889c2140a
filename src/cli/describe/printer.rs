//! The output formats of `describe`: plain text, one JSON event per line, a table (CSV), WebVTT and SubRip.

use std::{
    borrow::Cow,
    io::{self, Write},
    time::Duration,
};

use anyhow::Context;
use chrono::SecondsFormat;
use clap::ValueEnum;

use super::text::on_one_line;
use crate::{
    answer::DescribeError,
    clip::Clip,
    event::{Event, SourcePart},
    logging::tell,
    plural::plural,
};

/// The columns of CSV.
const COLUMNS: &str = "source,offset_start_s,offset_end_s,start,end,description";

/// How long a subtitle is shown at least: the last frame of a film may be alone in its clip, and a cue that ends where
/// it begins is not valid.
const SHORTEST_CUE: Duration = Duration::from_secs(1);

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum Format {
    Text,
    Jsonl,
    Csv,
    Vtt,
    Srt,
}

impl Format {
    /// What the names of files in this format end with.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Text => ".txt",
            Self::Jsonl => ".jsonl",
            Self::Csv => ".csv",
            Self::Vtt => ".vtt",
            Self::Srt => ".srt",
        }
    }
}

/// Prints descriptions as they arrive.
pub struct Printer {
    format: Format,
    /// Whether the output names the source of descriptions.
    name_sources: bool,
    out: Box<dyn Write + Send>,
    /// What messages call it.
    place: String,
    /// Descriptions that were printed.
    cues: usize,
    /// Clips that could not be described.
    failed: usize,
    source: String,
    /// Whether the output has named the current source.
    named: bool,
}

impl Printer {
    /// A printer that has written nothing yet.
    pub fn new(format: Format, name_sources: bool, out: Box<dyn Write + Send>, place: String) -> Self {
        Self { format, name_sources, out, place, cues: 0, failed: 0, source: String::new(), named: false }
    }

    /// Makes `source` the source of the descriptions that follow.
    pub fn source(&mut self, source: &str) {
        (self.source, self.named) = (source.into(), false);
    }

    /// Prints one description, or on standard error why there is none.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn outcome(&mut self, clip: &Clip, event: &Result<Event, DescribeError>) -> anyhow::Result<()> {
        match event {
            Ok(event) => {
                self.event(clip, event).with_context(|| format!("{} cannot be written", self.place))?;
            }
            Err(error) => {
                tell(format_args!(
                    "{}: clip {} was not described: {error}",
                    on_one_line(&self.source),
                    clip.seq
                ));
                self.failed += 1;
            }
        }
        Ok(())
    }

    fn event(&mut self, clip: &Clip, event: &Event) -> io::Result<()> {
        let text = event.description.as_str();
        let length = (clip.end - clip.start).to_std().unwrap_or_default();
        let (start, end) = (clip.start_pts, clip.start_pts + length);
        let shown_until = end.max(start + SHORTEST_CUE);
        let part = SourcePart {
            source: self.source.clone(),
            offset_start_s: seconds(start),
            offset_end_s: seconds(end),
        };
        match self.format {
            Format::Vtt if self.cues == 0 => self.out.write_all(b"WEBVTT\n\n")?,
            Format::Csv if self.cues == 0 => write!(self.out, "{COLUMNS}\r\n")?,
            _ => {}
        }
        if self.name_sources && !std::mem::replace(&mut self.named, true) {
            let source = on_one_line(&self.source);
            match self.format {
                Format::Text => writeln!(self.out, "{source}:")?,
                Format::Vtt => write!(self.out, "NOTE {}\n\n", source.replace("-->", "->"))?,
                Format::Jsonl | Format::Csv | Format::Srt => {}
            }
        }
        self.cues += 1;
        match self.format {
            Format::Text => {
                writeln!(self.out, "{} - {}  {text}", timestamp(start, '.'), timestamp(end, '.'))?
            }
            Format::Jsonl => {
                let event = Event { part: Some(part), ..event.clone() };
                serde_json::to_writer(&mut self.out, &event).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Csv => self.out.write_all(row(&part, event).as_bytes())?,
            Format::Vtt => write!(
                self.out,
                "{} --> {}\n{}\n\n",
                timestamp(start, '.'),
                timestamp(shown_until, '.'),
                cue(&escape(text))
            )?,
            Format::Srt => {
                write!(
                    self.out,
                    "{}\n{} --> {}\n{}\n\n",
                    self.cues,
                    timestamp(start, ','),
                    timestamp(shown_until, ','),
                    cue(text)
                )?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    /// Ends the output and returns the number of descriptions.
    ///
    /// # Errors
    /// When a clip could not be described, or the output cannot be written.
    pub fn finish(mut self) -> anyhow::Result<usize> {
        self.out.flush().with_context(|| format!("{} cannot be written", self.place))?;
        anyhow::ensure!(
            self.failed == 0,
            "not described: {}; the lines above say why",
            plural(self.failed, "clip")
        );
        Ok(self.cues)
    }
}

/// A row of CSV (RFC 4180) with the fields of [`COLUMNS`].
fn row(SourcePart { source, offset_start_s, offset_end_s }: &SourcePart, event: &Event) -> String {
    let [start, end] =
        [event.clip.start, event.clip.end].map(|it| it.to_rfc3339_opts(SecondsFormat::Millis, true));
    let (source, description) = (csv_field(source), csv_field(&event.description));
    format!("{source},{offset_start_s},{offset_end_s},{start},{end},{description}\r\n")
}

/// A text as a field of CSV: in quotes where it needs them.
fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

/// Seconds, rounded down to microseconds, as the times of frames.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// A time as `HH:MM:SS.mmm`, with this separator before the milliseconds.
fn timestamp(t: Duration, separator: char) -> String {
    let (seconds, millis) = (t.as_secs(), t.subsec_millis());
    format!("{:02}:{:02}:{:02}{separator}{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Escapes what WebVTT does not take literally. `-->` would begin a new cue.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Removes empty lines: one would end a cue.
fn cue(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "…".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_the_format_of_subtitles() {
        assert_eq!(timestamp(Duration::from_millis(3_723_004), ','), "01:02:03,004");
        assert_eq!(timestamp(Duration::from_secs(360_000), '.'), "100:00:00.000");
    }

    #[test]
    fn a_field_of_csv_is_in_quotes_where_it_needs_them() {
        assert_eq!(csv_field("A red circle moves."), "A red circle moves.");
        assert_eq!(csv_field("日本, \"2\"\n.mp4"), "\"日本, \"\"2\"\"\n.mp4\"");
    }

    #[test]
    fn a_description_cannot_break_out_of_its_cue() {
        assert_eq!(cue(&escape("a <b> & c\n\n00:00 --> 00:01\n")), "a &lt;b&gt; &amp; c\n00:00 --&gt; 00:01");
        assert_eq!(cue("\n\n"), "…");
    }
}
