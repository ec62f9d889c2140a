//! Where pictures come from: what stands behind a camera's `uri`. Text comes in, a checked [`Source`]
//! goes out; a password in the text is taken out of it at once and is never shown again.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use url::Url;

use super::scene::{BadScene, Scene, Script};

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who we are to the camera.
    pub username: String,
    /// Never shown: not by `Debug`, not in logs or errors.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ***)", self.username)
    }
}

/// How RTP travels from an RTSP camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Inside the RTSP connection: nothing is lost and nothing needs opening in a firewall.
    #[default]
    Tcp,
    /// Datagrams: less delay, losses show.
    Udp,
    /// Datagrams if they arrive, the RTSP connection otherwise.
    Auto,
}

/// A checked `uri`. `Display` never shows a password.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A video file.
    File(PathBuf),
    /// A network camera.
    Rtsp(Rtsp),
    /// A Video4Linux device.
    V4l2(PathBuf),
    /// A synthetic picture.
    Test(TestSource),
}

/// The address of a network camera, without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Rtsp {
    url: Url,
    /// Those that stood in the address.
    pub credentials: Option<Credentials>,
}

/// A picture that needs no camera.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSource {
    /// What is drawn.
    pub picture: Picture,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// At the pace of a camera; otherwise as fast as frames are taken.
    pub live: bool,
    /// When the stream ends; none: never.
    pub duration: Option<Duration>,
}

/// What a synthetic source shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// One of GStreamer's test patterns.
    Pattern(&'static str),
    /// Our moving shapes.
    Shapes(Script),
}

/// A `uri` that cannot be used. It never repeats what could hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing was given.
    #[error("the address is empty")]
    Empty,
    /// A scheme that we do not know.
    #[error("{0}:// is not supported: use rtsp://, rtsps://, file:// or a path, v4l2:///dev/videoN, test://")]
    Scheme(String),
    /// Not an address at all.
    #[error("this is not a valid {0} address: {1}")]
    Address(&'static str, String),
    /// An option of `test://` that does not exist.
    #[error(
        "test:// has no option {0:?}: use object, background, period, width, height, fps, live, duration"
    )]
    Option(String),
    /// An option of `test://` with a value that it cannot have.
    #[error("test:// cannot use {key}={value}: {why}")]
    Value {
        /// The option.
        key: String,
        /// What it was set to.
        value: String,
        /// What it can be.
        why: String,
    },
    /// Moving shapes that cannot be drawn.
    #[error("test://shapes: {0}")]
    Scene(#[from] BadScene),
}

impl Source {
    /// Reads a `uri`.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(s, _)| is_scheme(s)) else {
            return Ok(Self::File(text.into()));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "rtsp" | "rtsps" => Rtsp::parse(text).map(Self::Rtsp),
            "file" => {
                let bad = |why: &str| SourceError::Address("file", why.into());
                let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
                let path =
                    url.to_file_path().map_err(|()| bad("write file:///folder/name, with three slashes"))?;
                Ok(Self::File(path))
            }
            "v4l2" if rest.starts_with("/dev/") => Ok(Self::V4l2(rest.into())),
            "v4l2" => {
                Err(SourceError::Address("v4l2", "write v4l2:///dev/video0, with three slashes".into()))
            }
            "test" => TestSource::parse(text).map(Self::Test),
            other => Err(SourceError::Scheme(other.into())),
        }
    }

    /// The pipeline that plays it unless the user names another.
    pub fn default_pipeline(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Rtsp(_) => "rtsp",
            Self::V4l2(_) => "v4l2",
            Self::Test(TestSource { picture: Picture::Pattern(_), .. }) => "test",
            Self::Test(TestSource { picture: Picture::Shapes(_), .. }) => "shapes",
        }
    }

    /// Whether it goes on by itself: frames that are not taken in time are lost.
    pub fn is_live(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Rtsp(_) | Self::V4l2(_) => true,
            Self::Test(test) => test.live,
        }
    }

    /// Whether it may come to an end that is no fault.
    pub fn may_end(&self) -> bool {
        matches!(self, Self::File(_) | Self::Test(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Rtsp(rtsp) => write!(f, "{rtsp}"),
            Self::V4l2(path) => write!(f, "v4l2://{}", path.display()),
            Self::Test(TestSource { picture: Picture::Pattern(name), .. }) => write!(f, "test://{name}"),
            Self::Test(TestSource { picture: Picture::Shapes(_), .. }) => f.write_str("test://shapes"),
        }
    }
}

impl Rtsp {
    fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |why: &str| SourceError::Address("rtsp", why.into());
        let mut url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| Credentials {
            username: percent_decoded(url.username()),
            password: percent_decoded(url.password().unwrap_or_default()),
        });
        let stripped = url.set_username("").and_then(|()| url.set_password(None));
        stripped.map_err(|()| bad("it cannot hold a user name"))?;
        Ok(Self { url, credentials })
    }

    /// The whole address, without credentials. Not for logs: what follows the host may hold secrets.
    pub(super) fn location(&self) -> &str {
        self.url.as_str()
    }

    /// Host and port that the camera listens at.
    pub(super) fn host_port(&self) -> (String, u16) {
        let host = self.url.host_str().unwrap_or_default();
        let default = if self.url.scheme() == "rtsps" { 322 } else { 554 };
        (host.trim_matches(['[', ']']).into(), self.url.port().unwrap_or(default))
    }
}

/// Some cameras want the password in the path or the query: everything with `=` in it is hidden.
impl fmt::Display for Rtsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        let shown = |part: &str| if part.contains('=') { "***".to_owned() } else { part.to_owned() };
        f.write_str(&self.url.path().split('/').map(shown).collect::<Vec<_>>().join("/"))?;
        if self.url.query().is_some() { f.write_str("?***") } else { Ok(()) }
    }
}

impl fmt::Debug for Rtsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rtsp({self}, {:?})", self.credentials)
    }
}

/// GStreamer 1.22's videotestsrc patterns.
const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];

impl TestSource {
    fn parse(text: &str) -> Result<Self, SourceError> {
        let url = Url::parse(text).map_err(|e| SourceError::Address("test", e.to_string()))?;
        let name = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let mut scene = Scene::default();
        let mut period = Duration::from_secs(8);
        let mut test = Self {
            picture: Picture::Pattern("smpte"),
            width: 640,
            height: 360,
            fps: 25,
            live: true,
            duration: None,
        };
        let mut scene_options = Vec::new();
        for (key, value) in url.query_pairs() {
            let option = Setting { key: &key, value: &value };
            match &*key {
                "width" => test.width = option.number(64, 3840)?,
                "height" => test.height = option.number(64, 2160)?,
                "fps" => test.fps = option.number(1, 60)?,
                "live" => test.live = option.parsed("true or false")?,
                "duration" => test.duration = Some(option.duration(Duration::from_secs(24 * 3600))?),
                "period" => period = option.duration(Duration::from_secs(3600))?,
                "object" => scene.add(value.parse()?)?,
                "background" => scene.background = value.parse()?,
                _ => return Err(SourceError::Option(key.into())),
            }
            if matches!(&*key, "period" | "object" | "background") {
                scene_options.push(key.into_owned());
            }
        }
        test.picture = match PATTERNS.iter().find(|p| **p == name) {
            Some(pattern) => Picture::Pattern(pattern),
            None if name == "shapes" => Picture::Shapes(match scene_options.iter().all(|k| k == "period") {
                true => Script::tour(period),
                false => Script::new(vec![scene], period),
            }),
            None => {
                let why = format!(
                    "test://{name} does not exist: use test://shapes or one of {}",
                    PATTERNS.join(", ")
                );
                return Err(SourceError::Address("test", why));
            }
        };
        match (&test.picture, scene_options.into_iter().next()) {
            (Picture::Pattern(_), Some(key)) => Err(SourceError::Option(key)),
            _ => Ok(test),
        }
    }

    /// What can be seen from `start` on for `length`, in the words of the shipped model: known for
    /// moving shapes, where that time is most of one scene and not part of another.
    pub fn truth(&self, start: Duration, length: Duration) -> Option<String> {
        match &self.picture {
            Picture::Pattern(_) => None,
            Picture::Shapes(script) => script.sentence(start, length),
        }
    }
}

/// One `key=value` of a query.
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
}

impl Setting<'_> {
    fn bad(&self, why: String) -> SourceError {
        SourceError::Value { key: self.key.into(), value: self.value.into(), why }
    }

    fn parsed<T: FromStr>(&self, kind: &str) -> Result<T, SourceError> {
        self.value.parse().map_err(|_| self.bad(format!("it must be {kind}")))
    }

    fn number(&self, low: u32, high: u32) -> Result<u32, SourceError> {
        let kind = format!("a whole number from {low} to {high}");
        let number = self.parsed(&kind)?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(self.bad(format!("it must be {kind}"))) }
    }

    fn duration(&self, longest: Duration) -> Result<Duration, SourceError> {
        let fits = |d: &Duration| (Duration::from_millis(100)..=longest).contains(d);
        let limit = humantime::format_duration(longest);
        humantime::parse_duration(self.value).ok().filter(fits).ok_or_else(|| {
            self.bad(format!("it must be a time with its unit, from 100ms to {limit}, such as 8s"))
        })
    }
}

fn is_scheme(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphabetic())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| str::from_utf8(hex).ok()).filter(|_| *first == b'%');
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
