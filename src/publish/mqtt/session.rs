//! One connection to the broker, from its ConnAck to its end.
//!
//! Messages go in from the board of states and from the outbox, no more at a time than the broker
//! allows; acknowledgements come back. rumqttc does not say which acknowledgement belongs to which
//! message, so messages handed to it wait in order for their packet id (it announces each as
//! written), and from then on by that id.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    future::Future,
    pin::Pin,
    time::Duration,
};

use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{
                ConnAckProperties, ConnectReturnCode, Packet, Publish, PublishProperties, SubscribeReasonCode,
            },
        },
    },
};
use tokio::time::{self, Instant};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    super::{
        Shared,
        outbox::{Row, Taken},
        retained::{ContentType, Post},
    },
    KEEP_ALIVE, WINDOW, given_up,
    words::{self, Ending},
};

/// A subscriber that was away longer than this does not get an event any more, seconds. A day.
const EVENT_EXPIRY: u32 = 24 * 60 * 60;
/// How long saying goodbye may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// The broker hanging up this often in a row, with nothing delivered in between, is put down to a
/// message that was under way.
const HANG_UPS: u32 = 3;
/// The largest packet that MQTT can frame, bytes.
const MAX_PACKET: usize = 268_435_455;

/// What is known of the broker from one connection to the next.
#[derive(Debug)]
pub(super) struct Memory {
    /// It keeps retained messages.
    pub retain: bool,
    /// It takes messages that it must acknowledge.
    qos1: bool,
    /// Messages that were under way when it objected to one of them. Until each has met its fate,
    /// messages go one at a time, so that the next objection names the culprit.
    suspects: BTreeSet<Key>,
    /// The smallest packet that it found too large, bytes.
    too_large: Option<usize>,
    /// Connections in a row that it ended with messages under way and none delivered.
    hang_ups: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self { retain: true, qos1: true, suspects: BTreeSet::new(), too_large: None, hang_ups: 0 }
    }
}

impl Memory {
    pub fn qos(&self) -> QoS {
        if self.qos1 { QoS::AtLeastOnce } else { QoS::AtMostOnce }
    }
}

/// Why there is no connection any more, or not yet.
pub(super) enum End {
    /// We were told to stop.
    Stopped,
    /// Try again.
    Lost {
        /// In words.
        why: String,
        /// Something came of this attempt: no reason to wait longer than last time.
        progress: bool,
    },
}

/// A message between us and the broker.
struct Sent {
    topic: String,
    /// None: a state, not an event.
    row: Option<Row>,
    /// Of the packet.
    bytes: usize,
}

type Key = (String, Option<Row>);

/// rumqttc loses data when a started poll is dropped, so the poll is one future that owns the event
/// loop and stays where it is while others are waited for.
type Poll = Pin<Box<dyn Future<Output = (EventLoop, Result<Event, ConnectionError>)> + Send>>;

fn poll(mut events: EventLoop) -> Poll {
    Box::pin(async move {
        let result = events.poll().await;
        (events, result)
    })
}

pub(super) struct Session<'a> {
    client: AsyncClient,
    poll: Poll,
    shared: &'a Shared,
    memory: &'a mut Memory,
    limits: Limits,
    /// Handed to rumqttc, not yet written: in order.
    handed: VecDeque<Sent>,
    /// Written, not yet acknowledged, by packet id.
    in_flight: BTreeMap<u16, Sent>,
    /// An event was delivered, or it is clear now which one cannot be.
    progress: bool,
    /// Topics whose messages the broker does not take; told once.
    told: HashSet<String>,
}

impl<'a> Session<'a> {
    /// Connects.
    pub async fn open(
        client: AsyncClient,
        events: EventLoop,
        shared: &'a Shared,
        memory: &'a mut Memory,
    ) -> Result<Self, End> {
        let mut poll_ = poll(events);
        let mut stop = shared.stop.subscribe();
        let (events, first) = tokio::select! {
            polled = &mut poll_ => polled,
            () = given_up(&mut stop, shared) => return Err(End::Stopped),
        };
        let lost = |why, progress| Err(End::Lost { why, progress });
        let properties = match first {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => ack.properties,
            Ok(_) => return lost("what answers there does not speak MQTT 5".into(), false),
            Err(ConnectionError::ConnectionRefused(ConnectReturnCode::RetainNotSupported))
                if memory.retain =>
            {
                memory.retain = false;
                return lost("the broker keeps no retained messages; going on without".into(), true);
            }
            Err(ConnectionError::ConnectionRefused(ConnectReturnCode::QoSNotSupported)) if memory.qos1 => {
                memory.qos1 = false;
                return lost("the broker acknowledges no messages; going on without".into(), true);
            }
            Err(error) => return lost(words::trouble(&error), false),
        };
        let limits = Limits::of(properties.as_ref());
        memory.retain = limits.retain;
        memory.qos1 = limits.qos1;
        shared.board().resend_all();
        if let Some(discovery) = &shared.discovery
            && client.try_subscribe(discovery.birth_topic(), QoS::AtMostOnce).is_err()
        {
            return lost("cannot subscribe".into(), false);
        }
        Ok(Self {
            client,
            poll: poll(events),
            shared,
            memory,
            limits,
            handed: VecDeque::new(),
            in_flight: BTreeMap::new(),
            progress: false,
            told: HashSet::new(),
        })
    }

    /// Delivers until the connection ends or we are told to stop.
    pub async fn serve(mut self) -> End {
        let mut stop = self.shared.stop.subscribe();
        let mut leaving = None;
        let mut said_goodbye = false;
        let mut heard = Instant::now();
        loop {
            let until = *stop.borrow_and_update();
            if let Some(until) = until
                && leaving.is_none()
                && (self.drained() || Instant::now() >= until)
            {
                self.shared.post(self.shared.topics.status(), ContentType::Text, "offline");
                leaving = Some(Instant::now() + FAREWELL);
            }
            if let Err(end) = self.send_what_is_due(leaving.is_some()) {
                return end;
            }
            if leaving.is_some() && !said_goodbye && self.settled() {
                said_goodbye = self.client.try_disconnect().is_ok();
            }
            let alarm = leaving.or(until);
            tokio::select! {
                (events, polled) = &mut self.poll => match polled {
                    Ok(event) => {
                        heard = Instant::now();
                        self.on(event);
                        self.poll = poll(events);
                    }
                    // After our goodbye the broker hangs up; before it, the will speaks for us.
                    Err(_) if leaving.is_some() => return End::Stopped,
                    Err(error) => return self.ended(events, &error),
                },
                () = self.shared.outbox.appended() => {}
                () = self.shared.posted.notified() => {}
                _ = stop.changed() => {}
                () = time::sleep_until(heard + self.limits.silence) => {
                    return End::Lost { why: "the broker no longer answers".into(), progress: self.progress };
                }
                () = time::sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    if leaving.is_some() {
                        return End::Stopped;
                    }
                }
            }
        }
    }

    /// Nothing is under way and every state is out.
    fn settled(&self) -> bool {
        self.under_way() == 0 && self.shared.board().all_sent()
    }

    fn drained(&self) -> bool {
        self.shared.outbox.is_empty() && self.settled()
    }

    fn under_way(&self) -> usize {
        self.handed.len() + self.in_flight.len()
    }

    /// Hands over as much as the broker allows: states first, they are few.
    fn send_what_is_due(&mut self, leaving: bool) -> Result<(), End> {
        let window = if self.memory.suspects.is_empty() { self.limits.window } else { 1 };
        while self.under_way() < window {
            let due = self.shared.board().take();
            if let Some(post) = due {
                self.send_state(post)?;
            } else if leaving {
                break;
            } else if let Some(taken) = self.shared.outbox.take() {
                self.send_event(taken)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn send_state(&mut self, post: Post) -> Result<(), End> {
        let properties = properties(post.content, None, post.event);
        self.send(post.topic, None, self.memory.retain, post.payload, properties).map(drop)
    }

    fn send_event(&mut self, Taken { row, message, newest }: Taken) -> Result<(), End> {
        let topics = &self.shared.topics;
        let properties = properties(ContentType::Json, Some(EVENT_EXPIRY), None);
        let topic = topics.description(&message.camera);
        let latest = topics.latest(&message.camera);
        let snapshot = topics.snapshot(&message.camera);
        let sent = self.send(topic, Some(row), false, message.event.clone(), properties)?;
        if sent && newest {
            let mut board = self.shared.board();
            let event = Some(message.id);
            let post = |topic, payload, content, event| Post { topic, payload, content, event };
            board.post(post(latest, message.event.clone(), ContentType::Json, None));
            if let Some(jpeg) = &message.snapshot {
                board.post(post(snapshot, jpeg.clone(), ContentType::Jpeg, event));
            }
        }
        Ok(())
    }

    /// Hands a message over unless it is larger than the broker takes; gives whether it did.
    fn send(
        &mut self,
        topic: String,
        row: Option<Row>,
        retain: bool,
        payload: Bytes,
        properties: PublishProperties,
    ) -> Result<bool, End> {
        let qos = self.memory.qos();
        let mut packet = Publish::new(&topic, qos, payload.clone(), Some(properties.clone()));
        packet.pkid = 1; // only to count its two bytes
        let bytes = packet.size();
        let sent = Sent { topic: topic.clone(), row, bytes };
        let limit =
            self.memory.too_large.map_or(self.limits.max_packet, |it| self.limits.max_packet.min(it - 1));
        if bytes > limit {
            self.refused(sent, &format!("the broker takes at most {limit} bytes"));
            return Ok(false);
        }
        let handed = self.client.try_publish_with_properties(topic, qos, retain, payload, properties);
        if handed.is_err() {
            return Err(End::Lost { why: "the connection takes no more messages".into(), progress: false });
        }
        self.handed.push_back(sent);
        Ok(true)
    }

    fn on(&mut self, event: Event) {
        match event {
            // Messages without acknowledgement have no packet id: written is all they can be.
            Event::Outgoing(Outgoing::Publish(0)) => {
                if let Some(sent) = self.handed.pop_front() {
                    self.delivered(&sent);
                }
            }
            Event::Outgoing(Outgoing::Publish(id)) => {
                if let Some(sent) = self.handed.pop_front() {
                    self.in_flight.insert(id, sent);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(sent) = self.in_flight.remove(&ack.pkid) {
                    match words::rejection(ack.reason) {
                        None => self.delivered(&sent),
                        Some(why) => self.refused(sent, why),
                    }
                }
            }
            // A retained one is old news: whoever just came up says so live.
            Event::Incoming(Packet::Publish(publish)) if !publish.retain && publish.payload == "online" => {
                if let Some(discovery) = &self.shared.discovery
                    && publish.topic == discovery.birth_topic()
                {
                    self.shared.board().resend_below(discovery.prefix());
                }
            }
            Event::Incoming(Packet::SubAck(ack))
                if ack.return_codes.iter().any(|code| !matches!(code, SubscribeReasonCode::Success(_))) =>
            {
                let codes = ack.return_codes;
                tracing::warn!("the broker does not let us hear when Home Assistant starts ({codes:?})");
            }
            _ => {}
        }
    }

    fn delivered(&mut self, sent: &Sent) {
        if let Some(row) = sent.row {
            self.shared.outbox.acknowledge(row);
            self.progress = true;
            self.memory.hang_ups = 0;
        }
        self.cleared(sent);
    }

    /// The broker does not take this message and never will: told, counted, not sent again.
    fn refused(&mut self, sent: Sent, why: &str) {
        let Sent { topic, row, bytes } = &sent;
        if let Some(row) = *row {
            self.shared.outbox.set_aside(row);
            self.progress = true;
            tracing::warn!("an event of {bytes} bytes for {topic} is set aside: {why}");
        } else {
            self.shared.board().shelve(topic);
            if self.told.insert(topic.clone()) {
                tracing::warn!("the broker does not take {topic} ({bytes} bytes): {why}");
            }
        }
        self.cleared(&sent);
    }

    /// The fate of a message is known: it is no suspect any more, nor is any event before it.
    fn cleared(&mut self, sent: &Sent) {
        self.memory.suspects.retain(|(topic, row)| match (row, sent.row) {
            (Some(suspect), Some(row)) => *suspect > row,
            (None, None) => *topic != sent.topic,
            _ => true,
        });
    }

    /// The connection is gone. Finds out whether a message was the reason.
    fn ended(mut self, mut events: EventLoop, error: &ConnectionError) -> End {
        for event in std::mem::take(&mut events.state.events) {
            self.on(event);
        }
        let (why, rejected) = match words::ending(error) {
            Ending::Rejected { why, too_large } => (why.clone(), Some((why, too_large))),
            Ending::HungUp(why) if self.under_way() > 0 && !self.progress => {
                self.memory.hang_ups += 1;
                let often = self.memory.hang_ups >= HANG_UPS;
                (why, often.then(|| ("the broker hangs up whenever it is sent".into(), false)))
            }
            Ending::HungUp(why) | Ending::Lost(why) => (why, None),
        };
        match rejected {
            Some((objection, too_large)) => self.blame(&objection, too_large),
            // Another broker may answer next time.
            None => self.memory.too_large = None,
        }
        End::Lost { why, progress: self.progress }
    }

    /// The broker objects to one of the messages under way.
    fn blame(&mut self, objection: &str, too_large: bool) {
        let mut under_way: Vec<Sent> = std::mem::take(&mut self.in_flight).into_values().collect();
        under_way.extend(self.handed.drain(..));
        match under_way.pop() {
            Some(culprit) if under_way.is_empty() => {
                if too_large {
                    self.memory.too_large = Some(culprit.bytes);
                }
                self.memory.hang_ups = 0;
                self.refused(culprit, objection);
                self.progress = true;
            }
            Some(last) => {
                under_way.push(last);
                self.memory.suspects = under_way.into_iter().map(|sent| (sent.topic, sent.row)).collect();
                self.progress = true;
            }
            None => {}
        }
    }
}

/// What a broker allows, by its ConnAck.
#[derive(Debug)]
struct Limits {
    max_packet: usize,
    window: usize,
    retain: bool,
    qos1: bool,
    /// Pings make sure that something happens more often than this. Nothing does when a write hangs on
    /// a dead line: rumqttc neither pings nor times out then.
    silence: Duration,
}

impl Limits {
    fn of(properties: Option<&ConnAckProperties>) -> Self {
        let max_packet = properties.and_then(|p| p.max_packet_size).map_or(MAX_PACKET, |max| max as usize);
        let keep_alive = properties.and_then(|p| p.server_keep_alive).map(|s| Duration::from_secs(s.into()));
        let receive_max = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX);
        Self {
            max_packet: max_packet.min(MAX_PACKET),
            window: usize::from(receive_max.min(WINDOW)),
            retain: properties.and_then(|p| p.retain_available) != Some(0),
            qos1: properties.and_then(|p| p.max_qos) != Some(0),
            silence: 3 * keep_alive.unwrap_or_default().max(KEEP_ALIVE),
        }
    }
}

fn properties(content: ContentType, expiry: Option<u32>, event: Option<Uuid>) -> PublishProperties {
    let content_type = match content {
        ContentType::Text => "text/plain",
        ContentType::Json => "application/json",
        ContentType::Jpeg => "image/jpeg",
    };
    PublishProperties {
        // 1: UTF-8 text.
        payload_format_indicator: (content != ContentType::Jpeg).then_some(1),
        message_expiry_interval: expiry,
        user_properties: event.map(|id| ("id".into(), id.to_string())).into_iter().collect(),
        content_type: Some(content_type.into()),
        ..PublishProperties::default()
    }
}
