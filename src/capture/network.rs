//! TCP connections to cameras, with errors that say why there is none.

use std::{io, net::SocketAddr, time::Duration};

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
    let found = found.unwrap_or_else(|_| Err(timed_out())).map_err(&unknown)?;
    // By IPv4 where there is a choice, as its datagrams come.
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    for (i, &address) in found.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (found.len() - i) as u32;
        let connected = timeout_at(now + share, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(timed_out())) {
            Ok(stream) => return Ok(stream),
            Err(cause) => refusal = CaptureError::Unreachable { what: what.into(), address, cause },
        }
    }
    Err(refusal)
}
