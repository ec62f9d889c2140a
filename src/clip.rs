//! Frames in, clips out: the windowing rules, pure. No clock, no IO: time is what frames say.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    camera::CameraId,
    frame::{Clock, Frame},
    interval::IntervalTracker,
    prompt_spec::PromptSpec,
};

/// A window's worth of frames from one camera: what the model describes.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Which camera saw it.
    pub camera: CameraId,
    /// Counts this camera's clips, from 0, since the process or a reload last started the camera.
    pub seq: u64,
    /// UTC time of the window's start.
    pub start: DateTime<Utc>,
    /// UTC time of the window's end (of the last frame, for a window that ended early).
    pub end: DateTime<Utc>,
    /// What `start`, `end` rest on.
    pub clock: Clock,
    /// PTS of the window's start; a frame's offset is its PTS less this.
    pub start_pts: Duration,
    /// Length that the prompt's introduction names (whole seconds of it).
    pub duration: Duration,
    /// At least one, in order of PTS. Sizes may differ within a clip.
    pub frames: Vec<Frame>,
    /// Frames are missing inside or the window was cut short, by a fault of the source; or the clock
    /// was set back, so that `start` is before that of the clip before.
    pub gap: bool,
    /// What to ask about it.
    pub prompt_spec: Arc<PromptSpec>,
}

impl Clip {
    /// Time of frame `i` since the window's start: what the prompt and the event state.
    pub fn offset(&self, i: usize) -> Duration {
        self.frames[i].pts.saturating_sub(self.start_pts)
    }
}

/// How a camera's frames are cut into clips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// What one clip covers.
    pub window: Duration,
    /// From the start of one window to the start of the next: less than `window` overlaps, more leaves gaps.
    pub stride: Duration,
    /// Frames per clip, spread evenly over the window.
    pub frames: usize,
    /// A window with fewer frames is not worth a description.
    pub min_frames: usize,
}

/// A window configuration that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// `window` is out of range.
    #[error("window must be longer than 0 and at most a day")]
    Window,
    /// `stride` is out of range.
    #[error("stride must be longer than 0 and at most a day")]
    Stride,
    /// More windows would be open at once than [`WindowConfig::MAX_OVERLAP`].
    #[error("stride is too short for this window: at most 64 windows may overlap")]
    Overlap,
    /// `frames` is out of range.
    #[error("frames must be from 1 to 64")]
    Frames,
    /// A window lasts less than a nanosecond a frame.
    #[error("window is too short for so many frames")]
    Spread,
    /// `min_frames` is out of range.
    #[error("min_frames must be from 1 to frames")]
    MinFrames,
}

impl WindowConfig {
    /// Most frames in a clip: the reference processor never samples more (`max_frames`).
    pub const MAX_FRAMES: usize = 64;
    /// Most windows that may be open at once, which bounds what is kept in memory.
    pub const MAX_OVERLAP: u128 = 64;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Whether clips can be cut like this.
    pub fn validate(&self) -> Result<(), BadWindow> {
        let sensible = |d: Duration| !d.is_zero() && d <= Self::DAY;
        let checks = [
            (sensible(self.window), BadWindow::Window),
            (sensible(self.stride), BadWindow::Stride),
            (self.window.as_nanos() <= self.stride.as_nanos() * Self::MAX_OVERLAP, BadWindow::Overlap),
            ((1..=Self::MAX_FRAMES).contains(&self.frames), BadWindow::Frames),
            (self.window.as_nanos() >= self.frames as u128, BadWindow::Spread),
            ((1..=self.frames).contains(&self.min_frames), BadWindow::MinFrames),
        ];
        checks.into_iter().find(|(good, _)| !good).map_or(Ok(()), |(_, bad)| Err(bad))
    }

    /// Time from one wanted frame to the next within a window.
    pub fn interval(&self) -> Duration {
        self.window / self.frames as u32
    }

    /// When slot `i` of a window begins, counted from the window's start.
    fn slot(&self, i: usize) -> Duration {
        self.window * i as u32 / self.frames as u32
    }
}

/// Cuts one camera's frames into clips.
///
/// Window `k` starts `k * stride` after the first frame. Its slot `i` begins `i * window / frames`
/// later and ends where the next one begins; a clip takes the first frame of each slot, so it has
/// at most `frames`, all different. A slot in which the camera gave nothing stays empty. A clip is
/// handed out with the frame of its last slot, or with the first frame at or after its window's
/// end.
///
/// A slot may stay empty because the camera is slow. Where it stays empty because frames were lost
/// (the time without any is much longer than what is usual between two), the clip is marked.
///
/// Times in UTC rest on the first frame of each clip. When the clock of the frames is set back, the
/// first clip that starts before the last one is marked: from clip to clip `start` never runs
/// backwards unseen.
///
/// A frame that runs backwards, or that comes more than a window after one was wanted, is a
/// discontinuity: what came before is closed and marked, and the next window starts with that frame.
#[derive(Debug)]
pub struct Windower {
    config: WindowConfig,
    prompt_spec: Arc<PromptSpec>,
    open: Vec<Open>,
    /// Where the next window starts; none before the first frame and after a discontinuity.
    next_start: Option<Duration>,
    /// PTS of the latest frame taken in, and of the latest one heard of.
    last: Duration,
    heard: Duration,
    /// Time between the frames heard of.
    frame_intervals: IntervalTracker,
    /// Frames were lost before the latest one heard of, which is still to be taken in.
    lost: bool,
    /// When the latest clip started.
    last_start: Option<DateTime<Utc>>,
    seq: u64,
    too_few: u64,
}

/// A time without frames means that some were lost when it is so many times the usual one.
const LOSS: u32 = 3;
/// Intervals that must be known before anything counts as usual.
const USUAL: usize = 8;

/// A window that may still get frames.
#[derive(Debug)]
struct Open {
    start: Duration,
    /// The first slot that is neither filled nor over.
    slot: usize,
    frames: Vec<Frame>,
    /// A slot stays empty because frames were lost.
    gap: bool,
}

/// Why a window is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its time has passed, or it is full.
    Whole,
    /// The stream ended within it.
    OfStream,
    /// The source failed within it.
    Cut,
}

impl Open {
    /// Keeps a frame. Of one in a window the original is kept: of the last that is not behind the middle.
    fn keep(&mut self, mut frame: Frame, before_middle: bool) {
        if before_middle {
            self.frames.iter_mut().for_each(Frame::forget_original);
        } else if self.frames.iter().any(Frame::has_original) {
            frame.forget_original();
        }
        self.frames.push(frame);
    }
}

impl Windower {
    /// A windower that has seen nothing yet.
    pub fn new(config: WindowConfig, prompt_spec: Arc<PromptSpec>) -> Result<Self, BadWindow> {
        config.validate()?;
        let nothing = Duration::ZERO;
        Ok(Self {
            config,
            prompt_spec,
            open: Vec::new(),
            next_start: None,
            last: nothing,
            heard: nothing,
            frame_intervals: IntervalTracker::default(),
            lost: false,
            last_start: None,
            seq: 0,
            too_few: 0,
        })
    }

    /// The time from which a frame is wanted next. An earlier one changes nothing, unless it runs
    /// backwards.
    pub fn next_wanted(&self) -> Duration {
        let Some(next_start) = self.next_start else { return Duration::ZERO };
        let slots = self.open.iter().map(|w| w.start + self.config.slot(w.slot));
        slots.fold(next_start, Duration::min)
    }

    /// Tells of a frame without handing it over: whether it is wanted. Frames that no slot wants
    /// need not be converted nor pushed, but the end of a part-window is known only if they are
    /// told of.
    pub fn offer(&mut self, pts: Duration) -> bool {
        self.hear(pts);
        let wanted = pts < self.last
            || pts >= self.next_wanted()
            || self.open.iter().any(|w| pts >= w.start + self.config.window);
        // What was lost while nothing was wanted is missed by nobody.
        self.lost &= wanted;
        wanted
    }

    /// Takes a frame in. What it completes comes out, in order.
    pub fn push(&mut self, frame: Frame) -> Vec<Clip> {
        let pts = frame.pts;
        let mut clips = Vec::new();
        if self.jumps(pts) {
            clips = self.discontinuity();
        }
        self.hear(pts);
        let lost = std::mem::take(&mut self.lost);
        self.open.iter_mut().filter(|w| pts >= w.start + self.config.window).for_each(|w| w.gap |= lost);
        clips.extend(self.close(|w, config| pts >= w.start + config.window, Ending::Whole));
        self.open_until(pts);
        self.last = pts;
        for w in &mut self.open {
            let mut slot = w.slot;
            while slot + 1 < self.config.frames && w.start + self.config.slot(slot + 1) <= pts {
                slot += 1;
                w.gap |= lost;
            }
            if w.start + self.config.slot(slot) <= pts {
                w.keep(frame.clone(), slot <= self.config.frames / 2);
                w.slot = slot + 1;
            }
        }
        clips.extend(self.close(|w, config| w.slot == config.frames, Ending::Whole));
        clips
    }

    /// The source restarted or lost data. Open windows that have enough frames come out, marked as
    /// having a gap; the next window starts with the next frame.
    pub fn discontinuity(&mut self) -> Vec<Clip> {
        self.end(Ending::Cut)
    }

    /// The stream is over. Open windows that have enough frames come out, cut to what there was.
    pub fn finish(&mut self) -> Vec<Clip> {
        self.end(Ending::OfStream)
    }

    /// Windows given up because they had fewer than `min_frames`.
    pub fn too_few(&self) -> u64 {
        self.too_few
    }

    /// Windows that have begun and may still get frames: at most `window / stride`, rounded up.
    pub fn open_windows(&self) -> usize {
        self.open.len()
    }

    /// Whether a frame cannot belong to the same stretch of the stream as those before.
    fn jumps(&self, pts: Duration) -> bool {
        self.next_start.is_some() && (pts < self.last || pts > self.next_wanted() + self.config.window)
    }

    /// A frame has come, whether it is wanted or not.
    fn hear(&mut self, pts: Duration) {
        let interval = pts.saturating_sub(self.heard);
        if self.next_start.is_some() {
            self.lost |= self.frame_intervals.longest(USUAL).is_some_and(|usual| interval > usual * LOSS);
            self.frame_intervals.record(interval);
        }
        self.heard = self.heard.max(pts);
    }

    fn end(&mut self, ending: Ending) -> Vec<Clip> {
        let clips = self.close(|_, _| true, ending);
        self.next_start = None;
        self.last = Duration::ZERO;
        self.heard = Duration::ZERO;
        self.frame_intervals = IntervalTracker::default();
        self.lost = false;
        clips
    }

    fn open_until(&mut self, pts: Duration) {
        let mut next = self.next_start.unwrap_or(pts);
        while next <= pts {
            if pts < next + self.config.window {
                self.open.push(Open { start: next, slot: 0, frames: Vec::new(), gap: false });
            }
            next += self.config.stride;
        }
        self.next_start = Some(next);
    }

    fn close(&mut self, over: impl Fn(&Open, &WindowConfig) -> bool, ending: Ending) -> Vec<Clip> {
        let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|w| over(w, &self.config));
        self.open = open;
        closed.into_iter().filter_map(|w| self.clip(w, ending)).collect()
    }

    fn clip(&mut self, w: Open, ending: Ending) -> Option<Clip> {
        if w.frames.len() < self.config.min_frames {
            self.too_few += 1;
            return None;
        }
        let window = self.config.window;
        let first = w.frames.first()?;
        let start = first.captured_at - (first.pts - w.start);
        let until = |last: Duration| {
            let seen = last.saturating_sub(w.start).min(window);
            (part(seen, window), start + seen)
        };
        let (duration, end) = match ending {
            Ending::Whole => (window, start + window),
            Ending::OfStream => until(self.heard),
            // Frames after the fault may have been told of already, so only those in the clip count.
            Ending::Cut => until(w.frames.last()?.pts),
        };
        let set_back = self.last_start.replace(start).is_some_and(|last| start < last);
        let seq = self.seq;
        self.seq += 1;
        Some(Clip {
            camera: first.camera.clone(),
            seq,
            start,
            end,
            clock: first.clock,
            start_pts: w.start,
            duration,
            frames: w.frames,
            gap: ending == Ending::Cut || w.gap || set_back,
            prompt_spec: self.prompt_spec.clone(),
        })
    }
}

/// Length of a window of which only the first `seen`, up to its last frame, were filmed.
///
/// The prompt names whole seconds and cuts the rest off, so it is rounded here: six seconds at 25
/// frames a second end with a frame at 5.96 s, and it would be wrong to call them five.
fn part(seen: Duration, window: Duration) -> Duration {
    let second = Duration::from_secs(1);
    if seen < second { seen } else { Duration::from_secs((seen + second / 2).as_secs()).min(window) }
}
