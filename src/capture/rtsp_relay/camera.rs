//! What the connections of a camera share.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64},
};

use super::{super::error::CaptureError, keep_alive::KeepAlive};
use crate::config::{Login, NetworkAddress, TlsVerify};

/// A camera, as its connections see it.
pub(super) struct Camera {
    /// The source, for errors.
    pub what: String,
    pub address: NetworkAddress,
    pub login: Option<Login>,
    pub tls: TlsVerify,
    /// What the client's URIs begin with in place of the camera's scheme, host and port.
    pub client_base: String,
    /// Counts the runs of the source.
    pub run: AtomicU64,
    /// Why a connection of this run failed.
    pub failure: Mutex<Option<CaptureError>>,
    /// What the last connection has taught.
    pub keep_alive: Mutex<KeepAlive>,
    /// The camera has taken the login once.
    pub login_taken: AtomicBool,
    /// The camera has closed the last connection instead of answering a request to keep the session alive.
    pub closed_on_keep_alive: AtomicBool,
}
