//! Frames in, clips out to the caller's sink. Outlives the pipelines of a camera.

use std::{sync::Arc, time::Duration};

use crate::{
    clip::{Clip, Windower},
    frame::Frame,
    look_back::LookBack,
};

/// After this many windows without a clip, a camera is reported to give no clips.
const MAX_EMPTY_WINDOWS: u64 = 3;

/// Cuts one camera's frames into clips, across reconnects.
pub(super) struct ClipAssembler {
    windower: Windower,
    look_back: Option<Arc<LookBack>>,
    sink: Box<dyn FnMut(Clip) + Send>,
    frames: u64,
    clips: u64,
    /// Windows with too few frames less clips, of late; from 0 to [`MAX_EMPTY_WINDOWS`].
    consecutive_empty_windows: u64,
    gives_no_clips: bool,
}

/// What came of a camera so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Frames that went into the windower.
    pub frames: u64,
    /// Clips that were handed to the sink.
    pub clips: u64,
    /// Windows that were discarded because they had too few frames.
    pub too_few: u64,
}

/// How windows fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowReport {
    /// Windows that were discarded because they had too few frames.
    pub too_few: u64,
    /// Hardly a window becomes a clip.
    pub gives_no_clips: bool,
    /// This has not been reported before.
    pub newly_empty: bool,
}

impl ClipAssembler {
    /// `sink` gets every clip, in order. It may block. `look_back` gets every frame.
    pub fn new(
        windower: Windower,
        look_back: Option<Arc<LookBack>>,
        sink: impl FnMut(Clip) + Send + 'static,
    ) -> Self {
        Self {
            windower,
            look_back,
            sink: Box::new(sink),
            frames: 0,
            clips: 0,
            consecutive_empty_windows: 0,
            gives_no_clips: false,
        }
    }

    /// Takes note of a frame without its pixels. Returns whether a window wants the frame.
    pub fn offer(&mut self, pts: Duration) -> bool {
        self.windower.offer(pts)
    }

    /// Whether nothing of the stream is cut into clips any more: see [`Windower::is_over`].
    pub fn is_over(&self) -> bool {
        self.windower.is_over()
    }

    /// Whether windows take frames a little early: see [`Windower::set_early`].
    pub fn set_early(&mut self, early: bool) {
        self.windower.set_early(early);
    }

    /// Adds a frame, and hands the clips that it completes to the sink. Returns how windows fare.
    pub fn push(&mut self, frame: Frame) -> WindowReport {
        self.frames += 1;
        if let Some(look_back) = &self.look_back {
            look_back.push(&frame);
        }
        let before = self.windower.too_few();
        let clips = self.windower.push(frame);
        let empty = self.consecutive_empty_windows + self.windower.too_few() - before;
        let empty = empty.min(MAX_EMPTY_WINDOWS).saturating_sub(clips.len() as u64);
        self.consecutive_empty_windows = empty;
        self.hand_over(clips);
        self.window_report()
    }

    /// The stream is over: completes the open windows.
    pub fn finish(&mut self) {
        let clips = self.windower.finish();
        self.hand_over(clips);
    }

    /// The source failed: closes the open windows, and marks their clips.
    pub fn interrupt(&mut self) {
        if let Some(look_back) = &self.look_back {
            look_back.clear();
        }
        let clips = self.windower.discontinuity();
        self.hand_over(clips);
    }

    /// What came of the camera so far.
    pub fn totals(&self) -> Totals {
        Totals { frames: self.frames, clips: self.clips, too_few: self.windower.too_few() }
    }

    fn hand_over(&mut self, clips: Vec<Clip>) {
        self.clips += clips.len() as u64;
        clips.into_iter().for_each(&mut self.sink);
    }

    fn window_report(&mut self) -> WindowReport {
        let empty = self.consecutive_empty_windows;
        let newly_empty = empty == MAX_EMPTY_WINDOWS && !self.gives_no_clips;
        self.gives_no_clips = empty == MAX_EMPTY_WINDOWS || self.gives_no_clips && empty > 0;
        WindowReport { too_few: self.windower.too_few(), gives_no_clips: self.gives_no_clips, newly_empty }
    }
}
