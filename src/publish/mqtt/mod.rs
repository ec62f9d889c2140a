//! The MQTT 5 side of publishing, and the only place that imports rumqttc.
//!
//! `run` keeps a connection up: connect, hand over to a session until it ends, wait, again. Each
//! connection starts clean and with a new event loop, so nothing of a lost one lingers: what was not
//! acknowledged is in the outbox and nowhere else, and goes out again from there.

use std::{sync::Arc, time::Duration};

use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, MqttOptions,
        mqttbytes::v5::{LastWill, LastWillProperties},
    },
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use self::{
    backoff::Backoff,
    session::{End, Memory, Session},
};
use super::{BrokerAddress, BrokerState, SettingsError, Shared, topics::Topics};
use crate::config::Login;

mod backoff;
pub mod broker;
mod probe;
mod session;
mod subscriber;
mod tls;
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
/// What a broker may send us: Home Assistant's one word, and what others put on that topic.
const MAX_INCOMING: u32 = 64 * 1024;

/// How to reach the broker.
pub(super) struct Broker {
    address: BrokerAddress,
    login: Option<Login>,
    transport: Transport,
    client_id: String,
    will_topic: String,
}

impl Broker {
    /// Reads the certificates, so that a wrong file is told at the start.
    pub fn new(address: BrokerAddress, login: Option<Login>, topics: &Topics) -> Result<Self, SettingsError> {
        let transport = transport(&address)?;
        let client_id = format!("camscribe-{}", topics.node());
        Ok(Self { address, login, transport, client_id, will_topic: topics.status() })
    }

    fn options(&self, memory: &Memory) -> MqttOptions {
        let client_id = self.client_id.clone();
        let mut options = connection(client_id, &self.address, self.transport.clone(), self.login.as_ref());
        options.set_outgoing_inflight_upper_limit(WINDOW).set_last_will(LastWill::new(
            &self.will_topic,
            "offline",
            memory.qos(),
            memory.retain,
            None::<LastWillProperties>,
        ));
        options
    }
}

/// Plain, or TLS with its certificates read.
fn transport(address: &BrokerAddress) -> Result<Transport, TlsError> {
    Ok(match &address.tls {
        None => Transport::Tcp,
        Some(files) => Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls::client_config(files)?))),
    })
}

/// What every connection to the broker has in common.
fn connection(
    client_id: String,
    address: &BrokerAddress,
    transport: Transport,
    login: Option<&Login>,
) -> MqttOptions {
    // TLS checks the name as it is; a plain address has to have a numeric host in brackets.
    let host = match &address.host {
        host if host.contains(':') && address.tls.is_none() => format!("[{host}]"),
        host => host.clone(),
    };
    let mut options = MqttOptions::new(client_id, host, address.port);
    options
        .set_transport(transport)
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_max_packet_size(Some(MAX_INCOMING));
    if let Some(Login { username, password }) = login {
        options.set_credentials(username, password.expose());
    }
    options
}

/// Keeps a connection up and delivers, until told to stop.
pub(super) async fn run(broker: Broker, shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut memory = Memory::default();
    let mut stop = shared.stop.subscribe();
    loop {
        // Room for the window, a subscription and a farewell: handing a message over never waits.
        let (client, events) = AsyncClient::new(broker.options(&memory), usize::from(WINDOW) + 2);
        let end = match Session::open(client, events, &shared, &mut memory).await {
            Ok(session) => {
                tracing::info!("connected to the MQTT broker at {}", broker.address);
                shared.state.send_replace(BrokerState::Online);
                let end = session.serve().await;
                shared.outbox.rewind();
                end
            }
            Err(end) => end,
        };
        let why = match end {
            End::Stopped => break,
            End::Lost { why, progress } => {
                if progress {
                    backoff.reset();
                }
                why
            }
        };
        let pause = backoff.next();
        let news = BrokerState::Offline { why: why.clone() };
        // The same trouble again is not news.
        if shared.state.send_replace(news.clone()) != news {
            tracing::warn!("not connected to the MQTT broker at {}: {why}; retrying", broker.address);
        }
        tokio::select! {
            () = time::sleep(pause) => {}
            () = given_up(&mut stop, &shared) => break,
        }
    }
    shared.state.send_replace(BrokerState::Stopped);
}

/// Returns when waiting for the broker has no more point: told to stop, and nothing is left to
/// deliver or the time for it is up.
async fn given_up(stop: &mut watch::Receiver<Option<Instant>>, shared: &Shared) {
    let until = match stop.wait_for(Option::is_some).await {
        Ok(until) => *until,
        Err(_) => None, // nobody is left who could ask for anything
    };
    if let Some(until) = until
        && !shared.outbox.is_empty()
    {
        time::sleep_until(until).await;
    }
}
