//! What the HTTP server answers about metrics and health, and what the broker is told of it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time;

use super::{deps::WorkerDeps, status_reporter::StatusReporter};
use crate::{
    history, http,
    metrics::{HistoryReading, Readings},
    publish::{
        Inboxes, Load,
        outbox::{Outbox, Storage},
    },
    queue::ClipQueue,
};

/// How often the broker is told how the node keeps up.
const LOAD_INTERVAL: Duration = Duration::from_secs(30);

/// The functions that the HTTP server calls.
pub fn status_source(
    deps: &WorkerDeps,
    reporter: &Arc<StatusReporter>,
    inboxes: &Inboxes,
) -> http::StatusSource {
    let WorkerDeps { queue, outbox, recording, metrics, lifecycle, .. } = deps.clone();
    let (reporter, inboxes, health) = (Arc::clone(reporter), inboxes.clone(), Arc::clone(&lifecycle));
    http::StatusSource {
        metrics: Box::new(move |format| {
            let readings = readings(&queue, &outbox, &reporter, &inboxes);
            let history = recording.status().map(history_reading);
            metrics.page(&Readings { history, ..readings }, format)
        }),
        health: Box::new(move || health.health()),
        ready: Box::new(move || lifecycle.ready()),
    }
}

/// Publishes how the node keeps up, until it is dropped.
pub async fn report_load(deps: WorkerDeps, reporter: Arc<StatusReporter>) {
    loop {
        reporter.set_load(load(&deps, &reporter));
        time::sleep(LOAD_INTERVAL).await;
    }
}

/// How the node keeps up.
pub fn load(deps: &WorkerDeps, reporter: &StatusReporter) -> Load {
    let overload: u64 = deps.queue.dropped().values().sum();
    let too_few: u64 = reporter.readings().values().map(|camera| camera.counts.too_few).sum();
    let outbox = deps.outbox.status();
    Load {
        queue_clips: deps.queue.len(),
        outbox_messages: outbox.rows,
        dropped_clips: overload + too_few + deps.metrics.dropped_clips(),
        dropped_events: outbox.dropped.values().sum(),
    }
}

fn history_reading(status: history::Status) -> HistoryReading {
    let history::Status { state, events, bytes, dropped_events, dropped_frames, .. } = status;
    HistoryReading { is_on: state == history::State::On, events, bytes, dropped_events, dropped_frames }
}

/// The metrics that other modules own.
fn readings(queue: &ClipQueue, outbox: &Outbox, reporter: &StatusReporter, inboxes: &Inboxes) -> Readings {
    let outbox = outbox.status();
    let age = |made: DateTime<Utc>| (Utc::now() - made).to_std().unwrap_or_default();
    Readings {
        cameras: reporter.readings(),
        queue: queue.len(),
        queue_age: queue.age(),
        overload: queue.dropped(),
        outbox: outbox.rows,
        outbox_bytes: outbox.bytes,
        outbox_age: outbox.oldest.map_or(Duration::ZERO, age),
        outbox_on_disk: outbox.storage == Storage::Disk,
        outbox_dropped_snapshots: outbox.dropped_snapshots,
        outbox_dropped: outbox.dropped,
        outbox_dead_lettered: outbox.dead_lettered,
        broker_connected: reporter.connected(),
        unknown_camera_commands: inboxes.commands.for_unknown_cameras(),
        unanswered_asks: inboxes.asks.dropped(),
        history: None,
    }
}
