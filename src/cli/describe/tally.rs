//! What became of the sources of a run.

use std::time::Duration;

use anyhow::bail;

use super::{
    progress::{in_words, rate},
    sources::Sources,
    text::on_one_line,
};
use crate::{logging::tell, plural::plural};

/// The most names that one line lists.
const MAX_NAMES: usize = 10;

/// What became of the sources so far.
pub struct Tally {
    /// All sources.
    pub all: usize,
    /// Sources that were described to their end.
    pub done: usize,
    /// Sources whose output was whole before.
    pub whole: usize,
    /// Files in folders that are no videos.
    passed_over: Vec<String>,
    /// Files in folders with no frame between `--from` and `--to`.
    outside: usize,
    /// Names of sources that could not be described.
    failed: Vec<String>,
}

impl Tally {
    /// Nothing is done yet. What is known not to be usable is told.
    pub fn new(sources: &Sources) -> Self {
        let all = sources.count();
        let passed_over =
            sources.passed_over.iter().map(|path| on_one_line(&path.to_string_lossy())).collect();
        let mut tally = Self { all, done: 0, whole: 0, passed_over, outside: 0, failed: Vec::new() };
        for (name, why) in &sources.unusable {
            tally.fail(name, &format!("{name}: {why}"));
        }
        tally
    }

    /// A source could not be described.
    pub fn fail(&mut self, name: &str, why: &str) {
        tell(on_one_line(&format!("error: {why}")));
        self.failed.push(on_one_line(name));
    }

    /// A file in a folder turned out to be no video.
    pub fn pass_over(&mut self, name: &str) {
        self.all -= 1;
        self.passed_over.push(on_one_line(name));
    }

    /// A video in a folder turned out to have no frame in the part that is asked for.
    pub fn leave_out(&mut self) {
        self.all -= 1;
        self.outside += 1;
    }

    /// Whether no source is left.
    pub fn is_complete(&self) -> bool {
        self.done + self.whole + self.failed.len() == self.all
    }

    /// Tells how a run went that described so many clips, if it was about more than one file.
    pub fn tell(&self, clips: usize, time: Duration) {
        if self.all == 1 && self.whole == 0 && self.passed_over.is_empty() && self.outside == 0 {
            return;
        }
        let whole = match self.whole {
            0 => String::new(),
            n => format!(", {n} already whole"),
        };
        let passed_over = match self.passed_over.len() {
            0 => String::new(),
            n => format!("; passed over as no video: {} ({})", plural(n, "file"), some_of(&self.passed_over)),
        };
        let outside = match self.outside {
            0 => String::new(),
            n => format!("; with no frame between --from and --to: {}", plural(n, "video")),
        };
        let (done, all, speed, time) = (self.done, self.all, rate(clips, time), in_words(time));
        tell(format_args!(
            "described {done} of {}{whole}: {} in {time}, {speed}{passed_over}{outside}",
            plural(all, "source"),
            plural(clips, "clip")
        ));
    }

    /// The result of a run that described so many clips.
    ///
    /// # Errors
    /// When a source could not be described, or there was nothing to describe.
    pub fn result(&self, clips: usize) -> anyhow::Result<()> {
        match self.failed.len() {
            0 if clips == 0 && self.whole == 0 => bail!("nothing was described"),
            0 => Ok(()),
            n => {
                let (all, names) = (plural(self.all, "source"), some_of(&self.failed));
                bail!("{n} of {all} could not be described: {names}")
            }
        }
    }

    /// How far a run came that ends before its time.
    pub fn progress(&self) -> String {
        format!("{} of {}", self.done + self.whole, plural(self.all, "source"))
    }
}

/// The first names, and how many there are more.
fn some_of(names: &[String]) -> String {
    let more = match names.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..names.len().min(MAX_NAMES)].join(", "))
}
