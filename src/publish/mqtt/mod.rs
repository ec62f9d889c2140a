//! The MQTT side of publishing, and the only place that imports rumqttc.
//!
//! `connection` keeps a connection up: it connects, runs a `session` until it ends, waits, and connects
//! again. Each connection starts clean and with a new event loop, so nothing of a lost one is left. An
//! event that was not acknowledged is in the outbox only, and is sent again from there.

mod broker_quirks;
mod client;
mod connection;
mod connector;
mod delivery;
pub mod embedded_broker;
mod in_flight;
mod probe;
mod protocol;
mod reason_text;
mod session;
mod subscriber;
mod subscriptions;
mod tls;

pub(super) use connection::run;
pub(super) use connector::Connector;
pub use probe::{ProbeError, probe};
pub use subscriber::{SubscribeError, subscribe};
pub use tls::TlsError;
