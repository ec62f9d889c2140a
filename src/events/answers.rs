//! Answers to questions, as events hold them: of the model's probabilities, calibrated where there is a calibration for
//! the model.

use std::collections::BTreeMap;

use crate::{
    calibration::Calibration,
    decision::{Decided, Decision},
    event::{ChoiceProbability, Event, ModelInfo, QuestionAnswer, YesNo},
    prompt_spec::NamedQuestion,
};

/// The answers of `model` to these questions, by their names. `labels` has the logarithms of the labels' probabilities:
/// those of the first question's [`Decision::questions`], then those of the next.
pub fn answers(
    questions: &[NamedQuestion],
    mut labels: &[Vec<f32>],
    model: &ModelInfo,
) -> BTreeMap<String, QuestionAnswer> {
    let answer = |asked: &NamedQuestion| {
        let (own, rest) = labels.split_at(asked.decision.questions().len().min(labels.len()));
        labels = rest;
        let calibration = asked.calibration.as_deref();
        Some((asked.name.clone(), answer(&asked.decision, calibration, own, model)?))
    };
    questions.iter().filter_map(answer).collect()
}

/// The answer of `model` to a question, whose calibration is applied if it is for this model. `labels` has the logarithms
/// of its labels' probabilities. `None`: nothing was answered.
pub fn answer(
    decision: &Decision,
    calibration: Option<&Calibration>,
    labels: &[Vec<f32>],
    model: &ModelInfo,
) -> Option<QuestionAnswer> {
    let decided = Decision::decide(labels);
    let calibration = calibration.filter(|it| it.check_model(&model.into()).is_ok());
    match calibration {
        Some(calibration) => told(decision, calibration.apply(&decided), true),
        None => told(decision, decided, false),
    }
}

/// Calibrates the answers of a recorded event that were not, as those of a new one would be. `questions`: those of its
/// camera.
pub fn calibrate_recorded(event: &mut Event, questions: &[NamedQuestion]) {
    for asked in questions {
        let Some(calibration) = asked.calibration.as_deref() else { continue };
        let Some(answer) = event.answers.get_mut(&asked.name) else { continue };
        if calibration.check_model(&(&event.model).into()).is_ok()
            && let Some(raw) = raw(&asked.decision, answer)
            && let Some(calibrated) = told(&asked.decision, calibration.apply(&raw), true)
        {
            *answer = calibrated;
        }
    }
}

/// What an answer to this question was before any calibration, if it had none.
fn raw(decision: &Decision, answer: &QuestionAnswer) -> Option<Decided> {
    let answers = decision.answers();
    let probabilities: Option<Vec<f64>> = answers.iter().map(|label| answer.probability_of(label)).collect();
    let winner = answers.iter().position(|label| label == answer.answer())?;
    Some(Decided { probabilities: probabilities?, winner, confidence: answer.confidence() })
        .filter(|_| !answer.is_calibrated())
}

/// An answer as events tell it. `None`: nothing was answered.
fn told(decision: &Decision, decided: Decided, calibrated: bool) -> Option<QuestionAnswer> {
    let Decided { probabilities, winner, confidence } = decided;
    Some(match decision {
        Decision::Predicate { .. } => QuestionAnswer::Predicate {
            probability: *probabilities.first()?,
            answer: if winner == 0 { YesNo::Yes } else { YesNo::No },
            confidence,
            calibrated,
        },
        Decision::Choice { options, .. } | Decision::Score { levels: options, .. } => {
            let choice = options.get(winner).filter(|_| !probabilities.is_empty())?.label.clone();
            let each = options.iter().zip(probabilities);
            let each =
                each.map(|(it, probability)| ChoiceProbability { value: it.label.clone(), probability });
            QuestionAnswer::Choice { choice, probabilities: each.collect(), confidence, calibrated }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        calibration::{CalibratedModel, Correction, Quality},
        decision::Choice,
    };

    fn model(dtype: &str) -> ModelInfo {
        ModelInfo { id: "small".into(), revision: String::new(), device: "cpu".into(), dtype: dtype.into() }
    }

    fn question(decision: Decision, correction: Correction) -> NamedQuestion {
        let calibration = Calibration {
            schema: 1,
            question: "q".into(),
            ask: decision.instructions().into(),
            answers: decision.answers(),
            model: CalibratedModel::from(&model("f32")),
            correction,
            quality: Quality {
                samples: 10,
                auroc: 1.0,
                accuracy: [1.0; 2],
                calibration_error: [0.0; 2],
                blank_yes: None,
            },
        };
        NamedQuestion { name: "q".into(), decision, calibration: Some(Arc::new(calibration)) }
    }

    #[test]
    fn answers_are_calibrated_for_the_calibrations_model_and_raw_for_another() {
        let predicate = Decision::Predicate { instructions: "Is it so?".into() };
        let asked = question(predicate, Correction::Platt { slope: 1.0, intercept: -(3.0_f64.ln()) });
        let labels = [vec![0.5_f32.ln(), 0.25_f32.ln()]];
        let of = |dtype: &str, asked: &NamedQuestion| {
            answers(std::slice::from_ref(asked), &labels, &model(dtype)).remove("q").unwrap()
        };
        let told = |answer: QuestionAnswer| match answer {
            QuestionAnswer::Predicate { probability, answer, confidence, calibrated } => {
                ((probability * 1000.0).round(), answer, (confidence * 1000.0).round(), calibrated)
            }
            QuestionAnswer::Choice { .. } => panic!("not a choice"),
        };
        // The odds 2 to 1 become 2 to 3.
        assert_eq!(told(of("f32", &asked)), (400.0, YesNo::No, 500.0, true));
        let raw = (667.0, YesNo::Yes, 500.0, false);
        assert_eq!(told(of("bf16", &asked)), raw);
        assert_eq!(told(of("f32", &NamedQuestion { calibration: None, ..asked })), raw);
    }

    #[test]
    fn a_choice_is_calibrated_by_its_temperature_and_nothing_answered_is_no_answer() {
        let options =
            ["open", "closed"].map(|label| Choice { label: label.into(), description: None }).into();
        let choice = Decision::Choice { instructions: "Is it open?".into(), options };
        let asked = question(choice, Correction::Temperature(2.0));
        let labels = vec![vec![0.9_f32.ln(), 0.1_f32.ln()]; 2];
        let all = answers(&[asked.clone(), asked.clone()], &labels, &model("f32"));
        let QuestionAnswer::Choice { choice, probabilities, calibrated, .. } = &all["q"] else {
            panic!("a choice")
        };
        assert_eq!((choice.as_str(), *calibrated), ("open", true));
        // The odds 9 to 1 become 3 to 1.
        assert!((probabilities[0].probability - 0.75).abs() < 1e-6, "{probabilities:?}");
        assert!(answer(&asked.decision, None, &[], &model("f32")).is_none());
    }
}
