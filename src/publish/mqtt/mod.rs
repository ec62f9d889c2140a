//! The MQTT side of publishing, and the only place that imports rumqttc.
//!
//! `run` keeps a connection up: connect, hand over to a session until it ends, wait, again. Each
//! connection starts clean and with a new event loop, so nothing of a lost one lingers: what was not
//! acknowledged is in the outbox and nowhere else, and goes out again from there.

use std::{sync::Arc, time::Duration};

use rumqttc::{TlsConfiguration, Transport};
use tokio::{sync::watch, time};

use self::{
    memory::{Lacks5, Memory},
    session::{End, Session},
    wire::Protocol,
};
use super::{BrokerAddress, BrokerState, Settings, SettingsError, Shared, Stop, topics::Topics};
use crate::{
    config::{Login, MqttVersion},
    retry::{Backoff, BackoffConfig, Jitter},
};

pub mod broker;
mod ears;
mod memory;
mod probe;
mod session;
mod subscriber;
mod tls;
mod wire;
mod words;

pub use probe::{ProbeError, probe};
pub use subscriber::{SubscribeError, subscribe};
pub use tls::TlsError;

/// How many messages may wait for the broker's acknowledgement, if it allows as many.
const WINDOW: u16 = 32;
/// Pings this often tell a dead connection from an idle one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For name look-up, TCP, TLS and the broker's answer together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts to connect.
const BACKOFF: BackoffConfig = BackoffConfig {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
    jitter: Jitter::HALF_TO_FULL,
};
/// Between tries after we were told to stop.
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// What a broker may send us: Home Assistant's one word, commands, and what others put on those topics.
const MAX_INCOMING: u32 = 64 * 1024;

/// How to reach the broker.
pub(super) struct Broker {
    address: BrokerAddress,
    version: MqttVersion,
    login: Option<Login>,
    transport: Transport,
    client_id: String,
    /// Where the broker says `offline` when we are lost.
    will_topic: Option<String>,
}

impl Broker {
    /// Reads the certificates, so that a wrong file is told at the start.
    pub fn new(
        address: BrokerAddress,
        version: MqttVersion,
        login: Option<Login>,
        topics: &Topics,
    ) -> Result<Self, SettingsError> {
        let transport = transport(&address)?;
        let client_id = format!("camscribe-{}", topics.node());
        Ok(Self { address, version, login, transport, client_id, will_topic: Some(topics.status()) })
    }

    /// One that nobody else uses and that says nothing, not even at its end.
    fn silent(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self {
            transport: transport(&settings.broker)?,
            address: settings.broker.clone(),
            version: settings.version,
            login: settings.login.clone(),
            client_id: format!("camscribe-{}-probe-{}", settings.node, std::process::id()),
            will_topic: None,
        })
    }

    /// What to speak, given what the last attempt taught.
    fn protocol(&self, memory: &Memory) -> Protocol {
        match self.version {
            MqttVersion::Auto => memory.lacks_5.protocol(),
            MqttVersion::V5 => Protocol::V5,
            MqttVersion::V311 => Protocol::V311,
        }
    }
}

/// Plain, or TLS with its certificates read.
fn transport(address: &BrokerAddress) -> Result<Transport, TlsError> {
    Ok(match &address.tls {
        None => Transport::Tcp,
        Some(files) => Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls::client_config(files)?))),
    })
}

/// Keeps a connection up and delivers, until told to stop.
pub(super) async fn run(broker: Broker, shared: Arc<Shared>) {
    let mut backoff = Backoff::new(BACKOFF);
    let mut memory = Memory::default();
    let mut stop = shared.stop.subscribe();
    loop {
        let protocol = broker.protocol(&memory);
        let (client, line) = wire::dial(&broker, protocol, &memory);
        let end = match Session::open(client, line, &shared, &mut memory).await {
            Ok(session) if broker.version == MqttVersion::Auto && session.is_doubtful() => {
                session.leave().await;
                memory.lacks_5 = Lacks5::AskedAgain;
                continue;
            }
            Ok(mut session) => {
                session.speaks(protocol);
                let spoken = match (protocol, broker.version) {
                    (Protocol::V5, _) => "5",
                    (Protocol::V311, MqttVersion::Auto) => "3.1.1, because it does not take 5",
                    (Protocol::V311, _) => "3.1.1",
                };
                tracing::info!("connected to the MQTT broker at {} (MQTT {spoken})", broker.address);
                shared.state.send_replace(BrokerState::Online);
                let end = session.serve().await;
                shared.outbox.rewind();
                end
            }
            // An older broker perhaps: tried at once, and kept to for as long as it lets us in.
            Err(End::NotSpoken { refused, .. })
                if broker.version == MqttVersion::Auto && protocol == Protocol::V5 =>
            {
                let sure = refused || memory.lacks_5 == Lacks5::AskedAgain;
                memory.lacks_5 = if sure { Lacks5::Yes } else { Lacks5::Perhaps };
                continue;
            }
            Err(end) => {
                memory.lacks_5 = Lacks5::No;
                end
            }
        };
        let why = match end {
            End::Stopped => break,
            // A broker that does not know the version may just hang up.
            End::NotSpoken { why, .. } if broker.version != MqttVersion::Auto => {
                let asked = if protocol == Protocol::V5 { "5" } else { "3.1.1" };
                format!("{why}; if it does not speak MQTT {asked}, set mqtt.version to \"auto\"")
            }
            End::NotSpoken { why, .. } => why,
            End::Lost { why, progress } => {
                if progress {
                    backoff.reset();
                }
                why
            }
        };
        // Of the time for the end none is to be lost.
        let pause = if stop.borrow_and_update().is_some() { LAST_PAUSE } else { backoff.next_pause() };
        let news = BrokerState::Offline { why: why.clone() };
        // The same trouble again is not news.
        if shared.state.send_replace(news.clone()) != news {
            tracing::warn!("not connected to the MQTT broker at {}: {why}; retrying", broker.address);
        }
        let mut told = stop.clone();
        tokio::select! {
            () = given_up(&mut stop, &shared) => break,
            () = time::sleep(pause) => {}
            Ok(()) = told.changed() => {}
        }
    }
    shared.state.send_replace(BrokerState::Stopped);
}

/// Returns when waiting for the broker has no more point: told to stop, and nothing is left to
/// deliver or the time for it is up.
async fn given_up(stop: &mut watch::Receiver<Option<Stop>>, shared: &Shared) {
    let stop = match stop.wait_for(Option::is_some).await {
        Ok(stop) => *stop,
        Err(_) => None, // nobody is left who could ask for anything
    };
    if let Some(stop) = stop
        && !shared.outbox.is_empty()
    {
        time::sleep_until(stop.until).await;
    }
}
