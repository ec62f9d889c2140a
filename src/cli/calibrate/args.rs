//! The arguments of `calibrate`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Lines of JSON, each with a clip (a path) or an event, and its true answer
    #[arg(value_name = "LABELS")]
    pub labels: PathBuf,
    /// The question, by the name of its section in the configuration
    #[arg(long, value_name = "NAME")]
    pub question: String,
    /// The configuration file, which has question and model [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to write the calibration [default: NAME.calibration.json]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write a reliability diagram into this file, too, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

impl CalibrateArgs {
    /// The file that is written.
    pub fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| format!("{}.calibration.json", self.question).into())
    }
}
