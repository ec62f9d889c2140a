//! How good answers are whose truth is known.

use crate::decision::most_likely;

/// The bins of a reliability diagram, equally wide.
pub const BINS: usize = 10;

/// An answer whose truth is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Of each possible answer, together 1. Of a predicate: yes, no.
    pub probabilities: Vec<f64>,
    /// The place of the true one.
    pub truth: usize,
}

/// Answers that were given with about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub count: usize,
    /// The mean of the probabilities.
    pub said: f64,
    /// Which share of them was so.
    pub so: f64,
}

/// How well the probabilities tell what is so from what is not: 1 always, 0.5 like a coin, 0 always the wrong way round.
/// It is the probability that an answer is likelier where it is true than where it is not (area under the ROC curve);
/// ties count half. The mean over the possible answers. `None`: all samples have the same true answer.
pub fn auroc(samples: &[Sample]) -> Option<f64> {
    let answers = samples.first().map_or(0, |sample| sample.probabilities.len());
    let each: Vec<f64> = (0..answers).filter_map(|answer| auroc_of(samples, answer)).collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

/// [`auroc`] of one answer against all others.
fn auroc_of(samples: &[Sample], answer: usize) -> Option<f64> {
    let scored = samples.iter().map(|sample| (sample.probabilities[answer], sample.truth == answer));
    let mut scored: Vec<(f64, bool)> = scored.collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0, 0.0);
    for tied in scored.chunk_by(|a, b| a.0 == b.0) {
        let positive = tied.iter().filter(|(_, is_true)| *is_true).count() as f64;
        let negative = tied.len() as f64 - positive;
        wins += positive * (below + negative / 2.0);
        below += negative;
    }
    let pairs = below * (samples.len() as f64 - below);
    (pairs > 0.0).then(|| wins / pairs)
}

/// The share of samples whose most likely answer is the true one.
pub fn accuracy(samples: &[Sample]) -> f64 {
    let right = samples.iter().filter(|sample| most_likely(&sample.probabilities) == sample.truth);
    right.count() as f64 / samples.len().max(1) as f64
}

/// The samples by how likely an answer was said to be. Where there are two answers, it is the first (yes); else the most
/// likely one.
pub fn reliability(samples: &[Sample]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for Sample { probabilities, truth } in samples {
        let place = if probabilities.len() == 2 { 0 } else { most_likely(probabilities) };
        let said = probabilities[place];
        let bin = &mut bins[((said * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.said += said;
        bin.so += f64::from(u8::from(place == *truth));
    }
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        bin.said /= bin.count as f64;
        bin.so /= bin.count as f64;
    }
    bins
}

/// The expected calibration error: how far what was said lies from what was so, as a mean over all samples: 0 to 1.
pub fn calibration_error(bins: &[Bin]) -> f64 {
    let all = bins.iter().map(|bin| bin.count).sum::<usize>().max(1);
    bins.iter().map(|bin| bin.count as f64 * (bin.said - bin.so).abs()).sum::<f64>() / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes_no(yes: f64, truth: usize) -> Sample {
        Sample { probabilities: vec![yes, 1.0 - yes], truth }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn auroc_is_one_where_all_is_told_and_a_half_where_nothing_is() {
        let told = [yes_no(0.25, 0), yes_no(0.125, 1), yes_no(0.75, 0), yes_no(0.0, 1)];
        assert_eq!(auroc(&told), Some(1.0));
        let turned: Vec<_> = told.iter().map(|it| Sample { truth: 1 - it.truth, ..it.clone() }).collect();
        assert_eq!(auroc(&turned), Some(0.0));
        assert_eq!(auroc(&[yes_no(0.5, 0), yes_no(0.5, 1), yes_no(0.5, 1)]), Some(0.5));
        // Of two pairs one is won and one is tied.
        assert_eq!(auroc(&[yes_no(0.5, 0), yes_no(0.5, 1), yes_no(0.25, 1)]), Some(0.75));
        assert_eq!(auroc(&[yes_no(0.5, 0), yes_no(0.25, 0)]), None);
        assert_eq!(auroc(&[]), None);
        // Of three answers, of which one is never true.
        let of_three = |probabilities: [f64; 3], truth| Sample { probabilities: probabilities.into(), truth };
        assert_eq!(auroc(&[of_three([0.5, 0.25, 0.25], 0), of_three([0.25, 0.5, 0.25], 1)]), Some(1.0));
    }

    #[test]
    fn the_error_is_the_distance_between_what_was_said_and_what_was_so() {
        // Of four that were given 0.75, three are so.
        let fair: Vec<_> = [0, 0, 0, 1].map(|truth| yes_no(0.75, truth)).into();
        let bins = reliability(&fair);
        assert_eq!((bins[7].count, bins.iter().map(|bin| bin.count).sum::<usize>()), (4, 4));
        assert!(near(calibration_error(&bins), 0.0) && near(accuracy(&fair), 0.75));
        let sure: Vec<_> = [0, 1].map(|truth| yes_no(1.0, truth)).into();
        assert!(near(calibration_error(&reliability(&sure)), 0.5));
        // Of a choice, the most likely answer counts.
        let wrong = [Sample { probabilities: vec![0.25, 0.625, 0.125], truth: 0 }];
        assert!(near(calibration_error(&reliability(&wrong)), 0.625) && near(accuracy(&wrong), 0.0));
        assert!(near(calibration_error(&reliability(&[])), 0.0));
    }
}
