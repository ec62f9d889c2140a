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
    prompt_spec::NamedQuestion,
};

/// The columns of CSV that each table has.
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
        let said = Said::of(clip, event);
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
            Format::Csv if self.cues == 0 => self.out.write_all(header(clip).as_bytes())?,
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
                let time = format!("{} - {}  ", timestamp(start, '.'), timestamp(end, '.'));
                let lines = said.lines(|answer| format!(" ({:.2})", answer.probability));
                let separator = format!("\n{:width$}", "", width = time.len());
                writeln!(self.out, "{time}{}", lines.join(&separator))?;
            }
            Format::Jsonl => {
                let event = Event { part: Some(part), ..event.clone() };
                serde_json::to_writer(&mut self.out, &event).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
            Format::Csv => self.out.write_all(row(&part, event, &said).as_bytes())?,
            Format::Vtt => write!(
                self.out,
                "{} --> {}\n{}\n\n",
                timestamp(start, '.'),
                timestamp(shown_until, '.'),
                cue(&escape(&said.words()))
            )?,
            Format::Srt => {
                write!(
                    self.out,
                    "{}\n{} --> {}\n{}\n\n",
                    self.cues,
                    timestamp(start, ','),
                    timestamp(shown_until, ','),
                    cue(&said.words())
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

/// What was said of a clip, for people.
struct Said<'a> {
    /// Empty where only questions were asked.
    description: &'a str,
    answers: Vec<Answer<'a>>,
}

/// The answer to a question.
struct Answer<'a> {
    /// On one line.
    question: String,
    /// The most likely one.
    answer: &'a str,
    /// Beside the other answers: 0 to 1.
    probability: f64,
}

impl<'a> Said<'a> {
    fn of(clip: &Clip, event: &'a Event) -> Self {
        let answer = |question: &NamedQuestion| {
            let answered = event.answers.get(&question.name)?;
            let answer = answered.answer();
            let probability = answered.probability_of(answer)?;
            Some(Answer { question: on_one_line(question.decision.instructions()), answer, probability })
        };
        let answers = clip.prompt_spec.questions.iter().filter_map(answer).collect();
        Self { description: &event.description, answers }
    }

    /// The description, and each question with its answer and what `more` says of it.
    fn lines(&self, more: impl Fn(&Answer) -> String) -> Vec<String> {
        let answered = |it: &Answer| format!("{} {}{}", it.question, it.answer, more(it));
        // A model that was asked to describe a clip may have said nothing.
        let says = !self.description.is_empty() || self.answers.is_empty();
        let description = says.then(|| self.description.to_owned());
        description.into_iter().chain(self.answers.iter().map(answered)).collect()
    }

    /// The lines of a subtitle.
    fn words(&self) -> String {
        self.lines(|_| String::new()).join("\n")
    }
}

/// The columns of CSV: of each question the answer and its probability stand behind those of each table.
fn header(clip: &Clip) -> String {
    let of_question = |question: &NamedQuestion| format!(",{0},{0}_probability", question.name);
    let of_questions: String = clip.prompt_spec.questions.iter().map(of_question).collect();
    format!("{COLUMNS}{of_questions}\r\n")
}

/// A row of CSV (RFC 4180) with the fields of [`header`].
fn row(
    SourcePart { source, offset_start_s, offset_end_s }: &SourcePart,
    event: &Event,
    said: &Said,
) -> String {
    let [start, end] =
        [event.clip.start, event.clip.end].map(|it| it.to_rfc3339_opts(SecondsFormat::Millis, true));
    let (source, description) = (csv_field(source), csv_field(&event.description));
    let answered = |it: &Answer| format!(",{},{}", csv_field(it.answer), it.probability);
    let answers: String = said.answers.iter().map(answered).collect();
    format!("{source},{offset_start_s},{offset_end_s},{start},{end},{description}{answers}\r\n")
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
