//! The MQTT side of publishing, and the only place that imports rumqttc.
//!
//! `connection` keeps a connection up: it connects, runs a `session` until it ends, waits, and connects
//! again. Each connection starts clean and with a new event loop, so nothing of a lost one is left. An
//! event that was not acknowledged is in the outbox only, and is sent again from there.
//!
//! | file | what it holds |
//! |---|---|
//! | `connection.rs`, `session.rs` | keeps a connection up; one connection |
//! | `connector.rs`, `tls.rs` | how to reach the broker |
//! | `client.rs`, `protocol.rs` | one interface for MQTT 5 and 3.1.1 |
//! | `delivery.rs`, `in_flight.rs` | what is sent, and what becomes of it |
//! | `subscriptions.rs` | what camscribe subscribes to |
//! | `broker_quirks.rs`, `reason_text.rs` | what a connection has taught; reasons in words |
//! | `short_session.rs`, `probe.rs` | a connection beside the service's; `check --probe` |
//! | `embedded_broker.rs`, `subscriber.rs` | the broker and the reader of `camscribe demo` |

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
mod short_session;
mod subscriber;
mod subscriptions;
mod tls;

pub(super) use connection::run;
pub(super) use connector::Connector;
pub use probe::probe;
pub use short_session::SessionError;
pub(super) use short_session::ShortSession;
pub use subscriber::{SubscribeError, subscribe};
pub use tls::TlsError;
