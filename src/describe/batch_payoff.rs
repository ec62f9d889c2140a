//! When it pays to describe clips together.
//!
//! One after the other, `k` clips of `t` seconds are answered after `t * (k + 1) / 2` on average. A batch pays if its
//! answers come sooner. A CPU reads clips one after the other, be they together or not; only the steps that decode the
//! answers are shared. So a batch takes `k * begin + decode * (1 + FURTHER * (k - 1))`, and pays, for any `k`, if
//! `begin < decode * (1 - 2 * FURTHER)`.

use std::time::Duration;

/// What each further sequence is assumed to add to a decode step on a CPU, as a part of what the step takes for one. More
/// than was measured in f32 (`benches/RESULTS.md`, "CPU, several clips at once").
const FURTHER: f64 = 0.25;
/// How much of what is known the newest clip replaces.
const NEWEST: f64 = 0.125;

/// Seconds that a clip takes if it has a CPU to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClipTime {
    /// Until the first token of the answer.
    begin: f64,
    /// From there to the last.
    decode: f64,
}

impl ClipTime {
    /// It was among so many clips that took so long to begin.
    pub fn add(&mut self, begin: Duration, clips: usize) {
        self.begin += begin.as_secs_f64() / clips.max(1) as f64;
    }

    /// It was among so many sequences that were decoded for so long.
    pub fn add_steps(&mut self, decode: Duration, sequences: usize) {
        self.decode += decode.as_secs_f64() / (1.0 + FURTHER * (sequences.max(1) - 1) as f64);
    }
}

/// Learns from the clips that were described whether a batch pays.
#[derive(Debug, Default)]
pub struct BatchPayoff {
    /// What a clip took lately. None before the first one.
    usual: Option<ClipTime>,
}

impl BatchPayoff {
    /// A clip was described.
    pub fn learn(&mut self, newest: ClipTime) {
        let usual = self.usual.get_or_insert(newest);
        usual.begin += (newest.begin - usual.begin) * NEWEST;
        usual.decode += (newest.decode - usual.decode) * NEWEST;
    }

    /// Whether the clips of a batch are answered sooner, on average, than one after the other. Not before that is known.
    pub fn pays(&self) -> bool {
        self.usual.is_some_and(|usual| usual.begin < usual.decode * (1.0 - 2.0 * FURTHER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn clip(begin: u32, decode: u32) -> ClipTime {
        let mut clip = ClipTime::default();
        clip.add(SECOND * begin, 1);
        clip.add_steps(SECOND * decode, 1);
        clip
    }

    fn pays(clip: ClipTime) -> bool {
        let mut payoff = BatchPayoff::default();
        payoff.learn(clip);
        payoff.pays()
    }

    #[test]
    fn a_batch_pays_if_its_answers_come_sooner_than_one_after_the_other() {
        for (begin, decode) in [(0, 1), (1, 1), (1, 2), (2, 3), (9, 1), (9, 17), (9, 18), (9, 19)] {
            for k in 2..=16 {
                let k = f64::from(k);
                let (b, d) = (f64::from(begin), f64::from(decode));
                let together = k * b + d * (1.0 + FURTHER * (k - 1.0));
                let in_turns = (b + d) * (k + 1.0) / 2.0;
                assert_eq!(pays(clip(begin, decode)), together < in_turns, "{k} clips of {b} s and {d} s");
            }
        }
    }

    #[test]
    fn nothing_pays_before_a_clip_was_described_and_what_clips_take_may_change() {
        let mut payoff = BatchPayoff::default();
        assert!(!payoff.pays());
        payoff.learn(clip(9, 1));
        assert!(!payoff.pays());
        (0..32).for_each(|_| payoff.learn(clip(1, 9)));
        assert!(payoff.pays());
        (0..32).for_each(|_| payoff.learn(clip(9, 1)));
        assert!(!payoff.pays());
    }

    #[test]
    fn what_a_clip_takes_alone_is_known_from_a_batch_too() {
        let mut clip_of_four = ClipTime::default();
        clip_of_four.add(SECOND * 36, 4);
        clip_of_four.add_steps(SECOND * 7 / 4, 4);
        assert_eq!(clip_of_four, clip(9, 1));
    }
}
