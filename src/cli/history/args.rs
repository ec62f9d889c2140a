//! The arguments of `history`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::{super::usage::UsageError, time};
use crate::{camera::CameraId, history::Selection};

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: HistoryCommand,
}

/// What can be done with the history.
#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Find events by their words, the best match first; without words, list the newest.
    Search(SearchArgs),
    /// Show one event, and write its frames as files.
    Show(ShowArgs),
    /// Write events, with their frames where wanted, for other programs.
    Export(ExportArgs),
    /// Delete events and their frames for good.
    Forget(ForgetEventsArgs),
}

/// Where the history is.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The configuration file, whose node.state_dir has the history [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state directory, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Which events are meant.
#[derive(Debug, Args)]
pub struct SelectionArgs {
    /// Only events of this camera
    #[arg(long, value_name = "NAME")]
    pub camera: Option<CameraId>,
    /// Only events that switched the alert of this name
    #[arg(long, value_name = "NAME")]
    pub alert: Option<String>,
    /// Only clips that ended then or later, such as 2026-11-30, "2026-11-30 14:00", or 2h or 7d ago
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub from: Option<DateTime<Utc>>,
    /// Only clips that ended before; a day alone is its beginning
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub to: Option<DateTime<Utc>>,
}

/// Arguments of `history search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Words that must all occur; '"two words"' beside each other; tri* is every word that begins so
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,
    /// Which events are searched
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// The most events that are printed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// How to print them
    #[arg(long, value_enum, default_value = "text")]
    pub format: SearchFormat,
    /// Where the history is
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// The output format of `search`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum SearchFormat {
    Text,
    Jsonl,
}

/// Arguments of `history show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The event
    pub id: Uuid,
    /// Write its frames into this folder, which is made: ID-0.jpg, or .png if they are lossless
    #[arg(long, value_name = "DIR")]
    pub frames: Option<PathBuf>,
    /// Where the history is
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `history export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which events are exported
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// How to write them; zip has their frames, too
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: ExportFormat,
    /// Where to write them; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = STDOUT)]
    pub output: PathBuf,
    /// Where the history is
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// The name of standard output for `--output`.
pub const STDOUT: &str = "-";

/// The output format of `export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum ExportFormat {
    Jsonl,
    Csv,
    Zip,
}

/// Arguments of `history forget`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["camera", "from", "to", "all"]).required(true).multiple(true))]
pub struct ForgetEventsArgs {
    /// Forget events of this camera
    #[arg(long, value_name = "NAME")]
    pub camera: Option<CameraId>,
    /// Forget clips that ended then or later, such as 2026-11-30, "2026-11-30 14:00", or 2h or 7d ago
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub from: Option<DateTime<Utc>>,
    /// Forget clips that ended before; a day alone is its beginning
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub to: Option<DateTime<Utc>>,
    /// Forget everything
    #[arg(long, conflicts_with_all = ["camera", "from", "to"])]
    pub all: bool,
    /// Do not ask first
    #[arg(long)]
    pub yes: bool,
    /// Where the history is
    #[command(flatten)]
    pub place: PlaceArgs,
}

impl SelectionArgs {
    /// The events that are meant.
    ///
    /// # Errors
    /// When there can be none.
    pub fn selection(&self) -> Result<Selection, UsageError> {
        let Self { camera, alert, from, to } = self;
        checked(Selection { camera: camera.clone(), from: *from, to: *to, alert: alert.clone() })
    }
}

impl ForgetEventsArgs {
    /// The events that are meant.
    ///
    /// # Errors
    /// When there can be none.
    pub fn selection(&self) -> Result<Selection, UsageError> {
        checked(Selection { camera: self.camera.clone(), from: self.from, to: self.to, alert: None })
    }
}

fn checked(selection: Selection) -> Result<Selection, UsageError> {
    match (selection.from, selection.to) {
        (Some(from), Some(to)) if from >= to => Err(UsageError(format!(
            "--from ({}) must be before --to ({}): nothing lies between them",
            time::exact(from),
            time::exact(to)
        ))),
        _ => Ok(selection),
    }
}
