//! One connection to the broker, from its CONNACK to its end.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{
    broker_quirks::{BrokerQuirks, V5Support},
    client::{BrokerEvent, Client, DISCONNECT_TIMEOUT, EventLoop, Poll, poll},
    delivery::{Delivery, SessionEnd},
    protocol::Protocol,
    reason_text::{CLOSED_BEFORE_CONNACK, DisconnectReason, NOT_MQTT},
};
use crate::publish::{
    retained::ContentType,
    shared::{Shared, Stop},
};

/// How often postponed messages and paused subscriptions are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// An accepted connection.
pub(super) struct Session<'a> {
    poll: Poll,
    delivery: Delivery<'a>,
}

impl<'a> Session<'a> {
    /// Connects and requests the subscriptions.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn open(
        client: Client,
        events: EventLoop,
        shared: &'a Shared,
        quirks: &'a mut BrokerQuirks,
    ) -> Result<Self, SessionEnd> {
        let mut connecting = poll(events);
        let mut stop = shared.stop.subscribe();
        let (events, first) = tokio::select! {
            polled = &mut connecting => polled,
            () = shared.nothing_left_to_do(&mut stop) => return Err(SessionEnd::Stopped),
        };
        let disconnected = |why| Err(SessionEnd::Disconnected { why, progress: false });
        let limits = match first {
            Ok(BrokerEvent::Connected(limits)) => limits,
            Ok(_) => return disconnected(NOT_MQTT.into()),
            Err(reason) => return Err(not_connected(reason, quirks)),
        };
        let delivery = Delivery::start(client, limits, shared, quirks)?;
        Ok(Self { poll: poll(events), delivery })
    }

    /// This connection uses MQTT 3.1.1 because the broker did not accept one that used MQTT 5, once.
    pub fn is_v5_doubtful(&self) -> bool {
        self.delivery.quirks.v5 == V5Support::Doubtful
    }

    /// The broker has accepted this version of MQTT.
    pub fn connected_with(&mut self, protocol: Protocol) {
        if protocol == Protocol::V5 {
            self.delivery.quirks.v5 = V5Support::Assumed;
        }
    }

    /// Disconnects, so that the broker discards the will.
    pub async fn close(mut self) {
        let closed = async {
            while let (events, Ok(_)) = (&mut self.poll).await {
                self.poll = poll(events);
            }
        };
        if self.delivery.client.disconnect().is_ok() {
            // A broker that does not close the connection in time is left.
            let _ = time::timeout(DISCONNECT_TIMEOUT, closed).await;
        }
    }

    /// Delivers until the connection ends or the publisher shuts down.
    pub async fn serve(mut self) -> SessionEnd {
        let shared = self.delivery.shared;
        let mut stop = shared.stop.subscribe();
        // When to stop waiting for the end of a connection that is being closed.
        let mut closing = None;
        let mut disconnect_requested = false;
        let mut last_event = Instant::now();
        let mut retry = time::interval_at(last_event + RETRY_INTERVAL, RETRY_INTERVAL);
        loop {
            let stopping = *stop.borrow_and_update();
            if let Some(Stop { until, farewell }) = stopping
                && closing.is_none()
                && (self.delivery.is_drained() || Instant::now() >= until)
            {
                shared.retain(shared.topics.status(), ContentType::Text, farewell);
                closing = Some(Instant::now() + DISCONNECT_TIMEOUT);
            }
            if let Err(end) = self.delivery.send_waiting(closing.is_some()) {
                return end;
            }
            if closing.is_some() && !disconnect_requested && self.delivery.is_settled() {
                disconnect_requested = self.delivery.client.disconnect().is_ok();
            }
            let deadline = closing.or(stopping.map(|stop| stop.until));
            tokio::select! {
                (events, polled) = &mut self.poll => match polled {
                    Ok(event) => {
                        last_event = Instant::now();
                        self.poll = poll(events);
                        if let Err(end) = self.delivery.on(event) {
                            return end;
                        }
                    }
                    // The broker closes the connection after our DISCONNECT; before it, it publishes the will.
                    Err(_) if closing.is_some() => return SessionEnd::Stopped,
                    Err(reason) => return self.delivery.ended(events, reason),
                },
                () = shared.outbox.appended() => {}
                () = shared.retained_changed.notified() => {}
                () = shared.replied() => {}
                _ = stop.changed() => {}
                _ = retry.tick() => if let Err(end) = self.delivery.retry() {
                    return end;
                },
                () = time::sleep_until(last_event + self.delivery.limits.max_silence) => {
                    return self.delivery.disconnected("the broker no longer answers".into());
                }
                () = time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if closing.is_some() {
                        return SessionEnd::Stopped;
                    }
                }
            }
        }
    }
}

/// Why there is no connection. Remembers what the broker does not support.
fn not_connected(reason: DisconnectReason, quirks: &mut BrokerQuirks) -> SessionEnd {
    match reason {
        DisconnectReason::RetainUnsupported if quirks.retain => {
            quirks.retain = false;
            let why = "the broker does not support retained messages; going on without".into();
            SessionEnd::Disconnected { why, progress: true }
        }
        DisconnectReason::Qos1Unsupported if quirks.qos1 => {
            quirks.qos1 = false;
            let why = "the broker does not support QoS 1; going on with QoS 0".into();
            SessionEnd::Disconnected { why, progress: true }
        }
        DisconnectReason::VersionUnsupported(why) => SessionEnd::VersionUnsupported { why, explicit: true },
        DisconnectReason::Closed(why) => {
            let why = format!("{why}; {CLOSED_BEFORE_CONNACK}");
            SessionEnd::VersionUnsupported { why, explicit: false }
        }
        DisconnectReason::NoAnswer => {
            SessionEnd::VersionUnsupported { why: DisconnectReason::NoAnswer.into_text(), explicit: false }
        }
        reason => SessionEnd::Disconnected { why: reason.into_text(), progress: false },
    }
}
