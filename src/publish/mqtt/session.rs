//! One connection to the broker, from its ConnAck to its end.
//!
//! Messages go in from the board of states and from the outbox, no more at a time than the broker
//! allows; acknowledgements come back. rumqttc does not say which acknowledgement belongs to which
//! message, so messages handed to it wait in order for their packet id (it announces each as
//! written), and from then on by that id.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    future::Future,
    pin::Pin,
    time::Duration,
};

use tokio::time::{self, Instant};
use uuid::Uuid;

use super::{
    super::{
        Shared, Stop,
        outbox::{Row, Taken},
        retained::{ContentType, Post},
    },
    ears::Ears,
    given_up,
    memory::{Lacks5, Memory},
    wire::{Client, Heard, Limits, Line, Outgoing, Protocol},
    words::{Ending, NEVER_LET_IN, THROWN_OUT, Verdict},
};

/// A subscriber that was away longer than this does not get an event any more, seconds. A day.
const EVENT_EXPIRY: u32 = 24 * 60 * 60;
/// How long saying goodbye may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// The broker hanging up this often in a row, with nothing delivered in between, is put down to a
/// message that was under way.
const HANG_UPS: u32 = 3;
/// What the broker did not take or let us hear is tried again so often.
const AGAIN: Duration = Duration::from_secs(60);
/// How long nothing is listened to after that went wrong.
const DEAF: Duration = Duration::from_secs(600);

/// Why there is no connection any more, or not yet.
pub(super) enum End {
    /// We were told to stop.
    Stopped,
    /// The broker does not know this version of the protocol, or hung up as such brokers do.
    NotSpoken {
        /// In words.
        why: String,
        /// It said so.
        refused: bool,
    },
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
    origin: Origin,
    /// Of the packet.
    bytes: usize,
}

/// Where a message comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// The outbox.
    Event(Row),
    /// The board of states.
    State {
        /// There.
        number: u64,
        /// Of the event whose snapshot this is.
        snapshot: Option<Uuid>,
    },
}

impl Sent {
    fn row(&self) -> Option<Row> {
        match self.origin {
            Origin::Event(row) => Some(row),
            Origin::State { .. } => None,
        }
    }
}

/// rumqttc loses data when a started poll is dropped, so the poll is one future that owns the line
/// and stays where it is while others are waited for.
type Poll = Pin<Box<dyn Future<Output = (Line, Result<Heard, Ending>)> + Send>>;

fn poll(mut line: Line) -> Poll {
    Box::pin(async move {
        let result = line.poll().await;
        (line, result)
    })
}

pub(super) struct Session<'a> {
    client: Client,
    poll: Poll,
    shared: &'a Shared,
    memory: &'a mut Memory,
    limits: Limits,
    /// Handed to rumqttc, not yet written: in order.
    handed: VecDeque<Sent>,
    /// Written, not yet acknowledged, by packet id.
    in_flight: BTreeMap<u16, Sent>,
    /// The broker has answered something: messages pass both ways.
    answered: bool,
    /// An event was delivered, or it is clear now which one cannot be.
    progress: bool,
    /// Topics whose messages the broker does not take; told once.
    told: HashSet<String>,
    ears: Ears<'a>,
    /// At the last look the broker owed an answer to what they want to hear.
    waited: bool,
}

impl<'a> Session<'a> {
    /// Connects.
    pub async fn open(
        client: Client,
        line: Line,
        shared: &'a Shared,
        memory: &'a mut Memory,
    ) -> Result<Self, End> {
        let mut poll_ = poll(line);
        let mut stop = shared.stop.subscribe();
        let (line, first) = tokio::select! {
            polled = &mut poll_ => polled,
            () = given_up(&mut stop, shared) => return Err(End::Stopped),
        };
        let lost = |why, progress| Err(End::Lost { why, progress });
        let limits = match first {
            Ok(Heard::Connected(limits)) => limits,
            Ok(_) => return lost("what answers there does not speak MQTT".into(), false),
            Err(Ending::LacksRetain) if memory.retain => {
                memory.retain = false;
                return lost("the broker keeps no retained messages; going on without".into(), true);
            }
            Err(Ending::LacksQos1) if memory.qos1 => {
                memory.qos1 = false;
                return lost("the broker acknowledges no messages; going on without".into(), true);
            }
            Err(Ending::LacksVersion(why)) => return Err(End::NotSpoken { why, refused: true }),
            Err(Ending::HungUp(why)) => {
                return Err(End::NotSpoken { why: format!("{why}; {NEVER_LET_IN}"), refused: false });
            }
            Err(ending) => return lost(ending.why(), false),
        };
        memory.retain = limits.retain;
        memory.qos1 = limits.qos1;
        shared.board().resend_all();
        let mut ears = Ears::new(shared);
        memory.deaf = memory.deaf.filter(|until| Instant::now() < *until);
        if memory.deaf.is_none() && ears.open(&client).is_err() {
            return lost("cannot subscribe".into(), false);
        }
        Ok(Self {
            client,
            poll: poll(line),
            shared,
            memory,
            limits,
            handed: VecDeque::new(),
            in_flight: BTreeMap::new(),
            answered: false,
            progress: false,
            told: HashSet::new(),
            ears,
            waited: false,
        })
    }

    /// Whether this connection only stands because the broker hung up on a newer version, once.
    pub fn is_doubtful(&self) -> bool {
        self.memory.lacks_5 == Lacks5::Perhaps
    }

    /// The broker speaks this version: 5 after all, perhaps.
    pub fn speaks(&mut self, protocol: Protocol) {
        if protocol == Protocol::V5 {
            self.memory.lacks_5 = Lacks5::No;
        }
    }

    /// Ends a connection that is not wanted after all, so that the broker forgets the will.
    pub async fn leave(mut self) {
        let gone = async {
            while let (line, Ok(_)) = (&mut self.poll).await {
                self.poll = poll(line);
            }
        };
        if self.client.disconnect().is_ok() {
            // Whether it hangs up or not: we are gone.
            let _ = time::timeout(FAREWELL, gone).await;
        }
    }

    /// Delivers until the connection ends or we are told to stop.
    pub async fn serve(mut self) -> End {
        let mut stop = self.shared.stop.subscribe();
        let mut leaving = None;
        let mut said_goodbye = false;
        let mut heard = Instant::now();
        let mut again = time::interval_at(heard + AGAIN, AGAIN);
        loop {
            let stopping = *stop.borrow_and_update();
            if let Some(Stop { until, farewell }) = stopping
                && leaving.is_none()
                && (self.drained() || Instant::now() >= until)
            {
                self.shared.post(self.shared.topics.status(), ContentType::Text, farewell);
                leaving = Some(Instant::now() + FAREWELL);
            }
            if let Err(end) = self.send_what_is_due(leaving.is_some()) {
                return end;
            }
            if leaving.is_some() && !said_goodbye && self.settled() {
                said_goodbye = self.client.disconnect().is_ok();
            }
            let alarm = leaving.or(stopping.map(|stop| stop.until));
            tokio::select! {
                (line, polled) = &mut self.poll => match polled {
                    Ok(event) => {
                        heard = Instant::now();
                        self.poll = poll(line);
                        if let Err(end) = self.on(event) {
                            return end;
                        }
                    }
                    // After our goodbye the broker hangs up; before it, the will speaks for us.
                    Err(_) if leaving.is_some() => return End::Stopped,
                    Err(ending) => return self.ended(line, ending),
                },
                () = self.shared.outbox.appended() => {}
                () = self.shared.posted.notified() => {}
                _ = stop.changed() => {}
                _ = again.tick() => if let Err(end) = self.try_again() {
                    return end;
                },
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

    /// Once in a while: what was not possible before may be now. Nothing is sent to who leaves a
    /// subscription unanswered for so long.
    fn try_again(&mut self) -> Result<(), End> {
        if std::mem::replace(&mut self.waited, self.ears.waiting) && self.ears.waiting {
            return Err(self.go_deaf("the broker does not answer when it is asked for commands".into()));
        }
        self.shared.board().resend_postponed();
        if self.memory.deaf.is_some_and(|until| until <= Instant::now()) {
            self.memory.deaf = None;
            let full = |_| End::Lost { why: "cannot subscribe".into(), progress: self.progress };
            self.ears.open(&self.client).map_err(full)?;
        }
        Ok(())
    }

    /// The broker is not asked for anything for a while: messages are more important.
    fn go_deaf(&mut self, why: String) -> End {
        self.memory.deaf = Some(Instant::now() + DEAF);
        tracing::warn!("{why}; nothing is listened to for ten minutes");
        End::Lost { why, progress: true }
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
        // A subscription has a packet id, too, which no message should have before it is answered.
        let window = window.saturating_sub(usize::from(self.ears.waiting));
        while self.under_way() < window {
            let due = self.shared.board().take();
            if let Some((number, post)) = due {
                self.send_state(number, post)?;
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

    fn send_state(&mut self, number: u64, post: Post) -> Result<(), End> {
        let Post { topic, payload, content, event } = post;
        let origin = Origin::State { number, snapshot: event };
        let retain = self.memory.retain;
        let message =
            Outgoing { topic, qos1: self.memory.qos1, retain, payload, content, expiry: None, event };
        self.send(message, origin).map(drop)
    }

    fn send_event(&mut self, taken: Taken) -> Result<(), End> {
        let Taken { row, camera, event, newest, .. } = taken;
        let message = Outgoing {
            topic: self.shared.topics.description(&camera),
            qos1: self.memory.qos1,
            retain: false,
            payload: event.clone(),
            content: ContentType::Json,
            expiry: Some(EVENT_EXPIRY),
            event: None,
        };
        if self.send(message, Origin::Event(row))? && newest {
            self.shared.retain_newest(&camera, event);
        }
        Ok(())
    }

    /// Hands a message over unless it is larger than the broker takes; gives whether it did.
    fn send(&mut self, message: Outgoing, origin: Origin) -> Result<bool, End> {
        let bytes = self.client.size(&message);
        let sent = Sent { topic: message.topic.clone(), origin, bytes };
        let limit =
            self.memory.too_large.map_or(self.limits.max_packet, |it| self.limits.max_packet.min(it - 1));
        if bytes > limit {
            self.refused(sent, &format!("the broker takes at most {limit} bytes"));
            return Ok(false);
        }
        if self.client.publish(message).is_err() {
            return Err(End::Lost { why: "the connection takes no more messages".into(), progress: false });
        }
        self.handed.push_back(sent);
        Ok(true)
    }

    fn on(&mut self, event: Heard) -> Result<(), End> {
        self.answered |= matches!(event, Heard::Answered(..) | Heard::Subscribed(_) | Heard::Message { .. });
        match event {
            // Messages without acknowledgement have no packet id: written is all they can be.
            Heard::Written(0) => {
                if let Some(sent) = self.handed.pop_front() {
                    self.delivered(&sent);
                }
            }
            Heard::Written(id) => {
                if let Some(sent) = self.handed.pop_front() {
                    self.in_flight.insert(id, sent);
                }
            }
            Heard::Answered(id, verdict) => {
                let Some(sent) = self.in_flight.remove(&id) else { return Ok(()) };
                match verdict {
                    Verdict::Taken => self.delivered(&sent),
                    Verdict::NotNow(why) => self.not_now(sent, why)?,
                    Verdict::Unclear(why) if !sent.row().is_some_and(|row| self.memory.unclear(row)) => {
                        self.not_now(sent, why)?;
                    }
                    Verdict::Refused(why) | Verdict::Unclear(why) => self.refused(sent, why),
                }
            }
            Heard::Message { topic, payload, retained } => self.ears.hear(&topic, &payload, retained),
            Heard::Subscribed(stand) => {
                self.ears.opened(&stand);
                self.memory.unheard = 0;
            }
            Heard::Connected(_) | Heard::Other => {}
        }
        Ok(())
    }

    fn delivered(&mut self, sent: &Sent) {
        match sent.origin {
            Origin::Event(row) => {
                self.shared.outbox.acknowledge(row);
                self.progress = true;
                self.memory.hang_ups = 0;
            }
            Origin::State { number, snapshot } => {
                self.shared.board().delivered(number);
                self.forget(snapshot);
            }
        }
        self.cleared(sent);
    }

    /// The broker does not take this message, but may later.
    fn not_now(&mut self, sent: Sent, why: &str) -> Result<(), End> {
        match sent.origin {
            // Whatever follows would be told the same, or overtake it: all wait.
            Origin::Event(row) => {
                let why = format!("the broker does not take {} now: {why}", sent.topic);
                self.memory.suspects.insert((sent.topic, Some(row)));
                Err(End::Lost { why, progress: self.progress })
            }
            Origin::State { number, .. } => {
                self.shared.board().postpone(number);
                self.cleared(&sent);
                if self.told.insert(sent.topic.clone()) {
                    tracing::warn!("the broker does not take {} now, it is tried again: {why}", sent.topic);
                }
                Ok(())
            }
        }
    }

    /// The broker does not take this message and never will: told, counted, not sent again.
    fn refused(&mut self, sent: Sent, why: &str) {
        let Sent { topic, origin, bytes } = &sent;
        match *origin {
            Origin::Event(row) => {
                self.shared.outbox.set_aside(row);
                self.progress = true;
                tracing::warn!("an event of {bytes} bytes for {topic} is set aside: {why}");
            }
            Origin::State { number, snapshot } => {
                self.shared.board().shelve(number);
                self.forget(snapshot);
                if self.told.insert(topic.clone()) {
                    tracing::warn!("the broker does not take {topic} ({bytes} bytes): {why}");
                }
            }
        }
        self.cleared(&sent);
    }

    /// A picture's fate is known: it need not be kept any more.
    fn forget(&self, snapshot: Option<Uuid>) {
        if let Some(id) = snapshot {
            self.shared.outbox.forget_snapshot(id);
        }
    }

    /// The fate of a message is known: it is no suspect any more, nor is any event before it.
    fn cleared(&mut self, sent: &Sent) {
        self.memory.suspects.retain(|(topic, row)| match (row, sent.row()) {
            (Some(suspect), Some(row)) => *suspect > row,
            (None, None) => *topic != sent.topic,
            _ => true,
        });
    }

    /// The connection is gone. Finds out whether a message was the reason.
    fn ended(mut self, mut line: Line, ending: Ending) -> End {
        for event in line.rest() {
            if let Err(end) = self.on(event) {
                return end;
            }
        }
        if matches!(ending, Ending::Flooded) {
            self.memory.deaf = Some(Instant::now() + DEAF);
        }
        // Some brokers end the connection of who may not listen: no message is to blame for that.
        if self.ears.waiting {
            self.memory.unheard += 1;
            let rejected = matches!(ending, Ending::Rejected { .. });
            if rejected || self.memory.unheard >= HANG_UPS {
                let why =
                    format!("the connection ends when the broker is asked for commands: {}", ending.why());
                return self.go_deaf(why);
            }
            return End::Lost { why: ending.why(), progress: self.progress };
        }
        let (why, rejected) = match ending {
            Ending::Rejected { why, too_large } => (why.clone(), Some((why, too_large))),
            Ending::HungUp(why) if self.under_way() > 0 && !self.progress => {
                // A message is given up only where others were answered: else it is the line that is bad.
                let telling = self.under_way() > 1 || self.answered;
                self.memory.hang_ups += u32::from(telling);
                let often = self.memory.hang_ups >= HANG_UPS;
                (why, often.then(|| ("the broker hangs up whenever it is sent".into(), false)))
            }
            Ending::HungUp(why) => (format!("{why}; {THROWN_OUT}"), None),
            ending => (ending.why(), None),
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
                // Each is tried by itself now, as often.
                self.memory.hang_ups = 0;
                under_way.push(last);
                let name = |sent: Sent| {
                    let row = sent.row();
                    (sent.topic, row)
                };
                self.memory.suspects = under_way.into_iter().map(name).collect();
                self.progress = true;
            }
            None => {}
        }
    }
}
