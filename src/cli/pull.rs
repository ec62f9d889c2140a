//! `camscribe pull`: downloads a model to this machine, for use without a network.

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use rustix::process::geteuid;

use crate::{
    config,
    hub::{self, HubClient, ModelCaches, PullProgress, Target},
    logging::tell,
};

/// Where the service keeps models (`CacheDirectory=` of its unit).
const SERVICE_CACHE: &str = "/var/cache/camscribe";

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
    if args.dir.is_none() {
        become_service()?;
    }
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

/// Goes on as the user of the service where root pulls a model and the service is installed: it looks in a cache of its
/// own, and could not use what is root's. Returns where that is not so.
///
/// # Errors
/// When this program cannot be run as that user.
fn become_service() -> anyhow::Result<()> {
    let owner = fs::metadata(SERVICE_CACHE).ok().filter(|cache| cache.is_dir() && cache.uid() != 0);
    let Some(owner) = owner.filter(|_| geteuid().is_root() && env::var_os("CACHE_DIRECTORY").is_none())
    else {
        return Ok(());
    };
    tell(format_args!("pulling as the user of the service, into its cache {SERVICE_CACHE}"));
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env("CACHE_DIRECTORY", SERVICE_CACHE);
    let error = command.uid(owner.uid()).gid(owner.gid()).exec();
    Err(error).context("camscribe cannot be run as the user of the service")
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
