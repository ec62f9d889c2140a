//! Delivery over one connection: what is sent, and what becomes of each message.
//!
//! Messages come from the retained messages and from the outbox, and no more are in flight than the
//! broker allows. When the broker refuses a message, or the connection ends while messages are in
//! flight, [`BrokerQuirks`] keeps what the next connection must know.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;
use tokio_util::bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    broker_quirks::BrokerQuirks,
    client::{BrokerEvent, BrokerLimits, Client, EventLoop, Outgoing, QueueFull},
    in_flight::{InFlightMessages, Origin, Sent},
    reason_text::{CLOSED_AFTER_CONNACK, DisconnectReason, PubAckOutcome, TOO_LARGE},
    subscriptions::Subscriptions,
};
use crate::camera::CameraId;
use crate::publish::{
    ask_inbox::{REPLY_LIMIT, Reply},
    findings::Findings,
    outbox::InFlight,
    retained::{ContentType, RetainedMessage},
    shared::Shared,
};

/// A connection that has lasted this long was a good one: the next pause is short.
pub(super) const STEADY: Duration = Duration::from_secs(30);

/// The broker discards an event for a subscriber that is away longer than this, seconds: a day.
const EVENT_EXPIRY: u32 = 24 * 60 * 60;
/// The broker discards an answer to a question for a subscriber that is away longer than this, seconds.
const REPLY_EXPIRY: u32 = REPLY_LIMIT.as_secs() as u32;
/// After so many unexplained disconnects in a row, a message that was in flight is taken for the cause.
const MAX_UNEXPLAINED: u32 = 5;
/// How long subscriptions are paused after they failed.
const SUBSCRIPTION_PAUSE: Duration = Duration::from_secs(600);

/// Why a session ended or did not begin.
pub(super) enum SessionEnd {
    /// The publisher has shut down.
    Stopped,
    /// The broker does not support this version of MQTT, or closed the connection or did not answer, as such
    /// brokers do.
    VersionUnsupported {
        /// The reason, for people.
        why: String,
        /// The broker said so.
        explicit: bool,
    },
    /// There is no connection; try again.
    Disconnected {
        /// The reason, for people.
        why: String,
        /// An event was delivered, or something was found out about the broker: the next pause is short.
        progress: bool,
    },
}

/// The descriptions that waited when the connection began.
struct Backlog {
    waited: usize,
    waiting: usize,
}

impl Backlog {
    fn new(waited: usize) -> Self {
        Self { waited, waiting: waited }
    }

    /// An event has left the outbox. The oldest go first, so the backlog goes before what is new.
    fn left(&mut self) {
        if self.waiting > 0 {
            self.waiting -= 1;
            if self.waiting == 0 {
                tracing::info!("descriptions that waited for the MQTT broker are delivered: {}", self.waited);
            }
        }
    }
}

/// A message of an event, and what is retained of the event once it was sent.
struct Due {
    message: Outgoing,
    origin: Origin,
    retain: Option<Retain>,
}

/// What is retained of an event.
struct Retain {
    camera: CameraId,
    /// The event, if it is the newest of its camera.
    newest: Option<Bytes>,
    alerts: Vec<(String, Bytes)>,
}

/// The delivery over an accepted connection.
pub(super) struct Delivery<'a> {
    pub client: Client,
    pub shared: &'a Shared,
    pub quirks: &'a mut BrokerQuirks,
    pub limits: BrokerLimits,
    in_flight: InFlightMessages,
    /// The transitions of an event and the event itself, which are sent next.
    due: VecDeque<Due>,
    /// A reply was sent since the last event.
    replied: bool,
    backlog: Backlog,
    /// When the connection was accepted.
    began: Instant,
    /// The broker has answered something: messages pass in both directions.
    answered: bool,
    /// An event was delivered, or something was found out about the broker.
    progress: bool,
    /// Topics whose messages the broker does not take. Each is logged once.
    logged: HashSet<String>,
    subscriptions: Subscriptions<'a>,
    /// At the last retry the broker had not acknowledged the subscriptions.
    subscriptions_overdue: bool,
}

impl<'a> Delivery<'a> {
    /// Starts: all retained messages are to be sent again, and the subscriptions are requested unless
    /// they are paused.
    ///
    /// # Errors
    /// When the subscriptions cannot be requested.
    pub fn start(
        client: Client,
        limits: BrokerLimits,
        shared: &'a Shared,
        quirks: &'a mut BrokerQuirks,
    ) -> Result<Self, SessionEnd> {
        quirks.retain = limits.retain;
        quirks.qos1 = limits.qos1;
        shared.retained().resend_all();
        let mut delivery = Self {
            client,
            shared,
            quirks,
            limits,
            in_flight: InFlightMessages::default(),
            due: VecDeque::new(),
            replied: false,
            backlog: Backlog::new(shared.outbox.len()),
            began: Instant::now(),
            answered: false,
            progress: false,
            logged: HashSet::new(),
            subscriptions: Subscriptions::new(shared),
            subscriptions_overdue: false,
        };
        delivery.subscribe_unless_paused()?;
        Ok(delivery)
    }

    fn subscribe_unless_paused(&mut self) -> Result<(), SessionEnd> {
        if self.quirks.subscriptions_paused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.quirks.subscriptions_paused_until = None;
        let requested = self.subscriptions.request(&self.client);
        requested.map_err(|QueueFull| self.disconnected("camscribe cannot subscribe to commands".into()))
    }

    /// Sends postponed messages again, and requests paused subscriptions when their pause is over. Ends
    /// the session when the broker has not acknowledged the subscriptions since the last retry.
    pub fn retry(&mut self) -> Result<(), SessionEnd> {
        let overdue = std::mem::replace(&mut self.subscriptions_overdue, self.subscriptions.pending);
        if overdue && self.subscriptions.pending {
            let why = "the broker does not acknowledge the subscription to commands";
            return Err(self.pause_subscriptions(why.into()));
        }
        self.shared.retained().resend_postponed();
        if self.quirks.subscriptions_paused_until.is_some() {
            self.subscribe_unless_paused()?;
        }
        Ok(())
    }

    /// Gives up the subscriptions for a while, because delivery is more important. Returns the end of
    /// this session.
    fn pause_subscriptions(&mut self, why: String) -> SessionEnd {
        self.quirks.subscriptions_paused_until = Some(Instant::now() + SUBSCRIPTION_PAUSE);
        tracing::warn!("{why}; commands are not received for ten minutes");
        SessionEnd::Disconnected { why, progress: true }
    }

    /// The end of this session for this reason.
    pub fn disconnected(&self, why: String) -> SessionEnd {
        SessionEnd::Disconnected { why, progress: self.progress }
    }

    /// Nothing is in flight, and every retained message was sent.
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty() && self.shared.retained().all_sent()
    }

    /// As [`Delivery::is_settled`], and the outbox is empty.
    pub fn is_drained(&self) -> bool {
        self.shared.outbox.is_empty() && self.is_settled()
    }

    /// Sends as much as the broker allows: retained messages first, which are few, then events unless
    /// the connection is `closing`.
    pub fn send_waiting(&mut self, closing: bool) -> Result<(), SessionEnd> {
        let limit = if self.quirks.quarantined.is_empty() { self.limits.max_in_flight } else { 1 };
        // A pending subscription uses a packet id that no message may get before it is acknowledged.
        let limit = limit.saturating_sub(usize::from(self.subscriptions.pending));
        while self.in_flight.len() < limit {
            let state = self.shared.retained().take();
            if let Some((number, message)) = state {
                self.send_state(number, message)?;
            } else if let Some(due) = self.due.pop_front() {
                self.send_due(due)?;
            } else if closing {
                break;
            } else if let Some(reply) = self.next_reply() {
                self.send_reply(reply)?;
            } else if let Some(event) = self.shared.outbox.take() {
                self.replied = false;
                self.due = self.messages_of(event);
            } else if let Some(reply) = self.shared.take_reply() {
                self.send_reply(reply)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn send_state(&mut self, number: u64, message: RetainedMessage) -> Result<(), SessionEnd> {
        let RetainedMessage { topic, payload, content, event, .. } = message;
        let origin = Origin::State { number, snapshot: event };
        let (qos1, retain) = (self.quirks.qos1, self.quirks.retain);
        let message =
            Outgoing { topic, qos1, retain, payload, content, expiry: None, event, correlation: None };
        self.send(message, origin).map(drop)
    }

    /// A reply before the next event, unless one was sent since the last event, or there is only one place for both.
    fn next_reply(&self) -> Option<Reply> {
        let may = !self.replied && self.quirks.quarantined.is_empty();
        may.then(|| self.shared.take_reply()).flatten()
    }

    fn send_reply(&mut self, Reply { topic, payload, correlation, .. }: Reply) -> Result<(), SessionEnd> {
        let message = Outgoing {
            topic,
            qos1: self.quirks.qos1,
            retain: false,
            payload,
            content: ContentType::Json,
            expiry: Some(REPLY_EXPIRY),
            event: None,
            correlation,
        };
        self.replied = true;
        self.send(message, Origin::Reply).map(drop)
    }

    /// The messages of an event. It goes last: its acknowledgement means that the broker has all of them.
    fn messages_of(&self, event: InFlight) -> VecDeque<Due> {
        let InFlight { row, camera, event, newest, .. } = event;
        let Findings { alerts, transitions, .. } = Findings::of(&self.shared.topics, &event);
        let event = with_published(&event, Utc::now());
        let message = |topic, payload| Outgoing {
            topic,
            qos1: self.quirks.qos1,
            retain: false,
            payload,
            content: ContentType::Json,
            expiry: Some(EVENT_EXPIRY),
            event: None,
            correlation: None,
        };
        let untold = |(topic, _): &(String, Bytes)| !self.quirks.untold.contains(topic);
        let transition = |(topic, payload)| Due {
            message: message(topic, payload),
            origin: Origin::Transition(row),
            retain: None,
        };
        let itself = message(self.shared.topics.description(&camera), event.clone());
        let retain = Retain { camera, newest: newest.then_some(event), alerts };
        let itself = Due { message: itself, origin: Origin::Event(row), retain: Some(retain) };
        transitions.into_iter().filter(untold).map(transition).chain([itself]).collect()
    }

    fn send_due(&mut self, Due { message, origin, retain }: Due) -> Result<(), SessionEnd> {
        let was_sent = self.send(message, origin)?;
        if let Some(Retain { camera, newest, alerts }) = retain {
            // Whether the broker takes the event or not: they are as they are.
            self.shared.retain_alerts(&camera, alerts);
            if let Some(event) = newest.filter(|_| was_sent) {
                self.shared.retain_newest(&camera, event);
            }
        }
        Ok(())
    }

    /// Sends a message unless it is larger than the broker takes. Returns whether it was sent.
    fn send(&mut self, message: Outgoing, origin: Origin) -> Result<bool, SessionEnd> {
        let bytes = self.client.size(&message);
        let sent = Sent { topic: message.topic.clone(), origin, bytes };
        let max = self.limits.max_packet;
        // A snapshot that is only a little smaller than a refused message would be the next to end the connection.
        let of_origin = |too_large: usize| match origin {
            Origin::State { snapshot: Some(_), .. } => too_large / 10 * 9,
            _ => too_large - 1,
        };
        let limit = self.quirks.too_large.map_or(max, |too_large| max.min(of_origin(too_large)));
        if bytes > limit {
            let why = match &sent.origin {
                Origin::State { snapshot: Some(_), .. } => TOO_LARGE.into(),
                _ => format!("the broker takes at most {limit} bytes: raise its limit on message sizes"),
            };
            self.refused(sent, &why);
            return Ok(false);
        }
        if self.client.publish(message).is_err() {
            let why = "the connection takes no more messages".into();
            return Err(SessionEnd::Disconnected { why, progress: false });
        }
        self.in_flight.requested(sent);
        Ok(true)
    }

    /// Handles an event of the connection.
    ///
    /// # Errors
    /// When the session ends, because the broker does not take an event now.
    pub fn on(&mut self, event: BrokerEvent) -> Result<(), SessionEnd> {
        match event {
            BrokerEvent::Written(id) => {
                // QoS 0: written is all that is known of it.
                if let Some(sent) = self.in_flight.written(id) {
                    self.delivered(&sent);
                }
            }
            BrokerEvent::Acknowledged(id, outcome) => {
                self.answered = true;
                if let Some(sent) = self.in_flight.acknowledged(id) {
                    self.acknowledged(sent, outcome)?;
                }
            }
            BrokerEvent::Message(message) => {
                self.answered = true;
                self.subscriptions.on_message(message);
            }
            BrokerEvent::Subscribed(granted) => {
                self.answered = true;
                self.subscriptions.acknowledged(&granted);
                self.quirks.failed_subscriptions = 0;
            }
            BrokerEvent::Connected(_) | BrokerEvent::Other => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, sent: Sent, outcome: PubAckOutcome) -> Result<(), SessionEnd> {
        match outcome {
            PubAckOutcome::Accepted => self.delivered(&sent),
            PubAckOutcome::TryLater(why) => self.try_later(sent, why)?,
            PubAckOutcome::Unclear(why) => {
                if sent.row().is_some() && self.quirks.refused_unclearly(sent.key()) {
                    self.refused(sent, why);
                } else {
                    self.try_later(sent, why)?;
                }
            }
            PubAckOutcome::Refused(why) => self.refused(sent, why),
        }
        Ok(())
    }

    fn delivered(&mut self, sent: &Sent) {
        match sent.origin {
            Origin::Event(row) => {
                self.shared.outbox.acknowledge(row);
                self.backlog.left();
                self.progress = true;
                self.quirks.unexplained_disconnects = 0;
            }
            // The event behind a transition tells of progress.
            Origin::Transition(_) | Origin::Reply => {}
            Origin::State { number, snapshot } => {
                self.shared.retained().delivered(number);
                self.forget_snapshot(snapshot);
            }
        }
        self.leave_quarantine(sent);
    }

    /// The broker does not take this message now, but may later. An event ends the session.
    fn try_later(&mut self, sent: Sent, why: &str) -> Result<(), SessionEnd> {
        match sent.origin {
            // The events behind it would be refused, too, or overtake it: all wait.
            Origin::Event(_) | Origin::Transition(_) => {
                let why = format!("the broker does not take {} now: {why}", sent.topic);
                self.quirks.quarantined.insert(sent.key());
                Err(self.disconnected(why))
            }
            Origin::Reply => {
                self.reply_refused(&sent.topic, why);
                Ok(())
            }
            Origin::State { number, .. } => {
                self.shared.retained().postpone(number);
                self.leave_quarantine(&sent);
                if self.logged.insert(sent.topic.clone()) {
                    tracing::warn!(
                        "the broker does not take {} now, camscribe tries again: {why}",
                        sent.topic
                    );
                }
                Ok(())
            }
        }
    }

    /// The broker refuses this message for good: it is logged, counted and not sent again.
    fn refused(&mut self, sent: Sent, why: &str) {
        let Sent { topic, origin, bytes } = &sent;
        match *origin {
            Origin::Event(row) => {
                self.shared.outbox.dead_letter(row);
                self.backlog.left();
                self.progress = true;
                if self.logged.insert(topic.clone()) {
                    tracing::warn!(
                        "an event of {bytes} bytes for {topic} is discarded: {why}; further ones are counted \
                         (camscribe_outbox_set_aside_total)"
                    );
                }
            }
            Origin::Reply => self.reply_refused(topic, why),
            Origin::Transition(_) => {
                self.progress = true;
                self.quirks.untold.insert(topic.clone());
                tracing::warn!("alerts are not told on {topic}, but in the events: {why}");
            }
            Origin::State { number, snapshot } => {
                self.shared.retained().reject(number);
                self.forget_snapshot(snapshot);
                if self.logged.insert(topic.clone()) {
                    tracing::warn!("the broker does not take {topic} ({bytes} bytes): {why}");
                }
            }
        }
        self.leave_quarantine(&sent);
    }

    /// The topic is the caller's choice: nobody may fill the log by naming others.
    fn reply_refused(&self, topic: &str, why: &str) {
        tracing::debug!("an answer about a camera is lost, the broker does not take {topic:?}: {why}");
    }

    /// The outbox need not keep a snapshot that was delivered or refused.
    fn forget_snapshot(&self, snapshot: Option<Uuid>) {
        if let Some(id) = snapshot {
            self.shared.outbox.forget_snapshot(id);
        }
    }

    /// Takes a message whose outcome is known out of quarantine. Events before it have left the outbox,
    /// so they leave the quarantine, too.
    fn leave_quarantine(&mut self, sent: &Sent) {
        if let Origin::Reply = sent.origin {
            return;
        }
        if let Origin::Transition(_) = sent.origin {
            // Its event comes behind it.
            self.quirks.quarantined.remove(&sent.key());
            return;
        }
        self.quirks.quarantined.retain(|(topic, row)| match (row, sent.row()) {
            (Some(quarantined), Some(row)) => *quarantined > row,
            (None, None) => *topic != sent.topic,
            _ => true,
        });
    }

    /// The connection has ended. Finds out whether the subscriptions or a message caused it.
    pub fn ended(mut self, mut events: EventLoop, reason: DisconnectReason) -> SessionEnd {
        for event in events.remaining() {
            if let Err(end) = self.on(event) {
                return end;
            }
        }
        if matches!(reason, DisconnectReason::IncomingTooLarge) {
            self.quirks.subscriptions_paused_until = Some(Instant::now() + SUBSCRIPTION_PAUSE);
        }
        if self.subscriptions.pending {
            return self.ended_while_subscribing(reason);
        }
        // Two clients of one name would throw each other out for ever: the pauses grow whatever was delivered.
        self.progress &= reason != DisconnectReason::TakenOver;
        let (why, rejected) = match reason {
            DisconnectReason::MessageRejected { why, too_large } => {
                (format!("the broker objects to a message: {why}"), Some((why, too_large)))
            }
            DisconnectReason::Closed(why) if !self.in_flight.is_empty() && !self.progress => {
                let objection = "the broker closes the connection whenever it is sent";
                (why, self.is_message_suspected().then(|| (objection.into(), false)))
            }
            DisconnectReason::Closed(why) if self.began.elapsed() < STEADY => {
                (format!("{why}; {CLOSED_AFTER_CONNACK}"), None)
            }
            reason => (reason.into_text(), None),
        };
        match rejected {
            Some((objection, too_large)) => self.message_rejected(&objection, too_large),
            // Another broker may answer next time.
            None => self.quirks.too_large = None,
        }
        self.disconnected(why)
    }

    /// The connection has ended before the SUBACK. Some brokers close the connection of a client that
    /// may not subscribe, so no message is suspected.
    fn ended_while_subscribing(&mut self, reason: DisconnectReason) -> SessionEnd {
        self.quirks.failed_subscriptions += 1;
        let rejected = matches!(reason, DisconnectReason::MessageRejected { .. });
        let why = reason.into_text();
        if rejected || self.quirks.failed_subscriptions >= MAX_UNEXPLAINED {
            return self.pause_subscriptions(format!(
                "the connection ends when camscribe subscribes to commands: {why}"
            ));
        }
        self.disconnected(why)
    }

    /// Counts an unexplained disconnect. Returns whether there were so many that a message in flight is
    /// taken for the cause.
    fn is_message_suspected(&mut self) -> bool {
        // One message in flight and nothing answered: the network is the likelier cause.
        let counts = self.in_flight.len() > 1 || self.answered;
        self.quirks.unexplained_disconnects += u32::from(counts);
        self.quirks.unexplained_disconnects >= MAX_UNEXPLAINED
    }

    /// The broker objects to one of the messages in flight. A single one is refused for good. Several
    /// are quarantined, which sends one at a time from now on.
    fn message_rejected(&mut self, objection: &str, too_large: bool) {
        let mut in_flight = self.in_flight.drain();
        if in_flight.is_empty() {
            return;
        }
        self.quirks.unexplained_disconnects = 0;
        self.progress = true;
        if in_flight.len() > 1 {
            // Replies are not sent again.
            let again = in_flight.into_iter().filter(|sent| !matches!(sent.origin, Origin::Reply));
            self.quirks.quarantined = again.map(|sent| sent.key()).collect();
        } else if let Some(culprit) = in_flight.pop() {
            if too_large {
                self.quirks.too_large = Some(culprit.bytes);
            }
            self.refused(culprit, objection);
        }
    }
}

/// Adds the time of publication, [`Event::published`](crate::event::Event::published), to an event as JSON.
fn with_published(event: &Bytes, now: DateTime<Utc>) -> Bytes {
    let Some(open) = event.strip_suffix(b"}") else { return event.clone() };
    let now = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut complete = BytesMut::from(open);
    complete.put_slice(format!(",\"published\":\"{now}\"}}").as_bytes());
    complete.freeze()
}
