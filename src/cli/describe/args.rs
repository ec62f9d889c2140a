//! The arguments of `describe`, and what clap cannot check of them.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{super::usage::UsageError, asked::AskedArgs, printer::Format};
use crate::{
    clip::TimeRange,
    config::{self, CameraSettings, Fingerprint, FrameSampling, Login, TlsVerify, Transport, units},
    device::{DeviceChoice, DtypeChoice},
    logging::tell,
    prompt_spec::PromptSpec,
};

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What to describe: files, folders with all that is in them, or anything that a camera's uri may be
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<OsString>,
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
    /// The question about each clip [default: the one that the model's card names, else to describe it]
    #[arg(long, value_name = "P")]
    pub prompt: Option<String>,
    /// Length limit of an answer, in tokens
    #[arg(long, value_name = "N", default_value = "96")]
    pub max_tokens: String,
    /// What is answered with probabilities
    #[command(flatten)]
    pub asked: AskedArgs,
    /// Ask only the questions: no description is made
    #[arg(long, requires = "question", conflicts_with_all = ["prompt", "max_tokens"])]
    pub no_description: bool,
    /// Length of a clip
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_WINDOW)]
    pub window: String,
    /// Time from the start of one clip to that of the next [default: the window]
    #[arg(long, value_name = "DURATION")]
    pub stride: Option<String>,
    /// Frames of a clip
    #[arg(long, value_name = "N", default_value = DEFAULT_FRAMES)]
    pub frames: String,
    /// Where in each source to begin, such as 90s, 1m30s or 00:01:30 [default: its beginning]
    #[arg(long, value_name = "TIME", value_parser = units::parse_offset)]
    pub from: Option<Duration>,
    /// Where in each source to end, such as 90s, 1m30s or 00:01:30 [default: its end]
    #[arg(long, value_name = "TIME", value_parser = units::parse_offset)]
    pub to: Option<Duration>,
    /// Which frames the model sees; `reference` takes whole files as transformers does
    #[arg(long, value_enum, default_value = "auto")]
    pub sampling: SamplingArg,
    /// How to print descriptions
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Where to write them; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = STDOUT)]
    pub output: PathBuf,
    /// Write a file for each source into this folder, named after the source
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    pub output_dir: Option<PathBuf>,
    /// Describe all images together, not each of them
    #[arg(long, conflicts_with = "output_dir")]
    pub together: bool,
    /// Skip sources whose file in the folder is whole
    #[arg(long, requires = "output_dir")]
    pub resume: bool,
}

/// The default of `--window`.
const DEFAULT_WINDOW: &str = "8s";
/// The default of `--frames`.
const DEFAULT_FRAMES: &str = "8";

/// The name of standard output for `--output`.
pub const STDOUT: &str = "-";

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
    fn tls(&self) -> TlsVerify {
        match (self.tls_fingerprint, self.tls_no_verify) {
            (Some(fingerprint), _) => TlsVerify::Fingerprint(fingerprint),
            (None, true) => TlsVerify::Off,
            (None, false) => TlsVerify::Full(self.tls_ca_file.clone()),
        }
    }

    /// How every source is read and what is asked about its clips. The rules are those of a camera's section in the
    /// configuration.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn camera_settings(&self) -> Result<CameraSettings, UsageError> {
        self.dtype.check(self.device).map_err(|why| UsageError(why.to_string()))?;
        let prompt = self.prompt.clone().unwrap_or_else(|| config::default_prompt(&self.model));
        let options = [
            ("prompt", Some(prompt.as_str())),
            ("max_tokens", Some(&self.max_tokens)),
            ("window", Some(&self.window)),
            ("stride", self.stride.as_deref()),
            ("frames", Some(&self.frames)),
            // Every part of a film is described.
            ("min_frames", Some("1")),
            ("change_threshold", Some("0")),
        ];
        let options = options.into_iter().filter_map(|(key, text)| Some((key, text?)));
        let settings = CameraSettings::from_options(options).map_err(|why| UsageError(why.to_string()))?;
        let sampling = match self.sampling {
            SamplingArg::Keyframes => FrameSampling::Keyframes,
            SamplingArg::Rate => FrameSampling::Rate,
            SamplingArg::Auto | SamplingArg::Reference => FrameSampling::Auto,
        };
        let prompt_spec = PromptSpec {
            describe: !self.no_description,
            questions: self.asked.questions()?,
            ..settings.prompt_spec
        };
        Ok(CameraSettings { sampling, transport: Transport::Auto, tls: self.tls(), prompt_spec, ..settings })
    }

    /// Which part of every source is described.
    ///
    /// # Errors
    /// When it is empty, or not possible with `--sampling reference`.
    pub fn range(&self) -> Result<TimeRange, UsageError> {
        let whole = TimeRange::default();
        let of_windows =
            self.stride.is_some() || self.window != DEFAULT_WINDOW || self.frames != DEFAULT_FRAMES;
        if of_windows && self.sampling == SamplingArg::Reference {
            return Err(UsageError(
                "--sampling reference takes whole files: leave out --window, --stride and --frames".into(),
            ));
        }
        let range = TimeRange { from: self.from.unwrap_or(whole.from), to: self.to.unwrap_or(whole.to) };
        if range.from >= range.to {
            return Err(UsageError("--from must be before --to: nothing lies between them".into()));
        }
        if range != whole && self.sampling == SamplingArg::Reference {
            return Err(UsageError(
                "--sampling reference takes whole files: leave out --from and --to".into(),
            ));
        }
        Ok(range)
    }
}
