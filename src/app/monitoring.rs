//! What the HTTP server answers about metrics and health.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{deps::WorkerDeps, status_reporter::StatusReporter};
use crate::{
    http,
    metrics::Readings,
    publish::{
        CommandInbox,
        outbox::{Outbox, Storage},
    },
    queue::ClipQueue,
};

/// The functions that the HTTP server calls.
pub fn status_source(
    deps: &WorkerDeps,
    reporter: &Arc<StatusReporter>,
    commands: &Arc<CommandInbox>,
) -> http::StatusSource {
    let WorkerDeps { queue, outbox, metrics, lifecycle } = deps.clone();
    let (reporter, commands, health) = (Arc::clone(reporter), Arc::clone(commands), Arc::clone(&lifecycle));
    http::StatusSource {
        metrics: Box::new(move |format| {
            metrics.page(&readings(&queue, &outbox, &reporter, &commands), format)
        }),
        health: Box::new(move || health.health()),
        ready: Box::new(move || lifecycle.ready()),
    }
}

/// The metrics that other modules own.
fn readings(
    queue: &ClipQueue,
    outbox: &Outbox,
    reporter: &StatusReporter,
    commands: &CommandInbox,
) -> Readings {
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
        unknown_camera_commands: commands.for_unknown_cameras(),
    }
}
