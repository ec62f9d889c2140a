//! TCP connections to cameras, with errors that say why there is none.

use std::{io, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::error::CaptureError;
use crate::config::NetworkAddress;

/// Looks the host up and connects to it, within `limit`. `what`: which source, for the error.
///
/// # Errors
/// If the host is unknown, or none of its addresses can be connected to.
pub(super) async fn connect(
    what: &str,
    address: &NetworkAddress,
    limit: Duration,
) -> Result<TcpStream, CaptureError> {
    let deadline = Instant::now() + limit;
    let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
    let (host, port) = address.host_port();
    let found = timeout_at(deadline, lookup_host((host.clone(), port))).await;
    let unknown = |cause| CaptureError::UnknownHost { what: what.into(), host: host.clone(), cause };
    let mut refusal = unknown(io::ErrorKind::NotFound.into());
    for address in found.unwrap_or_else(|_| Err(timed_out())).map_err(&unknown)? {
        let connected = timeout_at(deadline, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(timed_out())) {
            Ok(stream) => return Ok(stream),
            Err(cause) => refusal = CaptureError::Unreachable { what: what.into(), address, cause },
        }
    }
    Err(refusal)
}
