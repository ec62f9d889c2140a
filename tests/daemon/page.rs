//! What the page uses, at a real daemon: settings, and many who watch and search at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    api::{exchange, exchange_whole, wait_ready},
    broker::{Mosquitto, Subscriber},
    daemon::{self, Daemon, wait},
    page_client::PageClient,
};

/// Seconds of the load.
const SECONDS: u64 = 20;
/// Who is told what happens.
const WATCHERS: usize = 50;
const CAMERAS: usize = 8;
/// The pause between searches: ten a second.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

fn cameras(daemon: &Daemon) -> Value {
    let (status, body) = daemon.get("/api/cameras");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn change(daemon: &Daemon, body: &str) -> u16 {
    exchange(&daemon.http_address(), "PATCH", "/api/cameras/porch", "", body.as_bytes()).status
}

#[test]
fn a_setting_that_is_changed_on_the_page_holds_as_if_it_came_over_mqtt() {
    let broker = Mosquitto::start("");
    let states = Subscriber::to(broker.port(), "camscribe/n/porch/state/#");
    let toml = format!(
        "node.id = \"n\"\nmodel.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:{}\"\n\
         cameras.porch = {{ uri = \"test://shapes\", name = \"Front porch\" }}\n",
        broker.port()
    );
    let mut daemon = Daemon::start(&toml);
    wait_ready(&daemon);
    let camera = |daemon: &Daemon| cameras(daemon)["cameras"][0].clone();
    is_of_one_event(&daemon, broker.port());
    assert_eq!(camera(&daemon)["name"], "Front porch");
    assert_eq!(change(&daemon, r#"{"enabled": false, "prompt": "Who is there?"}"#), 202);
    wait("the change", || (camera(&daemon)["state"] == "disabled").then_some(()));
    assert_eq!(camera(&daemon)["prompt"], "Who is there?");
    states.until(|message| message.topic.ends_with("/prompt") && message.text() == "Who is there?");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    daemon.restart();
    wait_ready(&daemon);
    assert_eq!(camera(&daemon)["enabled"], false);
    assert_eq!(change(&daemon, r#"{"enabled": true, "prompt": ""}"#), 202);
    wait("the camera", || (camera(&daemon)["state"] == "online").then_some(()));
    assert_ne!(camera(&daemon)["prompt"], "Who is there?");
    daemon.reload(&format!("{toml}mqtt.commands = false\n"));
    wait("the reload", || (change(&daemon, r#"{"enabled": false}"#) == 403).then_some(()));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Event, snapshot over MQTT, picture on the page and what the page says of it have one id.
fn is_of_one_event(daemon: &Daemon, port: u16) {
    let messages = Subscriber::to(port, "camscribe/n/porch/#");
    let snapshot = messages.until(|message| message.payload.starts_with(&[0xff, 0xd8])).pop().unwrap();
    let text = String::from_utf8_lossy(&snapshot.payload).into_owned();
    let id: String = text.split("camscribe event ").nth(1).expect("a comment").chars().take(36).collect();
    wait("the event", || (daemon.get(&format!("/api/events/{id}")).0 == 200).then_some(()));
    // The newest picture may be another one by now, and changes: it is read until nothing has changed meanwhile.
    let (head, picture) = wait("a picture", || {
        let named = || cameras(daemon)["cameras"][0]["snapshot"].as_str().map(str::to_owned);
        let before = named()?;
        let reply = exchange_whole(&daemon.http_address(), "/api/cameras/porch/snapshot.jpg");
        (named()? == before).then_some((reply.0, reply.1)).filter(|(head, _)| head.contains(&before))
    });
    let id = head.split("etag: \"").nth(1).unwrap().chars().take(36).collect::<String>();
    let comment = format!("camscribe event {id}");
    assert!(picture.windows(comment.len()).any(|it| it == comment.as_bytes()));
}

/// Everybody who watches is told of every event, and no camera loses a clip by it.
#[test]
fn beside_many_who_watch_and_search_no_camera_loses_its_share() {
    let broker = Mosquitto::start("");
    let events = Subscriber::to(broker.port(), "camscribe/n/+/description");
    let list: String = (0..CAMERAS).map(|i| format!("cameras.c{i}.uri = \"test://shapes\"\n")).collect();
    let daemon = Daemon::start(&format!(
        "node.id = \"n\"\nmodel.id = \"shapes\"\nlog.level = \"debug\"\nmqtt.url = \"mqtt://127.0.0.1:{}\"\n\
         history.frames = \"all\"\n\
         defaults = {{ window = \"8s\", frames = 4, max_tokens = 16, change_threshold = 0 }}\n{list}",
        broker.port()
    ));
    wait_ready(&daemon);
    let memory = || daemon.metric("process_resident_memory_bytes").unwrap() / 1e6;
    let alone = memory();
    let watchers: Vec<_> = (0..WATCHERS).map(|_| PageClient::start(daemon.path("stderr"))).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let (address, over) = (daemon.http_address(), Arc::clone(&is_over));
    let searching = thread::spawn(move || {
        let mut took = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let reply = exchange(&address, "GET", "/api/events?q=circle", "", b"");
            assert_eq!(reply.status, 200, "{reply:?}");
            took.push(start.elapsed());
            thread::sleep(SEARCH_PAUSE.saturating_sub(start.elapsed()));
        }
        took.sort();
        took
    });
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let mut seen = Vec::new();
    while Instant::now() < end || seen.len() < 2 * CAMERAS {
        seen.push(events.next().json());
    }
    // From the second on: the first came before all were watching.
    let first_all_saw = seen.len() / 2;
    let ids = seen[first_all_saw..].iter().map(|event| event["id"].as_str().unwrap().to_owned());
    for id in ids {
        for watcher in &watchers {
            wait("an event at everybody", || watcher.told.events.lock().unwrap().contains(&id).then_some(()));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let took = searching.join().unwrap();
    let resets: usize = watchers.iter().map(|it| it.told.resets.load(Ordering::Relaxed)).sum();
    println!(
        "{} events told to {WATCHERS}, {resets} resets; {} searches, the median took {:.0?}, the slowest {:.0?}; \
         {alone:.0} MB before, {:.0} MB after",
        seen.len(),
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1],
        memory()
    );
    let page = daemon.get("/metrics").1;
    for i in 0..CAMERAS {
        let lost = format!("camscribe_clips_dropped_total{{camera=\"c{i}\",reason=\"overload\"}}");
        assert_eq!(daemon::number(&page, &lost), Some(0.0), "{lost}");
        let of_camera = seen.iter().filter(|event| event["camera"] == format!("c{i}")).count();
        assert!(of_camera * CAMERAS * 2 >= seen.len(), "c{i} has {of_camera} of {}", seen.len());
    }
    // All at once.
    watchers.iter().for_each(PageClient::end);
    drop(watchers);
    assert_eq!(daemon.stop().0, Some(0));
}
