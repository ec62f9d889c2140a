//! The correction that fits answers best whose truth is known. Few samples, or samples that the model tells apart
//! without a fault, give finite numbers: the truth counts as nearly certain, not as certain (Platt 1999).

use super::{
    correction::{Correction, ln, log_sum_exp, logit, sigmoid},
    quality::Sample,
};
use crate::decision::Decision;

/// The parts that samples are divided into to measure a correction on samples that it was not fitted on.
pub const FOLDS: usize = 5;

/// How strongly slope and intercept are held near 1 and 0: next to nothing beside ten samples, but enough to decide where
/// samples do not.
const RIDGE: f64 = 1e-3;
/// The highest temperature; the lowest is its inverse.
const MAX_TEMPERATURE: f64 = 20.0;
/// Newton's method needs about ten steps.
const MAX_STEPS: usize = 100;
/// The golden section: 60 steps narrow the range to 1e-12 of it.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
const SECTIONS: usize = 60;

/// The correction for the answers to `decision` that fits the samples best. A slope of 0 or less says that yes was not
/// likelier where it is true.
pub fn fit(decision: &Decision, samples: &[Sample]) -> Correction {
    match decision {
        Decision::Predicate { .. } => platt(samples),
        Decision::Choice { .. } | Decision::Score { .. } => temperature(samples),
    }
}

/// The samples, each corrected by what fits the samples of the other parts best. The same samples are always divided in
/// the same way, each true answer evenly.
pub fn corrected_unseen(decision: &Decision, samples: &[Sample]) -> Vec<Sample> {
    let folds = folds(samples);
    let corrections: [Correction; FOLDS] = std::array::from_fn(|fold| {
        let others = samples.iter().zip(&folds).filter(|(_, its)| **its != fold);
        fit(decision, &others.map(|(sample, _)| sample.clone()).collect::<Vec<_>>())
    });
    let corrected = |(sample, fold): (&Sample, &usize)| Sample {
        probabilities: corrections[*fold].probabilities(&sample.probabilities),
        truth: sample.truth,
    };
    samples.iter().zip(&folds).map(corrected).collect()
}

/// The part that each sample belongs to.
fn folds(samples: &[Sample]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|i| (samples[*i].truth, scatter(*i as u64)));
    let mut folds = vec![0; samples.len()];
    for (position, i) in order.into_iter().enumerate() {
        folds[i] = position % FOLDS;
    }
    folds
}

/// A number that looks drawn at random, the same for the same `i` (SplitMix64).
fn scatter(i: u64) -> u64 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Platt scaling by Newton's method. What is minimised is strictly convex, and each step makes it smaller.
fn platt(samples: &[Sample]) -> Correction {
    let count = |truth| samples.iter().filter(|sample| sample.truth == truth).count() as f64;
    let targets = [(count(0) + 1.0) / (count(0) + 2.0), 1.0 / (samples.len() as f64 - count(0) + 2.0)];
    let points = samples.iter().map(|it| (logit(it.probabilities[0]), targets[it.truth.min(1)]));
    let points: Vec<(f64, f64)> = points.collect();
    let loss = |slope: f64, intercept: f64| {
        let of_point = |(x, target): &(f64, f64)| {
            let score = slope * x + intercept;
            // ln(1 + e^score) - target * score
            score.max(0.0) + (-score.abs()).exp().ln_1p() - target * score
        };
        let ridge = RIDGE / 2.0 * ((slope - 1.0).powi(2) + intercept.powi(2));
        points.iter().map(of_point).sum::<f64>() + ridge
    };
    let (mut slope, mut intercept) = (1.0, 0.0);
    for _ in 0..MAX_STEPS {
        let mut gradient = [RIDGE * (slope - 1.0), RIDGE * intercept];
        let mut hessian = [RIDGE, 0.0, RIDGE];
        for (x, target) in &points {
            let yes = sigmoid(slope * x + intercept);
            let (error, weight) = (yes - target, yes * (1.0 - yes));
            gradient = [gradient[0] + error * x, gradient[1] + error];
            hessian = [hessian[0] + weight * x * x, hessian[1] + weight * x, hessian[2] + weight];
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        let step = [
            (hessian[1] * gradient[1] - hessian[2] * gradient[0]) / determinant,
            (hessian[1] * gradient[0] - hessian[0] * gradient[1]) / determinant,
        ];
        let descent = gradient[0] * step[0] + gradient[1] * step[1];
        let now = loss(slope, intercept);
        let halved = (0..MAX_STEPS as i32).map(|halvings| 0.5_f64.powi(halvings));
        let smaller = |size: &f64| {
            loss(slope + size * step[0], intercept + size * step[1]) < now + 1e-4 * size * descent
        };
        // Without one the loss is as small as its numbers can be told apart.
        let Some(size) = halved.into_iter().find(smaller) else { break };
        (slope, intercept) = (slope + size * step[0], intercept + size * step[1]);
    }
    Correction::Platt { slope, intercept }
}

/// The temperature by a golden-section search. The loss is convex in the temperature's inverse, so that it has one
/// minimum.
fn temperature(samples: &[Sample]) -> Correction {
    let count = samples.len() as f64;
    let loss = |log_temperature: f64| {
        let of_sample = |sample: &Sample| {
            let answers = sample.probabilities.len() as f64;
            let scores = sample.probabilities.iter().map(|p| ln(*p) / log_temperature.exp());
            let scores: Vec<f64> = scores.collect();
            let target = |i| (if i == sample.truth { count + 1.0 } else { 1.0 }) / (count + answers);
            let wanted: f64 = scores.iter().enumerate().map(|(i, score)| target(i) * score).sum();
            log_sum_exp(&scores) - wanted
        };
        samples.iter().map(of_sample).sum::<f64>()
    };
    let (mut low, mut high) = (-MAX_TEMPERATURE.ln(), MAX_TEMPERATURE.ln());
    for _ in 0..SECTIONS {
        let inner = GOLDEN * (high - low);
        let (left, right) = (high - inner, low + inner);
        if loss(left) <= loss(right) { high = right } else { low = left }
    }
    Correction::Temperature(f64::midpoint(low, high).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::quality::{auroc, calibration_error, reliability},
        *,
    };
    use crate::decision::Choice;

    fn predicate() -> Decision {
        Decision::Predicate { instructions: "Is it so?".into() }
    }

    fn choice() -> Decision {
        let option = |label: &str| Choice { label: label.into(), description: None };
        Decision::Choice { instructions: "Which?".into(), options: ["a", "b", "c"].map(option).into() }
    }

    /// A number from 0 to 1 that looks drawn at random.
    fn draw(i: u64) -> f64 {
        (scatter(i) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Samples of which yes is so as often as is said, before the logits are multiplied by `sureness` and moved.
    fn yes_no(count: u64, sureness: f64, bias: f64) -> Vec<Sample> {
        let sample = |i| {
            let logit = 6.0 * draw(2 * i) - 3.0;
            let truth = usize::from(draw(2 * i + 1) > sigmoid(logit));
            let yes = sigmoid(sureness * logit + bias);
            Sample { probabilities: vec![yes, 1.0 - yes], truth }
        };
        (0..count).map(sample).collect()
    }

    /// The same for a choice.
    fn of_three(count: u64, sureness: f64) -> Vec<Sample> {
        let sample = |i| {
            let scores: Vec<f64> = (0..3).map(|answer| 3.0 * draw(4 * i + answer)).collect();
            let softmax = |factor: f64| {
                let scores: Vec<f64> = scores.iter().map(|score| factor * score).collect();
                let sum = log_sum_exp(&scores);
                scores.iter().map(|score| (score - sum).exp()).collect::<Vec<f64>>()
            };
            let (honest, drawn) = (softmax(1.0), draw(4 * i + 3));
            let truth = if drawn < honest[0] { 0 } else { 1 + usize::from(drawn > honest[0] + honest[1]) };
            Sample { probabilities: softmax(sureness), truth }
        };
        (0..count).map(sample).collect()
    }

    fn error(samples: &[Sample]) -> f64 {
        calibration_error(&reliability(samples))
    }

    #[test]
    fn what_is_calibrated_stays_and_what_is_too_sure_or_leans_is_put_right() {
        let Correction::Platt { slope, intercept } = fit(&predicate(), &yes_no(4000, 1.0, 0.0)) else {
            panic!("Platt scaling is for predicates")
        };
        assert!((slope - 1.0).abs() < 0.1 && intercept.abs() < 0.1, "{slope} {intercept}");
        let Correction::Platt { slope, intercept } = fit(&predicate(), &yes_no(4000, 4.0, 2.0)) else {
            panic!("Platt scaling is for predicates")
        };
        assert!((slope - 0.25).abs() < 0.03 && (intercept + 0.5).abs() < 0.1, "{slope} {intercept}");
        let Correction::Temperature(fair) = fit(&choice(), &of_three(4000, 1.0)) else {
            panic!("temperatures are for choices")
        };
        let Correction::Temperature(sure) = fit(&choice(), &of_three(4000, 3.0)) else {
            panic!("temperatures are for choices")
        };
        assert!((fair - 1.0).abs() < 0.1 && (sure - 3.0).abs() < 0.3, "{fair} {sure}");
    }

    #[test]
    fn answers_that_were_not_fitted_on_have_a_smaller_error_and_the_same_order() {
        for (decision, samples) in [(predicate(), yes_no(200, 4.0, 2.0)), (choice(), of_three(300, 4.0))] {
            let corrected = corrected_unseen(&decision, &samples);
            assert_eq!(corrected.len(), samples.len());
            assert!(error(&corrected) < error(&samples) / 1.5, "{} {}", error(&corrected), error(&samples));
            let (before, after) = (auroc(&samples).unwrap(), auroc(&corrected).unwrap());
            assert!((before - after).abs() < 0.05, "{before} {after}");
            assert_eq!(corrected, corrected_unseen(&decision, &samples));
        }
    }

    #[test]
    fn each_part_has_its_share_of_each_true_answer() {
        let samples = yes_no(53, 1.0, 0.0);
        let folds = folds(&samples);
        for truth in [0, 1] {
            let of =
                |fold| folds.iter().zip(&samples).filter(move |(its, it)| **its == fold && it.truth == truth);
            let counts: Vec<usize> = (0..FOLDS).map(|fold| of(fold).count()).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn a_question_that_tells_the_wrong_way_round_has_a_slope_below_zero() {
        let turned: Vec<_> =
            yes_no(100, 1.0, 0.0).into_iter().map(|it| Sample { truth: 1 - it.truth, ..it }).collect();
        assert!(!fit(&predicate(), &turned).is_usable());
    }

    proptest! {
        /// However few they are, whatever they say, and without a fault or not.
        #[test]
        fn a_fit_is_finite_and_bounded(
            given in proptest::collection::vec((0.0..=1.0_f64, any::<bool>()), 1..40),
            is_certain: bool,
        ) {
            let sample = |(yes, so): &(f64, bool)| {
                let yes = if is_certain { f64::from(u8::from(*so)) } else { *yes };
                Sample { probabilities: vec![yes, 1.0 - yes], truth: usize::from(!so) }
            };
            let samples: Vec<Sample> = given.iter().map(sample).collect();
            let Correction::Platt { slope, intercept } = fit(&predicate(), &samples) else { panic!() };
            // The loss is at most that of the slope 1, which bounds the ridge.
            let first = 28.0 * samples.len() as f64;
            let bound = 1.0 + (2.0 * first / RIDGE).sqrt();
            prop_assert!(slope.abs() <= bound && intercept.abs() <= bound, "{slope} {intercept}");
            let Correction::Temperature(temperature) = fit(&choice(), &samples) else { panic!() };
            prop_assert!((1.0 / MAX_TEMPERATURE..=MAX_TEMPERATURE).contains(&temperature), "{temperature}");
            if is_certain {
                prop_assert!(slope > 0.0, "{slope}");
            }
        }
    }
}
