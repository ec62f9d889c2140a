//! `camscribe run` as a child process with a home directory of its own. Its output goes to files; it is
//! queried over HTTP and controlled by signals.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a test waits for anything before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits until `ready` returns something. `what` names it in the panic after [`TIMEOUT`].
pub fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(it) = ready() {
            return it;
        }
        assert!(Instant::now() < end, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the program's command with `home` as its home directory, without the configuration in this
/// process's environment, and with a free port for HTTP.
pub fn camscribe(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAMSCRIBE__") {
            command.env_remove(name);
        }
    }
    for name in [
        "XDG_CACHE_HOME",
        "CACHE_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "RUST_LOG",
        "JOURNAL_STREAM",
        "HF_TOKEN",
        "HF_HOME",
        "HF_HUB_CACHE",
    ] {
        command.env_remove(name);
    }
    command
        .env("HOME", home)
        .env("STATE_DIRECTORY", home.join("state"))
        .env("CAMSCRIBE__HTTP__LISTEN", "127.0.0.1:0");
    command
}

/// `camscribe run` as a child process, which ends with this value.
pub struct Daemon {
    pub home: TempDir,
    command: Command,
    child: Child,
    /// Where the log of its present run begins.
    log_start: usize,
}

impl Daemon {
    /// Starts it with this configuration, in which `CONFIG` stands for the directory of the file.
    pub fn start(toml: &str) -> Self {
        Self::with(toml, |_, _| {})
    }

    /// Starts it as [`Daemon::start`] does, after `adjust` has changed its home directory or its command.
    pub fn with(toml: &str, adjust: impl FnOnce(&Path, &mut Command)) -> Self {
        let home = TempDir::new().unwrap();
        let config = home.path().join("camscribe.toml");
        fs::write(&config, toml.replace("CONFIG", home.path().to_str().unwrap())).unwrap();
        let mut command = camscribe(home.path());
        command.args(["run", "--config"]).arg(&config);
        adjust(home.path(), &mut command);
        // Appended to, so that one file holds the output of every run.
        let file = |name| File::options().create(true).append(true).open(home.path().join(name)).unwrap();
        command.stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Self { home, command, child, log_start: 0 }
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after its end.
    pub fn restart(&mut self) {
        self.log_start = self.log().len();
        self.child = self.command.spawn().unwrap();
    }

    /// Writes another configuration and sends SIGHUP.
    pub fn reload(&self, toml: &str) {
        fs::write(self.path("camscribe.toml"), toml).unwrap();
        self.signal("HUP");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Returns what it has logged so far, in all its runs.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("stderr")).unwrap()).into_owned()
    }

    /// Waits for a log line with this text in its present run, and returns the line.
    pub fn logged(&self, text: &str) -> String {
        let line = || Some(self.log()[self.log_start..].lines().find(|line| line.contains(text))?.to_owned());
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            if let Some(line) = line() {
                return line;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon does not log {text:?}:\n{}", self.log());
    }

    /// Where it answers HTTP, as address and port.
    pub fn http_address(&self) -> String {
        let line = self.logged("/metrics, /healthz");
        line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned()
    }

    /// Sends a GET request. Returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.get_with(path, "");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Sends a GET request with these header lines. Returns the head and the body of the answer.
    pub fn get_with(&self, path: &str, headers: &str) -> (String, String) {
        let address = self.http_address();
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// Returns the value of a metric, by its name and labels as `/metrics` has them.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200);
        number(&page, name)
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.status().code()
    }

    /// Waits for its end and returns its exit status.
    pub fn status(&mut self) -> ExitStatus {
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the daemon does not end:\n{}", self.log());
    }

    /// Waits for its end. Returns the exit code and the log.
    pub fn ended(mut self) -> (Option<i32>, String) {
        (self.wait(), self.log())
    }

    /// Sends SIGTERM. Returns the exit code and the log.
    pub fn stop(self) -> (Option<i32>, String) {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the value of a metric in a page of metrics.
pub fn number(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Returns the ids of the events that the daemon logged as stored in the outbox, by camera and in order.
pub fn stored_ids(log: &str) -> HashMap<String, Vec<String>> {
    let mut made: HashMap<String, Vec<String>> = HashMap::new();
    for line in log.lines().filter(|line| line.contains("in the outbox")) {
        let field = |name: &str| {
            let rest = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
            rest.split_whitespace().next().unwrap().to_owned()
        };
        made.entry(field("camera=")).or_default().push(field("id="));
    }
    made
}
