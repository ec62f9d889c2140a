//! Runs the benchmark: every shape, every batch size, then the trials with cameras.

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};

use super::{
    camera_trials, cost,
    random_model::RandomModel,
    report::{BatchReport, BenchReport, Measurement, ShapeReport},
    settings::Settings,
    shapes::Shape,
    stopwatch,
};
use crate::{
    nn::{
        device::{ComputeTarget, choose},
        error::DeviceFailure,
        roofline::Roofline,
    },
    request::Request,
};

/// Runs the benchmark. Prints tables to standard output as it goes. Writes the JSON document after every batch, so
/// that an interrupted run leaves what it measured.
///
/// # Errors
/// When a setting is outside its limits, the device fails for another reason than too little memory, or nothing can
/// be written.
pub fn run(settings: &Settings) -> Result<()> {
    settings.check()?;
    let target = ComputeTarget { kernels: settings.kernels, ..choose(settings.device, settings.dtype)? };
    let roofline = Roofline::measure(&target)?;
    let report = BenchReport::new(&target, settings, roofline);
    let mut output = Output { report, json: settings.json.as_ref() };
    output.print(&output.report)?;
    for &shape in &settings.shapes {
        match measure_shape(shape, settings, (&target, roofline), &mut output) {
            Err(error) if is_out_of_memory(&error) => {
                output.print(&format!("\n{shape}: the device has too little memory: {error:#}"))?;
            }
            result => result.with_context(|| format!("the {shape} model"))?,
        }
    }
    Ok(())
}

/// Measures one model: every batch size, then how many cameras it keeps up with.
fn measure_shape(
    shape: Shape,
    settings: &Settings,
    (target, roofline): (&ComputeTarget, Roofline),
    output: &mut Output<'_>,
) -> Result<()> {
    let start = Instant::now();
    let mut model = RandomModel::new(shape, settings, target.clone())?;
    let config = &model.network.config;
    let kernels = model.network.target.kernels.as_str();
    output.report.shapes.push(ShapeReport {
        shape,
        parameters: cost::parameters(config),
        config: config.clone(),
        prompt_tokens: model.prompt_tokens(),
        kernels,
        load_s: start.elapsed().as_secs_f64(),
        batches: vec![],
        stopped: None,
        cameras: None,
    });
    output.print(&format!(
        "\n{shape}, prompts of {} tokens, kernels: {kernels}\n\n{}",
        model.prompt_tokens(),
        BatchReport::HEADER
    ))?;
    measure_batches(&model, settings, (target, roofline), output)?;
    let in_range = output.shape()?.batches.iter().filter(|it| it.batch <= camera_trials::MAX_BATCH);
    let fastest = in_range.max_by(|a, b| a.clips_per_s.total_cmp(&b.clips_per_s));
    if let Some(fastest) = fastest.map(|it| (it.batch, it.clips_per_s)).filter(|_| settings.periods > 0) {
        let trials = camera_trials::run(&mut model, fastest, settings.periods, settings.seed)?;
        output.print(&format!("\n{trials}"))?;
        output.shape()?.cameras = Some(trials);
    }
    output.write()
}

/// Measures every batch size, up to the first that does not fit into the device's memory.
fn measure_batches(
    model: &RandomModel,
    settings: &Settings,
    (target, roofline): (&ComputeTarget, Roofline),
    output: &mut Output<'_>,
) -> Result<()> {
    for batch in settings.batch_sizes(target.device.is_cpu()) {
        match measure_batch(model, settings.repeat, batch) {
            Ok(measurement) => {
                let line = BatchReport::new(model, measurement, roofline);
                output.print(&line)?;
                output.shape()?.batches.push(line);
            }
            Err(error) if is_out_of_memory(&error) => {
                let why = format!("a batch of {batch} does not fit into the device's memory");
                output.print(&format!("\n{why}"))?;
                output.shape()?.stopped = Some(why);
                break;
            }
            Err(error) => return Err(error),
        }
        output.write()?;
    }
    Ok(())
}

/// Runs a batch of `batch` clips once to warm up and `repeat` times for timing. Returns the times of the run whose
/// total is the median, and the peak memory of all runs.
fn measure_batch(model: &RandomModel, repeat: usize, batch: usize) -> Result<Measurement> {
    let clips = vec![model.clip(&"bench".parse()?, 0); batch];
    let target = &model.network.target;
    let on_cpu = target.device.is_cpu();
    if on_cpu {
        stopwatch::reset_peak_memory()?;
    }
    target.reset_peak();
    let requests: Vec<_> = clips.iter().map(Request::from).collect();
    model.time(&requests, &mut || ())?;
    let mut runs = (0..repeat).map(|_| model.time(&requests, &mut || ())).collect::<Result<Vec<_>>>()?;
    let peak_memory = if on_cpu { stopwatch::peak_memory()? } else { target.peak_memory().unwrap_or(0) };
    runs.sort_by(|a, b| a.wall.total().total_cmp(&b.wall.total()));
    Ok(Measurement { batch, times: runs[runs.len() / 2], peak_memory })
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    DeviceFailure::classify(&format!("{error:#}")).is_out_of_memory()
}

/// The destinations of the results: standard output, and a JSON file if one is asked for.
struct Output<'a> {
    report: BenchReport,
    json: Option<&'a PathBuf>,
}

impl Output<'_> {
    fn print(&self, text: &dyn Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// The report of the model that is being measured.
    fn shape(&mut self) -> Result<&mut ShapeReport> {
        self.report.shapes.last_mut().context("no model is being measured")
    }

    /// Writes the JSON document, replacing an earlier one.
    fn write(&self) -> Result<()> {
        let Some(path) = self.json else { return Ok(()) };
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, &self.report)?;
            writeln!(file)?;
            file.flush()
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }
}
