//! The order of work of `describe`: arguments, sources, model, then one source after another.

use std::{fs, io, io::Write, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Context;

use super::{
    super::{interrupted::Interrupted, runtime::runtime, usage::UsageError},
    args::{DescribeArgs, STDOUT, SamplingArg},
    clips::{NothingInRange, describe_images, describe_whole_file, describe_windows},
    job::Job,
    output_dir::{OutputDir, OutputState},
    output_file::TruncateOnFirstWrite,
    printer::Printer,
    progress::Progress,
    question::question,
    source::NamedSource,
    sources::Sources,
    tally::Tally,
};
use crate::{
    app,
    capture::CaptureError,
    config,
    describe::Describer,
    image_file,
    logging::{self, tell},
    plural::plural,
    shutdown,
};

/// Where descriptions go.
enum Outputs {
    /// All to one place.
    One(Printer),
    /// Those of each source to a file of its own.
    Each(OutputDir),
}

/// Runs until the sources end, or until a signal stops it.
///
/// # Errors
/// When a source cannot be read or the model cannot be used. Other sources are described all the same when one
/// cannot be read.
pub fn run(args: &DescribeArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    let (settings, range) = (args.camera_settings()?, args.range()?);
    let sources = Sources::find(args)?;
    if args.together {
        still_images(&sources)?;
    }
    let mut outputs = Outputs::open(args, &sources)?;
    let mut model = app::load_model(&config::ModelSettings {
        id: args.model.clone(),
        device: args.device,
        dtype: args.dtype,
        max_batch: 1,
        linger: Duration::ZERO,
        ..config::ModelSettings::default()
    })?;
    tell_model(&*model);
    let question = question(args, &settings, range, &model.model());
    let states = outputs.states(&sources, question, args.resume);
    let runtime = runtime()?;
    let shutdown = runtime.block_on(async { shutdown::on_signal() })?;
    let todo = sources.all.iter().zip(&states).filter(|(_, state)| **state != OutputState::Whole);
    let progress = Progress::new(sources.count(), todo.map(|(source, _)| size(source)).sum());
    let cancel = shutdown.token.clone();
    let job = Job { settings, range, args, runtime: &runtime, cancel, progress };
    let mut tally = Tally::new(&sources);
    let described = match &mut outputs {
        Outputs::One(printer) if args.together => {
            describe_together(&sources, &job, &mut *model, printer, &mut tally)
        }
        outputs => describe_all(&sources, &states, &job, &mut *model, outputs, &mut tally),
    };
    let (clips, time) = job.progress.finish();
    // A thread that hangs in a camera's driver must not delay the exit.
    runtime.shutdown_background();
    if let Err(error) = described {
        if tally.all > 1 {
            tell(format_args!("stopped after {}", tally.progress()));
        }
        return Err(error);
    }
    let closed = outputs.close();
    // A camera that is watched alone has no other end.
    let watched = sources.count() == 1 && sources.all.iter().all(|it| it.source.is_live()) && clips > 0;
    let complete = tally.is_complete() || watched && closed.is_ok();
    if let Some(exit_code) = shutdown.exit_code().filter(|_| !complete) {
        return Err(Interrupted { exit_code, progress: tally.progress() }.into());
    }
    tally.tell(clips, time);
    closed?;
    tally.result(clips)
}

/// Says which model computes where.
fn tell_model(model: &dyn Describer) {
    let info = model.model();
    let device = match model.gpu() {
        Some(gpu) => format!("{} ({})", info.device, gpu.name),
        None => "the CPU".into(),
    };
    tell(format_args!("describing with {} on {device}, {}", info.id, info.dtype));
}

impl Outputs {
    /// Opens the file, the folder, or standard output. Nothing is written to a file yet.
    ///
    /// # Errors
    /// When it cannot be written, or would be written over a source.
    fn open(args: &DescribeArgs, sources: &Sources) -> anyhow::Result<Self> {
        if let Some(folder) = &args.output_dir {
            let folder = OutputDir::open(folder, args.format.ending())?;
            folder.check(&sources.all)?;
            return Ok(Self::Each(folder));
        }
        let (out, place): (Box<dyn Write + Send>, _) = match args.output.as_os_str() == STDOUT {
            true => (Box::new(io::stdout()), "standard output".into()),
            false => (Box::new(open_file(&args.output, sources)?), args.output.display().to_string()),
        };
        Ok(Self::One(Printer::new(args.format, sources.count() > 1, out, place)))
    }

    /// What is to be done for each source. Those that are whole count only if `resume`.
    fn states(&mut self, sources: &Sources, question: String, resume: bool) -> Vec<OutputState> {
        if let Self::Each(folder) = self {
            folder.ask(question);
        }
        let state = |source| match self {
            Self::Each(folder) if resume => folder.state(source),
            _ => OutputState::Missing,
        };
        let states: Vec<_> = sources.all.iter().map(state).collect();
        let outdated = states.iter().filter(|state| **state == OutputState::Outdated).count();
        if outdated > 0 {
            tell(format_args!(
                "made again, since the source has changed or other things were asked: {}",
                plural(outdated, "output")
            ));
        }
        states
    }

    /// Ends the output.
    ///
    /// # Errors
    /// When a clip could not be described, or the output cannot be written.
    fn close(self) -> anyhow::Result<()> {
        match self {
            Self::One(printer) => printer.finish().map(drop),
            Self::Each(_) => Ok(()),
        }
    }
}

/// Opens the file at `path`. Nothing is written yet.
///
/// # Errors
/// When the file cannot be written, or is one of the sources.
fn open_file(path: &Path, sources: &Sources) -> anyhow::Result<TruncateOnFirstWrite> {
    let unwritable = || format!("{} cannot be written", path.display());
    let out = TruncateOnFirstWrite::open(path).with_context(unwritable)?;
    let out_file = out.metadata().with_context(unwritable)?;
    let same = |file: &Path| {
        fs::metadata(file).is_ok_and(|it| (it.dev(), it.ino()) == (out_file.dev(), out_file.ino()))
    };
    if sources.all.iter().filter_map(NamedSource::file).any(same) {
        let path = path.display();
        return Err(UsageError(format!(
            "{path} is a source and cannot be the output: write to another file"
        ))
        .into());
    }
    Ok(out)
}

/// How large a source is: a measure of the work.
fn size(source: &NamedSource) -> u64 {
    source.file().and_then(|path| fs::metadata(path).ok()).map_or(1, |it| it.len().max(1))
}

/// The files of sources that are all still images.
///
/// # Errors
/// When one is not.
fn still_images(sources: &Sources) -> Result<Vec<(&Path, &NamedSource)>, UsageError> {
    let image = |source| match NamedSource::file(source).filter(|path| image_file::is_still_image(path)) {
        Some(path) => Ok((path, source)),
        None => Err(UsageError(format!("{}: it is no image, and --together describes images", source.text))),
    };
    sources.all.iter().map(image).collect()
}

/// Describes all sources, which are images, together.
///
/// # Errors
/// When an image cannot be read, the model fails, or the description cannot be written.
fn describe_together(
    sources: &Sources,
    job: &Job,
    model: &mut dyn Describer,
    printer: &mut Printer,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let names: Vec<&str> = sources.all.iter().map(|source| source.text.as_str()).collect();
    let size = sources.all.iter().map(size).sum();
    job.progress.begin(1, &names.join(", "), size);
    printer.source(&names.join(", "));
    describe_images(&still_images(sources)?, job, model, printer)?;
    tally.done = sources.count();
    Ok(())
}

/// Describes one source after another.
///
/// # Errors
/// When an output cannot be written, or the only source cannot be described.
fn describe_all(
    sources: &Sources,
    states: &[OutputState],
    job: &Job,
    model: &mut dyn Describer,
    outputs: &mut Outputs,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    for (i, (source, state)) in sources.all.iter().zip(states).enumerate() {
        if job.cancel.is_cancelled() {
            break;
        }
        if *state == OutputState::Whole {
            tally.whole += 1;
            continue;
        }
        job.progress.begin(i + 1, &source.text, size(source));
        let no_video = |error: &anyhow::Error| {
            matches!(error.downcast_ref(), Some(CaptureError::NotMedia(_) | CaptureError::NoVideo(_)))
        };
        match describe_one(source, job, model, outputs) {
            Ok(to_its_end) => tally.done += usize::from(to_its_end),
            Err(error) if source.found && no_video(&error) => tally.pass_over(&source.text),
            Err(error) if source.found && error.is::<NothingInRange>() => tally.leave_out(),
            // An I/O error is that of the output: further descriptions could not be written either.
            Err(error) if error.downcast_ref::<io::Error>().is_some() || sources.count() == 1 => {
                return Err(error);
            }
            Err(error) => job.progress.suspend(|| tally.fail(&source.text, &format!("{error:#}"))),
        }
    }
    Ok(())
}

/// Describes one source. Returns whether that came to its end.
///
/// # Errors
/// When the source cannot be read, the model fails, or a description cannot be written.
fn describe_one(
    source: &NamedSource,
    job: &Job,
    model: &mut dyn Describer,
    outputs: &mut Outputs,
) -> anyhow::Result<bool> {
    let mut describe = |printer: &mut Printer| {
        printer.source(&source.text);
        if let Some(path) = source.file().filter(|path| !source.found && image_file::is_still_image(path)) {
            return describe_images(&[(path, source)], job, model, printer).map(|()| true);
        }
        match job.args.sampling {
            SamplingArg::Reference => describe_whole_file(source, job, model, printer).map(|()| true),
            _ => describe_windows(source, job, model, printer),
        }
    };
    let folder = match outputs {
        Outputs::One(printer) => return describe(printer),
        Outputs::Each(folder) => folder,
    };
    let output = folder.begin(source)?;
    let (file, place) = (Box::new(output.file.try_clone()?), output.part().display().to_string());
    let mut printer = Printer::new(job.args.format, false, file, place);
    let to_its_end = describe(&mut printer);
    let to_its_end = to_its_end.and_then(|to_its_end| Ok((to_its_end, printer.finish()?)));
    match to_its_end {
        // A camera has no other end.
        Ok((to_its_end, clips)) if to_its_end || source.source.is_live() && clips > 0 => {
            folder.finish(output)?;
            Ok(to_its_end)
        }
        Ok(_) => {
            job.progress.suspend(|| output.abandon());
            Ok(false)
        }
        Err(error) => {
            job.progress.suspend(|| output.abandon());
            Err(error)
        }
    }
}
