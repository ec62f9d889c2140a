//! Keeps a connection to the broker up.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::{
    broker_quirks::{BrokerQuirks, V5Support},
    client,
    connector::Connector,
    delivery::{STEADY, SessionEnd},
    protocol::Protocol,
    session::Session,
};
use crate::{
    config::MqttVersion,
    plural::plural,
    publish::shared::{BrokerState, Shared},
    retry::{Backoff, BackoffConfig, Jitter},
};

/// The pauses between attempts to connect. A broker that restarts is back within seconds; while one is away for
/// longer, an attempt costs little.
const BACKOFF: BackoffConfig = BackoffConfig {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(15),
    jitter: Jitter::HALF_TO_FULL,
};

/// After a connection that has lasted this long, MQTT 5 is tried again: silence or a hang-up only hinted that the
/// broker lacks it.
const FORGET_VERSION: Duration = Duration::from_secs(3600);

/// The first and the longest pause between reminders that the broker is away.
const REMINDERS: (Duration, Duration) = (Duration::from_secs(10 * 60), Duration::from_secs(6 * 3600));

/// The pause between two attempts during a shutdown.
const SHUTDOWN_PAUSE: Duration = Duration::from_secs(1);

/// Keeps a connection up and delivers, until the publisher shuts down.
pub(in crate::publish) async fn run(connector: Connector, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(BACKOFF);
    let mut quirks = BrokerQuirks::default();
    let mut outage = Outage::default();
    let mut stop = shared.stop.subscribe();
    loop {
        let why = match attempt(&connector, &shared, &mut quirks).await {
            Attempt::Stopped => break,
            Attempt::TryOtherVersion => continue,
            Attempt::Disconnected { why, progress } => {
                if progress {
                    backoff.reset();
                }
                why
            }
        };
        // A shutdown has little time.
        let pause = if stop.borrow_and_update().is_some() { SHUTDOWN_PAUSE } else { backoff.next_pause() };
        let state = BrokerState::Offline { why: why.clone() };
        let waiting = shared.outbox.len();
        let address = &connector.address;
        // The same reason is logged once, and then now and then.
        let before = shared.state.send_replace(state.clone());
        if before == BrokerState::Online {
            outage = Outage::default();
        }
        if before != state {
            tracing::warn!("not connected to the MQTT broker at {address}: {why}; retrying");
        } else if let Some(minutes) = outage.reminder(Instant::now()) {
            tracing::warn!(
                "still not connected to the MQTT broker at {address} after {minutes} minutes: {why}; \
                 {} wait",
                plural(waiting, "description")
            );
        }
        let mut stopped = stop.clone();
        tokio::select! {
            () = shared.nothing_left_to_do(&mut stop) => break,
            () = time::sleep(pause) => {}
            Ok(()) = stopped.changed() => {}
        }
    }
    shared.state.send_replace(BrokerState::Stopped);
}

/// A time without a broker.
struct Outage {
    began: Instant,
    remind_at: Instant,
    pause: Duration,
}

impl Default for Outage {
    fn default() -> Self {
        let (began, (pause, _)) = (Instant::now(), REMINDERS);
        Self { began, remind_at: began + pause, pause }
    }
}

impl Outage {
    /// For how many minutes it has lasted, whenever a reminder is due.
    fn reminder(&mut self, now: Instant) -> Option<u64> {
        if now < self.remind_at {
            return None;
        }
        self.pause = (2 * self.pause).min(REMINDERS.1);
        self.remind_at = now + self.pause;
        Some(now.duration_since(self.began).as_secs() / 60)
    }
}

/// What came of one attempt to connect.
enum Attempt {
    /// The publisher has shut down.
    Stopped,
    /// Connect again at once, with another version of MQTT.
    TryOtherVersion,
    /// There was no connection, or it was lost.
    Disconnected {
        /// The reason, for people.
        why: String,
        /// An event was delivered, or something was found out about the broker: the next pause is short.
        progress: bool,
    },
}

/// Connects once and delivers until the connection ends.
async fn attempt(connector: &Connector, shared: &Shared, quirks: &mut BrokerQuirks) -> Attempt {
    let protocol = connector.protocol(quirks);
    let may_try_other = connector.version == MqttVersion::Auto;
    let (client, events) = client::connect(connector, protocol, quirks);
    let end = match Session::open(client, events, shared, quirks).await {
        Ok(session) if may_try_other && session.is_v5_doubtful() => {
            session.close().await;
            quirks.v5 = V5Support::Retrying;
            return Attempt::TryOtherVersion;
        }
        Ok(mut session) => {
            session.connected_with(protocol);
            let reason = if protocol == Protocol::V311 && may_try_other {
                ", because the broker did not accept 5; mqtt.version = \"3.1.1\" connects faster"
            } else {
                ""
            };
            let version = protocol.name();
            tracing::info!("connected to the MQTT broker at {} (MQTT {version}{reason})", connector.address);
            shared.state.send_replace(BrokerState::Online);
            let began = Instant::now();
            let mut end = session.serve().await;
            shared.outbox.rewind();
            if let SessionEnd::Disconnected { progress, .. } = &mut end {
                *progress |= began.elapsed() >= STEADY;
            }
            if began.elapsed() >= FORGET_VERSION {
                quirks.v5 = V5Support::Assumed;
            }
            end
        }
        Err(SessionEnd::VersionUnsupported { explicit, .. }) if may_try_other && protocol == Protocol::V5 => {
            let sure = explicit || quirks.v5 == V5Support::Retrying;
            quirks.v5 = if sure { V5Support::Unsupported } else { V5Support::Doubtful };
            return Attempt::TryOtherVersion;
        }
        Err(end) => {
            quirks.v5 = V5Support::Assumed;
            end
        }
    };
    match end {
        SessionEnd::Stopped => Attempt::Stopped,
        SessionEnd::Disconnected { why, progress } => Attempt::Disconnected { why, progress },
        SessionEnd::VersionUnsupported { why, .. } if may_try_other => {
            let why = format!("{why} (mqtt.version = \"auto\": MQTT 5 and 3.1.1 were tried)");
            Attempt::Disconnected { why, progress: false }
        }
        SessionEnd::VersionUnsupported { why, .. } => {
            let version = protocol.name();
            let why = format!("{why}; if it does not speak MQTT {version}, set mqtt.version to \"auto\"");
            Attempt::Disconnected { why, progress: false }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_of_an_outage_become_rare() {
        let mut outage = Outage::default();
        let began = outage.began;
        let minute = |minute: u64| began + Duration::from_secs(60 * minute);
        let reminded: Vec<_> = (0..24 * 60).filter_map(|now| outage.reminder(minute(now))).collect();
        assert_eq!(reminded, [10, 30, 70, 150, 310, 630, 990, 1350]);
    }

    #[test]
    fn the_first_attempts_come_quickly_and_no_pause_is_longer_than_15_seconds() {
        let mut backoff = Backoff::new(BACKOFF);
        let pauses: Vec<_> = (0..30).map(|_| backoff.next_pause()).collect();
        assert!(pauses[..3].iter().sum::<Duration>() < Duration::from_secs(2), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(15)), "{pauses:?}");
    }
}
