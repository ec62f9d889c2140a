//! `camscribe pull`: a model comes to this machine, to be used without a network.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{
    config,
    hub::{self, Hub, Progress, Target},
};

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Hub id of the model, and perhaps a branch, tag or commit of it
    #[arg(value_name = "MODEL[@REVISION]", value_parser = ModelAt::parse)]
    pub model: ModelAt,
    /// Put the files into this folder rather than into the cache
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

/// Downloads what is missing, and prints on standard output where the model lies.
///
/// # Errors
/// [`hub::HubError`] when it cannot be had.
pub fn run(args: &PullArgs) -> anyhow::Result<()> {
    let ModelAt { model, revision } = &args.model;
    let hub = Hub::from_env()?;
    let cache = match &args.dir {
        Some(_) => PathBuf::new(),
        None => hub::cache_dir()?,
    };
    let target = args.dir.as_deref().map_or(Target::Cache(&cache), Target::Folder);
    let mut teller = Teller::default();
    let pulled = hub.pull(model, revision, target, &mut |progress| teller.tell(progress));
    teller.bar.finish_and_clear();
    let pulled = pulled?;
    eprintln!("{model}@{revision} is here, {}, commit {}", HumanBytes(pulled.bytes), pulled.commit);
    writeln!(io::stdout(), "{}", pulled.path.display())?;
    Ok(())
}

/// Says on standard error what happens: a moving bar on a terminal, a line per event elsewhere.
struct Teller {
    bar: ProgressBar,
    on_terminal: bool,
}

impl Default for Teller {
    fn default() -> Self {
        Self { bar: ProgressBar::hidden(), on_terminal: io::stderr().is_terminal() }
    }
}

impl Teller {
    fn tell(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Waiting => self.line("another camscribe pulls this model: waiting for it"),
            Progress::File { name, size } => {
                if self.on_terminal {
                    self.bar.finish_and_clear();
                    let look = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
                    let style =
                        ProgressStyle::with_template(look).unwrap_or_else(|_| ProgressStyle::default_bar());
                    self.bar = ProgressBar::new(size).with_style(style).with_message(name.to_owned());
                    self.bar.enable_steady_tick(Duration::from_millis(200));
                } else {
                    self.line(&format!("{name}, {}", HumanBytes(size)));
                }
            }
            Progress::Bytes(bytes) => self.bar.set_position(bytes),
            Progress::Again { why, pause } => {
                self.line(&format!("{why}; next try in {:.1} s", pause.as_secs_f64()));
            }
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}
