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

/// A pump looks at the line's state so often.
const STEP: Duration = Duration::from_millis(10);
/// So many bytes pass in a step of a slow line.
const TRICKLE: usize = 64;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Pass,
    /// Connections end at once.
    Refuse,
    /// A few bytes at a time.
    Slow,
    /// Connections stand, and nothing passes.
    Stall,
    /// So many more bytes go to the broker, then the connection breaks and others are refused.
    Cut(u64),
    /// As if the broker knew only MQTT 3.1.1: it refuses a CONNECT of version 5 as such brokers do.
    Lacks5,
    /// The same, and it just hangs up.
    HangsUpOn5,
    /// The next connection ends as soon as something is said on it; those after it pass.
    HangsUpOnce,
}

pub struct Proxy {
    port: u16,
    line: Arc<Mutex<Line>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(broker: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let line = Arc::new(Mutex::new(Line::Pass));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&line), Arc::clone(&ended));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Who is refused sees the connection close.
                let _ = serve(client, broker, &shared);
            }
        });
        Self { port, line, ended }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Line::Refuse);
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(client: TcpStream, broker: u16, line: &Arc<Mutex<Line>>) -> io::Result<()> {
    if matches!(*line.lock().unwrap(), Line::Refuse | Line::Cut(_)) {
        return Ok(());
    }
    let broker = TcpStream::connect(("127.0.0.1", broker))?;
    for (from, to, up) in [(&client, &broker, true), (&broker, &client, false)] {
        let (from, to, line) = (from.try_clone()?, to.try_clone()?, Arc::clone(line));
        from.set_read_timeout(Some(STEP))?;
        thread::spawn(move || {
            let _ = pump(&from, &to, up, &line);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

/// Passes bytes on, as the line allows, until either side ends or the line breaks.
fn pump(mut from: &TcpStream, mut to: &TcpStream, up: bool, line: &Mutex<Line>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut first = up;
    loop {
        let state = *line.lock().unwrap();
        let most = match state {
            Line::Refuse => return Ok(()),
            Line::Stall => {
                thread::sleep(STEP);
                continue;
            }
            Line::Slow => TRICKLE,
            _ => buffer.len(),
        };
        let read = match from.read(&mut buffer[..most]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        };
        let bytes = &buffer[..read];
        if std::mem::take(&mut first) && state == Line::Lacks5 && is_version_5(bytes) {
            // CONNACK of 3.1.1: unacceptable protocol version (section 3.2.2.3 there).
            return from.write_all(&[0x20, 2, 0, 1]);
        }
        let now = &mut *line.lock().unwrap();
        match now {
            Line::HangsUpOnce => {
                *now = Line::Pass;
                return Ok(());
            }
            Line::HangsUpOn5 if is_version_5(bytes) => return Ok(()),
            Line::Cut(left) if up => {
                let passing = read.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= passing as u64;
                to.write_all(&bytes[..passing])?;
                if *left == 0 {
                    *now = Line::Refuse;
                    return Ok(());
                }
            }
            _ => to.write_all(bytes)?,
        }
        if state == Line::Slow {
            thread::sleep(STEP);
        }
    }
}

/// Whether a CONNECT says 5: the byte behind the protocol's name (section 3.1.2.2).
fn is_version_5(packet: &[u8]) -> bool {
    packet.windows(5).any(|bytes| bytes == b"MQTT\x05")
}
