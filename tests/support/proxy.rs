//! A TCP proxy before a broker, with faults that a test switches while it is used. It listens on a free
//! loopback port and ends with the test.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often a connection checks the state of the link.
const STEP: Duration = Duration::from_millis(10);
/// Bytes that pass in a step of a slow link.
const TRICKLE: usize = 64;

/// The state of the link to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Pass,
    /// Connections are closed at once.
    Refuse,
    /// A few bytes at a time.
    Slow,
    /// Connections stay open, and nothing passes.
    Stall,
    /// This many more bytes go to the broker; then the connection breaks and others are refused.
    Cut(u64),
    /// A CONNECT of MQTT 5 is refused as a broker refuses it that knows only 3.1.1.
    RefusesV5,
    /// A CONNECT of MQTT 5 is answered by closing the connection.
    #[allow(dead_code, reason = "only the tests of MQTT versions use it")]
    DisconnectsOnV5,
    /// A CONNECT of MQTT 5 is never answered.
    #[allow(dead_code, reason = "only the tests of MQTT versions use it")]
    SilentOnV5,
    /// The next connection is closed at its first bytes; those after it pass.
    #[allow(dead_code, reason = "only the tests of MQTT versions use it")]
    DisconnectsOnce,
}

/// A proxy that listens until it is dropped.
pub struct Proxy {
    port: u16,
    link: Arc<Mutex<Link>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(broker: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let link = Arc::new(Mutex::new(Link::Pass));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&link), Arc::clone(&ended));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // A refused client sees its connection close.
                let _ = serve(client, broker, &shared);
            }
        });
        Self { port, link, ended }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, link: Link) {
        *self.link.lock().unwrap() = link;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Link::Refuse);
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(client: TcpStream, broker: u16, link: &Arc<Mutex<Link>>) -> io::Result<()> {
    if matches!(*link.lock().unwrap(), Link::Refuse | Link::Cut(_)) {
        return Ok(());
    }
    let broker = TcpStream::connect(("127.0.0.1", broker))?;
    for (from, to, up) in [(&client, &broker, true), (&broker, &client, false)] {
        let (from, to, link) = (from.try_clone()?, to.try_clone()?, Arc::clone(link));
        from.set_read_timeout(Some(STEP))?;
        thread::spawn(move || {
            let _ = forward(&from, &to, up, &link);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

/// Forwards bytes in one direction, as the link allows, until either side closes or the link breaks.
fn forward(mut from: &TcpStream, mut to: &TcpStream, up: bool, link: &Mutex<Link>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut first = up;
    loop {
        let state = *link.lock().unwrap();
        let most = match state {
            Link::Refuse => return Ok(()),
            Link::Stall => {
                thread::sleep(STEP);
                continue;
            }
            Link::Slow => TRICKLE,
            _ => buffer.len(),
        };
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        };
        let bytes = &buffer[..read];
        if std::mem::take(&mut first) && state == Link::RefusesV5 && is_version_5(bytes) {
            // CONNACK of 3.1.1: unacceptable protocol version (section 3.2.2.3 there).
            return from.write_all(&[0x20, 2, 0, 1]);
        }
        let now = &mut *link.lock().unwrap();
        match now {
            Link::DisconnectsOnce => {
                *now = Link::Pass;
                return Ok(());
            }
            Link::DisconnectsOnV5 if is_version_5(bytes) => return Ok(()),
            Link::SilentOnV5 if is_version_5(bytes) => continue,
            Link::Cut(left) if up => {
                let passing = read.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= passing as u64;
                to.write_all(&bytes[..passing])?;
                if *left == 0 {
                    *now = Link::Refuse;
                    return Ok(());
                }
            }
            _ => to.write_all(bytes)?,
        }
        if state == Link::Slow {
            thread::sleep(STEP);
        }
    }
}

/// Returns whether a CONNECT is of MQTT 5, by the byte behind the protocol's name (MQTT 5, section 3.1.2.2).
fn is_version_5(packet: &[u8]) -> bool {
    packet.windows(5).any(|bytes| bytes == b"MQTT\x05")
}
