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

/// Longer than anything takes: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `what` gives something.
pub fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(it) = ready() {
            return it;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The program with `home` as its home, and nothing of this process's configuration. It answers
/// over HTTP at a port of its own.
pub fn camscribe(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAMSCRIBE__") {
            command.env_remove(name);
        }
    }
    for name in ["XDG_CACHE_HOME", "CACHE_DIRECTORY", "CREDENTIALS_DIRECTORY", "RUST_LOG", "HF_TOKEN"] {
        command.env_remove(name);
    }
    command
        .env("HOME", home)
        .env("STATE_DIRECTORY", home.join("state"))
        .env("CAMSCRIBE__HTTP__LISTEN", "127.0.0.1:0");
    command
}

pub struct Daemon {
    pub home: TempDir,
    command: Command,
    child: Child,
    /// Where what this life of it logged begins.
    born: usize,
}

impl Daemon {
    /// Runs with this configuration; `CONFIG` in it is the folder that the file lies in.
    pub fn start(toml: &str) -> Self {
        Self::with(toml, |_, _| {})
    }

    /// As [`Daemon::start`], with a last word about home and command.
    pub fn with(toml: &str, adjust: impl FnOnce(&Path, &mut Command)) -> Self {
        let home = TempDir::new().unwrap();
        let config = home.path().join("camscribe.toml");
        fs::write(&config, toml.replace("CONFIG", home.path().to_str().unwrap())).unwrap();
        let mut command = camscribe(home.path());
        command.args(["run", "--config"]).arg(&config);
        adjust(home.path(), &mut command);
        // Appended to, so that one file holds what every life of the daemon said.
        let file = |name| File::options().create(true).append(true).open(home.path().join(name)).unwrap();
        command.stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Self { home, command, child, born: 0 }
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Runs it again, after its end.
    pub fn restart(&mut self) {
        self.born = self.log().len();
        self.child = self.command.spawn().unwrap();
    }

    /// Writes another configuration and asks for it to be read.
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

    /// What it has logged so far, in all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("stderr")).unwrap()).into_owned()
    }

    /// Waits for a line with this text, in its present life.
    pub fn logged(&self, text: &str) -> String {
        let line = || Some(self.log()[self.born..].lines().find(|line| line.contains(text))?.to_owned());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(line) = line() {
                return line;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not log {text:?}:\n{}", self.log());
    }

    /// Asks it over HTTP: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let line = self.logged("/metrics, /healthz");
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A number of `/metrics`, by its name and labels as they stand there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (status, page) = self.get("/metrics");
        assert_eq!(status, 200);
        number(&page, name)
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.status().code()
    }

    /// Waits for its end and gives how it ended.
    pub fn status(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not end:\n{}", self.log());
    }

    /// Waits for its end by itself.
    pub fn ended(mut self) -> (Option<i32>, String) {
        (self.wait(), self.log())
    }

    /// Asks it to stop, and waits for the exit code and everything that it logged.
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

/// A number of a page of metrics.
pub fn number(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// The ids that the daemon said are in the outbox, by camera, in order.
pub fn made(log: &str) -> HashMap<String, Vec<String>> {
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
