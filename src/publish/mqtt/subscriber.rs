//! A subscriber for `camscribe demo`: what a reader of the broker sees.

use std::convert::Infallible;

use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use uuid::Uuid;

use super::words;

/// Room for a snapshot of any camera, bytes.
const MAX_INCOMING: u32 = 4 << 20;

/// The connection ended.
#[derive(Debug, thiserror::Error)]
#[error("reading from the broker on port {port} ended: {why}")]
pub struct SubscribeError {
    port: u16,
    why: String,
}

/// Hands every message on `filter`, topic and payload, to `each`, until the connection ends or the
/// future is dropped. The broker is on 127.0.0.1.
pub async fn subscribe(
    port: u16,
    filter: &str,
    mut each: impl FnMut(&str, &[u8]),
) -> Result<Infallible, SubscribeError> {
    let ended = |why| SubscribeError { port, why };
    let mut options = MqttOptions::new(format!("reader-{}", Uuid::now_v7().simple()), "127.0.0.1", port);
    options.set_max_packet_size(Some(MAX_INCOMING));
    let (client, mut events) = AsyncClient::new(options, 1);
    client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|error| ended(error.to_string()))?;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                each(&String::from_utf8_lossy(&message.topic), &message.payload);
            }
            Ok(_) => {}
            Err(error) => return Err(ended(words::ending(&error).why())),
        }
    }
}
