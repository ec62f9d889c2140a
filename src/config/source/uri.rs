//! The source that a URI names.

use std::{fmt, path::Path, str::FromStr};

use super::{
    error::BadSource,
    mask::mask,
    scheme::{FILE, Origin, Property, SCHEMES, Scheme, StreamOptions},
};
use crate::config::secret::Login;

/// Where frames come from. Holds no credentials.
#[derive(Clone, PartialEq)]
pub struct Source {
    scheme: &'static Scheme,
    origin: Origin,
}

/// A [`Source`] and the credentials that its URI held, if it held any.
#[derive(Clone, Debug)]
pub struct ParsedSource {
    /// Without the credentials.
    pub source: Source,
    /// User and password of `rtsp://user:password@host`.
    pub login: Option<Login>,
}

/// Schemes that are no sources, but that people try.
const OTHER_SCHEMES: [&str; 2] = ["http", "https"];

/// The forms that a URI may have, for error messages.
fn forms() -> String {
    let form = |scheme: &&'static Scheme| {
        let example = scheme.example;
        scheme.names.iter().map(move |name| format!("{name}://{example}, "))
    };
    let forms: String = SCHEMES.iter().flat_map(form).collect();
    format!("use {} or the path of a file", forms.trim_end_matches(", "))
}

fn scheme_named(name: &str) -> Option<&'static Scheme> {
    SCHEMES.into_iter().find(|scheme| scheme.names.contains(&name))
}

impl FromStr for ParsedSource {
    type Err = BadSource;

    /// Reads a URI, or the path of a file.
    fn from_str(text: &str) -> Result<Self, BadSource> {
        if text.trim().is_empty() {
            return Err(BadSource(format!("is empty: {}", forms())));
        }
        if text.len() > 4096 {
            return Err(BadSource("is longer than 4096 bytes".into()));
        }
        if text.contains(char::is_control) {
            let why = "holds a control character, such as a line end";
            return Err(BadSource(format!("{:?} {why}", mask(text))));
        }
        let Some((name, rest)) = text.split_once("://") else {
            return match text.split_once(':') {
                // What follows may hold a password, so it is not repeated.
                Some((name, _)) if scheme_named(name).is_some() || OTHER_SCHEMES.contains(&name) => {
                    Err(BadSource(format!("lacks the two slashes behind {name}: {}", forms())))
                }
                _ => Ok(Self { source: Source::file(text), login: None }),
            };
        };
        let name = name.to_ascii_lowercase();
        let Some(scheme) = scheme_named(&name) else {
            return Err(BadSource(format!("{:?} has the unknown scheme {name:?}: {}", mask(text), forms())));
        };
        let (origin, login) = (scheme.parse)(text, rest)?;
        Ok(Self { source: Source { scheme, origin }, login })
    }
}

impl Source {
    /// A video file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { scheme: &FILE, origin: Origin::File(path.as_ref().into()) }
    }

    /// What kind of thing gives the frames, and which.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same source, a relative file path taken from `folder`.
    pub fn relative_to(self, folder: &Path) -> Self {
        match self.origin {
            Origin::File(path) => Self::file(folder.join(path)),
            origin => Self { origin, ..self },
        }
    }

    /// Whether the source runs by the wall clock: frames that are not taken in time are lost, and a source
    /// that fails may be opened again.
    pub fn is_live(&self) -> bool {
        match &self.origin {
            Origin::File(_) => false,
            Origin::Network(_) | Origin::Device(_) => true,
            Origin::Synthetic(test) => test.live,
        }
    }

    /// Whether the end of the stream is no fault.
    pub fn may_end(&self) -> bool {
        matches!(self.origin, Origin::File(_) | Origin::Synthetic(_))
    }

    /// Name of the pipeline that plays this source unless the user names another.
    pub fn default_pipeline(&self) -> &'static str {
        match &self.origin {
            Origin::Synthetic(test) => test.pipeline(),
            _ => self.scheme.pipelines[0].name,
        }
    }

    /// What to set on the element `source` of the pipeline.
    pub fn properties(&self, options: &StreamOptions) -> Vec<Property> {
        (self.scheme.properties)(self.origin.location(), options)
    }
}

/// For logs and error messages: without passwords.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Network(address) => address.fmt(f),
            Origin::File(path) => path.display().fmt(f),
            Origin::Device(path) => write!(f, "{}://{}", self.scheme.names[0], path.display()),
            Origin::Synthetic(test) => test.fmt(f),
        }
    }
}

/// Without passwords.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> ParsedSource {
        text.parse().unwrap()
    }

    fn origin(text: &str) -> Origin {
        parsed(text).source.origin
    }

    #[test]
    fn every_scheme_has_a_pipeline_of_its_own() {
        let names = SCHEMES.iter().flat_map(|scheme| scheme.pipelines).map(|pipeline| pipeline.name);
        let shipped = super::super::shipped_pipelines();
        assert_eq!(names.count(), shipped.len());
        assert!(SCHEMES.iter().all(|scheme| !scheme.pipelines.is_empty()));
        for uri in ["rtsp://host/x", "a.mp4", "v4l2:///dev/video0", "test://ball", "test://shapes"] {
            let name = parsed(uri).source.default_pipeline();
            assert!(shipped.contains_key(name), "{uri}: {name}");
        }
    }

    #[test]
    fn a_port_that_is_not_written_follows_from_the_scheme() {
        for (uri, port) in [("rtsp://cam/x", 554), ("rtsps://cam/x", 322), ("rtsp://cam:8554/x", 8554)] {
            let Origin::Network(address) = origin(uri) else { panic!("{uri}") };
            assert_eq!(address.host_port(), ("cam".into(), port), "{uri}");
        }
    }

    #[test]
    fn each_scheme_is_recognised_and_anything_else_is_a_path() {
        assert!(matches!(origin("rtsp://192.0.2.10/stream1"), Origin::Network(_)));
        assert!(matches!(origin("RTSPS://[2001:db8::1]:322/a?b=c"), Origin::Network(_)));
        assert_eq!(origin("file:///srv/a%20b.mp4"), Origin::File("/srv/a b.mp4".into()));
        assert_eq!(origin("clips/12:30 ! door.mp4"), Origin::File("clips/12:30 ! door.mp4".into()));
        assert_eq!(origin("v4l2:///dev/video0"), Origin::Device("/dev/video0".into()));
        assert!(matches!(origin("test://shapes"), Origin::Synthetic(_)));
    }

    #[test]
    fn credentials_leave_the_uri_decoded() {
        let ParsedSource { source, login } = parsed("rtsp://view%40er:p%2Fss%20w@cam:8554/live?x=1");
        let login = login.unwrap();
        let Origin::Network(address) = source.origin() else { panic!("{source}") };
        assert_eq!(address.as_str(), "rtsp://cam:8554/live?x=1");
        assert_eq!(source.to_string(), "rtsp://cam:8554/live?***");
        assert_eq!((login.username.as_str(), login.password.expose()), ("view@er", "p/ss w"));
        assert!(!format!("{login:?}").contains("p/ss"));
    }

    #[test]
    fn a_password_with_special_characters_is_told_from_host_and_path() {
        for password in ["hun/ter2", "#1", "a?b", "a:b/c", "x#y@z", "/", "50%/", "{[\\]}#"] {
            let ParsedSource { source, login } = parsed(&format!("rtsp://viewer:{password}@cam:8554/live"));
            let login = login.unwrap();
            assert_eq!((login.username.as_str(), login.password.expose()), ("viewer", password));
            assert_eq!(source.to_string(), "rtsp://cam:8554/live");
        }
        let unclear = "rtsp://viewer:12/34@cam/live".parse::<ParsedSource>().unwrap_err().to_string();
        assert!(unclear.contains("password_file"), "{unclear}");
        // These are no logins.
        for text in ["rtsp://cam:8554/live?mail=a@b", "rtsp://cam/a@b", "rtsp://[::1]:554/a@b"] {
            assert!(text.parse::<ParsedSource>().is_err(), "{text}");
        }
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
            "rtsp://u:hunter2@1/x@host/x",
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
