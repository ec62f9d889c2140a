//! In which order messages reach a subscriber.

use camscribe::{camera::CameraState, publish::Settings};

use crate::support::{
    broker::{Mosquitto, Received, Subscriber, TIMEOUT},
    proxy::{Link, Proxy},
    publishing::*,
};

const STATUS: &str = "camscribe/edge1/status";

/// Where the first message on `topic` stands.
fn position(seen: &[Received], topic: &str) -> usize {
    seen.iter().position(|m| m.topic == topic).unwrap_or_else(|| panic!("nothing on {topic}: {seen:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_before_the_latest_event_that_it_belongs_to() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    for seq in 0..3 {
        let made = event("porch", seq, "A cat.");
        outbox.append(message(&made));
        let seen = subscriber.until(|m| m.topic == "camscribe/edge1/porch/latest");
        let snapshot = &seen[position(&seen, "camscribe/edge1/porch/snapshot")];
        assert_eq!(snapshot.user_properties, format!("id:{}", made.id));
    }
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_online_after_its_cameras_have_a_status_at_every_connect() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let proxy = Proxy::start(broker.port());
    proxy.set(Link::Refuse);
    let cameras = ["porch", "yard"].map(camera);
    let settings = Settings { cameras: named(&["porch", "yard"]), ..settings(proxy.port()) };
    let publisher = start(settings, &outbox());
    for state in [CameraState::Connecting, CameraState::Online] {
        offline_reason(&publisher).await;
        cameras.iter().for_each(|camera| publisher.camera_status(camera, state, None));
        proxy.set(Link::Pass);
        let seen = subscriber.until(|m| m.topic == STATUS && m.text() == "online");
        for camera in &cameras {
            let status = &seen[position(&seen, &format!("camscribe/edge1/{camera}/status"))];
            assert_eq!(status.json()["state"], state.as_str());
        }
        proxy.set(Link::Refuse);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_are_no_longer_valid_are_cleared_before_anything_else() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "#");
    let proxy = Proxy::start(broker.port());
    proxy.set(Link::Refuse);
    let discovery_prefix = "homeassistant".into();
    let publisher = start(Settings { discovery_prefix, ..settings(proxy.port()) }, &outbox());
    publisher.camera_status(&camera("porch"), CameraState::Connecting, None);
    let old = ["old/sensor/camscribe-edge1/gone-description/config", "camscribe/edge1/gone/status"];
    publisher.clear(old.map(String::from));
    publisher.erase(&camera("porch"));
    publisher.announce(&camera("yard"), "yard".into());
    publisher.camera_status(&camera("yard"), CameraState::Connecting, None);
    proxy.set(Link::Pass);
    let seen = subscriber.until(|m| m.topic == STATUS && m.text() == "online");
    let (cleared, rest): (Vec<_>, Vec<_>) =
        seen.iter().partition(|m| m.topic.ends_with("/config") && m.payload.is_empty());
    // The old one, and those of the camera that was erased.
    let erased = cleared.iter().filter(|m| m.topic.contains("/porch-")).count();
    assert_eq!((cleared.len(), erased), (7, 6), "{seen:?}");
    assert!(cleared.into_iter().eq(&seen[..7]), "{seen:?}");
    assert!(rest.iter().any(|m| m.topic == old[1]) && rest.iter().any(|m| m.topic.contains("/yard-")));
}
