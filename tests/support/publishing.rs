//! Events, settings and waiting, as the tests of publishing share them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use camscribe::{
    camera::CameraId,
    event::{Event, ModelInfo, SCHEMA},
    publish::{
        BrokerAddress, BrokerState, CameraProfile, Publisher, Settings,
        outbox::{Limits, Message, Outbox},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::broker::{Received, TIMEOUT};

pub const LIMITS: Limits = Limits { events: 16 << 20, snapshots: 16 << 20 };

pub const JPEG: &[u8] = b"\xff\xd8 not an image \xff\xd9";

pub fn camera(name: &str) -> CameraId {
    name.parse().expect("a good name")
}

/// An event as it was made, of a message that carries it: without the time of its publication, which it must have.
pub fn as_made(received: &Received) -> Value {
    let mut event = received.json();
    let published = event.as_object_mut().and_then(|event| event.remove("published")).expect("a time");
    let published = DateTime::parse_from_rfc3339(published.as_str().expect("text")).expect("a time");
    assert!((Utc::now() - published.to_utc()).abs() < TimeDelta::hours(1), "{published}");
    event
}

/// Cameras that people call by their ids.
pub fn named(names: &[&str]) -> BTreeMap<CameraId, CameraProfile> {
    names.iter().map(|name| (camera(name), (*name).into())).collect()
}

/// An event. Read from JSON, so that a field that may be absent need not be added here.
pub fn event(name: &str, seq: u64, description: &str) -> Event {
    let event = json!({
        "schema": SCHEMA,
        "id": Uuid::now_v7(),
        "type": "description",
        "node": "edge1",
        "camera": camera(name),
        "description": description,
        "clip": {
            "seq": seq,
            "start": "2026-01-02T03:04:05.000Z",
            "end": "2026-01-02T03:04:13.000Z",
            "clock": "camera",
            "frames": [{ "offset_s": 0.0, "pts_s": 1234.5 }, { "offset_s": 4.0, "pts_s": 1238.5 }],
            "width": 1920,
            "height": 1080,
            "gap": false,
        },
        "prompt": "Describe what happens.",
        "finish_reason": "stop",
        "model": model(),
        "tokens": { "prompt": 682, "image": 512, "generated": 21 },
        "timing_ms": { "queued": 4, "preprocess": 9, "vision": 8, "prefill": 6, "decode": 31, "total": 58 },
        "dropped": { "clips": 0, "failed": 0 },
    });
    serde_json::from_value(event).expect("an event")
}

pub fn model() -> ModelInfo {
    ModelInfo { id: "shapes".into(), revision: String::new(), device: "cpu".into(), dtype: "f32".into() }
}

pub fn message(event: &Event) -> Message {
    Message::new(event, Some(JPEG.to_vec()), None).expect("JSON")
}

pub fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::in_memory(LIMITS))
}

pub fn settings(port: u16) -> Settings {
    Settings {
        broker: BrokerAddress { host: "127.0.0.1".into(), port, tls: None },
        version: camscribe::config::MqttVersion::Auto,
        login: None,
        node: "edge1".into(),
        topic_prefix: "camscribe".into(),
        discovery_prefix: String::new(),
        cameras: named(&["porch"]),
        inboxes: None,
        response_topics: Vec::new(),
    }
}

pub fn start(settings: Settings, outbox: &Arc<Outbox>) -> Publisher {
    Publisher::start(settings, Arc::clone(outbox)).expect("good settings")
}

/// Waits until the publisher is connected.
pub async fn online(publisher: &Publisher) {
    until(publisher, |state| *state == BrokerState::Online).await;
}

/// Waits until the publisher is offline and returns the reason.
pub async fn offline_reason(publisher: &Publisher) -> String {
    match until(publisher, |state| matches!(state, BrokerState::Offline { .. })).await {
        BrokerState::Offline { why } => why,
        _ => unreachable!("waited for offline"),
    }
}

pub async fn until(publisher: &Publisher, wanted: impl FnMut(&BrokerState) -> bool) -> BrokerState {
    let mut state = publisher.state();
    timeout(TIMEOUT, state.wait_for(wanted)).await.expect("in time").expect("it runs").clone()
}

/// Waits until `wanted` holds for the outbox.
pub async fn wait_for_outbox(outbox: &Outbox, wanted: impl Fn(&Outbox) -> bool) {
    let poll = async {
        while !wanted(outbox) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("the outbox stays {:?}", outbox.status()));
}

pub fn descriptions(seen: &[Received]) -> Vec<Event> {
    let events = seen.iter().filter(|m| m.topic.ends_with("/description"));
    events.map(|m| serde_json::from_slice(&m.payload).expect("an event")).collect()
}
