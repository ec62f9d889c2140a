//! A source of `describe`, and what capture needs to know about it.

use std::path::Path;

use anyhow::Context;

use super::args::{DescribeArgs, SamplingArg};
use crate::{
    app,
    camera::CameraId,
    capture::CameraConfig,
    clip::WindowConfig,
    config::{self, FrameSampling, Login, Origin, ParsedSource, Source, Transport},
};

/// A source of the command line.
pub struct NamedSource {
    /// The argument, with credentials masked.
    pub text: String,
    /// A name made from the argument.
    pub camera: CameraId,
    /// The parsed source.
    pub source: Source,
    /// The login of its URI, or the one of the command line.
    pub login: Option<Login>,
}

impl NamedSource {
    /// Parses an argument.
    ///
    /// # Errors
    /// When it is not a source.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let ParsedSource { source, login } = text.parse().context("a source is not valid")?;
        let stem = match source.origin() {
            Origin::File(path) | Origin::Device(path) => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
            Origin::Network(address) => address.host_port().0,
            Origin::Synthetic(test) => test.name().to_owned(),
        };
        Ok(Self { text: config::mask(text), camera: camera_id(&stem), source, login })
    }
}

/// Makes a valid camera name from any text.
fn camera_id(name: &str) -> CameraId {
    let allowed = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-') { c } else { '_' };
    let id: String = name.to_lowercase().chars().map(allowed).take(64).collect();
    id.parse().unwrap_or_else(|_| "source".parse().expect("a valid name"))
}

/// What capture needs to know about a source.
pub fn camera_config(source: &NamedSource, args: &DescribeArgs) -> CameraConfig {
    let WindowConfig { window, stride, frames, min_frames } = args.window_config();
    let camera = config::CameraSettings {
        login: source.login.clone(),
        transport: Transport::Auto,
        tls: args.tls(),
        window,
        stride,
        frames,
        min_frames,
        prompt_spec: args.prompt_spec(),
        sampling: match args.sampling {
            SamplingArg::Keyframes => FrameSampling::Keyframes,
            SamplingArg::Rate => FrameSampling::Rate,
            SamplingArg::Auto | SamplingArg::Reference => FrameSampling::Auto,
        },
        ..config::CameraSettings::new(source.source.clone())
    };
    CameraConfig { retry: false, ..app::camera_config(&source.camera, &camera, Path::new("")) }
}
