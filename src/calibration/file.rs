//! A calibration as a file: what it is for, and what it does to an answer.

use serde::{Deserialize, Serialize};

use super::correction::Correction;
use crate::decision::{Decided, Decision, most_likely};

/// The number of the format.
pub const SCHEMA: u32 = 1;

/// The correction of the answers to one question by one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Number of the format: 1.
    pub schema: u32,
    /// The name of the question.
    pub question: String,
    /// What is asked.
    pub ask: String,
    /// The possible answers; of a predicate: yes, no.
    pub answers: Vec<String>,
    /// The model that was asked.
    pub model: CalibratedModel,
    /// What is done to probabilities.
    pub correction: Correction,
    /// How good the answers were.
    pub quality: Quality,
}

/// What of a model decides on its probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibratedModel {
    /// Hub id, or the directory it was loaded from.
    pub id: String,
    /// Commit on the hub; empty for a directory.
    pub revision: String,
    /// `f32`, `bf16`, `f16` or `q8`.
    pub dtype: String,
}

/// How good answers whose truth is known were before, and after corrections that were fitted without them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// How many answers.
    pub samples: usize,
    /// How well the probabilities tell what is so from what is not: 0.5 is a coin, 1 is always.
    pub auroc: f64,
    /// The share of right answers, before and after: 0 to 1.
    pub accuracy: [f64; 2],
    /// The expected calibration error, before and after: 0 to 1.
    pub calibration_error: [f64; 2],
    /// The probability of yes about a plain grey picture, corrected. `None`: it was not asked about one.
    pub blank_yes: Option<f64>,
}

impl Calibration {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Why it is no calibration, as the end of a sentence about the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            schema: u32,
        }
        let not_one = |error: serde_json::Error| format!("is no calibration: {error}");
        let Format { schema } = serde_json::from_str(text).map_err(not_one)?;
        if schema != SCHEMA {
            return Err(format!("is of format {schema}, and this camscribe reads {SCHEMA}"));
        }
        let calibration: Self = serde_json::from_str(text).map_err(not_one)?;
        if !calibration.correction.is_usable() {
            return Err(format!("cannot be applied: its correction is {:?}", calibration.correction));
        }
        Ok(calibration)
    }

    /// Whether it is for the answers to this question.
    ///
    /// # Errors
    /// Why not, as the end of a sentence about it.
    pub fn check_question(&self, decision: &Decision) -> Result<(), String> {
        if self.ask != decision.instructions() {
            return Err(format!("is for the question {:?}", self.ask));
        }
        if self.answers != decision.answers() {
            return Err(format!("is for the answers {}", self.answers.join(", ")));
        }
        let is_predicate = matches!(decision, Decision::Predicate { .. });
        if is_predicate != matches!(self.correction, Correction::Platt { .. }) {
            return Err("corrects another kind of question".into());
        }
        Ok(())
    }

    /// Whether it is for the answers of this model.
    ///
    /// # Errors
    /// Why not, as the end of a sentence about it.
    pub fn check_model(&self, model: &CalibratedModel) -> Result<(), String> {
        if self.model == *model {
            return Ok(());
        }
        Err(format!("is for the model {}, and the model is {}", self.model.named(), model.named()))
    }

    /// The answer with corrected probabilities. `confidence` stays as it is: it says whether the model wanted to give one
    /// of the possible answers at all.
    pub fn apply(&self, decided: &Decided) -> Decided {
        let probabilities = self.correction.probabilities(&decided.probabilities);
        Decided { winner: most_likely(&probabilities), probabilities, confidence: decided.confidence }
    }
}

impl CalibratedModel {
    /// In words: `HuggingFaceTB/SmolVLM2-500M-Video-Instruct@7b375e1b in bf16`.
    pub fn named(&self) -> String {
        let Self { id, revision, dtype } = self;
        let commit: String = revision.chars().take(12).collect();
        let at = if commit.is_empty() { "" } else { "@" };
        format!("{id}{at}{commit} in {dtype}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Choice;

    fn calibration() -> Calibration {
        let of = |text: &str| text.to_owned();
        Calibration {
            schema: SCHEMA,
            question: of("parcel"),
            ask: of("Is there a parcel?"),
            answers: vec![of("yes"), of("no")],
            model: CalibratedModel { id: of("small"), revision: of("0123456789abcdef"), dtype: of("f32") },
            correction: Correction::Platt { slope: 1.0, intercept: -3.0 },
            quality: Quality {
                samples: 12,
                auroc: 0.9,
                accuracy: [0.75, 0.875],
                calibration_error: [0.25, 0.125],
                blank_yes: Some(0.25),
            },
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_a_broken_one_says_why() {
        let text = serde_json::to_string_pretty(&calibration()).unwrap();
        assert_eq!(Calibration::parse(&text), Ok(calibration()));
        for (from, to, why) in [
            ("\"schema\": 1", "\"schema\": 2", "is of format 2, and this camscribe reads 1"),
            ("\"slope\": 1.0", "\"slope\": -1.0", "cannot be applied"),
            ("\"platt\"", "\"spline\"", "is no calibration: unknown variant `spline`"),
            ("\"ask\"", "\"asks\"", "missing field `ask`"),
            ("{", "", "is no calibration"),
        ] {
            let wrong = Calibration::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(wrong.contains(why), "{wrong}");
        }
    }

    #[test]
    fn it_is_for_one_wording_one_set_of_answers_and_one_model() {
        let calibration = calibration();
        let predicate = |ask: &str| Decision::Predicate { instructions: ask.into() };
        assert_eq!(calibration.check_question(&predicate("Is there a parcel?")), Ok(()));
        let wrong = calibration.check_question(&predicate("Is there a box?")).unwrap_err();
        assert_eq!(wrong, "is for the question \"Is there a parcel?\"");
        let options = ["yes", "no"].map(|label| Choice { label: label.into(), description: None }).into();
        let choice = Decision::Choice { instructions: "Is there a parcel?".into(), options };
        assert!(calibration.check_question(&choice).is_err());
        assert_eq!(calibration.check_model(&calibration.model), Ok(()));
        let other = CalibratedModel { dtype: "bf16".into(), ..calibration.model.clone() };
        assert_eq!(
            calibration.check_model(&other).unwrap_err(),
            "is for the model small@0123456789ab in f32, and the model is small@0123456789ab in bf16"
        );
    }

    #[test]
    fn a_yes_of_a_model_that_always_says_yes_becomes_a_no_and_its_confidence_stays() {
        let decided = Decided { probabilities: vec![0.9, 0.1], winner: 0, confidence: 0.8 };
        let applied = calibration().apply(&decided);
        assert_eq!((applied.winner, applied.confidence), (1, 0.8));
        // The odds 9 to 1, divided by e³.
        assert!((applied.probabilities[0] - 9.0 / (9.0 + 3.0_f64.exp())).abs() < 1e-9, "{applied:?}");
        // What was not answered has nothing to correct.
        let none = Decided { probabilities: Vec::new(), winner: 0, confidence: 0.0 };
        assert_eq!(calibration().apply(&none), none);
    }
}
