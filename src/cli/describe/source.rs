//! A source of `describe`, and what capture needs to know about it.

use std::path::{self, Path, PathBuf};

use super::{super::usage::UsageError, job::Job, naming};
use crate::{
    app,
    camera::CameraId,
    capture::CameraConfig,
    config::{self, CameraSettings, Login, Origin, ParsedSource, Source},
};

/// A source of the command line, or a file below a folder of it.
pub struct NamedSource {
    /// The argument, with credentials masked; of a file below a folder, its path.
    pub text: String,
    /// A name made from the argument.
    pub camera: CameraId,
    /// Its name in the folder for outputs, a relative path without an ending.
    pub output: PathBuf,
    /// Another source of the run would have the same output.
    pub clashes: bool,
    /// The parsed source.
    pub source: Source,
    /// The login of its URI, or the one of the command line.
    pub login: Option<Login>,
    /// It was not named, but found in a folder.
    pub found: bool,
}

impl NamedSource {
    /// Parses an argument.
    ///
    /// # Errors
    /// When it is not a source.
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        let parsed = match text.parse() {
            // A file may have any name.
            Err(_) if Path::new(text).exists() => ParsedSource { source: Source::file(text), login: None },
            parsed => parsed
                .map_err(|why| UsageError(format!("the source \"{:.200}\": {why}", config::mask(text))))?,
        };
        let ParsedSource { source, login } = parsed;
        let (name, output) = match source.origin() {
            Origin::File(path) => (stem(path), path.file_name().unwrap_or_default().into()),
            Origin::Device(path) => (stem(path), stem(path).into()),
            Origin::Network(address) => (address.host_port().0, address.host_port().0.into()),
            Origin::Synthetic(test) => (test.name().to_owned(), test.name().into()),
        };
        let camera = naming::camera_id(&name, text);
        Ok(Self { text: config::mask(text), camera, output, clashes: false, source, login, found: false })
    }

    /// A file that was found in a folder. `None`: its path is not UTF-8.
    pub fn in_folder(folder: &Path, path: &Path) -> Option<Self> {
        let text = path.to_str()?.to_owned();
        Some(Self {
            camera: naming::camera_id(&stem(path), &text),
            output: path.strip_prefix(folder).unwrap_or(path).into(),
            clashes: false,
            source: Source::file(path),
            text,
            login: None,
            found: true,
        })
    }

    /// [`Self::output`] with a digest that tells the source from others of the same name, whatever the present folder is.
    pub fn digested_output(&self) -> PathBuf {
        let mut output = self.output.clone();
        output.as_mut_os_string().push(format!("-{}", naming::digest(&self.identity().to_string_lossy())));
        output
    }

    /// What two arguments for the same source have in common.
    pub fn identity(&self) -> PathBuf {
        let absolute = self.file().and_then(|path| path::absolute(path).ok());
        absolute.unwrap_or_else(|| (&self.text).into())
    }

    /// The file that it is, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self.source.origin() {
            Origin::File(path) => Some(path),
            _ => None,
        }
    }
}

/// The name of a file without its ending.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What capture needs to know about a source.
pub fn camera_config(source: &NamedSource, job: &Job) -> CameraConfig {
    let camera =
        CameraSettings { source: source.source.clone(), login: source.login.clone(), ..job.settings.clone() };
    CameraConfig {
        retry: false,
        range: job.range,
        ..app::camera_config(&source.camera, &camera, Path::new(""))
    }
}
