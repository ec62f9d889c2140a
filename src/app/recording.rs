//! The history of this daemon: which frames are kept in it, and how it gets what the outbox has.

use std::{path::Path, sync::Arc, time::Duration};

use super::views::Views;
use crate::{
    clip::Clip,
    config::{self, HistorySettings, KeptFrames},
    event::{Event, EventKind},
    history::{Evidence, History, HistoryError, Limits, Outboxed, Reader, Record, Status},
    publish::outbox::Outbox,
};

/// What the history leaves free on its disk, bytes: the outbox and the rest of the machine need some.
const LEAST_FREE: u64 = 256 << 20;
/// The time for what waits at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The history, if there is one, and what is kept in it.
pub struct Recording {
    history: Option<History>,
    frames: KeptFrames,
    is_lossless: bool,
    views: Arc<Views>,
}

impl Recording {
    /// Opens the history in the state directory.
    pub fn start(config: &config::Config, outbox: &Arc<Outbox>, views: &Arc<Views>) -> Self {
        let HistorySettings { keep, max_bytes, frames, is_lossless } = config.history;
        let folder = config.node.state_dir.as_deref().filter(|_| !keep.is_zero());
        let limits = Limits { keep, max_bytes, least_free: LEAST_FREE };
        let history = folder.and_then(|folder| open(folder, limits, outbox));
        if history.is_none() {
            outbox.forget_unrecorded();
        }
        Self { history, frames, is_lossless, views: Arc::clone(views) }
    }

    /// Whether there is a history.
    pub fn is_on(&self) -> bool {
        self.history.is_some()
    }

    /// What the model saw of a clip and found, if that is to be kept. `labels`: the logarithms of its labels'
    /// probabilities.
    pub fn evidence(&self, clip: &Clip, event: &Event, labels: Vec<Vec<f32>>) -> Option<Evidence> {
        let history = self.history.as_ref()?;
        let is_wanted = match self.frames {
            KeptFrames::All => event.kind != EventKind::Unchanged,
            KeptFrames::Alerts => event.alerts.values().any(|alert| alert.changed),
            KeptFrames::None => false,
        };
        let bytes = clip.frames.iter().map(|frame| frame.rgb.len()).sum();
        if is_wanted && !history.has_room_for(bytes) {
            history.miss_frames();
            return None;
        }
        is_wanted.then(|| Evidence::new(clip, labels, self.is_lossless))
    }

    /// Keeps an event that the outbox has, and its frames.
    pub fn record(&self, event: Event, evidence: Option<Evidence>) {
        if let Some(history) = &self.history {
            history.record(Record { event, evidence });
        }
    }

    /// Deletes the frames that show what is hidden now.
    pub fn hide(&self) {
        if let Some(history) = &self.history {
            let views = Arc::clone(&self.views);
            history.keep_frames(Arc::new(move |camera, lines| views.current().cover(camera, lines)));
        }
    }

    /// How the history is doing. `None`: there is none.
    pub fn status(&self) -> Option<Status> {
        self.history.as_ref().map(History::status)
    }

    /// Reads the history. `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, HistoryError>,
    ) -> Option<Result<T, HistoryError>> {
        self.history.as_ref().map(|history| history.read(read))
    }

    /// Writes what waits.
    pub fn close(&self) {
        if let Some(history) = &self.history {
            history.close(CLOSE_LIMIT);
        }
    }
}

fn open(folder: &Path, limits: Limits, outbox: &Arc<Outbox>) -> Option<History> {
    let [waiting, recorded, state, counted] = [(); 4].map(|()| Arc::clone(outbox));
    let outboxed = Outboxed {
        waiting: Box::new(move |after, most| waiting.unrecorded(after, most)),
        recorded: Box::new(move |ids| recorded.recorded(ids)),
        is_durable: Box::new(move || state.is_on_disk()),
        dropped: Box::new(move || counted.unrecorded_dropped()),
    };
    History::start(folder, limits, outboxed)
        .inspect_err(|error| tracing::error!("there is no history: its thread cannot be created: {error}"))
        .ok()
}
