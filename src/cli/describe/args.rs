//! The arguments of `describe`, and what clap cannot check of them.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};

use super::{super::usage::UsageError, printer::Format};
use crate::{
    clip::WindowConfig,
    config::{self, Fingerprint, Login, TlsVerify, units},
    device::{DeviceChoice, DtypeChoice},
    logging::tell,
    prompt_spec::PromptSpec,
};

/// The text of a source.
fn source_text(name: OsString) -> Result<String, String> {
    let why = |name: OsString| {
        format!("the name {name:?} is not UTF-8: rename the file, or describe a link to it with another name")
    };
    name.into_string().map_err(why)
}

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What to describe: files, or anything that a camera's uri may be
    #[arg(
        required = true,
        value_name = "SOURCE",
        value_parser = OsStringValueParser::new().try_map(source_text)
    )]
    pub sources: Vec<String>,
    /// Hub id or directory of the model; `shapes` is the small one inside this program
    #[arg(long, value_name = "M", default_value = config::DEFAULT_MODEL)]
    pub model: String,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Compute in: auto, f32, bf16, f16 or q8
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    pub dtype: DtypeChoice,
    /// User name for cameras whose address has none
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub username: Option<String>,
    /// File with the password, which everyone on this machine could read on the command line
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities that may certify an rtsps camera [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,
    /// SHA-256 fingerprint of the one certificate to trust at an rtsps camera
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["tls_ca_file", "tls_no_verify"])]
    pub tls_fingerprint: Option<Fingerprint>,
    /// Trust any certificate of an rtsps camera
    #[arg(long, conflicts_with = "tls_ca_file")]
    pub tls_no_verify: bool,
    /// The question about each clip [default: to describe it]
    #[arg(long, value_name = "P")]
    pub prompt: Option<String>,
    /// Length limit of an answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_tokens: u16,
    /// Length of a clip
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = units::parse_duration)]
    pub window: Duration,
    /// Time from the start of one clip to that of the next [default: the window]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub stride: Option<Duration>,
    /// Frames of a clip
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub frames: u16,
    /// Which frames the model sees; `reference` takes whole files as transformers does
    #[arg(long, value_enum, default_value = "auto")]
    pub sampling: SamplingArg,
    /// How to print descriptions
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Where to write them [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Which frames the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum SamplingArg {
    Auto,
    Rate,
    Keyframes,
    Reference,
}

impl DescribeArgs {
    /// Returns the login of `--username` and `--password-file`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn login(&self) -> anyhow::Result<Option<Login>> {
        let (Some(username), Some(file)) = (&self.username, &self.password_file) else { return Ok(None) };
        let (password, warnings) = config::read_secret(file).map_err(anyhow::Error::msg)?;
        warnings.iter().for_each(|warning| tell(format_args!("warning: {warning}")));
        Ok(Some(Login { username: username.clone(), password }))
    }

    /// Whom to trust at `rtsps://` addresses.
    pub fn tls(&self) -> TlsVerify {
        match (self.tls_fingerprint, self.tls_no_verify) {
            (Some(fingerprint), _) => TlsVerify::Fingerprint(fingerprint),
            (None, true) => TlsVerify::Off,
            (None, false) => TlsVerify::Full(self.tls_ca_file.clone()),
        }
    }

    /// Checks combinations of arguments.
    ///
    /// # Errors
    /// A sentence about the first combination that is not possible.
    pub fn check(&self) -> Result<(), UsageError> {
        self.dtype.check(self.device).map_err(|why| UsageError(why.to_string()))?;
        self.window_config().validate().map_err(|why| UsageError(format!("--window, --stride: {why}")))?;
        if self.format == Format::Srt && self.sources.len() > 1 {
            let why = "srt cannot name sources: use vtt, or describe one source at a time";
            return Err(UsageError(why.into()));
        }
        Ok(())
    }

    /// How clips are cut.
    pub fn window_config(&self) -> WindowConfig {
        WindowConfig {
            window: self.window,
            stride: self.stride.unwrap_or(self.window),
            frames: self.frames.into(),
            min_frames: usize::from(self.frames).min(2),
        }
    }

    /// What is asked about every clip: `--prompt`, else the usual prompt of the model.
    pub fn prompt_spec(&self) -> PromptSpec {
        let prompt = self.prompt.clone().unwrap_or_else(|| config::default_prompt(&self.model));
        PromptSpec::new(prompt, self.max_tokens.into())
    }
}
