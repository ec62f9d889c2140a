//! What is told of alerts: as surely as the events that switched them, and no more than the broker takes.

use std::{collections::BTreeMap, fs};

use camscribe::{
    event::{AlertInfo, Event},
    publish::{CameraProfile, Settings, outbox::Outbox},
};

use crate::support::{
    broker::{Mosquitto, Received, Subscriber, TIMEOUT},
    proxy::{Link, Proxy},
    publishing::*,
};

const EVENTS: &str = "camscribe/edge1/porch/description";
const TOLD: &str = "camscribe/edge1/porch/alerts";
const STATE: &str = "camscribe/edge1/porch/alert/parcel";

/// An event after which the alert `parcel` is on at every other two of them, and which switches it if that is another
/// state than before.
fn event_with_alert(seq: u64) -> Event {
    let (on, changed) = (seq / 2 % 2 == 1, seq >= 2 && seq.is_multiple_of(2));
    let event = event("porch", seq, "A cat.");
    let since = (seq >= 2).then_some(event.clip.end + chrono::TimeDelta::seconds(seq as i64 / 2));
    let alert = AlertInfo { on, changed, since, probability: 0.75 };
    Event { alerts: BTreeMap::from([("parcel".into(), alert)]), ..event }
}

fn with_alert(port: u16) -> Settings {
    let alerts = BTreeMap::from([("parcel".into(), None)]);
    let profile = CameraProfile { alerts, ..CameraProfile::from("porch") };
    Settings { cameras: [(camera("porch"), profile)].into(), ..settings(port) }
}

fn on<'a>(seen: &'a [Received], topic: &str) -> Vec<&'a Received> {
    seen.iter().filter(|message| message.topic == topic).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_comes_before_its_event_and_the_state_is_retained_when_it_changes() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let outbox = outbox();
    let publisher = start(with_alert(broker.port()), &outbox);
    let events: Vec<Event> = (0..6).map(event_with_alert).collect();
    events.iter().for_each(|event| outbox.append(message(event)));
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    let seen = subscriber.until(|m| m.topic == "camscribe/edge1/status" && m.text() == "offline");
    let ids = |messages: Vec<&Received>| -> Vec<String> {
        messages.iter().map(|m| m.json()["id"].as_str().unwrap().to_owned()).collect()
    };
    let switching = [events[2].id.to_string(), events[4].id.to_string()];
    assert_eq!(ids(on(&seen, TOLD)), switching);
    let told: Vec<_> = on(&seen, TOLD).iter().map(|m| m.json()["state"].clone()).collect();
    assert_eq!(told, ["ON", "OFF"]);
    let place = |topic: &str, id: &str| {
        seen.iter().position(|m| m.topic == topic && m.json()["id"] == id).expect("it was sent")
    };
    assert!(switching.iter().all(|id| place(TOLD, id) < place(EVENTS, id)));
    // Off at first, then each switching.
    let states: Vec<_> = on(&seen, STATE).iter().map(|m| m.json()["state"].clone()).collect();
    assert!(states.len() <= 3 && states.last().is_some_and(|last| last == "OFF"), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_anywhere_loses_no_switching() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let proxy = Proxy::start(broker.port());
    let outbox = outbox();
    let publisher = start(with_alert(proxy.port()), &outbox);
    let events: Vec<Event> = (0..24).map(event_with_alert).collect();
    for (number, event) in events.iter().enumerate() {
        outbox.append(message(event));
        if number % 6 == 5 {
            online(&publisher).await;
            // Somewhere among the messages of these events, each time elsewhere.
            proxy.set(Link::Cut(400 + 777 * number as u64));
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            proxy.set(Link::Pass);
        }
    }
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    // `offline` is told at each break.
    let seen = subscriber.until(|m| m.topic == EVENTS && m.json()["clip"]["seq"] == 23);
    // At least once, with the same id.
    let mut told: Vec<String> =
        on(&seen, TOLD).iter().map(|m| m.json()["id"].as_str().unwrap().into()).collect();
    told.sort();
    told.dedup();
    let switching = events.iter().filter(|event| event.alerts["parcel"].changed);
    assert_eq!(told, switching.map(|event| event.id.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_alerts_may_not_be_told_the_events_and_the_state_still_are() {
    let mut broker = Mosquitto::stopped("allow_anonymous true");
    let acl = broker.path("acl");
    let allowed = ["status", "porch/description", "porch/latest", "porch/alert/parcel"];
    let lines = allowed.map(|topic| format!("topic readwrite camscribe/edge1/{topic}\n"));
    fs::write(&acl, lines.concat()).expect("written");
    let config = fs::read_to_string(broker.path("mosquitto.conf")).expect("written");
    fs::write(broker.path("mosquitto.conf"), format!("{config}acl_file {}\n", acl.display()))
        .expect("written");
    broker.run();
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/#");
    let outbox = outbox();
    let publisher = start(with_alert(broker.port()), &outbox);
    (0..6).for_each(|seq| outbox.append(message(&event_with_alert(seq))));
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(outbox.status().dead_lettered, BTreeMap::new());
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    let seen = subscriber.until(|m| m.topic == "camscribe/edge1/status" && m.text() == "offline");
    assert_eq!((on(&seen, EVENTS).len(), on(&seen, TOLD).len()), (6, 0));
    assert_eq!(on(&seen, STATE).last().expect("a state").json()["state"], "OFF");
}
