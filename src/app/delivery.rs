//! What becomes of a description: an event, metrics, a log line, a snapshot, a row in the outbox, and a record in the
//! history.

use super::deps::WorkerDeps;
use crate::{
    answer::DescribeError,
    describe::worker::{Answer, Outcome},
    event::{Event, EventKind, EvidenceInfo},
    events::EventBuilder,
    image_file,
    metrics::Reason,
    plural::plural,
    publish::outbox::Message,
};

/// Makes the event of a clip, counts it and puts it into the outbox with a snapshot. Nothing leaves of a clip that shows
/// what is not to be seen any more.
pub fn deliver(mut outcome: Outcome, events: &mut EventBuilder, deps: &WorkerDeps) {
    let views = deps.views.current();
    if !views.allow(&outcome.clip.camera, &outcome.clip.view) {
        let why = "crop or masks of its camera have changed since it was captured";
        outcome.answer = Err(DescribeError::Request(why.into()));
    }
    let labels = match &outcome.answer {
        Ok(Answer::Described(description)) => description.labels.clone(),
        _ => Vec::new(),
    };
    let (clip, event) = events.build(outcome);
    let camera = &clip.camera;
    let mut event = match event {
        Ok(event) => event,
        Err(error) => {
            deps.metrics.dropped(camera, Reason::Undescribed);
            return tracing::warn!(%camera, clip = clip.seq, "a clip was not described: {error}");
        }
    };
    deps.metrics.described(&event);
    match event.kind {
        EventKind::Description => {
            tracing::debug!(%camera, clip = clip.seq, ms = event.timing_ms.total, "{}", event.description);
        }
        EventKind::Answers => {
            tracing::debug!(%camera, clip = clip.seq, ms = event.timing_ms.total, "{}", spoken(&event));
        }
        EventKind::Unchanged => tracing::debug!(%camera, clip = clip.seq, "unchanged"),
    }
    for (alert, info) in event.alerts.iter().filter(|(_, info)| info.changed) {
        let (state, probability) = (if info.on { "on" } else { "off" }, info.probability);
        tracing::info!(%camera, clip = clip.seq, "the alert {alert} is {state} (probability {probability:.2})");
    }
    if event.dropped.clips > 0 {
        tracing::warn!(%camera, "the model is slower than the cameras: dropped {}", plural(event.dropped.clips, "older clip"));
    }
    // An unchanged clip needs no snapshot: the last one still shows the scene.
    let frame = clip.frames.iter().find(|frame| frame.has_original());
    let frame = frame.or_else(|| clip.frames.get(clip.frames.len() / 2));
    let snapshot = frame.filter(|_| event.kind != EventKind::Unchanged).and_then(|frame| {
        let jpeg = image_file::jpeg(frame);
        let jpeg = jpeg.inspect_err(|error| tracing::warn!(%camera, "no snapshot: {error}")).ok()?;
        // Whoever has the picture alone knows what it belongs to.
        Some(image_file::with_comment(&jpeg, &format!("camscribe event {}", event.id)))
    });
    let evidence = deps.recording.evidence(&clip, &event, labels);
    event.evidence = evidence.as_ref().map(|evidence| EvidenceInfo { frames: evidence.frames.len() });
    // Text and numbers only: it can always be written.
    let alerts = events.alerts(camera).and_then(|alerts| serde_json::to_vec(alerts).ok());
    match Message::new(&event, snapshot, alerts) {
        Ok(message) => {
            let snapshot = message.snapshot.clone();
            deps.outbox.append(Message { is_recorded: deps.recording.is_on(), ..message });
            tracing::debug!(%camera, id = %event.id, "in the outbox");
            deps.feed.event(&event, snapshot);
            deps.recording.record(event, evidence);
        }
        Err(error) => tracing::error!(%camera, "an event cannot be written as JSON: {error}"),
    }
}

/// The answers of an event as a line.
fn spoken(event: &Event) -> String {
    let answers = event.answers.iter().map(|(name, answer)| format!("{name}: {}", answer.answer()));
    answers.collect::<Vec<_>>().join(", ")
}
