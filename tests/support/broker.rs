//! mosquitto on a free loopback port, and mosquitto_sub as a subscriber that shares no code with us. Both
//! end with the test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a test waits for anything before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A mosquitto process with a configuration and a port of its own.
pub struct Mosquitto {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker that admits everyone, with `extra` lines in its configuration.
    pub fn start(extra: &str) -> Self {
        let mut broker = Self::stopped(&format!("allow_anonymous true\n{extra}"));
        broker.run();
        broker
    }

    /// Returns a broker that has its port and its configuration and does not run yet.
    pub fn stopped(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence_location {}/\n{config}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("mosquitto.conf"), config).expect("written");
        Self { dir, port, child: None }
    }

    /// Starts a broker that admits only this user.
    pub fn with_password(user: &str, password: &str) -> Self {
        let mut broker = Self::stopped("allow_anonymous false");
        let passwords = broker.path("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-c", "-b"])
            .arg(&passwords)
            .args([user, password])
            .status()
            .expect("mosquitto_passwd is installed");
        assert!(made.success());
        let config = fs::read_to_string(broker.path("mosquitto.conf")).expect("written");
        let config = format!("{config}password_file {}\n", passwords.display());
        fs::write(broker.path("mosquitto.conf"), config).expect("written");
        broker.run();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of a file in its directory, which its configuration may name before it runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it and waits until it listens.
    pub fn run(&mut self) {
        let log = fs::File::create(self.path("log")).expect("a log");
        let mut child = Command::new(mosquitto())
            .arg("-c")
            .arg(self.path("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "mosquitto ended: {}", self.log());
            assert!(start.elapsed() < TIMEOUT, "mosquitto does not listen: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a port that was free a moment ago. The system gives it to nobody who lets it choose: it is below the range
/// from which it chooses. Another one each time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (next % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns the path of mosquitto, which Debian keeps out of an ordinary user's PATH.
fn mosquitto() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

/// A message as a subscriber receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub retained: bool,
    pub qos: u8,
    pub content_type: String,
    /// Seconds; empty when there is none.
    pub expiry: String,
    /// `name:value`, space between.
    pub user_properties: String,
    pub payload: Vec<u8>,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).expect("JSON")
    }
}

/// A mosquitto_sub process that is subscribed.
pub struct Subscriber {
    child: Child,
    messages: Receiver<Received>,
}

impl Subscriber {
    /// Subscribes to `filter`. Retained messages come first.
    pub fn to(port: u16, filter: &str) -> Self {
        Self::with(port, filter, &[])
    }

    /// Subscribes with further arguments of mosquitto_sub.
    pub fn with(port: u16, filter: &str, arguments: &[&str]) -> Self {
        // stdbuf: its output would otherwise stay in its buffer.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-d",
                "-V",
                "5",
                "-q",
                "1",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-t",
                filter,
            ])
            .args(["-F", "MESSAGE\\t%t\\t%r\\t%q\\t%C\\t%E\\t%P\\t%x"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is installed");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (to_us, messages) = channel();
        let (subscribed, is_subscribed) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.starts_with("Subscribed") {
                    let _ = subscribed.send(());
                } else if let Some(message) = parse(&line)
                    && to_us.send(message).is_err()
                {
                    return;
                }
            }
        });
        is_subscribed.recv_timeout(TIMEOUT).expect("subscribed");
        Self { child, messages }
    }

    /// Waits for the next message.
    pub fn next(&self) -> Received {
        self.messages.recv_timeout(TIMEOUT).expect("a message")
    }

    /// Waits for the next message on `topic` and skips others.
    pub fn next_on(&self, topic: &str) -> Received {
        loop {
            let message = self.next();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// Waits for a message for which `wanted` holds. Returns it after all messages before it.
    pub fn until(&self, mut wanted: impl FnMut(&Received) -> bool) -> Vec<Received> {
        let (mut seen, start) = (Vec::new(), Instant::now());
        loop {
            // Other messages may come for ever.
            assert!(start.elapsed() < 5 * TIMEOUT, "the message does not come");
            let message = self.next();
            let last = wanted(&message);
            seen.push(message);
            if last {
                return seen;
            }
        }
    }

    /// Returns the messages that come within `time`.
    pub fn all_within(&self, time: Duration) -> Vec<Received> {
        let end = Instant::now() + time;
        let mut seen = Vec::new();
        loop {
            match self.messages.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => seen.push(message),
                Err(RecvTimeoutError::Timeout) => return seen,
                Err(RecvTimeoutError::Disconnected) => panic!("mosquitto_sub ended"),
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes one message with mosquitto_pub.
pub fn publish(port: u16, topic: &str, payload: &str) {
    let status = Command::new("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-m", payload])
        .status()
        .expect("mosquitto_pub is installed");
    assert!(status.success());
}

fn parse(line: &str) -> Option<Received> {
    let mut fields = line.strip_prefix("MESSAGE\t")?.split('\t');
    let mut field = || fields.next().unwrap_or_default().to_owned();
    Some(Received {
        topic: field(),
        retained: field() == "1",
        qos: field().parse().expect("a number"),
        content_type: field(),
        expiry: field(),
        user_properties: field(),
        payload: unhex(&field()),
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("hexadecimal") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
