//! Chromium without a window, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>) by a `chromedriver`
//! of its own. Both end with the test.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::daemon::{TIMEOUT, wait};

const DRIVER: &str = "chromedriver";
/// How long the driver may take for what it does, of which the longest is the start of Chromium.
const DRIVER_LIMIT: Duration = Duration::from_secs(60);
/// How long a condition that does not hold is given.
const PAUSE: Duration = Duration::from_millis(100);
/// The name under which WebDriver tells of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The keys Control and A, and that they are let go.
const ALL: &str = "\u{e009}a\u{e000}";
/// The key Enter, as WebDriver names it.
pub const ENTER: &str = "\u{e007}";

/// A browser with one page.
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts one whose page is as large as on a laptop.
    pub fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            // Where Chromium and its driver write is gone in the end.
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("needs {DRIVER}: run .ci/install-deps test ({error})"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            Some(line.split_once("started successfully on port ")?.1.trim_end_matches('.').to_owned())
        });
        // Nobody reads what else it says.
        thread::spawn(move || lines.for_each(drop));
        let address = format!("127.0.0.1:{}", port.expect("chromedriver listens"));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "timeouts": {"script": DRIVER_LIMIT.as_millis() as u64},
        }}});
        let session = browser.call("POST", "/session", &wanted).unwrap_or_else(|error| {
            panic!("needs chromium: run .ci/install-deps test ({error})");
        });
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.resize(1280, 860);
        browser
    }

    /// Opens an address.
    pub fn open(&self, address: &str) {
        self.command("POST", "/url", &json!({"url": address}));
    }

    /// Opens another address of the same page, as a link does.
    pub fn follow(&self, hash: &str) {
        self.run(&format!("location.hash = {}", json!(hash)));
    }

    /// Gives the page this many pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Wants light or dark pages.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// Runs a script in each page that is opened from now on, before its own ones.
    pub fn before_each_page(&self, script: &str) {
        self.chromium("Page.addScriptToEvaluateOnNewDocument", &json!({"source": script}));
    }

    /// Returns what a script returns: the body of a function.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Returns what a promise is fulfilled with: that of an expression.
    pub fn promised(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; Promise.resolve({expression}).then(done, error => done(`${{error}}`))"
        );
        self.command("POST", "/execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is truthy, and returns it.
    pub fn until(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        let end = Instant::now() + TIMEOUT;
        loop {
            let value = self.run(&script);
            if !matches!(&value, Value::Null | Value::Bool(false)) && value != json!(0) && value != json!("")
            {
                return value;
            }
            assert!(Instant::now() < end, "not within {TIMEOUT:?}: {expression}\n{}", self.seen());
            thread::sleep(PAUSE);
        }
    }

    /// Waits for an element that can be seen, and clicks it.
    pub fn click(&self, selector: &str) {
        self.act(selector, "click", &json!({}));
    }

    /// Types a text into a field, in the place of what it holds.
    pub fn type_into(&self, selector: &str, text: &str) {
        // As a person does, so that the page knows of it at once.
        self.press(selector, &format!("{ALL}{text}"));
    }

    /// Presses keys while an element has the focus.
    pub fn press(&self, selector: &str, keys: &str) {
        self.act(selector, "value", &json!({"text": keys}));
    }

    /// The text that can be seen of an element.
    pub fn text(&self, selector: &str) -> String {
        let text = self.until(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until a text can be seen in an element.
    pub fn until_text(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.until(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// A picture of what can be seen, as a PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let png = self.command("GET", "/screenshot", &Value::Null);
        BASE64_STANDARD.decode(png.as_str().unwrap()).unwrap()
    }

    /// What the page shows, for whoever reads why a test failed.
    fn seen(&self) -> String {
        let seen = self.run("return `${location.href}\\n${document.body?.innerText}`");
        seen.as_str().unwrap_or_default().chars().take(3000).collect()
    }

    /// Waits for an element and does something with it, which may go away or be covered meanwhile.
    fn act(&self, selector: &str, action: &str, body: &Value) {
        let find = json!({"using": "css selector", "value": selector});
        wait(&format!("{action} {selector}"), || {
            let found = self.call("POST", &format!("{}/element", self.session), &find).ok()?;
            let element = found[ELEMENT].as_str()?;
            self.call("POST", &format!("{}/element/{element}/{action}", self.session), body).ok()
        });
    }

    /// Calls Chromium itself, beside WebDriver (<https://chromedevtools.github.io/devtools-protocol/>).
    fn chromium(&self, command: &str, parameters: &Value) {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        self.call(method, &path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a command to the driver and returns the value that it answers.
    fn call(&self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(2 * DRIVER_LIMIT))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (address, length) = (&self.address, body.len());
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n")?;
        write!(stream, "Content-Length: {length}\r\n\r\n{body}")?;
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let is_good = line.split(' ').nth(1) == Some("200");
        while line.trim() != "" {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let value = answer["value"].clone();
        if is_good { Ok(value) } else { Err(io::Error::other(value["message"].to_string())) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session.
        let _ = self.call("DELETE", &self.session, &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
