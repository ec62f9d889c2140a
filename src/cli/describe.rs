//! `camscribe describe`: files or streams in, their descriptions out, one source after another.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    num::NonZeroUsize,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    print::{Printer, Replaced},
    runtime::runtime,
    usage::UsageError,
};
use crate::{
    app,
    camera::{CameraId, CameraStatus},
    capture::{self, CameraConfig, Summary},
    clip::{Clip, WindowConfig},
    config::{self, Login, ParsedSource, Sampling, Source, Transport, units},
    describe::{
        Describer,
        smolvlm::{SmolVlm, sampling::Footage},
        worker::{self, Batching, Outcome},
    },
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    logging,
    prompt_spec::PromptSpec,
    queue::{ClipQueue, Overflow},
    shutdown,
};

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What to describe: files, or anything that a camera's uri may be
    #[arg(required = true, value_name = "SOURCE")]
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
    /// Who to be for cameras whose address names nobody
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub username: Option<String>,
    /// The file with the password: on the command line everyone on this machine could read it
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// What to ask about each clip [default: to describe it]
    #[arg(long, value_name = "P")]
    pub prompt: Option<String>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_tokens: u16,
    /// What one clip covers
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = units::duration)]
    pub window: Duration,
    /// From the start of one window to that of the next [default: the window]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
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

impl DescribeArgs {
    fn login(&self) -> anyhow::Result<Option<Login>> {
        let (Some(username), Some(file)) = (&self.username, &self.password_file) else { return Ok(None) };
        let (password, warning) = config::read_secret(file).map_err(anyhow::Error::msg)?;
        if let Some(warning) = warning {
            eprintln!("warning: {warning}");
        }
        Ok(Some(Login { username: username.clone(), password }))
    }

    /// What the parser of the command line cannot see.
    fn check(&self) -> Result<(), UsageError> {
        let usage = |why: &dyn std::fmt::Display| UsageError(why.to_string());
        self.dtype.check(self.device).map_err(|why| usage(&why))?;
        self.window_config().validate().map_err(|why| usage(&format!("--window, --stride: {why}")))?;
        if self.format == Format::Srt && self.sources.len() > 1 {
            return Err(usage(
                &"srt has no place for more than one source: use vtt, or describe one at a time",
            ));
        }
        Ok(())
    }

    fn window_config(&self) -> WindowConfig {
        WindowConfig {
            window: self.window,
            stride: self.stride.unwrap_or(self.window),
            frames: self.frames.into(),
            min_frames: usize::from(self.frames).min(2),
        }
    }

    /// Where descriptions go. Nothing is written yet.
    fn out(&self, sources: &[Named]) -> anyhow::Result<Box<dyn Write>> {
        let Some(path) = &self.output else { return Ok(Box::new(io::stdout())) };
        let unwritable = || format!("{} cannot be written", path.display());
        let out = Replaced::open(path).with_context(unwritable)?;
        let there = out.metadata().with_context(unwritable)?;
        for source in sources {
            if let Source::File(file) = &source.source
                && fs::metadata(file).is_ok_and(|file| same_file(&file, &there))
            {
                let name = path.display();
                return Err(
                    UsageError(format!("{name} is what is to be described: write to another file")).into()
                );
            }
        }
        Ok(Box::new(out))
    }

    /// What is asked: what was said, else what the model was made for.
    fn prompt(&self) -> String {
        self.prompt.as_deref().unwrap_or(config::usual_prompt(&self.model)).to_owned()
    }
}

/// Which frames the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SamplingArg {
    Auto,
    Rate,
    Keyframes,
    Reference,
}

/// How descriptions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Jsonl,
    Vtt,
    Srt,
}

/// Runs until the sources end, or until a signal.
///
/// # Errors
/// When a source cannot be read or the model cannot be used. Sources before and after one that
/// cannot be read are described all the same.
pub fn run(args: DescribeArgs) -> anyhow::Result<()> {
    logging::init(true);
    args.check()?;
    let mut sources =
        args.sources.iter().map(|text| Named::parse(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let login = args.login()?;
    for source in sources.iter_mut().filter(|it| it.login.is_none() && matches!(it.source, Source::Rtsp(_))) {
        source.login.clone_from(&login);
    }
    if args.sampling == SamplingArg::Reference
        && let Some(other) = sources.iter().find(|s| !matches!(s.source, Source::File(_)))
    {
        return Err(UsageError(format!(
            "--sampling reference looks at whole files, and {} is none",
            other.text
        ))
        .into());
    }
    let out = args.out(&sources)?;
    let mut model = app::load_model(&config::Model {
        id: args.model.clone(),
        revision: config::DEFAULT_REVISION.into(),
        device: args.device,
        dtype: args.dtype,
        kernels: KernelChoice::default(),
        max_batch: 1,
        linger: Duration::ZERO,
    })?;
    let runtime = runtime()?;
    let result = describe(&sources, &args, &mut model, out, &runtime);
    // A thread that hangs in a camera's driver must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Describes one source after another.
fn describe(
    sources: &[Named],
    args: &DescribeArgs,
    model: &mut SmolVlm,
    out: Box<dyn Write>,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(args.format, sources.len() > 1, out);
    let cancel = runtime.block_on(async { shutdown::on_signal() })?;
    let mut unread = 0;
    for source in sources {
        if cancel.is_cancelled() {
            break;
        }
        printer.source(&source.text);
        let result = match args.sampling {
            SamplingArg::Reference => whole_file(source, args, model, &mut printer),
            _ => windows(source, args, model, &mut printer, runtime, &cancel),
        };
        if let Err(error) = result {
            // The reader of our output is gone: nobody is left to describe for.
            if error.downcast_ref::<io::Error>().is_some() || sources.len() == 1 {
                return Err(error);
            }
            eprintln!("error: {error:#}");
            unread += 1;
        }
    }
    let described = printer.finish()?;
    match unread {
        0 if described == 0 => bail!("nothing was described"),
        0 => Ok(()),
        n => bail!("{n} of {} sources could not be described", sources.len()),
    }
}

/// Whether two names mean one file.
fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A source as the person wrote it, credentials masked, and what it means.
struct Named {
    text: String,
    camera: CameraId,
    source: Source,
    login: Option<Login>,
}

impl Named {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let ParsedSource { source, login } =
            text.parse().with_context(|| "a source cannot be read".to_owned())?;
        let stem = match &source {
            Source::File(path) | Source::V4l2(path) => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
            Source::Rtsp(rtsp) => rtsp.host_port().0,
            Source::Test(test) => test.name().to_owned(),
        };
        Ok(Self { text: config::mask(text), camera: camera_id(&stem), source, login })
    }
}

/// A camera name made of whatever a source is called.
fn camera_id(name: &str) -> CameraId {
    let allowed = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-') { c } else { '_' };
    let id: String = name.to_lowercase().chars().map(allowed).take(64).collect();
    id.parse().unwrap_or_else(|_| "source".parse().expect("a valid name"))
}

/// What capture needs to know about a source.
fn settings(source: &Named, args: &DescribeArgs) -> CameraConfig {
    let WindowConfig { window, stride, frames, min_frames } = args.window_config();
    let camera = config::Camera {
        source: source.source.clone(),
        enabled: true,
        login: source.login.clone(),
        pipeline: None,
        transport: Transport::Auto,
        window,
        stride,
        frames,
        min_frames,
        prompt: args.prompt(),
        max_tokens: args.max_tokens.into(),
        sampling: match args.sampling {
            SamplingArg::Keyframes => Sampling::Keyframes,
            SamplingArg::Rate => Sampling::Rate,
            SamplingArg::Auto | SamplingArg::Reference => Sampling::Auto,
        },
        priority: 1,
        change_threshold: 0,
        heartbeat: args.window,
    };
    CameraConfig { retry: false, ..app::camera_config(&source.camera, &camera, Path::new("")) }
}

/// Describes a source window by window, while it is being read.
fn windows(
    source: &Named,
    args: &DescribeArgs,
    model: &mut SmolVlm,
    printer: &mut Printer,
    runtime: &tokio::runtime::Runtime,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = CameraConfig { edge: model.frame_edge(), ..settings(source, args) };
    let queue = Arc::new(ClipQueue::new(NonZeroUsize::MIN));
    let bar = Bar::new();
    let stop = cancel.child_token();
    let mut written = Ok(());
    let summary = thread::scope(|scope| {
        let reader = scope.spawn({
            let (pushed, queue, bar, stop) =
                (Arc::clone(&queue), Arc::clone(&queue), bar.clone(), stop.clone());
            move || {
                let (status, told) = watch::channel(CameraStatus::default());
                runtime.spawn(bar.follow(told));
                let overflow = app::overflow(&settings.source);
                let sink = move |clip| drop(pushed.push(clip, overflow));
                let result = runtime.block_on(capture::run(settings, sink, status, stop));
                queue.close();
                result
            }
        });
        written = describe_queue(model, &queue, |outcome| bar.0.suspend(|| printer.outcome(outcome)));
        if written.is_err() {
            stop.cancel();
            queue.close();
        }
        reader.join()
    });
    bar.0.finish_and_clear();
    written?;
    let Summary { frames, clips, warning, .. } =
        summary.map_err(|_| anyhow::anyhow!("the reader ended by a fault"))??;
    if let Some(warning) = warning {
        eprintln!("warning: {}: {warning}", source.text);
    }
    if clips == 0 && !cancel.is_cancelled() {
        bail!("{}: {frames} frames are too few for a clip", source.text);
    }
    Ok(())
}

/// Describes a whole file as one clip, from the frames that the reference would look at.
fn whole_file(
    source: &Named,
    args: &DescribeArgs,
    model: &mut SmolVlm,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let sampling = model.reference_sampling();
    let (frames, file) = capture::read_frames_at(&settings(source, args), |file| {
        let footage = Footage { frames: file.frames as u64, fps: file.fps, duration: file.duration };
        sampling.indices(footage).into_iter().map(|i| i as usize).collect()
    })?;
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        bail!("{}: no frames", source.text)
    };
    let duration = Duration::try_from_secs_f64(file.duration).context("the file has no sensible duration")?;
    let clip = Clip {
        camera: source.camera.clone(),
        seq: 0,
        start: first.captured_at - first.pts,
        end: last.captured_at,
        clock: first.clock,
        start_pts: Duration::ZERO,
        duration,
        gap: false,
        prompt_spec: Arc::new(PromptSpec {
            prompt: args.prompt(),
            max_tokens: args.max_tokens.into(),
            gate: None,
        }),
        frames,
    };
    let queue = ClipQueue::new(NonZeroUsize::MIN);
    queue.push(clip, Overflow::Block)?;
    queue.close();
    describe_queue(model, &queue, |outcome| printer.outcome(outcome))
}

/// Describes what the queue holds until it is closed.
fn describe_queue(
    model: &mut SmolVlm,
    queue: &ClipQueue,
    mut print: impl FnMut(&Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let batching = Batching { max_batch: NonZeroUsize::MIN, linger: Duration::ZERO };
    let mut printed = Ok(());
    worker::run(model, queue, batching, &config::default_node_id(), |outcome| {
        if printed.is_ok() {
            printed = print(&outcome);
            if printed.is_err() {
                queue.close();
            }
        }
    })?;
    printed
}

/// How far a source has been read, on a terminal.
#[derive(Clone)]
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {msg}").expect("a valid template");
        Self(bar.with_style(style))
    }

    /// Shows what is told until the teller is gone.
    async fn follow(self, mut told: watch::Receiver<CameraStatus>) {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        while told.changed().await.is_ok() {
            let (position, length) = {
                let status = told.borrow_and_update();
                (status.position, status.duration)
            };
            if let Some(length) = length {
                self.0.set_length(millis(length));
            }
            self.0.set_position(millis(position));
            let of = length.map(|l| format!(" of {:.0} s", l.as_secs_f64())).unwrap_or_default();
            self.0.set_message(format!("{:.0}{of}", position.as_secs_f64()));
        }
    }
}
