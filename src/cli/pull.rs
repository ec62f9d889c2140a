//! `camscribe pull`: downloads a model to this machine, for use without a network.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{
    config,
    hub::{self, HubClient, ModelCaches, PullProgress, Target},
    logging::tell,
};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Hub id of the model, optionally with a branch, tag or commit
    #[arg(value_name = "MODEL[@REVISION]", value_parser = ModelAt::parse)]
    pub model: ModelAt,
    /// Put the files into this folder instead of the cache
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A model on the hub at a revision.
#[derive(Clone, Debug)]
pub struct ModelAt {
    model: String,
    revision: String,
}

impl ModelAt {
    fn parse(text: &str) -> Result<Self, hub::BadId> {
        let (model, revision) = text.split_once('@').unwrap_or((text, config::DEFAULT_REVISION));
        hub::check_hub_id(model)?;
        hub::check_revision(revision)?;
        Ok(Self { model: model.into(), revision: revision.into() })
    }
}

/// Downloads what is missing, and prints the model's folder on standard output.
///
/// # Errors
/// [`hub::HubError`] when the model cannot be downloaded.
pub fn run(args: &PullArgs) -> anyhow::Result<()> {
    let ModelAt { model, revision } = &args.model;
    let hub = HubClient::from_env()?;
    let caches;
    let target = match &args.dir {
        Some(folder) => Target::Folder(folder),
        None => {
            caches = ModelCaches::from_env()?;
            Target::Cache(&caches)
        }
    };
    let mut printer = ProgressPrinter::default();
    let pulled = hub.pull(model, revision, target, &mut |progress| printer.print(progress));
    printer.bar.finish_and_clear();
    let pulled = pulled?;
    let size = HumanBytes(pulled.bytes);
    tell(format_args!("{model}@{revision} is on this machine: {size}, commit {}", pulled.commit));
    writeln!(io::stdout(), "{}", pulled.path.display())?;
    Ok(())
}

/// Prints progress on standard error: a moving bar on a terminal, a line per step elsewhere.
struct ProgressPrinter {
    bar: ProgressBar,
    on_terminal: bool,
}

impl Default for ProgressPrinter {
    fn default() -> Self {
        Self { bar: ProgressBar::hidden(), on_terminal: io::stderr().is_terminal() }
    }
}

impl ProgressPrinter {
    fn print(&mut self, progress: PullProgress<'_>) {
        match progress {
            PullProgress::Waiting => self.line("another process is pulling this model: waiting for it"),
            PullProgress::File { name, size } => self.begin(name, size),
            PullProgress::Bytes(bytes) => self.bar.set_position(bytes),
            PullProgress::Retry { why, pause } => {
                self.line(&format!("{why}; next try in {:.1} s", pause.as_secs_f64()));
            }
        }
    }

    /// Starts the bar of a file, or prints its line.
    fn begin(&mut self, name: &str, size: u64) {
        if !self.on_terminal {
            return self.line(&format!("{name}, {}", HumanBytes(size)));
        }
        self.bar.finish_and_clear();
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = ProgressBar::new(size).with_style(style).with_message(name.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Prints a line above the bar.
    fn line(&self, text: &str) {
        self.bar.suspend(|| tell(text));
    }
}
