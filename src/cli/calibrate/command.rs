//! The order of work of `calibrate`: configuration, labels, model, fit, files, table.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{self, Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{
    super::{describe::progress::Progress, usage::UsageError},
    args::CalibrateArgs,
    asking,
    labels::{Labelled, Labels, Subject},
    plot::reliability_diagram,
    report::Report,
};
use crate::{
    app,
    calibration::{
        CalibratedModel, Calibration, Correction, Quality,
        file::SCHEMA,
        fit::{corrected_unseen, fit},
        quality::{Sample, accuracy, auroc, calibration_error, reliability},
    },
    config::{self, Loaded},
    decision::Decision,
    logging::{self, tell},
    plural::plural,
    prompt_spec::NamedQuestion,
    request::Content,
};

/// Calibrates a question. Prints how good its answers are on standard output.
///
/// # Errors
/// [`config::ConfigError`]; when the labels cannot be used, the model fails, the answers tell nothing, or a file cannot be
/// written.
pub fn run(args: &CalibrateArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    let loaded = config::load_to_calibrate(args.config.as_deref())?;
    let asked = question(&loaded, &args.question)?;
    check_outputs(args)?;
    let settings = &loaded.config.model;
    let labels = Labels::read(&args.labels, asked, &settings.id)?;
    let Answered { samples, model, blank } = answer(labels, asked, settings)?;

    let correction = fit(&asked.decision, &samples);
    let unseen = corrected_unseen(&asked.decision, &samples);
    let quality = Quality {
        samples: samples.len(),
        auroc: auroc(&samples).context("every sample has the same answer")?,
        accuracy: [&samples, &unseen].map(|it| accuracy(it)),
        calibration_error: [&samples, &unseen].map(|it| calibration_error(&reliability(it))),
        blank_yes: blank.map(|raw| correction.probabilities(&raw)[0]),
    };
    let tells = matches!(correction, Correction::Temperature(_)) || quality.auroc > 0.5;
    if !tells || !correction.is_usable() {
        return Err(tells_nothing(&quality));
    }
    let calibration = Calibration {
        schema: SCHEMA,
        question: asked.name.clone(),
        ask: asked.decision.instructions().into(),
        answers: asked.decision.answers(),
        model,
        correction,
        quality,
    };
    let counts =
        (0..calibration.answers.len()).map(|answer| samples.iter().filter(|it| it.truth == answer).count());
    write!(io::stdout(), "{}", Report { calibration: &calibration, counts: counts.collect() })?;
    warn(&calibration);
    let output = args.output();
    replace(&output, format!("{}\n", serde_json::to_string_pretty(&calibration)?).as_bytes())?;
    if let Some(file) = &args.plot {
        let svg = reliability_diagram(&calibration.ask, &reliability(&samples), &reliability(&unseen));
        replace(file, svg.as_bytes())?;
    }
    let name = &asked.name;
    tell(format_args!(
        "for the configuration:\n[questions.{name}]\ncalibration_file = {:?}",
        path::absolute(&output)?
    ));
    Ok(())
}

/// Checks where the results go: hours of work may come before they are written.
///
/// # Errors
/// When a file cannot be written, or is another one that is needed.
fn check_outputs(args: &CalibrateArgs) -> anyhow::Result<()> {
    let full = |file: &Path| fs::canonicalize(file).or_else(|_| path::absolute(file));
    let mut used = vec![full(&args.labels)?];
    for file in [Some(args.output()), args.plot.clone()].into_iter().flatten() {
        let shown = file.display();
        if used.contains(&full(&file)?) {
            return Err(UsageError(format!("{shown} is used twice: name another file for the result")).into());
        }
        if fs::metadata(&file).is_ok_and(|it| !it.is_file()) {
            return Err(
                UsageError(format!("{shown} is no regular file: name another one for the result")).into()
            );
        }
        let part = part(&file);
        File::create(&part)
            .and_then(|_| fs::remove_file(&part))
            .with_context(|| format!("{shown} cannot be written"))?;
        used.push(full(&file)?);
    }
    Ok(())
}

/// The file that becomes `file` once it is whole.
fn part(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// The question of this name.
///
/// # Errors
/// When the configuration has none.
fn question<'a>(loaded: &'a Loaded, name: &str) -> Result<&'a NamedQuestion, UsageError> {
    loaded.questions.get(name).ok_or_else(|| {
        let known: Vec<_> = loaded.questions.keys().map(String::as_str).collect();
        let there_are = if known.is_empty() { "no questions".into() } else { known.join(", ") };
        UsageError(format!(
            "--question: there is no question {name:?} in the configuration; there are {there_are}"
        ))
    })
}

/// All that the model has answered.
struct Answered {
    samples: Vec<Sample>,
    model: CalibratedModel,
    /// What it answered about a blank picture, if it was asked a predicate.
    blank: Option<Vec<f64>>,
}

/// Asks the model about the clips. It is not loaded where there are none.
///
/// # Errors
/// When the model cannot be used, is another one than that of the events, or a clip cannot be read.
fn answer(
    labels: Labels,
    asked: &NamedQuestion,
    settings: &config::ModelSettings,
) -> anyhow::Result<Answered> {
    let Labels { all, model: of_events } = labels;
    let clips = all.iter().filter(|it| matches!(it.subject, Subject::Clip(_))).count();
    if let (0, Some((model, _))) = (clips, &of_events) {
        let sample = |it: Labelled| match it.subject {
            Subject::Answered(probabilities) => Some(Sample { probabilities, truth: it.truth }),
            Subject::Clip(_) => None,
        };
        let samples = all.into_iter().filter_map(sample).collect();
        return Ok(Answered { samples, model: model.clone(), blank: None });
    }
    let mut model = app::load_model(settings)?;
    let info = CalibratedModel::from(&model.model());
    if let Some((other, line)) = of_events.filter(|(model, _)| *model != info) {
        bail!("the event of line {line} is of {}, and the model is {}", other.named(), info.named());
    }
    tell(format_args!("asking {} on {} about {}", info.named(), model.model().device, plural(clips, "clip")));
    let progress = Progress::new(clips, clips as u64);
    let (mut samples, mut blank, mut number) = (Vec::new(), None, 0);
    for Labelled { subject, truth } in all {
        let probabilities = match subject {
            Subject::Answered(probabilities) => probabilities,
            Subject::Clip(path) => {
                number += 1;
                progress.begin(number, &path.display().to_string(), 1);
                let content = asking::read(&path, &*model)?;
                blank.get_or_insert_with(|| asking::blank(&content));
                let answered = asking::ask(content, &asked.decision, &mut *model);
                let answered = answered.with_context(|| path.display().to_string())?;
                progress.add_clip();
                answered
            }
        };
        samples.push(Sample { probabilities, truth });
    }
    progress.finish();
    let is_predicate = matches!(asked.decision, Decision::Predicate { .. });
    let ask = |content: Content| asking::ask(content, &asked.decision, &mut *model);
    let blank = blank.filter(|_| is_predicate).map(ask).transpose()?;
    Ok(Answered { samples, model: info, blank })
}

/// Says that yes was not likelier where it is true.
fn tells_nothing(quality: &Quality) -> anyhow::Error {
    anyhow::anyhow!(
        "the answers tell nothing, or the wrong way round: yes is not likelier where it is true (AUROC {:.3}); ask in \
         other words, or check the labels",
        quality.auroc
    )
}

/// Warns of what calibration does not mend.
fn warn(Calibration { quality, .. }: &Calibration) {
    if let Some(yes) = quality.blank_yes.filter(|yes| *yes > 0.5) {
        tell(format_args!(
            "warning: about a plain grey picture the answer is yes (probability {yes:.3}): the model says yes to \
             nothing; ask in other words"
        ));
    }
    let [before, after] = quality.calibration_error;
    if after >= before {
        tell(format_args!(
            "warning: the calibration error did not become smaller ({before:.3}, then {after:.3}): label more \
             samples, or leave the question as it is"
        ));
    }
    if quality.auroc <= 0.5 {
        tell(format_args!(
            "warning: the answers tell nothing (AUROC {:.3}): ask in other words",
            quality.auroc
        ));
    }
}

/// Writes a file, as a whole or not at all.
///
/// # Errors
/// When it cannot be written.
fn replace(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let part = part(file);
    let write = || {
        let mut open = File::create(&part)?;
        open.write_all(bytes)?;
        open.sync_all()?;
        fs::rename(&part, file)
    };
    write().with_context(|| format!("{} cannot be written", file.display()))
}
