//! Stands between GStreamer's RTSP client and the camera, and does what that client cannot: it logs in with SHA-256,
//! keeps sessions alive with requests over TCP, checks certificates as the configuration says, and completes answers.
//!
//! The client connects to a port of the loopback interface, which answers only whoever knows a secret path. Streams
//! that are not carried by the RTSP connection (UDP, multicast) do not pass through here.
//!
//! | file | what it does |
//! |---|---|
//! | `message` | pure: takes the connection apart |
//! | `exchange`, `login`, `transport`, `keep_alive` | pure: what becomes of requests and responses |
//! | `tls` | whom to trust |
//! | `camera` | what the connections of a camera share |
//! | `connection` | one connection, from the client's first request to its end |

mod camera;
mod connection;
mod exchange;
mod keep_alive;
mod login;
mod message;
mod tls;
mod transport;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use uuid::Uuid;

use self::{camera::Camera, connection::serve};
use super::{camera_config::CameraConfig, error::CaptureError, inspect::lock};
use crate::config::Origin;

/// The most connections at a time. GStreamer's client has one, and perhaps one that is about to end.
const MAX_CONNECTIONS: usize = 16;

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
            run: AtomicU64::new(0),
            failure: Mutex::default(),
            keep_alive: Mutex::default(),
            login_taken: AtomicBool::new(false),
            closed_on_keep_alive: AtomicBool::new(false),
        });
        let accepting = tokio::spawn(accept(listener, camera.clone()));
        Ok(Some(Self { url, camera, accepting }))
    }

    /// Another run of the source begins: what failed before is forgotten.
    pub fn begin(&self) {
        self.camera.run.fetch_add(1, Ordering::SeqCst);
        *lock(&self.camera.failure) = None;
        self.camera.closed_on_keep_alive.store(false, Ordering::Relaxed);
    }

    /// What the client has to open. Not for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Why the camera could not be reached or spoken to in this run.
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

/// Serves the connections of a camera's client. They end when it closes them.
async fn accept(listener: TcpListener, camera: Arc<Camera>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, for instance.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = free.clone().try_acquire_owned() else { continue };
        let camera = camera.clone();
        tokio::spawn(async move {
            serve(&camera, client).await;
            drop(place);
        });
    }
}
