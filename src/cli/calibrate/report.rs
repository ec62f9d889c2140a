//! The table that `calibrate` prints.

use std::fmt;

use crate::calibration::{Calibration, Correction, fit::FOLDS};

/// The table of a calibration, and how often each answer was the true one.
pub struct Report<'a> {
    /// What it is about.
    pub calibration: &'a Calibration,
    /// How many samples have each of the answers.
    pub counts: Vec<usize>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calibration { question, ask, answers, model, correction, quality, .. } = self.calibration;
        let counts = answers.iter().zip(&self.counts).map(|(answer, count)| format!("{count} {answer}"));
        writeln!(f, "question           {question}: {ask}")?;
        writeln!(f, "model              {}", model.named())?;
        writeln!(f, "samples            {}: {}", quality.samples, counts.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "AUROC              {:.3}", quality.auroc)?;
        match correction {
            Correction::Platt { slope, intercept } => {
                writeln!(f, "correction         slope {slope:.3}, intercept {intercept:.3}")?;
            }
            Correction::Temperature(temperature) => {
                writeln!(f, "correction         temperature {temperature:.3}")?;
            }
        }
        if let Some(yes) = quality.blank_yes {
            writeln!(f, "blank picture      yes with probability {yes:.3}, corrected")?;
        }
        writeln!(f, "{:19}{:>8}{:>8}", "", "before", "after")?;
        for (name, [before, after]) in
            [("accuracy", quality.accuracy), ("calibration error", quality.calibration_error)]
        {
            writeln!(f, "{name:19}{before:>8.3}{after:>8.3}")?;
        }
        writeln!(
            f,
            "\"after\" is measured on samples that the correction was not fitted on ({FOLDS}-fold cross-validation, always \
             divided alike);\nthe file's own correction is fitted on all samples."
        )
    }
}
