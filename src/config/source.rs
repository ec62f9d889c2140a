//! Where a camera's pictures come from: the `uri` of a camera and the SOURCE of `describe`, read
//! once. Credentials are taken out of it here, so that everything later may show a [`Source`].

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use url::{Position, Url};

use super::{
    secret::{Login, Secret},
    test_source::{TestSource, TestSourceError},
};

/// Where pictures come from. Holds no credentials, and `Display` is for everyone's eyes.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A network camera.
    Rtsp(Rtsp),
    /// A video file.
    File(PathBuf),
    /// A video device, such as `/dev/video0`.
    V4l2(PathBuf),
    /// A synthetic picture.
    Test(TestSource),
}

/// The address of a network camera, without user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Rtsp {
    url: Url,
}

/// A [`Source`] and the credentials that its URI held, if it held any.
#[derive(Clone, Debug)]
pub struct ParsedSource {
    /// Without the credentials.
    pub source: Source,
    /// User and password of `rtsp://user:password@host`.
    pub login: Option<Login>,
}

/// A URI that names no source. Its text never repeats credentials.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSource(String);

impl From<TestSourceError> for BadSource {
    fn from(error: TestSourceError) -> Self {
        Self(error.to_string())
    }
}

/// The forms that a URI may have, for error messages.
const FORMS: &str = "use rtsp://, rtsps://, file://, v4l2:///dev/video0, test:// or the path of a file";

impl FromStr for ParsedSource {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let bad = |why: &str| Err(BadSource(format!("{:?} {why}", mask(text))));
        let plain = |source| Ok(Self { source, login: None });
        if text.trim().is_empty() {
            return Err(BadSource(format!("is empty: {FORMS}")));
        }
        if text.len() > 4096 {
            return Err(BadSource("is longer than 4096 bytes".into()));
        }
        if text.contains(char::is_control) {
            return bad("holds a control character, such as a line end");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text.split_once(':') {
                // What follows may hold a password where nothing says so: it is not repeated.
                Some((scheme @ ("rtsp" | "rtsps" | "file" | "v4l2" | "test" | "http" | "https"), _)) => {
                    Err(BadSource(format!("lacks the two slashes behind {scheme}: {FORMS}")))
                }
                _ => plain(Source::File(text.into())),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "rtsp" | "rtsps" => rtsp(text),
            "file" => match Url::parse(text).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) if path.file_name().is_some() => plain(Source::File(path)),
                _ => bad("names no file of this machine: write file:///path/to/video.mp4"),
            },
            "v4l2" if rest.starts_with("/dev/") => plain(Source::V4l2(rest.into())),
            "v4l2" => bad("names no video device: write v4l2:///dev/video0"),
            "test" => plain(Source::Test(TestSource::parse(rest)?)),
            other => Err(BadSource(format!("{:?} has the unknown scheme {other:?}: {FORMS}", mask(text)))),
        }
    }
}

fn rtsp(text: &str) -> Result<ParsedSource, BadSource> {
    let bad = |why: &str| BadSource(format!("{:?} {why}", mask(text)));
    if text.contains(char::is_whitespace) {
        return Err(bad("holds a space: write %20 where one is meant"));
    }
    let mut url = Url::parse(text).map_err(|e| bad(&format!("is not a URL: {e}")))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("names no host: write rtsp://host/path"));
    }
    if url[Position::BeforePath..].contains('@') {
        // Most likely a password with a slash in it, which would show wherever the path does.
        return Err(bad("holds an @ behind the host: write %40 for it, and %2F for a / in a password"));
    }
    let decoded = |part: &str| {
        let text =
            percent_decode_str(part).decode_utf8().map_err(|_| bad("has credentials that are not UTF-8"))?;
        if text.contains(char::is_control) {
            Err(bad("has a control character in its credentials"))
        } else {
            Ok(text.into_owned())
        }
    };
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let password = Secret::new(decoded(password.unwrap_or_default())?);
            Some(Login { username: decoded(user)?, password })
        }
    };
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| bad("has credentials that cannot be taken out of it"))?;
    Ok(ParsedSource { source: Source::Rtsp(Rtsp { url }), login })
}

impl Source {
    /// The same, a relative file path taken from `folder`.
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            other => other,
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
            Self::Rtsp(rtsp) => write!(f, "{rtsp}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::V4l2(path) => write!(f, "v4l2://{}", path.display()),
            Self::Test(test) => write!(f, "{test}"),
        }
    }
}

impl Rtsp {
    /// The whole address. Not for logs: what follows the host may hold a password.
    pub fn location(&self) -> &str {
        self.url.as_str()
    }

    /// Host (an IPv6 address without its brackets) and port that the camera listens at.
    pub fn host_port(&self) -> (String, u16) {
        let host = self.url.host_str().unwrap_or_default();
        let default = if self.url.scheme() == "rtsps" { 322 } else { 554 };
        (host.trim_matches(['[', ']']).into(), self.url.port().unwrap_or(default))
    }
}

impl fmt::Display for Rtsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(self.url.as_str()))
    }
}

impl fmt::Debug for Rtsp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rtsp({self})")
    }
}

/// A part of a path that is as long as this may be a token.
const TOKEN: usize = 12;

/// `text` without what may be a password. Everything between `://` and the last `@` is hidden: a
/// password may itself hold `@` or `/`, and this must work on text that does not parse. Some cameras
/// want the password in the path or the query, and to others a long random path is the password, so
/// there everything is hidden that has `=` in it or that is long and no plain word.
pub fn mask(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let (hidden, rest) = rest.rfind('@').map_or(("", rest), |at| ("***", &rest[at..]));
    if ["file", "test"].iter().any(|plain| scheme.eq_ignore_ascii_case(plain)) {
        return format!("{scheme}://{hidden}{rest}");
    }
    let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, _)| (path, "?***"));
    let plain = |part: &str| part.len() < TOKEN || part.bytes().all(|b| b.is_ascii_lowercase());
    // The host is no secret, whatever it looks like.
    let shown = |(i, part)| if i > 0 && !plain(part) || str::contains(part, '=') { "***" } else { part };
    let path = path.split('/').enumerate().map(shown).collect::<Vec<_>>().join("/");
    format!("{scheme}://{hidden}{path}{query}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> ParsedSource {
        text.parse().unwrap()
    }

    #[test]
    fn each_scheme_is_recognised_and_anything_else_is_a_path() {
        assert!(matches!(parsed("rtsp://192.0.2.10/stream1").source, Source::Rtsp(_)));
        assert!(matches!(parsed("RTSPS://[2001:db8::1]:322/a?b=c").source, Source::Rtsp(_)));
        assert_eq!(parsed("file:///srv/a%20b.mp4").source, Source::File("/srv/a b.mp4".into()));
        assert_eq!(parsed("clips/12:30 ! door.mp4").source, Source::File("clips/12:30 ! door.mp4".into()));
        assert_eq!(parsed("v4l2:///dev/video0").source, Source::V4l2("/dev/video0".into()));
        assert!(matches!(parsed("test://shapes").source, Source::Test(_)));
    }

    #[test]
    fn credentials_leave_the_uri_decoded() {
        let ParsedSource { source, login } = parsed("rtsp://view%40er:p%2Fss%20w@cam:8554/live?x=1");
        let login = login.unwrap();
        let Source::Rtsp(rtsp) = &source else { panic!("{source}") };
        assert_eq!(rtsp.location(), "rtsp://cam:8554/live?x=1");
        assert_eq!(source.to_string(), "rtsp://cam:8554/live?***");
        assert_eq!((login.username.as_str(), login.password.expose()), ("view@er", "p/ss w"));
        assert!(!format!("{login:?}").contains("p/ss"));
    }

    #[test]
    fn what_names_no_source_is_refused_without_repeating_the_password() {
        for text in [
            "",
            "  ",
            "rtsp:/host/x",
            "rtsp:/u:hunter2@host/x",
            "rtsp://host/user=u&password=hunter2/a b",
            "http://host/snapshot?password=hunter2",
            "rtsp://",
            "rtsp:///path",
            "rtsp://u:hunter2@/x",
            "rtsp://u:hunter2@host:99999/x",
            "rtsp://u:hunter2@ho st/x",
            "rtsp://u:hun/ter2@host/x",
            "rtsp://u:12/hunter2@host/x",
            "rtsp://u:12?hunter2@host/x",
            "rtsp://host/a\nb",
            "http://u:hunter2@host/x",
            "v4l2://video0",
            "file://",
            "file://elsewhere/x.mp4",
        ] {
            let error = text.parse::<ParsedSource>().map(|p| p.source).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((test://(shapes|ball)[?]|file://|v4l2://|rtsps?:)(object|period|fps|=|-){0,4})?\\PC{0,30}") {
            let _ = (text.parse::<ParsedSource>().map(|p| p.source.to_string()), mask(&text));
        }

        #[test]
        fn no_source_shows_a_password(user in "[^/?#\\\\\\pC]{0,8}", pass in "[!-~]{6,12}") {
            let text = format!("rtsp://{user}:{pass}@host/path");
            let shown = match text.parse::<ParsedSource>() {
                Ok(parsed) => format!("{parsed:?} {}", parsed.source),
                Err(e) => e.to_string(),
            };
            prop_assert!(!shown.contains(&pass), "{}", shown);
        }
    }
}
