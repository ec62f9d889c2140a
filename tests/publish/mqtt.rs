//! Publishing to mosquitto, as mosquitto_sub receives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use camscribe::{
    camera::CameraState,
    config::{Login, Secret},
    publish::{
        CameraInfo, Info, Settings,
        outbox::{Message, Outbox},
    },
};

use crate::support::{
    broker::{self, Mosquitto, Received, Subscriber, TIMEOUT},
    publishing::*,
};

const A_WHILE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_unchanged_and_conforms_to_the_published_schema() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    let made = event("porch", 412, "A person walks up to the door and leaves a box. \"Åse\" \u{1f4e6}");
    outbox.append(message(&made));

    let received = subscriber.next_on("camscribe/edge1/porch/description");
    assert_eq!(as_made(&received), serde_json::to_value(&made).expect("JSON"));
    assert!(!received.retained);
    assert_eq!((received.qos, received.content_type.as_str()), (1, "application/json"));
    assert_eq!(received.expiry, "86400");
    let schema = serde_json::to_value(camscribe::event::json_schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a good schema");
    if let Err(error) = validator.validate(&received.json()) {
        panic!("does not fit: {error}");
    }

    subscriber.next_on("camscribe/edge1/porch/latest");
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    let late = Subscriber::to(broker.port(), "camscribe/edge1/porch/#");
    let latest = late.next_on("camscribe/edge1/porch/latest");
    assert!(latest.retained);
    assert_eq!(latest.json(), received.json());
    let late = Subscriber::to(broker.port(), "camscribe/edge1/porch/snapshot");
    let snapshot = late.next();
    assert!(snapshot.retained);
    assert_eq!(snapshot.payload, JPEG);
    assert_eq!(snapshot.content_type, "image/jpeg");
    assert_eq!(snapshot.user_properties, format!("id:{}", made.id));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_reports_a_node_that_died_as_offline() {
    let broker = Mosquitto::start("");
    let publisher = start(settings(broker.port()), &outbox());
    online(&publisher).await;
    let status = Subscriber::to(broker.port(), "camscribe/edge1/status");
    assert_eq!(status.next().text(), "online");
    drop(publisher);
    assert_eq!(status.next().text(), "offline");
    let late = Subscriber::to(broker.port(), "camscribe/edge1/status");
    let offline = late.next();
    assert!(offline.retained);
    assert_eq!(offline.text(), "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_delivers_what_is_left_publishes_offline_and_disconnects_without_the_will() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/#");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    for seq in 0..200 {
        outbox.append(message(&event("porch", seq, "A cat.")));
    }
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    let seen = subscriber.until(|m| m.text() == "offline");
    let seqs: Vec<u64> = descriptions(&seen).iter().map(|event| event.clip.seq).collect();
    assert_eq!(seqs, (0..200).collect::<Vec<_>>());
    assert!(subscriber.all_within(A_WHILE).is_empty(), "the will came although we said goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_without_a_broker_ends_and_returns_how_many_descriptions_are_left() {
    let outbox = outbox();
    let publisher = start(settings(broker::free_port()), &outbox);
    offline_reason(&publisher).await;
    for seq in 0..3 {
        outbox.append(message(&event("porch", seq, "A cat.")));
    }
    assert_eq!(publisher.shutdown(Duration::from_millis(100)).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_retained_and_republished_to_a_broker_that_lost_them() {
    let mut broker = Mosquitto::start("");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    let cameras = BTreeMap::from([(camera("porch"), CameraInfo { decoder: Some("avdec_h264".into()) })]);
    publisher.info(&Info { version: "0.1.0".into(), model: model(), gpu: None, cameras, reload: None });
    publisher.camera_status(&camera("porch"), CameraState::Connecting, None);
    publisher.camera_status(&camera("porch"), CameraState::Offline, Some("no route to host"));
    for run in 0..2 {
        if run == 1 {
            broker.kill();
            offline_reason(&publisher).await;
            broker.run();
        }
        online(&publisher).await;
        let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/#");
        let mut found = BTreeMap::new();
        while found.len() < 3 {
            let message = subscriber.next();
            found.insert(message.topic.clone(), message);
        }
        assert_eq!(found["camscribe/edge1/status"].text(), "online");
        let status = found["camscribe/edge1/porch/status"].json();
        assert_eq!(status, serde_json::json!({"state": "offline", "why": "no route to host"}));
        let info = found["camscribe/edge1/info"].json();
        assert_eq!(info["version"], "0.1.0");
        assert_eq!(info["model"]["device"], "cpu");
        assert_eq!(info["cameras"]["porch"]["decoder"], "avdec_h264");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_up_late_gets_the_backlog_and_only_the_newest_of_it_is_retained() {
    let mut broker = Mosquitto::stopped("allow_anonymous true");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    let why = offline_reason(&publisher).await;
    assert!(why.contains("refused"), "{why}");
    for seq in 0..5 {
        outbox.append(message(&event("porch", seq, "A cat.")));
    }
    broker.run();
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/porch/#");
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    let last = |m: &Received| m.topic.ends_with("/latest");
    let mut seen = subscriber.until(last);
    seen.extend(subscriber.all_within(A_WHILE));
    let latest: Vec<u64> = seen
        .iter()
        .filter(|m| m.topic.ends_with("/latest"))
        .filter_map(|m| m.json()["clip"]["seq"].as_u64())
        .collect();
    assert_eq!(latest, [4]);
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_has_a_clear_error_and_the_right_one_connects() {
    let broker = Mosquitto::with_password("camscribe", "right");
    let with = |password: &str| {
        let login = Login { username: "camscribe".into(), password: Secret::new(password) };
        Settings { login: Some(login), ..settings(broker.port()) }
    };
    let publisher = start(with("wrong"), &outbox());
    let why = offline_reason(&publisher).await;
    assert!(why.contains("not authorized") && why.contains("mqtt.password_file"), "{why}");
    assert!(!why.contains("wrong"), "{why}");
    assert!(!format!("{:?}", with("wrong")).contains("wrong"));
    let publisher = start(with("right"), &outbox());
    online(&publisher).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_above_the_announced_limit_is_dead_lettered_and_the_next_one_passes() {
    // mosquitto announces max_packet_size, so that such an event is never sent.
    dead_letter_and_go_on("max_packet_size 2000").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_above_an_unannounced_limit_is_dead_lettered_too() {
    // mosquitto does not announce message_size_limit and refuses with a reason that rumqttc cannot decode.
    dead_letter_and_go_on("message_size_limit 2000").await;
}

async fn dead_letter_and_go_on(config: &str) {
    let broker = Mosquitto::start(config);
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/porch/description");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    let large = "A very long story. ".repeat(200);
    for (seq, text) in ["short", &large, "short", &large, &large, "short"].into_iter().enumerate() {
        outbox.append(message(&event("porch", seq as u64, text)));
    }
    let is_last = |m: &Received| descriptions(std::slice::from_ref(m)).iter().any(|e| e.clip.seq == 5);
    let seen = subscriber.until(is_last);
    let mut ids = BTreeSet::new();
    let events = descriptions(&seen).into_iter().filter(|event| ids.insert(event.id));
    assert_eq!(events.map(|event| event.clip.seq).collect::<Vec<_>>(), [0, 2, 5]);
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(outbox.status().dead_lettered, BTreeMap::from([(camera("porch"), 3)]));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

/// Starts a broker that admits everyone and answers pings. `answer` gets a PUBLISH packet without its first
/// byte and its length, and returns the reply; with none the connection is closed. Returns the port.
fn answering(mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            while let Ok((kind, body)) = packet(&mut stream) {
                let answer = match kind >> 4 {
                    1 => Some(vec![0x20, 3, 0, 0, 0]),
                    3 => answer(&body),
                    12 => Some(vec![0xd0, 0]),
                    _ => None,
                };
                if answer.is_none_or(|answer| stream.write_all(&answer).is_err()) {
                    break;
                }
            }
        }
    });
    port
}

/// Returns the packet id of a PUBLISH packet.
fn id(body: &[u8]) -> [u8; 2] {
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    [body[topic + 2], body[topic + 3]]
}

/// Returns the PUBACK packet of a packet id.
fn taken(body: &[u8]) -> Vec<u8> {
    [&[0x40, 2][..], &id(body)].concat()
}

/// Reads an MQTT packet. Returns its first byte and what follows its length.
fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_makes_a_broker_disconnect_does_not_block_the_others_for_ever() {
    let poison = b"a basilisk";
    let port = answering(move |body| {
        let poisoned = body.windows(poison.len()).any(|bytes| bytes == poison);
        (!poisoned).then(|| taken(body))
    });
    let outbox = outbox();
    let publisher = start(settings(port), &outbox);
    for (seq, text) in ["a cat", "a dog", "a basilisk", "a bird", "a fish"].into_iter().enumerate() {
        let event = event("porch", seq as u64, text);
        outbox.append(Message::new(&event, None, None).expect("JSON"));
    }
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(outbox.status().dead_lettered, BTreeMap::from([(camera("porch"), 1)]));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_disconnects_subscribers_still_gets_every_event() {
    // It does not know SUBSCRIBE.
    let port = answering(|body| Some(taken(body)));
    let outbox = outbox();
    let settings = Settings { discovery_prefix: "homeassistant".into(), ..settings(port) };
    let publisher = start(settings, &outbox);
    for seq in 0..3 {
        outbox.append(message(&event("porch", seq, "A cat.")));
    }
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert!(outbox.status().dead_lettered.is_empty());
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_refused_for_now_is_reported_with_its_topic_and_waits() {
    // Reason codes: quota exceeded; implementation specific, as overloaded brokers reply; unspecified.
    for (code, word) in [(0x97, "quota"), (0x83, "reason of its own"), (0x80, "does not say why")] {
        let outbox = outbox();
        let not_now = Arc::new(AtomicBool::new(true));
        let refuses = not_now.clone();
        let port = answering(move |body| {
            let is_event = body[2..].starts_with(b"camscribe/edge1/porch/description");
            let refused = || [&[0x40, 3][..], &id(body), &[code]].concat();
            Some(if is_event && refuses.load(Ordering::SeqCst) { refused() } else { taken(body) })
        });
        let publisher = start(settings(port), &outbox);
        for seq in 0..3 {
            outbox.append(message(&event("porch", seq, "A cat.")));
        }
        let why = offline_reason(&publisher).await;
        not_now.store(false, Ordering::SeqCst);
        assert!(why.contains(word) && why.contains("camscribe/edge1/porch/description"), "{why}");
        wait_for_outbox(&outbox, Outbox::is_empty).await;
        assert!(outbox.status().dead_lettered.is_empty());
        assert!(outbox.status().dropped.is_empty());
        assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_returns_during_shutdown_gets_what_waits() {
    let mut broker = Mosquitto::stopped("allow_anonymous true");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    outbox.append(message(&event("porch", 0, "A cat.")));
    // Until the pauses between attempts are longer than the shutdown timeout.
    tokio::time::sleep(Duration::from_secs(9)).await;
    broker.run();
    assert_eq!(publisher.shutdown(Duration::from_secs(3)).await, 0);
}

/// A broker that reads all that comes before it acknowledges any of it. `most` is the largest such number.
fn slow_to_acknowledge(receive_max: u8) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let most = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&most);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
            let mut owed = Vec::new();
            loop {
                // A client never pauses within a packet, so a timeout falls between two.
                match packet(&mut stream) {
                    Ok((kind, _)) if kind >> 4 == 1 => {
                        let _ = stream.write_all(&[0x20, 6, 0, 0, 3, 0x21, 0, receive_max]);
                    }
                    Ok((kind, body)) if kind >> 4 == 3 => {
                        owed.extend(taken(&body));
                        counted.fetch_max(owed.len() / 4, Ordering::SeqCst);
                    }
                    Ok(_) => break,
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        if stream.write_all(&std::mem::take(&mut owed)).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    });
    (port, most)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_in_flight_than_the_broker_allows() {
    let (port, most) = slow_to_acknowledge(3);
    let outbox = outbox();
    let publisher = start(settings(port), &outbox);
    for seq in 0..12 {
        outbox.append(message(&event("porch", seq, "A cat.")));
    }
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_on_a_forbidden_topic_is_dead_lettered_and_other_cameras_pass() {
    let mut broker = Mosquitto::stopped("allow_anonymous true");
    let acl = broker.path("acl");
    fs::write(&acl, "topic readwrite camscribe/edge1/status\ntopic readwrite camscribe/edge1/porch/#\n")
        .expect("written");
    let config = fs::read_to_string(broker.path("mosquitto.conf")).expect("written");
    fs::write(broker.path("mosquitto.conf"), format!("{config}acl_file {}\n", acl.display()))
        .expect("written");
    broker.run();
    let subscriber = Subscriber::to(broker.port(), "camscribe/edge1/porch/description");
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    outbox.append(message(&event("yard", 0, "A dog.")));
    outbox.append(message(&event("porch", 0, "A cat.")));
    assert_eq!(subscriber.next().json()["description"], "A cat.");
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(outbox.status().dead_lettered, BTreeMap::from([(camera("yard"), 1)]));
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_keeps_nothing_and_acknowledges_nothing_still_gets_the_events() {
    let broker = Mosquitto::start("retain_available false\nmax_qos 0");
    let subscriber = Subscriber::with(broker.port(), "camscribe/edge1/#", &["-q", "0"]);
    let outbox = outbox();
    let publisher = start(settings(broker.port()), &outbox);
    let made = event("porch", 0, "A cat.");
    outbox.append(message(&made));
    let received = subscriber.next_on("camscribe/edge1/porch/description");
    assert_eq!(as_made(&received), serde_json::to_value(&made).expect("JSON"));
    wait_for_outbox(&outbox, Outbox::is_empty).await;
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn home_assistant_finds_every_camera_when_it_starts_after_the_daemon() {
    let broker = Mosquitto::start("");
    let home = Subscriber::to(broker.port(), "homeassistant/+/+/+/config");
    let settings = Settings {
        discovery_prefix: "homeassistant".into(),
        cameras: named(&["porch", "yard"]),
        ..settings(broker.port())
    };
    let publisher = start(settings, &outbox());
    // The five entities of the node come first: each camera names the node's device.
    let topics = || (0..5 + 2 * 6).map(|_| home.next().topic).collect::<Vec<_>>();
    let expected = topics();
    for camera in ["porch", "yard"] {
        let of_camera = expected[5..].iter().filter(|topic| topic.contains(&format!("/{camera}-"))).count();
        assert_eq!(of_camera, 6, "{expected:?}");
    }
    broker::publish(broker.port(), "homeassistant/status", "offline");
    broker::publish(broker.port(), "homeassistant/status", "online");
    assert_eq!(topics(), expected);
    let late = Subscriber::to(broker.port(), "homeassistant/sensor/#");
    let config = late.next();
    assert!(config.retained);
    assert_eq!(config.json()["origin"]["name"], "camscribe");
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
}
