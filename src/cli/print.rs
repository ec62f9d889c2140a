//! How `describe` prints: plain text, one JSON event a line, WebVTT or SubRip.

use std::{
    fs::{File, Metadata},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use super::describe::Format;
use crate::{clip::Clip, describe::worker::Outcome, event::Event};

/// Prints descriptions as they come.
pub struct Printer {
    format: Format,
    /// Whether lines say which source they are about.
    many: bool,
    out: Box<dyn Write>,
    cues: usize,
    lost: usize,
    source: String,
    /// The source has been named.
    named: bool,
}

impl Printer {
    /// Writes nothing before there is a description.
    pub fn new(format: Format, many: bool, out: Box<dyn Write>) -> Self {
        Self { format, many, out, cues: 0, lost: 0, source: String::new(), named: false }
    }

    /// What comes next is about `source`.
    pub fn source(&mut self, source: &str) {
        (self.source, self.named) = (source.into(), false);
    }

    /// Prints one description, or says on standard error why there is none.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn outcome(&mut self, Outcome { clip, event }: &Outcome) -> anyhow::Result<()> {
        match event {
            Ok(event) => self.event(clip, event)?,
            Err(error) => {
                eprintln!("{}: clip {} was not described: {error}", self.source, clip.seq);
                self.lost += 1;
            }
        }
        Ok(())
    }

    fn event(&mut self, clip: &Clip, event: &Event) -> anyhow::Result<()> {
        let text = event.description.as_str();
        let (start, end) = (clip.start_pts, clip.start_pts + clip.duration);
        if self.cues == 0 && self.format == Format::Vtt {
            self.out.write_all(b"WEBVTT\n\n")?;
        }
        if self.many && !std::mem::replace(&mut self.named, true) {
            let source = &self.source;
            match self.format {
                Format::Text => writeln!(self.out, "{source}:")?,
                Format::Vtt => write!(self.out, "NOTE {}\n\n", source.replace("-->", "->"))?,
                Format::Jsonl | Format::Srt => {}
            }
        }
        self.cues += 1;
        match self.format {
            Format::Text => writeln!(self.out, "{} - {}  {text}", stamp(start, '.'), stamp(end, '.'))?,
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, event).map_err(std::io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Vtt => {
                write!(self.out, "{} --> {}\n{}\n\n", stamp(start, '.'), stamp(end, '.'), cue(&escape(text)))?
            }
            Format::Srt => {
                write!(
                    self.out,
                    "{}\n{} --> {}\n{}\n\n",
                    self.cues,
                    stamp(start, ','),
                    stamp(end, ','),
                    cue(text)
                )?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    /// The end: gives how many clips were described.
    ///
    /// # Errors
    /// When a clip was not described, or nothing can be written.
    pub fn finish(mut self) -> anyhow::Result<usize> {
        self.out.flush()?;
        anyhow::ensure!(self.lost == 0, "{} clips were not described; the lines above say why", self.lost);
        Ok(self.cues)
    }
}

/// A file that keeps what it holds until something else is written into it.
pub struct Replaced {
    file: File,
    begun: bool,
}

impl Replaced {
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, begun: false })
    }

    /// What the file system says of it.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

impl Write for Replaced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is no file, a pipe or a terminal, holds nothing.
        if !std::mem::replace(&mut self.begun, true) && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `HH:MM:SS.mmm`, with the separator that the format wants.
fn stamp(t: Duration, separator: char) -> String {
    let (seconds, millis) = (t.as_secs(), t.subsec_millis());
    format!("{:02}:{:02}:{:02}{separator}{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What WebVTT does not take literally. `-->` would begin a new cue.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An empty line would end a cue: none may stand inside.
fn cue(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "…".into() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_subtitles_want_it() {
        assert_eq!(stamp(Duration::from_millis(3_723_004), ','), "01:02:03,004");
        assert_eq!(stamp(Duration::from_secs(360_000), '.'), "100:00:00.000");
    }

    #[test]
    fn a_description_cannot_break_out_of_its_cue() {
        assert_eq!(cue(&escape("a <b> & c\n\n00:00 --> 00:01\n")), "a &lt;b&gt; &amp; c\n00:00 --&gt; 00:01");
        assert_eq!(cue("\n\n"), "…");
    }
}
