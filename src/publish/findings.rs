//! What an event found, as it is published on topics of its own: answers and alerts.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::topics::Topics;
use crate::event::{AlertInfo, Event, QuestionAnswer, optional_millis};

/// The payload of an answer's topic.
#[derive(Serialize)]
struct AnswerMessage<'a> {
    /// Of the event.
    id: Uuid,
    /// The end of the clip.
    #[serde(serialize_with = "crate::event::millis")]
    time: DateTime<Utc>,
    #[serde(flatten)]
    answer: &'a QuestionAnswer,
}

/// The payload of an alert's topic, and of a transition.
#[derive(Serialize)]
struct AlertMessage<'a> {
    alert: &'a str,
    state: &'static str,
    #[serde(serialize_with = "optional_millis")]
    since: Option<DateTime<Utc>>,
    probability: f64,
    /// Of the event.
    id: Uuid,
}

/// Answers and alerts of an event: topics and payloads, JSON.
#[derive(Debug, Default, PartialEq)]
pub struct Findings {
    /// Each answer, on the retained topic of its question.
    pub answers: Vec<(String, Bytes)>,
    /// Each alert, on its retained topic.
    pub alerts: Vec<(String, Bytes)>,
    /// Each alert that the event has switched, on the topic of all transitions of its camera.
    pub transitions: Vec<(String, Bytes)>,
}

impl Findings {
    /// Those of an event as JSON. What is no event has none.
    pub fn of(topics: &Topics, event: &Bytes) -> Self {
        let Ok(event) = serde_json::from_slice::<Event>(event) else { return Self::default() };
        let answer = |(question, answer): (&String, &QuestionAnswer)| {
            let message = AnswerMessage { id: event.id, time: event.clip.end, answer };
            (topics.answer(&event.camera, question), json(&message))
        };
        let message = |alert: &str, info: &AlertInfo| {
            let AlertInfo { on, since, probability, .. } = *info;
            json(&AlertMessage {
                alert,
                state: if on { "ON" } else { "OFF" },
                since,
                probability,
                id: event.id,
            })
        };
        let alert =
            |(alert, info): (&String, &AlertInfo)| (topics.alert(&event.camera, alert), message(alert, info));
        let transition = |(alert, info): (&String, &AlertInfo)| {
            info.changed.then(|| (topics.alerts(&event.camera), message(alert, info)))
        };
        Self {
            answers: event.answers.iter().map(answer).collect(),
            alerts: event.alerts.iter().map(alert).collect(),
            transitions: event.alerts.iter().filter_map(transition).collect(),
        }
    }
}

/// Whether two payloads of an alert's topic tell the same state since the same time.
pub fn is_same_state(one: &Bytes, other: &Bytes) -> bool {
    let state = |payload: &Bytes| {
        let message: Value = serde_json::from_slice(payload).ok()?;
        Some((message.get("state")?.clone(), message.get("since")?.clone()))
    };
    state(one).is_some_and(|one| state(other) == Some(one))
}

fn json(message: &impl Serialize) -> Bytes {
    serde_json::to_vec(message).expect("a message is text and numbers").into()
}
