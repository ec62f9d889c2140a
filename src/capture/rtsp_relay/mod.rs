//! Stands between GStreamer's RTSP client and the camera, and does what that client cannot: it logs in with SHA-256,
//! keeps sessions alive with requests over TCP, checks certificates as the configuration says, and completes answers.
//!
//! The client connects to a port of the loopback interface, which answers only whoever knows a secret path. Streams
//! that are not carried by the RTSP connection (UDP, multicast) do not pass through here.
//!
//! | file | what it does |
//! |---|---|
//! | `message` | pure: takes the connection apart |
//! | `exchange`, `keep_alive` | pure: what becomes of requests and responses |
//! | `tls` | whom to trust |
//! | `connection` | one connection, from the client's first request to its end |

mod connection;
mod exchange;
mod keep_alive;
mod message;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

use self::{connection::serve, keep_alive::KeepAlive};
use super::{camera_config::CameraConfig, error::CaptureError, inspect::lock};
use crate::config::{Login, NetworkAddress, Origin, TlsVerify};

/// The most connections at a time. GStreamer's client has one.
const MAX_CONNECTIONS: usize = 4;

/// A camera, as its connections see it.
struct Camera {
    /// The source, for errors.
    what: String,
    address: NetworkAddress,
    login: Option<Login>,
    tls: TlsVerify,
    /// What the client's URIs begin with in place of the camera's scheme, host and port.
    client_base: String,
    /// Why the last connection failed.
    failure: Mutex<Option<CaptureError>>,
    /// What the last connection has taught.
    keep_alive: Mutex<KeepAlive>,
    /// The camera has closed the last connection instead of answering a request to keep the session alive.
    closed_on_keep_alive: AtomicBool,
}

/// The relay of one camera. Ends when it is dropped.
pub(super) struct RtspRelay {
    url: String,
    camera: Arc<Camera>,
    accepting: JoinHandle<()>,
}

impl RtspRelay {
    /// Starts the relay of a network camera. `None`: the source is something else.
    ///
    /// # Errors
    /// If there is no port for it.
    pub async fn start(config: &CameraConfig) -> Result<Option<Self>, CaptureError> {
        let Origin::Network(address) = config.source.origin() else { return Ok(None) };
        // The client takes datagrams by the same version of IP as its connection.
        let loopback = match address.host_port().0.parse() {
            Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let what = config.source.to_string();
        let no_port = |error: std::io::Error| CaptureError::Other {
            what: what.clone(),
            why: format!("no port of the loopback interface can be opened: {error}"),
        };
        let listener = TcpListener::bind((loopback, 0)).await.map_err(no_port)?;
        let port = listener.local_addr().map_err(no_port)?;
        let client_base = format!("rtsp://{port}/{}", Uuid::now_v7().simple());
        let url = format!("{client_base}{}", address.split_before_path().1);
        let camera = Arc::new(Camera {
            what,
            address: address.clone(),
            login: config.login.clone(),
            tls: config.tls.clone(),
            client_base,
            failure: Mutex::default(),
            keep_alive: Mutex::default(),
            closed_on_keep_alive: AtomicBool::new(false),
        });
        let accepting = tokio::spawn(accept(listener, camera.clone()));
        Ok(Some(Self { url, camera, accepting }))
    }

    /// What the client has to open. Not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Why the camera could not be reached or does not work with this relay, since this was asked last.
    pub fn take_failure(&self) -> Option<CaptureError> {
        lock(&self.camera.failure).take()
    }

    /// Whether the last connection ended because of a request that the next one will not send.
    pub fn take_lesson(&self) -> bool {
        self.camera.closed_on_keep_alive.swap(false, Ordering::Relaxed)
    }
}

impl Drop for RtspRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves the connections of a camera's client. They end with this task.
async fn accept(listener: TcpListener, camera: Arc<Camera>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, for instance.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() < MAX_CONNECTIONS {
            let camera = camera.clone();
            connections.spawn(async move {
                if let Err(failure) = serve(&camera, client).await {
                    *lock(&camera.failure) = Some(failure);
                }
            });
        }
    }
}
