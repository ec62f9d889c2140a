//! From an event to a subscriber: the outbox and the publisher, with a real broker.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, or is a table of cases")]

#[path = "../support"]
mod support {
    pub mod broker;
    pub mod proxy;
    pub mod publishing;
    pub mod tls;
}

mod alerts;
mod broker_cycles;
mod embedded_broker;
mod mqtt;
mod mqtt_versions;
mod order;
mod outbox;
mod tls;
