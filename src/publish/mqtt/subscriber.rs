//! A subscriber, with which `camscribe demo` prints what it publishes.

use std::convert::Infallible;

use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use uuid::Uuid;

use super::reason_text;

/// The largest packet, bytes: enough for a snapshot of any camera.
const MAX_INCOMING: u32 = 4 << 20;

/// The connection has ended.
#[derive(Debug, thiserror::Error)]
#[error("reading from the broker on port {port} ended: {why}")]
pub struct SubscribeError {
    port: u16,
    why: String,
}

/// Calls `each` with the topic and the payload of every message that matches `filter`, until the
/// connection ends or the future is dropped. The broker is on 127.0.0.1.
///
/// # Errors
/// When the connection ends.
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
            Err(error) => return Err(ended(reason_text::disconnect_reason(&error).into_text())),
        }
    }
}
