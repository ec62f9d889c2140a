//! The broker of `camscribe demo`, with our own publisher and subscriber and with mosquitto's clients.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use camscribe::{
    camera::{CameraId, CameraState},
    event::EventKind,
    publish::{
        BrokerAddress, Publisher, Settings,
        mqtt::{embedded_broker::EmbeddedBroker, subscribe},
        outbox::{Limits, Message, Outbox},
    },
};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use crate::support::broker::{self, Subscriber, TIMEOUT};

const LIMITS: Limits = Limits { events: 16 << 20, snapshots: 16 << 20 };

fn camera() -> CameraId {
    "scene".parse().expect("a good name")
}

fn publisher(port: u16, outbox: &Arc<Outbox>) -> Publisher {
    let settings = Settings {
        broker: BrokerAddress { host: "127.0.0.1".into(), port, tls: None },
        version: camscribe::config::MqttVersion::Auto,
        login: None,
        node: "demo".into(),
        topic_prefix: "camscribe".into(),
        discovery_prefix: String::new(),
        cameras: BTreeMap::from([(camera(), "Porch".into())]),
        inboxes: None,
        response_topics: Vec::new(),
    };
    Publisher::start(settings, Arc::clone(outbox)).expect("good settings")
}

fn message(text: &str) -> Message {
    let event = serde_json::json!({ "description": text }).to_string().into();
    Message {
        camera: camera(),
        id: Uuid::now_v7(),
        kind: EventKind::Description,
        event,
        snapshot: Some(vec![0xff; 200_000].into()),
        alerts: None,
        is_recorded: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_publisher_and_our_subscriber_work_with_it() {
    let embedded = EmbeddedBroker::start(0).await.expect("a port");
    let port = embedded.port();
    let outbox = Arc::new(Outbox::in_memory(LIMITS));
    let publisher = publisher(port, &outbox);
    publisher.camera_status(&camera(), CameraState::Online, None);
    let (seen, mut messages) = mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        subscribe(port, "camscribe/#", |topic, payload| drop(seen.send((topic.to_owned(), payload.to_vec()))))
            .await
    });
    let mut next = async |topic: &str| loop {
        let message = timeout(TIMEOUT, messages.recv()).await.expect("in time").expect("the reader runs");
        if message.0 == topic {
            return message.1;
        }
    };
    assert_eq!(next("camscribe/demo/status").await, b"online");
    outbox.append(message("A red circle moves left."));
    assert_eq!(next("camscribe/demo/scene/snapshot").await.len(), 200_000);
    let latest = next("camscribe/demo/scene/latest").await;
    assert!(latest.starts_with(br#"{"description":"A red circle moves left.","published":""#), "{latest:?}");
    assert_eq!(publisher.shutdown(TIMEOUT).await, 0);
    assert_eq!(next("camscribe/demo/status").await, b"offline");
    drop(embedded);
    let ended = timeout(TIMEOUT, reader).await.expect("in time").expect("no panic");
    assert!(ended.expect_err("it only returns when it ends").to_string().contains(&port.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_vendors_client_reads_retained_messages_new_ones_and_the_will() {
    let embedded = EmbeddedBroker::start(0).await.expect("a port");
    let outbox = Arc::new(Outbox::in_memory(LIMITS));
    let publisher = publisher(embedded.port(), &outbox);
    outbox.append(message("A red circle moves left."));
    while !outbox.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = Subscriber::to(embedded.port(), "camscribe/demo/status");
    let online = status.next();
    assert_eq!((online.text().as_str(), online.retained), ("online", true));
    drop(publisher);
    let offline = status.next();
    assert_eq!((offline.text().as_str(), offline.retained), ("offline", false));
    broker::publish(embedded.port(), "camscribe/demo/status", "from another client");
    assert_eq!(status.next().text(), "from another client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_the_protocol_is_disconnected_and_nobody_else() {
    let embedded = EmbeddedBroker::start(0).await.expect("a port");
    let good = Subscriber::to(embedded.port(), "#");
    let nonsense: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0xff, 0xff, 0xff, 0x7f],
        &[0x10, 2, 0, 4],
        // A complete CONNECT of MQTT 3.1.1, which the broker does not support.
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x'],
    ];
    for bytes in nonsense {
        let mut stream = TcpStream::connect(("127.0.0.1", embedded.port())).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        stream.shutdown(std::net::Shutdown::Write).expect("open");
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        let mut answer = Vec::new();
        // Closed, or reset because of bytes that it did not read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
    }
    broker::publish(embedded.port(), "a/b", "still here");
    assert_eq!(good.next().text(), "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_taken_while_the_broker_runs_and_free_after_it() {
    let embedded = EmbeddedBroker::start(0).await.expect("a port");
    let port = embedded.port();
    let taken = EmbeddedBroker::start(port).await.expect_err("in use");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    drop(embedded);
    let again = async {
        while EmbeddedBroker::start(port).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, again).await.expect("the port comes free");
}
