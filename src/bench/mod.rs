//! How fast the model is on this machine: a model of random weights in the size of a published one is
//! made on the spot and given batches of clips; every stage is timed and held against what the device
//! reaches at its best, measured in the same run. Needs no download, no camera, and nothing but the
//! model's side of this program.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use self::{
    model::Model,
    report::{BatchReport, Measured, Report, ShapeReport},
    shapes::Shape,
};
use crate::{
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    nn::{
        device::{ComputeTarget, choose},
        error::DeviceFailure,
        roofline::Roofline,
    },
};

pub mod cameras;
mod clock;
mod model;
pub mod report;
pub mod shapes;
mod work;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sizes of models.
    pub shapes: Vec<Shape>,
    /// Clips at a time, ascending; empty: doubling up to 128 on a GPU, up to 4 on the CPU.
    pub batches: Vec<usize>,
    /// Of a clip.
    pub frames: usize,
    /// Of every answer; at least 2.
    pub new_tokens: usize,
    /// Timed runs of each batch, of which the median counts.
    pub repeat: usize,
    /// Clips that each camera makes in a trial of how many cameras are kept up with: at least 3; 0 tries none.
    pub periods: u64,
    /// Of the random weights, and of the moments at which cameras make their clips.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// In which number format.
    pub dtype: DtypeChoice,
    /// With which operations.
    pub kernels: KernelChoice,
    /// Where the JSON document goes.
    pub json: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shapes: Shape::ALL.to_vec(),
            batches: vec![],
            frames: 8,
            new_tokens: 64,
            repeat: 3,
            periods: 3,
            seed: 1,
            device: DeviceChoice::Auto,
            dtype: DtypeChoice::Auto,
            kernels: KernelChoice::default(),
            json: None,
        }
    }
}

/// Runs the benchmark. Tables go to standard output as they come about; the JSON document is written
/// anew after every batch, so that a run that is cut short leaves what it has.
///
/// # Errors
/// When the device fails for another reason than too little memory, or nothing can be written.
pub fn run(settings: &Settings) -> Result<()> {
    ensure!(settings.frames > 0, "a clip has at least one frame");
    ensure!(settings.new_tokens > 1, "an answer has at least two tokens: the time between them is measured");
    ensure!(settings.repeat > 0, "a batch is run at least once");
    ensure!(
        settings.periods == 0 || settings.periods > 2,
        "delays that grow show after three periods: 0, or at least 3"
    );
    ensure!(settings.batches.is_sorted() && !settings.batches.contains(&0), "batches must be ascending");
    let target = ComputeTarget { kernels: settings.kernels, ..choose(settings.device, settings.dtype)? };
    let rates = Roofline::measure(&target)?;
    let mut output = Output { report: Report::new(&target, settings, rates), json: settings.json.as_ref() };
    output.say(&output.report)?;
    for &shape in &settings.shapes {
        match measure(shape, settings, (&target, rates), &mut output) {
            Err(error) if is_out_of_memory(&error) => {
                output.say(&format!("\n{shape}: the device has too little memory: {error:#}"))?;
            }
            done => done.with_context(|| format!("the {shape} model"))?,
        }
    }
    Ok(())
}

/// One model: every batch, then cameras.
fn measure(
    shape: Shape,
    settings: &Settings,
    (target, rates): (&ComputeTarget, Roofline),
    output: &mut Output<'_>,
) -> Result<()> {
    let start = Instant::now();
    let mut model = Model::new(shape, settings, target.clone())?;
    let config = &model.network.config;
    output.report.shapes.push(ShapeReport {
        shape,
        parameters: work::parameters(config),
        config: config.clone(),
        prompt_tokens: model.prompt_tokens(),
        kernels: model.network.target.kernels.as_str(),
        load_s: start.elapsed().as_secs_f64(),
        batches: vec![],
        stopped: None,
        cameras: None,
    });
    output.say(&format!(
        "\n{shape}, prompts of {} tokens, kernels: {}\n\n{}",
        model.prompt_tokens(),
        model.network.target.kernels.as_str(),
        BatchReport::HEADER
    ))?;
    let most = if target.device.is_cpu() { 4 } else { 128 };
    let doubling =
        || std::iter::successors(Some(1), |batch| Some(batch * 2)).take_while(|batch| *batch <= most);
    let batches = if settings.batches.is_empty() { doubling().collect() } else { settings.batches.clone() };
    for batch in batches {
        match time(&model, settings.repeat, batch) {
            Ok(measured) => {
                let row = BatchReport::new(&model, measured, rates);
                output.say(&row)?;
                output.shape()?.batches.push(row);
            }
            Err(error) if is_out_of_memory(&error) => {
                let why = format!("a batch of {batch} does not fit into the device's memory");
                output.say(&format!("\n{why}"))?;
                output.shape()?.stopped = Some(why);
                break;
            }
            Err(error) => return Err(error),
        }
        output.write()?;
    }
    let possible = output.shape()?.batches.iter().filter(|row| row.batch <= cameras::MAX_BATCH);
    let best = possible.max_by(|a, b| a.clips_per_s.total_cmp(&b.clips_per_s));
    if let Some(best) = best.map(|row| (row.batch, row.clips_per_s)).filter(|_| settings.periods > 0) {
        let cameras = cameras::sustained(&mut model, best, settings.periods, settings.seed)?;
        output.say(&format!("\n{cameras}"))?;
        output.shape()?.cameras = Some(cameras);
    }
    output.write()
}

/// What a batch of so many clips takes.
fn time(model: &Model, repeat: usize, batch: usize) -> Result<Measured> {
    let clips = vec![model.clip(&"bench".parse()?, 0); batch];
    let on_cpu = model.network.target.device.is_cpu();
    if on_cpu {
        clock::forget_peak()?;
    }
    let target = &model.network.target;
    target.reset_peak();
    model.answer(&clips, &mut || ())?;
    let mut runs = (0..repeat).map(|_| model.answer(&clips, &mut || ())).collect::<Result<Vec<_>>>()?;
    let peak_memory = if on_cpu { clock::peak_memory()? } else { target.peak_memory().unwrap_or(0) };
    runs.sort_by(|a, b| a.wall.total().total_cmp(&b.wall.total()));
    Ok(Measured { batch, times: runs[runs.len() / 2], peak_memory })
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    DeviceFailure::classify(&format!("{error:#}")).is_out_of_memory()
}

/// Where results go.
struct Output<'a> {
    report: Report,
    json: Option<&'a PathBuf>,
}

impl Output<'_> {
    fn say(&self, text: &dyn std::fmt::Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// The model that is being measured.
    fn shape(&mut self) -> Result<&mut ShapeReport> {
        self.report.shapes.last_mut().context("no model is being measured")
    }

    fn write(&self) -> Result<()> {
        let Some(path) = self.json else { return Ok(()) };
        let written = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, &self.report)?;
            writeln!(file)?;
            file.flush()
        };
        written().with_context(|| format!("{} cannot be written", path.display()))
    }
}
