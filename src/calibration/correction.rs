//! How the probabilities of an answer are corrected.

use serde::{Deserialize, Serialize};

/// The least probability whose logarithm is taken: an answer that the model finds impossible stays a number.
const LEAST: f64 = 1e-12;
/// The largest number of a correction that can be applied. No fit has such.
const MOST: f64 = 1000.0;

/// A correction of probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Correction {
    /// Of a yes or no (Platt scaling): the logit of yes times `slope`, plus `intercept`.
    Platt {
        /// Above 1 makes answers surer, below 1 less sure. Above 0.
        slope: f64,
        /// Above 0 makes yes more likely.
        intercept: f64,
    },
    /// Of a choice: the logarithms of the probabilities are divided by this. Above 1 makes answers less sure. Above 0.
    Temperature(f64),
}

impl Correction {
    /// The corrected probabilities, together 1. `Platt` takes those of yes and no.
    pub fn probabilities(&self, raw: &[f64]) -> Vec<f64> {
        match (*self, raw) {
            (Self::Platt { slope, intercept }, [yes, _]) => {
                let yes = sigmoid(slope * logit(*yes) + intercept);
                vec![yes, 1.0 - yes]
            }
            (Self::Platt { .. }, other) => other.to_vec(),
            (Self::Temperature(temperature), raw) => {
                let scores: Vec<f64> = raw.iter().map(|p| ln(*p) / temperature).collect();
                let log_sum = log_sum_exp(&scores);
                scores.iter().map(|score| (score - log_sum).exp()).collect()
            }
        }
    }

    /// Whether it can be applied: its numbers keep the order of answers, and make numbers of them.
    pub fn is_usable(&self) -> bool {
        let is_in_range = |number: f64| (1.0 / MOST..=MOST).contains(&number);
        match *self {
            Self::Platt { slope, intercept } => is_in_range(slope) && intercept.abs() <= MOST,
            Self::Temperature(temperature) => is_in_range(temperature),
        }
    }
}

/// The logarithm of a probability, which counts as 1e-12 at least.
pub fn ln(probability: f64) -> f64 {
    probability.max(LEAST).ln()
}

/// The logarithm of how much likelier than its contrary a probability is. Bounded.
pub fn logit(probability: f64) -> f64 {
    ln(probability) - ln(1.0 - probability)
}

/// The probability with this logit.
pub fn sigmoid(logit: f64) -> f64 {
    if logit >= 0.0 { 1.0 / (1.0 + (-logit).exp()) } else { 1.0 - 1.0 / (1.0 + logit.exp()) }
}

/// The logarithm of the sum of what these are the logarithms of.
pub fn log_sum_exp(scores: &[f64]) -> f64 {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + scores.iter().map(|score| (score - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slope_and_temperature_of_one_change_nothing_and_half_the_slope_is_less_sure() {
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        let same = Correction::Platt { slope: 1.0, intercept: 0.0 };
        assert!(near(&same.probabilities(&[0.9, 0.1]), &[0.9, 0.1]));
        assert!(near(&Correction::Temperature(1.0).probabilities(&[0.5, 0.3, 0.2]), &[0.5, 0.3, 0.2]));
        // The odds 9 to 1 become 3 to 1.
        let less = Correction::Platt { slope: 0.5, intercept: 0.0 };
        assert!(near(&less.probabilities(&[0.9, 0.1]), &[0.75, 0.25]));
        assert!(near(&Correction::Temperature(2.0).probabilities(&[0.9, 0.1]), &[0.75, 0.25]));
        // Yes becomes twice as likely as before, beside no.
        let more = Correction::Platt { slope: 1.0, intercept: 2.0_f64.ln() };
        assert!(near(&more.probabilities(&[0.5, 0.5]), &[2.0 / 3.0, 1.0 / 3.0]));
    }

    #[test]
    fn what_would_turn_the_order_round_is_not_usable() {
        for (correction, usable) in [
            (Correction::Platt { slope: 0.1, intercept: -9.0 }, true),
            (Correction::Platt { slope: 0.0, intercept: 0.0 }, false),
            (Correction::Platt { slope: 1.0, intercept: f64::NAN }, false),
            (Correction::Temperature(3.0), true),
            (Correction::Temperature(-1.0), false),
            (Correction::Temperature(1e-310), false),
            (Correction::Platt { slope: 1e-300, intercept: 0.0 }, false),
            (Correction::Temperature(f64::INFINITY), false),
        ] {
            assert_eq!(correction.is_usable(), usable, "{correction:?}");
        }
    }

    proptest! {
        #[test]
        fn corrected_probabilities_are_probabilities_in_the_order_of_before(
            weights in proptest::collection::vec(0.0..1.0_f64, 2..6),
            slope in 0.01..50.0_f64,
            intercept in -20.0..20.0_f64,
            other in 0.0..1.0_f64,
        ) {
            let sum: f64 = weights.iter().sum::<f64>() + 1e-9;
            let raw: Vec<f64> = weights.iter().map(|weight| (weight + 1e-9 / weights.len() as f64) / sum).collect();
            let scaled = Correction::Temperature(1.0 / slope).probabilities(&raw);
            prop_assert!((scaled.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for (i, j) in (0..raw.len()).flat_map(|i| (0..raw.len()).map(move |j| (i, j))) {
                prop_assert!(raw[i] <= raw[j] || scaled[i] >= scaled[j]);
            }
            let platt = Correction::Platt { slope, intercept };
            let [a, b] = [raw[0], other].map(|yes| platt.probabilities(&[yes, 1.0 - yes])[0]);
            prop_assert!((0.0..=1.0).contains(&a));
            prop_assert!(raw[0] <= other || a >= b);
        }
    }
}
