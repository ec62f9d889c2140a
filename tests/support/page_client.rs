//! A client of the page: it is told what happens (`/api/live`), and comes again whenever that ends, as browsers do; and
//! it searches.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

/// A client that comes again after this long.
const PAUSE: Duration = Duration::from_millis(200);
/// So long it waits for the next line, of which there is one every ten seconds at least.
const SILENCE: Duration = Duration::from_secs(30);

/// What a client was told so far.
#[derive(Default)]
pub struct Told {
    /// The ids of events, each once.
    pub events: Mutex<BTreeSet<String>>,
    /// How often it was told that it missed something.
    pub resets: AtomicUsize,
    /// How many searches were answered.
    pub searches: AtomicUsize,
}

/// The client, which ends with this value.
pub struct PageClient {
    pub told: Arc<Told>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PageClient {
    /// A client of the daemon whose log is this file, in whichever of its runs.
    pub fn start(log: PathBuf) -> Self {
        let (told, stop) = (Arc::<Told>::default(), Arc::new(AtomicBool::new(false)));
        let (of_thread, is_over) = (Arc::clone(&told), Arc::clone(&stop));
        let watch = move || {
            let mut last = None;
            while !is_over.load(Ordering::Relaxed) {
                if let Some(address) = address(&log) {
                    if search(&address).is_some_and(|status| status == 200) {
                        of_thread.searches.fetch_add(1, Ordering::Relaxed);
                    }
                    // A daemon that is killed ends the connection, which is no fault.
                    let _ = follow(&address, &mut last, &of_thread, &is_over);
                }
                thread::sleep(PAUSE);
            }
        };
        Self { told, stop, thread: Some(thread::spawn(watch)) }
    }

    /// Tells it to end.
    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for PageClient {
    fn drop(&mut self) {
        self.end();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.map(Result::unwrap);
        }
    }
}

/// Where the daemon's last run listens.
fn address(log: &Path) -> Option<String> {
    let log = String::from_utf8_lossy(&fs::read(log).ok()?).into_owned();
    let line = log.lines().rfind(|line| line.contains("/metrics, /healthz"))?;
    Some(line.split("http://").nth(1)?.split('/').next()?.to_owned())
}

fn get(address: &str, path: &str, headers: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // Often, so that the end of the test is noticed.
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")?;
    Ok(stream)
}

/// Takes in what is told until that ends.
fn follow(
    address: &str,
    last: &mut Option<String>,
    told: &Told,
    is_over: &AtomicBool,
) -> std::io::Result<()> {
    let headers = last.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let mut lines = BufReader::new(get(address, "/api/live", &headers)?);
    let (mut kind, mut id, mut line, mut silent) = (String::new(), None, Vec::new(), Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) && silent < SILENCE {
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => continue,
            // What was read of the line stays there.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                silent += Duration::from_millis(500);
                continue;
            }
            Err(error) => return Err(error),
        }
        silent = Duration::ZERO;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if let Some(name) = text.strip_prefix("event: ") {
            kind = name.to_owned();
        } else if let Some(of_event) = text.strip_prefix("id: ") {
            id = Some(of_event.to_owned());
        } else if let Some(data) = text.strip_prefix("data: ") {
            match kind.as_str() {
                "event" => {
                    let event: Value = serde_json::from_str(data).expect("JSON");
                    assert_eq!(event["id"].as_str(), id.as_deref());
                    told.events.lock().unwrap().extend(id.clone());
                    *last = id.take();
                }
                "reset" => drop(told.resets.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
        }
    }
    Ok(())
}

fn search(address: &str) -> Option<u16> {
    let mut stream = get(address, "/api/events?q=circle&limit=5", "").ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    str::from_utf8(&answer).ok()?.split(' ').nth(1)?.parse().ok()
}
