//! The table of source kinds.
//!
//! A new kind is a row here and a file in `pipelines/`; `docs/architecture.md` lists the other places. Everything
//! else asks a source for its [`Origin`] only.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use url::Url;

use super::{error::BadSource, mask::mask, network::NetworkAddress};
use crate::config::{secret::Login, test_source::TestSource};

/// What kind of thing gives the frames. Decides where times come from and how faults are explained.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A camera that is reached over the network. Live; its end is a fault.
    Network(NetworkAddress),
    /// A video file. Not live.
    File(PathBuf),
    /// A video device of this machine, such as `/dev/video0`. Live; its end is a fault.
    Device(PathBuf),
    /// Frames that are drawn here.
    Synthetic(TestSource),
}

impl Origin {
    /// What the element `source` is given to open. Not for logs: it may hold a password.
    pub fn location(&self) -> String {
        match self {
            Self::Network(address) => address.as_str().into(),
            Self::File(path) | Self::Device(path) => path.to_string_lossy().into_owned(),
            Self::Synthetic(_) => String::new(),
        }
    }
}

/// How RTSP transports its media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Inside the RTSP connection: nothing is lost and nothing needs opening in a firewall.
    Tcp,
    /// In datagrams: less delay, but losses show.
    Udp,
    /// In datagrams if they arrive, otherwise inside the RTSP connection.
    Auto,
}

/// The options of a camera that its source element may need.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// How RTSP transports its media.
    pub transport: Transport,
    /// How long the source may take to give its first frame.
    pub connect_timeout: Duration,
}

/// A property of the element `source`.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: PropertyValue,
}

/// The value of a [`Property`].
#[derive(Clone, Debug, PartialEq)]
pub enum PropertyValue {
    /// For a property of type string: set as it is.
    Text(String),
    /// For a property of any other type, as gst-launch writes it.
    Serialized(String),
}

impl Property {
    fn text(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: PropertyValue::Text(value.into()) }
    }

    fn serialized(name: &'static str, value: impl ToString) -> Self {
        Self { name, value: PropertyValue::Serialized(value.to_string()) }
    }
}

/// A pipeline description that comes with camscribe.
pub struct Pipeline {
    /// The name by which the key `pipeline` selects it.
    pub name: &'static str,
    /// gst-launch text with comments.
    pub text: &'static str,
}

/// The pipeline file of that name.
macro_rules! pipeline {
    ($name:literal) => {
        Pipeline { name: $name, text: include_str!(concat!("../../../pipelines/", $name, ".txt")) }
    };
}

/// What a URI names, and the credentials that it held.
type ParsedUri = (Origin, Option<Login>);

/// One kind of source.
pub(super) struct Scheme {
    /// What stands before `://`; each word is a spelling of its own.
    pub names: &'static [&'static str],
    /// An example of what stands behind `://`, for error messages.
    pub example: &'static str,
    /// Reads a URI: the whole of it, and what stands behind `://`.
    pub parse: fn(&str, &str) -> Result<ParsedUri, BadSource>,
    /// The pipelines that can play it. The first is the default.
    pub pipelines: &'static [Pipeline],
    /// The properties of the element `source`, given [`Origin::location`].
    pub properties: fn(String, &StreamOptions) -> Vec<Property>,
}

/// Schemes are the same if they have the same names.
impl PartialEq for Scheme {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

/// Every kind of source.
pub(super) static SCHEMES: [&Scheme; 4] = [&RTSP, &FILE, &V4L2, &TEST];

static RTSP: Scheme = Scheme {
    names: &["rtsp", "rtsps"],
    example: "",
    parse: |uri, _| {
        let (address, login) = NetworkAddress::parse(uri)?;
        Ok((Origin::Network(address), login))
    },
    pipelines: &[pipeline!("rtsp"), pipeline!("rtsp-nvdec"), pipeline!("rtsp-jetson")],
    properties: |location, options| {
        let protocols = match options.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Auto => "tcp+udp-mcast+udp",
        };
        // Datagrams that do not arrive must be given up well before the source counts as stalled.
        let udp_timeout = u64::try_from(options.connect_timeout.as_micros() / 3).unwrap_or(u64::MAX);
        vec![
            Property::text("location", location),
            Property::serialized("protocols", protocols),
            // Bounds the memory of a stream that is decoded too slowly. Packets in order are not held back.
            Property::serialized("drop-on-latency", true),
            Property::serialized("timeout", udp_timeout),
        ]
    },
};

pub(super) static FILE: Scheme = Scheme {
    names: &["file"],
    example: "",
    parse: |uri, _| match Url::parse(uri).ok().and_then(|url| url.to_file_path().ok()) {
        Some(path) if path.file_name().is_some() => Ok((Origin::File(path), None)),
        _ => {
            let why = "names no file of this machine: write file:///path/to/video.mp4";
            Err(BadSource(format!("{:?} {why}", mask(uri))))
        }
    },
    pipelines: &[pipeline!("file"), pipeline!("file-nvdec")],
    properties: |location, _| vec![Property::text("location", location)],
};

static V4L2: Scheme = Scheme {
    names: &["v4l2"],
    example: "/dev/video0",
    parse: |uri, path| match path.starts_with("/dev/") {
        true => Ok((Origin::Device(path.into()), None)),
        false => {
            let why = "names no video device: write v4l2:///dev/video0";
            Err(BadSource(format!("{:?} {why}", mask(uri))))
        }
    },
    pipelines: &[pipeline!("v4l2")],
    properties: |location, _| vec![Property::text("device", location)],
};

static TEST: Scheme = Scheme {
    names: &["test"],
    example: "",
    parse: |_, rest| Ok((Origin::Synthetic(TestSource::parse(rest)?), None)),
    pipelines: &[pipeline!("test"), pipeline!("shapes")],
    // They depend on what is drawn: see capture/test_source.rs.
    properties: |_, _| Vec::new(),
};

/// The pipelines that come with camscribe, by name: each with its gst-launch text.
pub fn shipped_pipelines() -> BTreeMap<&'static str, &'static str> {
    SCHEMES.iter().flat_map(|scheme| scheme.pipelines).map(|it| (it.name, it.text)).collect()
}
