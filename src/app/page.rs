//! What the page shows, and what can be done there: the functions that the HTTP server calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::{task::JoinHandle, time};
use uuid::Uuid;

use super::{
    asks::{Asks, HTTP_LIMIT},
    deps::WorkerDeps,
    monitoring::load,
    status_reporter::{CameraFacts, StatusReporter},
};
use crate::{
    camera::CameraId,
    camera_ask::CameraAsk,
    history::{self, Cursor, HistoryError, Listed, Selection},
    http::{
        self, ApiError, EventsQuery,
        documents::{
            BrokerDocument, CameraChange, CameraDocument, CamerasDocument, DroppedDocument, EventDocument,
            EventsDocument, FrameDocument, HistoryDocument, HistoryState, ListedEvent, NodeDocument,
            OutboxDocument, QueueDocument, ReloadDocument, SnippetPart,
        },
    },
    image_file,
    publish::{CommandInbox, commands::CameraCommand, outbox::Storage},
    runtime_settings::{ENABLED, PROMPT, RuntimeSetting, Value},
};

/// How often cameras and node are looked at for changes.
const TICK: Duration = Duration::from_millis(500);
/// After so many of these times the node is told of.
const NODE_TICKS: u32 = 4;
/// The most missed events that are told to a client that comes back.
const MOST_MISSED: usize = 500;
/// When a client may ask again for a history that cannot be read.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the page is about.
pub struct Page {
    deps: WorkerDeps,
    reporter: Arc<StatusReporter>,
    commands: Arc<CommandInbox>,
    node: String,
    started: DateTime<Utc>,
}

impl Page {
    /// The page of a node.
    pub fn new(
        node: &str,
        deps: &WorkerDeps,
        reporter: &Arc<StatusReporter>,
        commands: &Arc<CommandInbox>,
    ) -> Arc<Self> {
        Arc::new(Self {
            deps: deps.clone(),
            reporter: Arc::clone(reporter),
            commands: Arc::clone(commands),
            node: node.to_owned(),
            started: Utc::now(),
        })
    }

    /// How the node is doing.
    pub fn node(&self) -> NodeDocument {
        let WorkerDeps { queue, outbox, recording, lifecycle, feed, .. } = &self.deps;
        let facts = self.reporter.node_facts();
        let (load, waiting, history) =
            (load(&self.deps, &self.reporter), outbox.status(), recording.status());
        NodeDocument {
            node: self.node.clone(),
            version: crate::VERSION.into(),
            phase: lifecycle.describe(),
            why: lifecycle.ready().err(),
            started: self.started,
            model: facts.model,
            gpu: facts.gpu,
            queue: QueueDocument { clips: load.queue_clips, oldest_s: queue.age().as_secs_f64() },
            clips_per_minute: feed.clips_per_minute(),
            dropped: DroppedDocument {
                clips: load.dropped_clips,
                events: load.dropped_events + waiting.dead_lettered.values().sum::<u64>(),
                history_events: history.as_ref().map_or(0, |it| it.dropped_events),
                history_frames: history.as_ref().map_or(0, |it| it.dropped_frames),
            },
            broker: BrokerDocument { connected: self.reporter.connected() },
            outbox: OutboxDocument {
                messages: waiting.rows,
                bytes: waiting.bytes,
                on_disk: waiting.storage == Storage::Disk,
            },
            history: history_document(history),
            reload: facts.reload.map(|it| ReloadDocument { time: it.time, error: it.error }),
            settings: facts.accepts_settings,
            login: false,
        }
    }

    /// All cameras.
    pub fn cameras(&self) -> CamerasDocument {
        let facts = self.reporter.camera_facts();
        CamerasDocument { cameras: facts.iter().map(|(id, facts)| self.camera(id, facts)).collect() }
    }

    fn camera(&self, id: &CameraId, facts: &CameraFacts) -> CameraDocument {
        let shown = self.deps.feed.shown(id);
        let facts = facts.clone();
        CameraDocument {
            id: id.clone(),
            name: facts.name,
            state: facts.state.into(),
            why: facts.why,
            enabled: facts.enabled,
            prompt: facts.prompt,
            questions: facts.questions,
            alerts: facts.alerts,
            latest: shown.latest,
            alert_states: shown.alerts,
            seen: shown.seen,
            snapshot: shown.snapshot.map(|(event, _)| event),
        }
    }

    /// Hands a change of settings to those who make it.
    pub fn change(&self, id: &CameraId, change: CameraChange) -> Result<(), ApiError> {
        if !self.reporter.node_facts().accepts_settings {
            return Err(ApiError::forbidden(
                "settings can only be changed in the configuration: mqtt.commands is false",
            ));
        }
        if !self.reporter.camera_facts().contains_key(id) {
            return Err(ApiError::no_path("there is no such camera"));
        }
        let command = |name, value| {
            let setting = RuntimeSetting::find(name)
                .ok_or_else(|| ApiError::internal(format!("there is no setting {name}")))?;
            Ok::<_, ApiError>(CameraCommand { camera: id.clone(), setting, value })
        };
        let enabled = change.enabled.map(|on| command(ENABLED, Some(Value::Switch(on)))).transpose()?;
        let prompt = change.prompt.map(|text| {
            let empty = command(PROMPT, None)?;
            let value = empty.setting.parse(&text).map_err(|why| ApiError::wrong_field("prompt", why))?;
            Ok::<_, ApiError>(CameraCommand { value, ..empty })
        });
        self.commands.put(enabled.into_iter().chain(prompt.transpose()?));
        Ok(())
    }

    /// Events of the history.
    fn events(&self, query: &EventsQuery, limit: usize) -> Result<EventsDocument, ApiError> {
        let before = query.before.as_deref().map(str::parse::<Cursor>).transpose();
        let before = before.map_err(|()| ApiError::wrong_field("before", "it is no next of an answer"))?;
        // Another question has other places.
        if matches!(before, Some(Cursor::Rank(..))) != query.q.is_some() && before.is_some() {
            return Err(ApiError::wrong_field("before", "it is the next of an answer to another question"));
        }
        let selection = Selection {
            camera: query.camera.clone(),
            from: query.from,
            to: query.to,
            alert: query.alert.clone(),
        };
        let page = self.read(|reader| match &query.q {
            Some(text) => reader.search(text, &selection, before, limit),
            None => reader.newest(&selection, before, limit),
        })?;
        let part = |it: history::Part| SnippetPart { text: it.text, hit: it.hit };
        let listed = |Listed { event, frames, snippet }| ListedEvent {
            event,
            frames,
            snippet: snippet.map(|parts: Vec<_>| parts.into_iter().map(part).collect()),
        };
        Ok(EventsDocument {
            events: page.events.into_iter().map(listed).collect(),
            next: page.next.map(|next| next.to_string()),
        })
    }

    fn event(&self, id: Uuid) -> Result<EventDocument, ApiError> {
        let details = self.read(|reader| reader.details(id))?.ok_or_else(no_event)?;
        let is_hidden = details
            .view
            .as_deref()
            .is_some_and(|lines| !self.deps.views.current().cover(&details.event.camera, lines));
        let frames = if is_hidden { Vec::new() } else { details.frames };
        let frame = |it: &history::FrameDetails| FrameDocument {
            offset_s: it.offset.as_secs_f64(),
            width: it.width,
            height: it.height,
        };
        Ok(EventDocument {
            frames: frames.iter().map(frame).collect(),
            exact: details.is_lossless && !is_hidden,
            older: details.older,
            newer: details.newer,
            event: details.event,
        })
    }

    fn frame(&self, id: Uuid, number: usize) -> Result<Vec<u8>, ApiError> {
        let gone = || ApiError::no_path("there is no such frame (any more)");
        let frame = self.read(|reader| reader.frame(id, number))?.ok_or_else(gone)?;
        let camera: CameraId = frame.camera.parse().map_err(|_| gone())?;
        // Masks may have changed since, and what they hide now is deleted soon.
        if !self.deps.views.current().cover(&camera, &frame.view) {
            return Err(gone());
        }
        let jpeg = frame.into_jpeg().map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(image_file::with_comment(&jpeg, &format!("camscribe event {id} frame {number}")))
    }

    fn read<T>(&self, read: impl FnOnce(&history::Reader) -> Result<T, HistoryError>) -> Result<T, ApiError> {
        let Some(result) = self.deps.recording.read(read) else {
            return Err(ApiError::no_path(
                "there is no history: history.keep is 0s, or there is no state directory",
            ));
        };
        result.map_err(|error| match error {
            HistoryError::Closed => ApiError::unavailable(error.to_string(), RETRY_AFTER),
            HistoryError::Database(_) => ApiError::internal(error.to_string()),
        })
    }

    /// Whether there is a history that can be read.
    fn is_history_readable(&self) -> bool {
        self.deps.recording.status().is_some_and(|status| status.state == history::State::On)
    }

    /// What clients missed that saw the event `last`.
    fn after(&self, last: Uuid) -> Option<Vec<http::Message>> {
        let is_behind = |status: history::Status| status.state != history::State::On;
        if self.deps.recording.status().is_none_or(is_behind) {
            return None;
        }
        let events = self.deps.recording.read(|reader| reader.after(last, MOST_MISSED + 1))?.ok()??;
        (events.len() <= MOST_MISSED).then(|| {
            let message = |event: &crate::event::Event| {
                let json = serde_json::to_string(event).ok()?;
                Some((Some(event.id), http::message("event", Some(event.id), &json)))
            };
            events.iter().filter_map(message).collect()
        })
    }
}

fn no_event() -> ApiError {
    ApiError::no_path("there is no such event (any more)")
}

fn history_document(status: Option<history::Status>) -> HistoryDocument {
    let Some(history::Status { state, events, bytes, oldest, .. }) = status else {
        return HistoryDocument { state: HistoryState::Off, why: None, events: 0, bytes: 0, oldest: None };
    };
    let (state, why) = match state {
        history::State::On => (HistoryState::On, None),
        history::State::Opening => (HistoryState::Stopped, Some("it is being opened".into())),
        history::State::Stopped { why } => (HistoryState::Stopped, Some(why)),
    };
    HistoryDocument { state, why, events, bytes, oldest }
}

/// The function that the HTTP server calls about the node.
pub fn node_source(page: &Arc<Page>) -> http::NodeSource {
    let page = Arc::clone(page);
    Box::new(move || page.node())
}

/// The functions that the HTTP server calls about cameras.
pub fn camera_source(page: &Arc<Page>, asks: &Arc<Asks>) -> http::CameraSource {
    let [of_list, of_change, of_snapshot] = [(); 3].map(|()| Arc::clone(page));
    let feed = Arc::clone(&page.deps.feed);
    let asks = Arc::clone(asks);
    let ask = move |camera: CameraId, ask: CameraAsk| {
        let asks = Arc::clone(&asks);
        Box::pin(async move { asks.ask(&camera, ask, HTTP_LIMIT).await }) as http::Asking
    };
    http::CameraSource {
        list: Box::new(move || of_list.cameras()),
        // A clip of a camera that was removed may have come late.
        snapshot: Box::new(move |id| of_snapshot.reporter.state(id).and_then(|_| feed.shown(id).snapshot)),
        change: Box::new(move |id, change| of_change.change(id, change)),
        ask: Box::new(ask),
    }
}

/// The functions that the HTTP server calls about the history.
pub fn events_source(page: &Arc<Page>) -> http::EventsSource {
    let (of_list, of_details, of_frame) = (Arc::clone(page), Arc::clone(page), Arc::clone(page));
    http::EventsSource {
        list: Box::new(move |query, limit| of_list.events(query, limit)),
        details: Box::new(move |id| of_details.event(id)),
        frame: Box::new(move |id, number| of_frame.frame(id, number)),
    }
}

/// What the HTTP server tells as it happens.
pub fn live_source(page: &Arc<Page>) -> http::LiveSource {
    let live = Arc::clone(&page.deps.feed.live);
    let page = Arc::clone(page);
    http::LiveSource { live, after: Box::new(move |last| page.after(last)) }
}

/// Tells of changes of the cameras and the node, until it is dropped.
pub async fn tell_changes(page: Arc<Page>) {
    let mut told: BTreeMap<CameraId, CameraFacts> = BTreeMap::new();
    // Cameras of which nobody has looked up yet what they last showed, and those of which somebody does.
    let mut unknown: BTreeSet<CameraId> = BTreeSet::new();
    let mut looking: Option<JoinHandle<Remembered>> = None;
    let live = &page.deps.feed.live;
    for tick in 0_u32.. {
        time::sleep(TICK).await;
        let now = page.reporter.camera_facts();
        unknown.extend(now.keys().filter(|id| !told.contains_key(*id)).cloned());
        if let Some(found) = looking.take_if(|it| it.is_finished()) {
            let Remembered { known, unread } = found.await.unwrap_or_default();
            // They are told of again, and the others looked up.
            known.iter().for_each(|id| drop(told.remove(id)));
            unknown.extend(unread);
        } else if looking.is_none() && !unknown.is_empty() && page.is_history_readable() {
            let (asked, ids) = (Arc::clone(&page), std::mem::take(&mut unknown));
            looking = Some(tokio::task::spawn_blocking(move || remember(&asked, ids)));
        }
        for (id, facts) in now.iter().filter(|(id, facts)| told.get(*id) != Some(facts)) {
            tell(live, "camera", &page.camera(id, facts));
        }
        for id in told.keys().filter(|id| !now.contains_key(*id)) {
            tell(live, "gone", &serde_json::json!({ "camera": id }));
        }
        // What is looked up just now is not unknown.
        told = now;
        if tick % NODE_TICKS == 0 {
            // It may wait for the disk.
            let asked = Arc::clone(&page);
            if let Ok(node) = tokio::task::spawn_blocking(move || asked.node()).await {
                tell(live, "node", &node);
            }
        }
    }
}

fn tell(live: &http::Live, kind: &str, document: &impl Serialize) {
    match serde_json::to_string(document) {
        Ok(json) => live.tell(kind, None, &json),
        Err(error) => tracing::error!("a {kind} cannot be written as JSON: {error}"),
    }
}

/// What was found of what cameras last showed.
#[derive(Default)]
struct Remembered {
    /// Of these something.
    known: Vec<CameraId>,
    /// Of these the history could not be read.
    unread: Vec<CameraId>,
}

/// Takes what these cameras last showed from the history.
fn remember(page: &Page, ids: BTreeSet<CameraId>) -> Remembered {
    let mut found = Remembered::default();
    for id in ids {
        let selection = Selection { camera: Some(id.clone()), ..Selection::default() };
        match page.deps.recording.read(|reader| reader.newest(&selection, None, 1)) {
            None => {}
            Some(Err(_)) => found.unread.push(id),
            Some(Ok(newest)) => {
                for listed in newest.events {
                    page.deps.feed.remember(listed.event);
                    found.known.push(id.clone());
                }
            }
        }
    }
    found
}
