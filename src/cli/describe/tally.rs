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
    pub passed_over: usize,
    /// Files in folders with no frame between `--from` and `--to`.
    outside: usize,
    /// Names of sources that could not be described.
    failed: Vec<String>,
}

impl Tally {
    /// Nothing is done yet. What is known not to be usable is told.
    pub fn new(sources: &Sources) -> Self {
        let (all, passed_over) = (sources.count(), sources.passed_over);
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
    pub fn pass_over(&mut self) {
        self.all -= 1;
        self.passed_over += 1;
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
        if self.all == 1 && self.whole == 0 && self.passed_over == 0 && self.outside == 0 {
            return;
        }
        let whole = match self.whole {
            0 => String::new(),
            n => format!(", {n} already whole"),
        };
        let passed_over = match self.passed_over {
            0 => String::new(),
            n => format!("; passed over as no video: {}", plural(n, "file")),
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
                let more = match n.saturating_sub(MAX_NAMES) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let names = self.failed[..n.min(MAX_NAMES)].join(", ");
                bail!("{n} of {} could not be described: {names}{more}", plural(self.all, "source"))
            }
        }
    }
}
