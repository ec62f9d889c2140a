//! From an event to a subscriber: the outbox and the publisher, with a real broker.

#[path = "../support"]
mod support {
    pub mod broker;
    pub mod proxy;
    pub mod publishing;
    pub mod tls;
}

mod broker_cycles;
mod embedded_broker;
mod mqtt;
mod mqtt_versions;
mod outbox;
mod tls;
