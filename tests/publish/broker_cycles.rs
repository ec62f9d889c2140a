//! A broker that fails twenty times while events are published.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use camscribe::publish::outbox::Outbox;
use tokio::time::sleep;

use crate::support::{
    broker::{Mosquitto, Subscriber, TIMEOUT},
    proxy::{Link, Proxy},
    publishing::{camera, descriptions, event, message, outbox, settings, start, wait_for_outbox},
};

const CAMERAS: [&str; 3] = ["porch", "yard", "gate"];
const CYCLES: u64 = 20;
/// Events of each camera per cycle.
const EACH: u64 = 15;
/// The event of each camera in a cycle that is larger than the broker accepts.
const TOO_LARGE: u64 = 7;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
async fn twenty_faults_under_load_lose_no_event_and_keep_each_cameras_order() {
    // It saves the subscriber's messages at every change, and loses our session each time it is killed.
    let mut broker = Mosquitto::start(
        "persistence true\nautosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0\n\
         max_packet_size 4000",
    );
    let proxy = Proxy::start(broker.port());
    let durable = ["-c", "-i", "watcher", "-x", "3600"];
    let subscriber = Subscriber::with(broker.port(), "camscribe/edge1/+/description", &durable);
    let outbox = outbox();
    let publisher = start(settings(proxy.port()), &outbox);
    let large = "A very long story. ".repeat(300);

    for cycle in 0..CYCLES {
        let (fault, killed) = match cycle % 5 {
            0 => (Link::Refuse, true),
            1 => (Link::Refuse, false),
            2 => (Link::Slow, false),
            3 => (Link::Cut(1 + cycle * 911), false),
            _ => (Link::Stall, false),
        };
        for n in 0..EACH {
            for name in CAMERAS {
                let text = if n == TOO_LARGE { &large } else { "A cat." };
                outbox.append(message(&event(name, cycle * EACH + n, text)));
            }
            if n == EACH / 2 {
                proxy.set(fault);
            }
            sleep(Duration::from_millis(5)).await;
        }
        if killed {
            // What the broker acknowledged must be in its file before it is killed, or the broker loses it.
            sleep(2 * FAULT).await;
            broker.kill();
            broker.run();
        }
        sleep(FAULT).await;
        proxy.set(Link::Pass);
        // In every third cycle the next fault meets a backlog.
        if cycle % 3 != 0 {
            wait_for_outbox(&outbox, Outbox::is_empty).await;
        }
    }

    let mut left: BTreeSet<_> = CAMERAS.map(|name| (camera(name), CYCLES * EACH - 1)).into();
    let seen = subscriber.until(|message| {
        for event in descriptions(std::slice::from_ref(message)) {
            left.remove(&(event.camera, event.clip.seq));
        }
        left.is_empty()
    });
    let wanted: Vec<u64> = (0..CYCLES * EACH).filter(|seq| seq % EACH != TOO_LARGE).collect();
    for name in CAMERAS {
        let mut ids = BTreeSet::new();
        let events = descriptions(&seen).into_iter().filter(|event| event.camera.as_str() == name);
        let once: Vec<u64> =
            events.filter(|event| ids.insert(event.id)).map(|event| event.clip.seq).collect();
        assert_eq!(once, wanted, "{name}");
    }
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert!(outbox.status().dropped.is_empty());
    assert_eq!(outbox.status().dead_lettered, BTreeMap::from(CAMERAS.map(|name| (camera(name), CYCLES))));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}
