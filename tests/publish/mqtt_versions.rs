//! MQTT 3.1.1, for brokers without version 5: mosquitto behind a proxy that refuses version 5 as such
//! brokers do.

use camscribe::{
    config::MqttVersion,
    publish::{Settings, outbox::Outbox},
};

use crate::support::{
    broker::{Mosquitto, Subscriber, TIMEOUT},
    proxy::{Link, Proxy},
    publishing::*,
};

const DESCRIPTION: &str = "camscribe/edge1/porch/description";
const STATUS: &str = "camscribe/edge1/status";

fn old_broker(broker: &Mosquitto) -> Proxy {
    let proxy = Proxy::start(broker.port());
    proxy.set(Link::RefusesV5);
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_mqtt_5_gets_3_1_1_and_loses_nothing_when_it_restarts() {
    let mut broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let proxy = old_broker(&broker);
    let outbox = outbox();
    let publisher = start(settings(proxy.port()), &outbox);
    let first = event("porch", 0, "A cat.");
    outbox.append(message(&first));
    let received = subscriber.next_on(DESCRIPTION);
    assert_eq!(as_made(&received), serde_json::to_value(&first).expect("JSON"));
    // Properties do not exist in 3.1.1.
    assert_eq!((received.qos, received.content_type.as_str(), received.expiry.as_str()), (1, "", ""));
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    for topic in ["camscribe/edge1/porch/latest", STATUS] {
        assert!(Subscriber::to(broker.port(), topic).next().retained, "{topic}");
    }

    proxy.set(Link::Refuse);
    offline_reason(&publisher).await;
    broker.kill();
    let made: Vec<_> = (1..6).map(|seq| event("porch", seq, "A dog.")).collect();
    made.iter().for_each(|event| outbox.append(message(event)));
    broker.run();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    proxy.set(Link::RefusesV5);
    for event in &made {
        assert_eq!(subscriber.next_on(DESCRIPTION).json()["id"], event.id.to_string());
    }
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    subscriber.until(|m| m.topic == STATUS && m.text() == "offline");
}

/// Returns the content type of the first description: MQTT 5 has one, 3.1.1 has none.
fn content_type_of_a_description(state: Link) -> String {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), DESCRIPTION);
    let proxy = Proxy::start(broker.port());
    proxy.set(state);
    let outbox = outbox();
    let _publisher = start(settings(proxy.port()), &outbox);
    outbox.append(message(&event("porch", 0, "A cat.")));
    subscriber.next().content_type
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_always_disconnects_on_mqtt_5_gets_3_1_1_and_one_that_does_so_once_does_not() {
    assert_eq!(content_type_of_a_description(Link::DisconnectsOnV5), "");
    assert_eq!(content_type_of_a_description(Link::DisconnectsOnce), "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_mqtt_5_gets_3_1_1() {
    assert_eq!(content_type_of_a_description(Link::SilentOnV5), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_the_configured_version_is_reported_with_a_remedy() {
    let broker = Mosquitto::start("");
    let proxy = Proxy::start(broker.port());
    proxy.set(Link::SilentOnV5);
    let settings = Settings { version: MqttVersion::V5, ..settings(proxy.port()) };
    let publisher = start(settings, &outbox());
    let why = offline_reason(&publisher).await;
    assert!(why.contains("no answer") && why.contains("mqtt.version"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_reports_a_node_that_died_under_3_1_1() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), STATUS);
    let settings = Settings { version: MqttVersion::V311, ..settings(broker.port()) };
    let publisher = start(settings, &outbox());
    assert_eq!(subscriber.next().text(), "online");
    drop(publisher);
    assert_eq!(subscriber.next().text(), "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_configured_version_is_reported_with_a_remedy() {
    let broker = Mosquitto::start("");
    let proxy = old_broker(&broker);
    let settings = Settings { version: MqttVersion::V5, ..settings(proxy.port()) };
    let publisher = start(settings, &outbox());
    let why = offline_reason(&publisher).await;
    assert!(why.contains("does not speak MQTT 5") && why.contains("mqtt.version"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresolvable_host_is_reported_and_events_wait() {
    let mut settings = settings(1);
    settings.broker.host = "nowhere.invalid".into();
    let outbox = outbox();
    let publisher = start(settings, &outbox);
    outbox.append(message(&event("porch", 0, "A cat.")));
    let why = offline_reason(&publisher).await;
    assert!(why.contains("mqtt.url"), "{why}");
    assert_eq!(outbox.len(), 1);
}
