//! The broker inside `camscribe demo`: enough of MQTT 5 for a publisher and a few subscribers on
//! loopback, and no more. It is written by hand because a broker of the crate `rumqttd` cannot be shut
//! down.
//!
//! It keeps retained messages and wills. Subscribers get all messages at QoS 0, and a slow subscriber
//! misses messages. There are no sessions, no users and no TLS: it is not for a network.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rumqttc::v5::mqttbytes::{
    Error as CodecError, QoS,
    v5::{
        ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill,
        Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode, UnsubAck, UnsubAckReason,
    },
    valid_filter,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time,
};
use tokio_util::bytes::BytesMut;

const MAX_CLIENTS: usize = 64;
const MAX_RETAINED: usize = 1024;
/// The largest packet, bytes: enough for a snapshot of any camera.
const MAX_PACKET: u32 = 4 << 20;
/// The most messages that wait for one subscriber.
const MAX_WAITING: usize = 256;
/// From the TCP connection to the CONNECT packet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A running broker. Dropping it closes all connections.
#[derive(Debug)]
pub struct EmbeddedBroker {
    port: u16,
    task: JoinHandle<()>,
}

impl EmbeddedBroker {
    /// Listens on `port` of 127.0.0.1; 0 is a free port. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken or may not be used.
    pub async fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, task: tokio::spawn(accept(listener)) })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener) {
    let router = Arc::new(Router::default());
    // Dropped with this task, which ends every client's task.
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => { clients.spawn(serve(stream, Arc::clone(&router))); }
                // Most likely there are no file descriptors left: wait until some are closed.
                Err(_) => time::sleep(Duration::from_millis(100)).await,
            },
            _ = clients.join_next(), if !clients.is_empty() => {}
        }
    }
}

/// The connected subscribers and the retained messages.
#[derive(Default)]
struct Router {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    subscribers: HashMap<u64, Subscriber>,
    retained: BTreeMap<String, Publish>,
    next: u64,
}

struct Subscriber {
    filters: Vec<String>,
    messages: mpsc::Sender<Publish>,
}

impl Router {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retains `message` if it has the flag, and passes it to the subscribers of its topic.
    fn publish(&self, message: Publish) {
        let Ok(topic) = String::from_utf8(message.topic.to_vec()) else { return };
        if topic.is_empty() || topic.contains(['+', '#', '\0']) {
            return;
        }
        let message = Publish { qos: QoS::AtMostOnce, pkid: 0, dup: false, ..message };
        let mut inner = self.lock();
        if message.retain {
            let known = inner.retained.contains_key(&topic);
            if message.payload.is_empty() {
                inner.retained.remove(&topic);
            } else if known || inner.retained.len() < MAX_RETAINED {
                inner.retained.insert(topic.clone(), message.clone());
            }
        }
        for subscriber in inner.subscribers.values() {
            if subscriber.filters.iter().any(|filter| matches(filter, &topic)) {
                // QoS 0 allows that a full queue loses the message.
                let _ = subscriber.messages.try_send(Publish { retain: false, ..message.clone() });
            }
        }
    }
}

/// A client's session. When it is dropped, the client's subscriptions end and its will is published.
struct ClientSession {
    router: Arc<Router>,
    id: u64,
    will: Option<LastWill>,
}

impl ClientSession {
    fn new(router: &Arc<Router>, will: Option<LastWill>) -> (Self, mpsc::Receiver<Publish>) {
        let (messages, waiting) = mpsc::channel(MAX_WAITING);
        let mut inner = router.lock();
        let id = inner.next;
        inner.next += 1;
        inner.subscribers.insert(id, Subscriber { filters: Vec::new(), messages });
        (Self { router: Arc::clone(router), id, will }, waiting)
    }

    /// The packets that answer a packet of the client.
    ///
    /// # Errors
    /// When the connection is to be closed: the client disconnects, or the packet is not allowed.
    fn answer(&mut self, packet: Packet) -> Result<Vec<Packet>, Closed> {
        Ok(match packet {
            Packet::Publish(message) => {
                let id = message.pkid;
                let answer = match message.qos {
                    QoS::AtMostOnce => Vec::new(),
                    QoS::AtLeastOnce => vec![Packet::PubAck(PubAck::new(id, None))],
                    QoS::ExactlyOnce => return Err(Closed),
                };
                self.router.publish(message);
                answer
            }
            Packet::Subscribe(wanted) => {
                let mut inner = self.router.lock();
                let inner = &mut *inner;
                let Some(subscriber) = inner.subscribers.get_mut(&self.id) else { return Err(Closed) };
                let mut codes = Vec::new();
                let mut retained = Vec::new();
                for filter in wanted.filters {
                    if !valid_filter(&filter.path) {
                        codes.push(SubscribeReasonCode::TopicFilterInvalid);
                        continue;
                    }
                    codes.push(SubscribeReasonCode::Success(QoS::AtMostOnce));
                    let found = inner.retained.iter().filter(|(topic, _)| matches(&filter.path, topic));
                    retained.extend(found.map(|(_, message)| Packet::Publish(message.clone())));
                    if !subscriber.filters.contains(&filter.path) {
                        subscriber.filters.push(filter.path);
                    }
                }
                let ack = SubAck { pkid: wanted.pkid, return_codes: codes, properties: None };
                retained.insert(0, Packet::SubAck(ack));
                retained
            }
            Packet::Unsubscribe(wanted) => {
                if let Some(subscriber) = self.router.lock().subscribers.get_mut(&self.id) {
                    subscriber.filters.retain(|filter| !wanted.filters.contains(filter));
                }
                let reasons = vec![UnsubAckReason::Success; wanted.filters.len()];
                vec![Packet::UnsubAck(UnsubAck { pkid: wanted.pkid, reasons, properties: None })]
            }
            Packet::PingReq(_) => vec![Packet::PingResp(PingResp)],
            Packet::Disconnect(Disconnect {
                reason_code: DisconnectReasonCode::NormalDisconnection, ..
            }) => {
                self.will = None;
                return Err(Closed);
            }
            _ => return Err(Closed),
        })
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.router.lock().subscribers.remove(&self.id);
        if let Some(will) = self.will.take() {
            self.router.publish(Publish {
                topic: will.topic,
                payload: will.message,
                retain: will.retain,
                ..Publish::default()
            });
        }
    }
}

/// The connection is to be closed.
struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<CodecError> for Closed {
    fn from(_: CodecError) -> Self {
        Self
    }
}

async fn serve(stream: TcpStream, router: Arc<Router>) {
    // A client that leaves or breaks the protocol is no error of the broker.
    let _: Result<(), Closed> = run_session(stream, &router).await;
}

async fn run_session(mut stream: TcpStream, router: &Arc<Router>) -> Result<(), Closed> {
    let mut input = BytesMut::new();
    let first = time::timeout(CONNECT_TIMEOUT, read(&mut stream, &mut input)).await.map_err(|_| Closed)??;
    let Packet::Connect(Connect { keep_alive, .. }, will, _) = first else { return Err(Closed) };
    let (mut session, mut waiting) = ClientSession::new(router, will);
    write(&mut stream, [Packet::ConnAck(conn_ack())]).await?;
    let keep_alive = match keep_alive {
        0 => Duration::MAX,
        seconds => Duration::from_secs(seconds.into()).mul_f32(1.5),
    };
    loop {
        tokio::select! {
            packet = time::timeout(keep_alive, read(&mut stream, &mut input)) => {
                let answers = session.answer(packet.map_err(|_| Closed)??)?;
                write(&mut stream, answers).await?;
            }
            Some(message) = waiting.recv() => write(&mut stream, [Packet::Publish(message)]).await?,
        }
    }
}

fn conn_ack() -> ConnAck {
    let properties = ConnAckProperties {
        max_qos: Some(1),
        max_packet_size: Some(MAX_PACKET),
        session_expiry_interval: None,
        receive_max: None,
        retain_available: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: Some(0),
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    ConnAck { session_present: false, code: ConnectReturnCode::Success, properties: Some(properties) }
}

/// The next packet. Bytes of a packet that is not whole stay in `input` when this is dropped.
async fn read(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Packet, Closed> {
    loop {
        // rumqttc writes a DISCONNECT without a body, which its own parser refuses.
        if input.starts_with(&[0xe0, 0]) {
            return Ok(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection)));
        }
        match Packet::read(input, Some(MAX_PACKET)) {
            Err(CodecError::InsufficientBytes(_)) => {}
            packet => return Ok(packet?),
        }
        if stream.read_buf(input).await? == 0 {
            return Err(Closed);
        }
    }
}

async fn write(stream: &mut TcpStream, packets: impl IntoIterator<Item = Packet>) -> Result<(), Closed> {
    let mut output = BytesMut::new();
    for packet in packets {
        packet.write(&mut output, None)?;
    }
    Ok(stream.write_all(&output).await?)
}

/// Whether the topic filter `filter` matches `topic` (MQTT 5, section 4.7).
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("#", "a/b/c"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("+/b/#", "a/b"),
            ("$SYS/#", "$SYS/uptime"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a/B"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/finance"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("#", "$SYS/uptime"),
            ("+/uptime", "$SYS/uptime"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
