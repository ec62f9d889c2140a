//! Frames in, clips out: the windowing rules. Pure: no clock and no IO, time is what frames say.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    camera::CameraId,
    frame::{Clock, Frame},
    interval::IntervalTracker,
    prompt_spec::PromptSpec,
    view::View,
};

/// The frames of one window of one camera: what the model describes.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Which camera it is from.
    pub camera: CameraId,
    /// Number of this clip among those of its camera, from 0, since the process, a reload or a command last started
    /// the camera.
    pub seq: u64,
    /// Start of the window, UTC.
    pub start: DateTime<Utc>,
    /// `start` plus the length of the window, UTC; of a window that ended early, the time of its last frame. A
    /// clip does not wait for it: it is complete with the frame of its last slot, which may be up to
    /// [`WindowConfig::interval`] before, or a quarter more with [`Windower::set_early`].
    pub end: DateTime<Utc>,
    /// Where `start` and `end` come from.
    pub clock: Clock,
    /// PTS of the start of the window.
    pub start_pts: Duration,
    /// The length that the prompt states, in whole seconds.
    pub duration: Duration,
    /// At least one frame, in order of PTS. Sizes may differ within a clip.
    pub frames: Vec<Frame>,
    /// A fault of the source: frames are missing, or the window was cut short, or the clock was set back,
    /// so that `start` is before the `start` of the preceding clip.
    pub gap: bool,
    /// What of the camera's picture the frames show. `None`: all.
    pub view: Option<Arc<View>>,
    /// What to ask about the clip.
    pub prompt_spec: Arc<PromptSpec>,
}

impl Clip {
    /// Time of frame `i` since the start of the window, as prompt and event state it.
    pub fn offset(&self, i: usize) -> Duration {
        self.frames[i].pts.saturating_sub(self.start_pts)
    }
}

/// How the frames of a camera are cut into clips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Length of a window.
    pub window: Duration,
    /// Time from the start of one window to the start of the next. Windows overlap if it is less than
    /// `window`, and leave gaps if it is more.
    pub stride: Duration,
    /// Frames per clip, spread evenly over the window.
    pub frames: usize,
    /// A window with fewer frames is discarded.
    pub min_frames: usize,
}

/// The part of a stream that is cut into clips, by PTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// The first window starts here, or with the first frame after it.
    pub from: Duration,
    /// The stream counts as over here.
    pub to: Duration,
}

impl Default for TimeRange {
    /// The whole stream.
    fn default() -> Self {
        Self { from: Duration::ZERO, to: Duration::MAX }
    }
}

/// Why a window configuration is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    /// `window` is out of range.
    #[error("window must be longer than 0 and at most a day")]
    Window,
    /// `stride` is out of range.
    #[error("stride must be longer than 0 and at most a day")]
    Stride,
    /// More than [`WindowConfig::MAX_OVERLAP`] windows would be open at once.
    #[error("stride is too short for this window: at most 64 windows may overlap")]
    Overlap,
    /// `frames` is out of range.
    #[error("frames must be from 1 to 64")]
    Frames,
    /// A window is shorter than a nanosecond per frame.
    #[error("window is too short for so many frames")]
    Spread,
    /// `min_frames` is out of range.
    #[error("min_frames must be from 1 to frames")]
    MinFrames,
}

impl WindowConfig {
    /// Most frames of a clip: the reference processor never samples more (`max_frames`).
    pub const MAX_FRAMES: usize = 64;
    /// Most windows that may be open at once. Bounds the memory that frames take.
    pub const MAX_OVERLAP: u128 = 64;
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks that clips can be cut like this.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn validate(&self) -> Result<(), BadWindow> {
        let in_range = |d: Duration| !d.is_zero() && d <= Self::DAY;
        let checks = [
            (in_range(self.window), BadWindow::Window),
            (in_range(self.stride), BadWindow::Stride),
            (self.window.as_nanos() <= self.stride.as_nanos() * Self::MAX_OVERLAP, BadWindow::Overlap),
            ((1..=Self::MAX_FRAMES).contains(&self.frames), BadWindow::Frames),
            (self.window.as_nanos() >= self.frames as u128, BadWindow::Spread),
            ((1..=self.frames).contains(&self.min_frames), BadWindow::MinFrames),
        ];
        checks.into_iter().find(|(valid, _)| !valid).map_or(Ok(()), |(_, bad)| Err(bad))
    }

    /// Time from one wanted frame to the next within a window.
    pub fn interval(&self) -> Duration {
        self.window / self.frames as u32
    }

    /// Start of slot `i`, counted from the start of the window.
    fn slot_start(&self, i: usize) -> Duration {
        self.window * i as u32 / self.frames as u32
    }
}

/// Cuts one camera's frames into clips.
///
/// Window `k` starts `k * stride` after the first frame. Slot `i` of a window starts `i * window / frames`
/// after the window and ends where the next slot starts. A clip takes the first frame of each slot, so it
/// has at most `frames` frames, all different. A slot without a frame stays empty. A clip is complete with
/// the frame of its last slot, or with the first frame at or after the end of its window.
///
/// Frames may be taken a little early, see [`Windower::set_early`]: then every slot begins and ends so much sooner.
///
/// A slot may stay empty because the camera is slow. If it stays empty because frames were lost (the time
/// without frames is much longer than the usual interval), the clip is marked with a gap.
///
/// The UTC times of a clip follow from its first frame. If the clock of the frames is set back, the first
/// clip that starts before its predecessor is marked with a gap.
///
/// A frame whose PTS runs backwards, or comes more than a window after a frame was wanted, is a
/// discontinuity: the open windows are closed and marked, and the next window starts with that frame.
#[derive(Debug)]
pub struct Windower {
    config: WindowConfig,
    prompt_spec: Arc<PromptSpec>,
    open: Vec<OpenWindow>,
    /// Start of the next window. `None` before the first frame and after a discontinuity.
    next_start: Option<Duration>,
    /// PTS of the latest frame that was pushed.
    last_pushed: Duration,
    /// PTS of the latest frame that was offered or pushed.
    last_seen: Duration,
    /// Intervals between the frames that were offered or pushed.
    frame_intervals: IntervalTracker,
    /// Frames were lost before the latest frame, which is still to be pushed.
    frames_lost: bool,
    /// Start of the latest clip.
    last_clip_start: Option<DateTime<Utc>>,
    /// How much sooner than its start a slot takes a frame.
    early: Duration,
    next_seq: u64,
    too_few: u64,
    range: TimeRange,
    view: Option<Arc<View>>,
    /// A frame at or after the end of `range` was pushed.
    over: bool,
}

/// Frames were lost if the time without frames is this many times the longest usual interval.
const LOSS_FACTOR: u32 = 3;
/// Intervals that must be known before one of them counts as usual.
const MIN_INTERVALS: usize = 8;

/// A window that may still take frames.
#[derive(Debug)]
struct OpenWindow {
    start: Duration,
    /// The first slot that is neither filled nor over.
    slot: usize,
    frames: Vec<Frame>,
    /// A slot stays empty because frames were lost.
    gap: bool,
}

/// Why a window is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseReason {
    /// Its time is over, or its slots are filled.
    Complete,
    /// The stream ended within it.
    EndOfStream,
    /// The source failed within it.
    Fault,
}

impl OpenWindow {
    /// Adds a frame. Only one frame of the window keeps the pixels of its original: the last one up to the
    /// middle, or the first one if there is none up to the middle.
    fn add(&mut self, mut frame: Frame, up_to_middle: bool) {
        if up_to_middle {
            self.frames.iter_mut().for_each(Frame::drop_original);
        } else if self.frames.iter().any(Frame::has_original) {
            frame.drop_original();
        }
        self.frames.push(frame);
    }
}

impl Windower {
    /// A windower that has seen no frames.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn new(config: WindowConfig, prompt_spec: Arc<PromptSpec>) -> Result<Self, BadWindow> {
        config.validate()?;
        Ok(Self {
            config,
            prompt_spec,
            open: Vec::new(),
            next_start: None,
            last_pushed: Duration::ZERO,
            last_seen: Duration::ZERO,
            frame_intervals: IntervalTracker::default(),
            frames_lost: false,
            last_clip_start: None,
            early: Duration::ZERO,
            next_seq: 0,
            too_few: 0,
            range: TimeRange::default(),
            view: None,
            over: false,
        })
    }

    /// Cuts only this part of the stream into clips.
    pub fn within(self, range: TimeRange) -> Self {
        Self { range, ..self }
    }

    /// Of frames that show only what `view` leaves of the picture.
    pub fn seen_through(self, view: Option<Arc<View>>) -> Self {
        Self { view, ..self }
    }

    /// Whether the end of the part that is cut into clips was reached: nothing changes any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// From now on a slot takes frames that come a quarter of a slot before its start, if `early`. For frames that
    /// come about as often as they are wanted, such as keyframes: one that is a moment too early for its slot would
    /// leave a hole of two intervals.
    pub fn set_early(&mut self, early: bool) {
        self.early = if early { self.config.interval() / 4 } else { Duration::ZERO };
    }

    /// PTS from which the next frame is wanted. An earlier frame changes nothing, unless its PTS runs
    /// backwards.
    pub fn next_wanted(&self) -> Duration {
        let Some(next_start) = self.next_start else { return Duration::ZERO };
        let slots = self.open.iter().map(|w| w.start + self.config.slot_start(w.slot));
        slots.fold(next_start, Duration::min).saturating_sub(self.early)
    }

    /// Takes note of a frame without its pixels. Returns whether the frame is wanted: one that no slot
    /// wants need not be converted nor pushed. Without this call the end of a partial window would not be
    /// known.
    pub fn offer(&mut self, pts: Duration) -> bool {
        if pts >= self.range.to {
            // One such frame ends the last windows.
            return !self.over;
        }
        self.note_frame(pts);
        let wanted = pts < self.last_pushed
            || pts >= self.next_wanted()
            || self.open.iter().any(|w| pts + self.early >= w.start + self.config.window);
        // Frames that were lost while no frame was wanted are missing from no clip.
        self.frames_lost &= wanted;
        wanted
    }

    /// Adds a frame. Returns the clips that it completes, in order.
    pub fn push(&mut self, frame: Frame) -> Vec<Clip> {
        let pts = frame.pts;
        if pts >= self.range.to {
            self.over = true;
            self.last_seen = self.last_seen.max(self.range.to);
            return self.finish();
        }
        let mut clips = Vec::new();
        if self.is_discontinuous(pts) {
            clips = self.discontinuity();
        }
        self.note_frame(pts);
        let lost = std::mem::take(&mut self.frames_lost);
        let by = pts + self.early;
        self.open.iter_mut().filter(|w| by >= w.start + self.config.window).for_each(|w| w.gap |= lost);
        clips.extend(self.close(|w, config| by >= w.start + config.window, CloseReason::Complete));
        self.open_until(pts);
        self.last_pushed = pts;
        for w in &mut self.open {
            let mut slot = w.slot;
            while slot + 1 < self.config.frames && w.start + self.config.slot_start(slot + 1) <= by {
                slot += 1;
                w.gap |= lost;
            }
            if w.start + self.config.slot_start(slot) <= by {
                w.add(frame.clone(), slot <= self.config.frames / 2);
                w.slot = slot + 1;
            }
        }
        clips.extend(self.close(|w, config| w.slot == config.frames, CloseReason::Complete));
        clips
    }

    /// The source was restarted, or data was lost. Returns the clips of the open windows that have enough
    /// frames, marked with a gap. The next window starts with the next frame.
    pub fn discontinuity(&mut self) -> Vec<Clip> {
        self.close_all(CloseReason::Fault)
    }

    /// The stream is over. Returns the clips of the open windows that have enough frames, cut to the part
    /// that was recorded.
    pub fn finish(&mut self) -> Vec<Clip> {
        self.close_all(CloseReason::EndOfStream)
    }

    /// How many windows were discarded because they had fewer than `min_frames` frames.
    pub fn too_few(&self) -> u64 {
        self.too_few
    }

    /// How many windows may still take frames: at most `window / stride`, rounded up.
    pub fn open_windows(&self) -> usize {
        self.open.len()
    }

    /// Whether a frame cannot belong to the same run of the stream as the frames before it.
    fn is_discontinuous(&self, pts: Duration) -> bool {
        self.next_start.is_some() && (pts < self.last_pushed || pts > self.next_wanted() + self.config.window)
    }

    /// Takes note of the time of a frame, whether the frame is wanted or not.
    fn note_frame(&mut self, pts: Duration) {
        let interval = pts.saturating_sub(self.last_seen);
        if self.next_start.is_some() {
            let usual = self.frame_intervals.longest(MIN_INTERVALS);
            self.frames_lost |= usual.is_some_and(|usual| interval > usual * LOSS_FACTOR);
            self.frame_intervals.record(interval);
        }
        self.last_seen = self.last_seen.max(pts);
    }

    /// Closes every window, and forgets the run of the stream.
    fn close_all(&mut self, reason: CloseReason) -> Vec<Clip> {
        let clips = self.close(|_, _| true, reason);
        self.next_start = None;
        self.last_pushed = Duration::ZERO;
        self.last_seen = Duration::ZERO;
        self.frame_intervals = IntervalTracker::default();
        self.frames_lost = false;
        clips
    }

    /// Opens the windows that a frame at `pts` belongs to.
    fn open_until(&mut self, pts: Duration) {
        let mut next = self.next_start.unwrap_or(pts.max(self.range.from));
        let by = pts + self.early;
        while next <= by {
            if by < next + self.config.window {
                self.open.push(OpenWindow { start: next, slot: 0, frames: Vec::new(), gap: false });
            }
            next += self.config.stride;
        }
        self.next_start = Some(next);
    }

    /// Closes the windows that are `over`. Returns the clips of those that have enough frames.
    fn close(&mut self, over: impl Fn(&OpenWindow, &WindowConfig) -> bool, reason: CloseReason) -> Vec<Clip> {
        let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|w| over(w, &self.config));
        self.open = open;
        closed.into_iter().filter_map(|w| self.clip(w, reason)).collect()
    }

    /// The clip of a closed window. `None` if it has too few frames.
    fn clip(&mut self, w: OpenWindow, reason: CloseReason) -> Option<Clip> {
        if w.frames.len() < self.config.min_frames {
            self.too_few += 1;
            return None;
        }
        let window = self.config.window.min(self.range.to.saturating_sub(w.start));
        let first = w.frames.first()?;
        let start = first.captured_at + w.start.saturating_sub(first.pts) - first.pts.saturating_sub(w.start);
        let until = |last: Duration| {
            let recorded = last.saturating_sub(w.start).min(window);
            (partial_duration(recorded, window), start + recorded)
        };
        let (duration, end) = match reason {
            CloseReason::Complete => (window, start + window),
            CloseReason::EndOfStream => until(self.last_seen),
            // Frames after the fault may have been offered already, so only frames of the clip count.
            CloseReason::Fault => until(w.frames.last()?.pts),
        };
        let set_back = self.last_clip_start.replace(start).is_some_and(|last| start < last);
        let seq = self.next_seq;
        self.next_seq += 1;
        Some(Clip {
            camera: first.camera.clone(),
            seq,
            start,
            end,
            clock: first.clock,
            start_pts: w.start,
            duration,
            frames: w.frames,
            gap: reason == CloseReason::Fault || w.gap || set_back,
            view: self.view.clone(),
            prompt_spec: self.prompt_spec.clone(),
        })
    }
}

/// The duration of a clip of which only the first part of the window was recorded. `recorded`: up to the
/// last frame.
///
/// The prompt states whole seconds and cuts the rest off, so the duration is rounded here: six seconds at
/// 25 frames per second end with a frame at 5.96 s, and it would be wrong to call them five.
fn partial_duration(recorded: Duration, window: Duration) -> Duration {
    let second = Duration::from_secs(1);
    if recorded < second || recorded == window {
        return recorded;
    }
    Duration::from_secs((recorded + second / 2).as_secs()).min(window)
}
