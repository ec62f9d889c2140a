//! The order of work of `describe`: arguments, model, then one source after another.

use std::{fs, io, io::Write, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::{Context, bail};

use super::{
    super::{interrupted::Interrupted, runtime::runtime, usage::UsageError},
    args::{DescribeArgs, SamplingArg},
    clips::{describe_whole_file, describe_windows},
    output_file::TruncateOnFirstWrite,
    printer::Printer,
    source::NamedSource,
};
use crate::{
    app,
    config::{self, Origin},
    describe::Describer,
    logging, shutdown,
};

/// Runs until the sources end, or until a signal stops it.
///
/// # Errors
/// When a source cannot be read or the model cannot be used. Other sources are described all the same when one
/// cannot be read.
pub fn run(args: DescribeArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    args.check()?;
    let sources = parse_sources(&args)?;
    let out = open_output(args.output.as_deref(), &sources)?;
    let mut model = app::load_model(&config::ModelSettings {
        id: args.model.clone(),
        device: args.device,
        dtype: args.dtype,
        max_batch: 1,
        linger: Duration::ZERO,
        ..config::ModelSettings::default()
    })?;
    let runtime = runtime()?;
    let result = describe_all(&sources, &args, &mut *model, out, &runtime);
    // A thread that hangs in a camera's driver must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Parses the sources and gives them the login of the command line.
fn parse_sources(args: &DescribeArgs) -> anyhow::Result<Vec<NamedSource>> {
    let sources = args.sources.iter().map(|text| NamedSource::parse(text));
    let mut sources = sources.collect::<anyhow::Result<Vec<_>>>()?;
    let login = args.login()?;
    let wants_login =
        |it: &&mut NamedSource| it.login.is_none() && matches!(it.source.origin(), Origin::Network(_));
    for source in sources.iter_mut().filter(wants_login) {
        source.login.clone_from(&login);
    }
    if args.sampling == SamplingArg::Reference
        && let Some(other) = sources.iter().find(|s| !matches!(s.source.origin(), Origin::File(_)))
    {
        let why = format!("--sampling reference needs whole files, and {} is not a file", other.text);
        return Err(UsageError(why).into());
    }
    Ok(sources)
}

/// Opens the output: the file at `path`, or standard output. Nothing is written yet.
///
/// # Errors
/// When the file cannot be written, or is one of the sources.
fn open_output(path: Option<&Path>, sources: &[NamedSource]) -> anyhow::Result<Box<dyn Write>> {
    let Some(path) = path else { return Ok(Box::new(io::stdout())) };
    let unwritable = || format!("{} cannot be written", path.display());
    let out = TruncateOnFirstWrite::open(path).with_context(unwritable)?;
    let out_file = out.metadata().with_context(unwritable)?;
    for source in sources {
        if let Origin::File(file) = source.source.origin()
            && fs::metadata(file).is_ok_and(|file| same_file(&file, &out_file))
        {
            let why =
                format!("{} is a source and cannot be the output: write to another file", path.display());
            return Err(UsageError(why).into());
        }
    }
    Ok(Box::new(out))
}

/// Whether two paths lead to one file.
fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Describes one source after another.
fn describe_all(
    sources: &[NamedSource],
    args: &DescribeArgs,
    model: &mut dyn Describer,
    out: Box<dyn Write>,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(args.format, sources.len() > 1, out);
    let shutdown = runtime.block_on(async { shutdown::on_signal() })?;
    let cancel = &shutdown.token;
    let (mut done, mut failed) = (0, 0);
    for source in sources {
        if cancel.is_cancelled() {
            break;
        }
        printer.source(&source.text);
        let result = match args.sampling {
            SamplingArg::Reference => describe_whole_file(source, args, model, &mut printer).map(|()| true),
            _ => describe_windows(source, args, model, &mut printer, runtime, cancel),
        };
        match result {
            Ok(to_its_end) => done += usize::from(to_its_end),
            // An I/O error is that of the output: further descriptions could not be written either.
            Err(error) if error.downcast_ref::<io::Error>().is_some() || sources.len() == 1 => {
                return Err(error);
            }
            Err(error) => {
                logging::tell(format_args!("error: {error:#}"));
                failed += 1;
            }
        }
    }
    let described = printer.finish();
    // A camera that is watched alone has no other end.
    let watches =
        sources.len() == 1 && sources[0].source.is_live() && described.as_ref().is_ok_and(|n| *n > 0);
    let all = sources.len();
    if let Some(exit_code) = shutdown.exit_code().filter(|_| done + failed < all && !watches) {
        return Err(Interrupted { exit_code, done, all }.into());
    }
    let described = described?;
    match failed {
        0 if described == 0 => bail!("nothing was described"),
        0 => Ok(()),
        n => bail!("{n} of {} sources could not be described", sources.len()),
    }
}
