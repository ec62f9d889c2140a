//! The file of clips and events with their true answers: a JSON object a line.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    calibration::CalibratedModel,
    decision::Decision,
    event::{Event, EventKind, QuestionAnswer, SCHEMA},
    json_input,
    prompt_spec::NamedQuestion,
};

/// The fewest samples that say anything.
const LEAST_SAMPLES: usize = 10;

/// What is known to have an answer.
#[derive(Debug, PartialEq)]
pub enum Subject {
    /// A video or an image, which the model has to be asked about.
    Clip(PathBuf),
    /// What a model has answered: the probabilities of the possible answers.
    Answered(Vec<f64>),
}

/// A clip or an answer, and the truth.
#[derive(Debug, PartialEq)]
pub struct Labelled {
    /// What it is about.
    pub subject: Subject,
    /// The place of the true answer.
    pub truth: usize,
}

/// All of a file.
#[derive(Debug)]
pub struct Labels {
    /// In the order of the lines.
    pub all: Vec<Labelled>,
    /// The model of the events, and the first line with one. `None`: there are only clips.
    pub model: Option<(CalibratedModel, usize)>,
}

/// A line, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    clip: Option<PathBuf>,
    #[serde(default)]
    event: Option<Box<Event>>,
    answer: String,
}

impl Labels {
    /// Reads a file. Relative paths of clips are taken from its folder. `model_id`: the model of the configuration.
    ///
    /// # Errors
    /// The first line that is wrong, or why the lines together are not enough.
    pub fn read(file: &Path, asked: &NamedQuestion, model_id: &str) -> anyhow::Result<Self> {
        let shown = file.display();
        let text = fs::read_to_string(file).with_context(|| shown.to_string())?;
        let mut reader = Reader { asked, model_id, model: None, ids: BTreeMap::new() };
        let (mut all, mut clips) = (Vec::new(), BTreeMap::new());
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let mut labelled =
                reader.read(number, line).map_err(|why| anyhow::anyhow!("{shown}:{number}: {why}"))?;
            if let Subject::Clip(path) = &mut labelled.subject {
                *path = file.parent().unwrap_or(Path::new("")).join(&path);
                // Hours of work may come before it.
                let full = fs::canonicalize(&*path)
                    .with_context(|| format!("{shown}:{number}: {}", path.display()))?;
                // It would be among those that the result is measured with, and among those that it comes from.
                if let Some(before) = clips.insert(full, number) {
                    bail!("{shown}:{number}: it is the clip of line {before} again: remove one");
                }
            }
            all.push(labelled);
        }
        if all.len() < LEAST_SAMPLES {
            bail!(
                "{shown}: it has {} of at least {LEAST_SAMPLES} lines: label more clips or events",
                all.len()
            );
        }
        if all.iter().all(|it| it.truth == all[0].truth) {
            let answer = &asked.decision.answers()[all[0].truth];
            bail!("{shown}: every line has the answer {answer}: label some that have another");
        }
        Ok(Self { all, model: reader.model })
    }
}

struct Reader<'a> {
    asked: &'a NamedQuestion,
    model_id: &'a str,
    model: Option<(CalibratedModel, usize)>,
    /// The lines of events, by the ids of these.
    ids: BTreeMap<Uuid, usize>,
}

impl Reader<'_> {
    /// Reads the line of this number.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(&mut self, number: usize, line: &str) -> Result<Labelled, String> {
        let Line { clip, event, answer } =
            json_input::from_slice(line.as_bytes()).map_err(|mistake| mistake.to_string())?;
        let answers = self.asked.decision.answers();
        let truth = answers.iter().position(|known| *known == answer).ok_or_else(|| {
            format!("the answer is {answer:?}, and the question has {}", answers.join(", "))
        })?;
        let subject = match (clip, event) {
            (Some(path), None) => Subject::Clip(path),
            (None, Some(event)) => Subject::Answered(self.answered(number, &event)?),
            _ => return Err("write a clip or an event, one of them".into()),
        };
        Ok(Labelled { subject, truth })
    }

    /// The probabilities in an event.
    ///
    /// # Errors
    /// Why they cannot be used.
    fn answered(&mut self, number: usize, event: &Event) -> Result<Vec<f64>, String> {
        let name = &self.asked.name;
        if event.schema != SCHEMA {
            return Err(format!("schema is {}, and this camscribe knows {SCHEMA}", event.schema));
        }
        if event.kind == EventKind::Unchanged {
            return Err("the event only repeats the answer of an earlier one: label that one".into());
        }
        if let Some(before) = self.ids.insert(event.id, number) {
            return Err(format!("it is the event of line {before} again: remove one"));
        }
        let answer = event.answers.get(name).ok_or_else(|| format!("the event has no answer to {name}"))?;
        let model = CalibratedModel::from(&event.model);
        if model.id != self.model_id {
            return Err(format!(
                "the event is of the model {}, and the configuration has {}",
                model.id, self.model_id
            ));
        }
        match &self.model {
            Some((first, line)) if *first != model => {
                let (first, model) = (first.named(), model.named());
                return Err(format!("the event is of {model}, and that of line {line} is of {first}"));
            }
            Some(_) => {}
            None => self.model = Some((model, number)),
        }
        raw_probabilities(answer, &self.asked.decision)
    }
}

/// The probabilities of an answer in the order of the question's answers.
///
/// # Errors
/// When they were calibrated already, or the answer is to another question.
fn raw_probabilities(answer: &QuestionAnswer, decision: &Decision) -> Result<Vec<f64>, String> {
    let answers = decision.answers();
    let (calibrated, same) = match (answer, decision) {
        (QuestionAnswer::Predicate { calibrated, .. }, Decision::Predicate { .. }) => (*calibrated, true),
        (QuestionAnswer::Choice { calibrated, probabilities, .. }, Decision::Choice { .. }) => {
            (*calibrated, probabilities.iter().map(|it| &it.value).eq(&answers))
        }
        _ => (false, false),
    };
    if calibrated {
        return Err(
            "its answer was calibrated already: label events from before calibration_file was set".into()
        );
    }
    if !same {
        return Err("its answer is to a question with other answers".into());
    }
    let probabilities: Vec<f64> = answers.iter().filter_map(|known| answer.probability_of(known)).collect();
    if probabilities.iter().any(|it| !(0.0..=1.0).contains(it)) {
        return Err("its probabilities are not between 0 and 1".into());
    }
    Ok(probabilities)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::Choice;

    fn parcel() -> NamedQuestion {
        NamedQuestion {
            name: "parcel".into(),
            decision: Decision::Predicate { instructions: "Is there a parcel?".into() },
            calibration: None,
        }
    }

    fn gate() -> NamedQuestion {
        let options = ["open", "closed"].map(|label| Choice { label: label.into(), description: None });
        let decision = Decision::Choice { instructions: "Is the gate open?".into(), options: options.into() };
        NamedQuestion { name: "gate".into(), decision, calibration: None }
    }

    fn event() -> Value {
        json!({
            "schema": 1, "id": Uuid::now_v7(), "type": "answers", "node": "n", "camera": "porch", "description": "",
            "answers": {
                "parcel": {"type": "predicate", "probability": 0.75, "answer": "yes", "confidence": 0.5, "calibrated": false},
                "gate": {"type": "choice", "choice": "open", "confidence": 0.5, "calibrated": false,
                         "probabilities": [{"value": "open", "probability": 0.75}, {"value": "closed", "probability": 0.25}]},
            },
            "clip": {"seq": 0, "start": "2026-01-02T03:04:05.000Z", "end": "2026-01-02T03:04:13.000Z",
                     "clock": "arrival", "frames": [], "width": 1, "height": 1, "gap": false},
            "prompt": "", "finish_reason": "stop",
            "model": {"id": "small", "revision": "", "device": "cpu", "dtype": "f32"},
            "tokens": {"prompt": 1, "image": 1, "generated": 0},
            "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
            "dropped": {"clips": 0, "failed": 0},
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut event = event();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    }

    fn read(lines: &[Value], asked: &NamedQuestion) -> Result<Labels, String> {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n\n")).collect();
        fs::write(folder.path().join("l.jsonl"), lines.concat()).unwrap();
        for name in ["a.png", "6.png", "7.png", "8.png", "9.png"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let read = Labels::read(&folder.path().join("l.jsonl"), asked, "small");
        read.map_err(|error| format!("{error:#}").replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn clips_and_events_become_samples_with_their_truths() {
        let lines = |answers: [&str; 2]| -> Vec<Value> {
            let line = |i: usize| match i {
                0..6 => json!({"event": event(), "answer": answers[i % 2]}),
                _ => json!({"clip": format!("{i}.png"), "answer": answers[i % 2]}),
            };
            (0..10).map(line).collect()
        };
        let labels = read(&lines(["no", "yes"]), &parcel()).unwrap();
        assert_eq!(labels.all[0], Labelled { subject: Subject::Answered(vec![0.75, 0.25]), truth: 1 });
        assert!(matches!(&labels.all[7].subject, Subject::Clip(path) if path.is_absolute()));
        let model = CalibratedModel { id: "small".into(), revision: String::new(), dtype: "f32".into() };
        assert_eq!(labels.model, Some((model, 1)));
        let labels = read(&lines(["open", "closed"]), &gate()).unwrap();
        assert_eq!(labels.all[1], Labelled { subject: Subject::Answered(vec![0.75, 0.25]), truth: 1 });
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_with_its_number() {
        let yes = |event: Value| json!({"event": event, "answer": "yes"});
        let twice = yes(event());
        for (lines, why) in [
            (
                vec![json!({"clip": "a.png", "answer": "perhaps"})],
                "l.jsonl:1: the answer is \"perhaps\", and the question has yes, no",
            ),
            (
                vec![json!({"clip": "a.png", "event": event(), "answer": "yes"})],
                "l.jsonl:1: write a clip or an event, one of them",
            ),
            (vec![json!({"answer": "yes"})], "l.jsonl:1: write a clip or an event"),
            (vec![json!({"clip": "a.png", "label": "yes"})], "l.jsonl:1: label: unknown field"),
            (vec![json!({"clip": "b.png", "answer": "yes"})], "l.jsonl:1: b.png: No such file"),
            (vec![yes(json!({"schema": 1}))], "l.jsonl:1: event: missing field"),
            (vec![yes(with("/answers", json!({})))], "l.jsonl:1: the event has no answer to parcel"),
            (vec![yes(with("/type", json!("unchanged")))], "only repeats the answer of an earlier one"),
            (vec![yes(with("/answers/parcel/calibrated", json!(true)))], "was calibrated already"),
            (
                vec![yes(with("/answers/parcel", event()["answers"]["gate"].clone()))],
                "to a question with other answers",
            ),
            (vec![yes(with("/answers/parcel/probability", json!(1.5)))], "are not between 0 and 1"),
            (
                vec![yes(with("/model/id", json!("large")))],
                "of the model large, and the configuration has small",
            ),
            (
                vec![yes(event()), yes(with("/model/dtype", json!("bf16")))],
                "l.jsonl:3: the event is of small in bf16, and that of line 1 is of small in f32",
            ),
            (vec![twice.clone(), twice], "l.jsonl:3: it is the event of line 1 again"),
            (
                vec![json!({"clip": "a.png", "answer": "no"}), json!({"clip": "./a.png", "answer": "yes"})],
                "l.jsonl:3: it is the clip of line 1 again",
            ),
            (vec![yes(with("/schema", json!(2)))], "l.jsonl:1: schema is 2, and this camscribe knows 1"),
            (vec![yes(event())], "l.jsonl: it has 1 of at least 10 lines"),
            ((0..10).map(|_| yes(event())).collect(), "l.jsonl: every line has the answer yes"),
        ] {
            let wrong = read(&lines, &parcel()).unwrap_err();
            assert!(wrong.contains(why), "{why}: {wrong}");
        }
    }
}
