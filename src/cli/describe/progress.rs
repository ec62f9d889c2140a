//! How far a run has come: a progress bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::text::on_one_line;
use crate::{camera::CameraStatus, logging::tell};

/// How often a line is written where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time that is left is not known before this time.
const FIRST_ESTIMATE: Duration = Duration::from_secs(3);
/// The steps of the bar.
const STEPS: f64 = 1000.0;
/// The most characters of a name in the bar.
const MAX_NAME: usize = 40;

/// The progress of a run. Clones are the same.
#[derive(Clone)]
pub struct Progress {
    /// `None` where there is no terminal.
    bar: Option<ProgressBar>,
    state: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    /// When the last line was written.
    told: Option<Instant>,
    /// How many sources there are, and the number of the current one, from 1.
    sources: usize,
    number: usize,
    name: String,
    /// How large all sources are that are to be described, those before the current one, and that one.
    size: u64,
    size_before: u64,
    size_of_current: u64,
    position: Duration,
    length: Option<Duration>,
    clips: usize,
}

impl Progress {
    /// The progress of a run over `sources` sources, of which those that are to be described are `size` large.
    pub fn new(sources: usize, size: u64) -> Self {
        let style = ProgressStyle::with_template("{elapsed_precise} [{bar:20}] {wide_msg}");
        let bar = ProgressBar::new(STEPS as u64).with_style(style.expect("a valid template"));
        let started = Instant::now();
        let state = State {
            started,
            // A single source is told of only if it takes long.
            told: (sources == 1).then_some(started),
            sources,
            number: 0,
            name: String::new(),
            size,
            size_before: 0,
            size_of_current: 0,
            position: Duration::ZERO,
            length: None,
            clips: 0,
        };
        Self { bar: io::stderr().is_terminal().then_some(bar), state: Arc::new(Mutex::new(state)) }
    }

    /// The source of this number begins, which is so large.
    pub fn begin(&self, number: usize, name: &str, size: u64) {
        let mut state = self.lock();
        state.size_before += state.size_of_current;
        (state.number, state.name, state.size_of_current) = (number, on_one_line(name), size);
        (state.position, state.length) = (Duration::ZERO, None);
        self.show(state);
    }

    /// A clip was described.
    pub fn add_clip(&self) {
        let mut state = self.lock();
        state.clips += 1;
        self.show(state);
    }

    /// Runs `print` while the bar is hidden.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the bar. Returns how many clips were described in which time.
    pub fn finish(&self) -> (usize, Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let state = self.lock();
        (state.clips, state.started.elapsed())
    }

    /// Shows the position in a source until the sender of its status is dropped.
    pub async fn follow(self, mut changes: watch::Receiver<CameraStatus>) {
        while changes.changed().await.is_ok() {
            let (position, length) = {
                let status = changes.borrow_and_update();
                (status.position, status.duration)
            };
            let mut state = self.lock();
            (state.position, state.length) = (position, length);
            self.show(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, mut state: MutexGuard<'_, State>) {
        if let Some(bar) = &self.bar {
            bar.set_position((state.fraction() * STEPS) as u64);
            bar.set_message(state.line(MAX_NAME));
        } else if state.told.is_none_or(|told| told.elapsed() >= INTERVAL) {
            state.told = Some(Instant::now());
            tell(state.line(usize::MAX));
        }
    }
}

impl State {
    /// How much of all is done: 0 to 1. The sizes of files stand for the work, since nothing else is known of those
    /// that were not opened yet.
    fn fraction(&self) -> f64 {
        let length = self.length.filter(|length| !length.is_zero());
        let of_current = length.map_or(0.0, |length| self.position.div_duration_f64(length).min(1.0));
        let done = self.size_before as f64 + self.size_of_current as f64 * of_current;
        if self.size == 0 { 0.0 } else { (done / self.size as f64).min(1.0) }
    }

    /// `3 of 52, 1.5 clips/s, 4m left: films/a.mp4: 12 of 60 s`.
    fn line(&self, max_name: usize) -> String {
        let elapsed = self.started.elapsed();
        let fraction = self.fraction();
        let number = (self.sources > 1).then(|| format!("{} of {}", self.number, self.sources));
        let speed = (self.clips > 0).then(|| rate(self.clips, elapsed));
        let left = (fraction > 0.0 && elapsed >= FIRST_ESTIMATE)
            .then(|| format!("{} left", in_words(elapsed.mul_f64((1.0 - fraction) / fraction))));
        let letters = self.name.chars().count();
        let name: String = self.name.chars().skip(letters.saturating_sub(max_name)).collect();
        let name = if letters > max_name { format!("…{name}") } else { name };
        let position = (!self.position.is_zero()).then(|| {
            let of = self.length.map(|it| format!(" of {:.0}", it.as_secs_f64())).unwrap_or_default();
            format!("{:.0}{of} s", self.position.as_secs_f64())
        });
        let run: Vec<_> = [number, speed, left].into_iter().flatten().collect();
        let run = Some(run.join(", ")).filter(|run| !run.is_empty());
        let parts: Vec<_> = [run, Some(name), position].into_iter().flatten().collect();
        parts.join(": ")
    }
}

/// How fast clips are described.
pub fn rate(clips: usize, time: Duration) -> String {
    format!("{:.1} clips/s", clips as f64 / time.as_secs_f64().max(1e-3))
}

/// A time as people say it: `42s`, `3m`, `2h5m`.
pub fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_number_name_position_and_what_is_left() {
        let progress = Progress::new(52, 1000);
        progress.begin(1, "a.mp4", 300);
        progress.begin(3, "films/b\n.mp4", 400);
        let mut state = progress.lock();
        state.started -= Duration::from_secs(10);
        (state.position, state.length) = (Duration::from_secs(15), Some(Duration::from_secs(30)));
        state.clips = 15;
        assert_eq!(state.line(100), "3 of 52, 1.5 clips/s, 10s left: films/b\\n.mp4: 15 of 30 s");
        assert!(state.line(4).ends_with(" left: ….mp4: 15 of 30 s"));
        state.length = None;
        state.size = 0;
        assert_eq!(state.line(100), "3 of 52, 1.5 clips/s: films/b\\n.mp4: 15 s");
        assert_eq!(in_words(Duration::from_secs(7530)), "2h5m");
    }
}
