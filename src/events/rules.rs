//! Answers over time in, alerts out. A rule knows no clock but that of the clips, so that the same events always make the
//! same alerts.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    alert::AlertRule,
    event::{AlertInfo, Event},
};

/// The alerts of a camera by name: what is remembered of each from clip to clip.
pub type AlertStates = BTreeMap<String, AlertState>;

/// What is remembered of an alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// The question and the answer that it was about.
    about: (String, String),
    /// Whether it is on.
    on: bool,
    /// When it was last switched; `None`: never.
    since: Option<DateTime<Utc>>,
    /// What the last clips said since then, the oldest first.
    votes: VecDeque<Vote>,
}

/// What a clip says of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Vote {
    For,
    Against,
    Neither,
}

impl AlertState {
    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// What an event says of it; `None` where the event has no answer to its question that counts. What has no answer
    /// neither switches an alert on nor off.
    fn judge(&mut self, rule: &AlertRule, event: &Event) -> Option<AlertInfo> {
        let answer = event.answers.get(&rule.question)?;
        let probability = answer.probability_of(&rule.answer)?;
        let now = event.clip.end;
        let about = (rule.question.clone(), rule.answer.clone());
        let changed = if self.about != about {
            // What was said of something else says nothing of this.
            let was_on = std::mem::take(self).on;
            (self.about, self.since) = (about, was_on.then_some(now));
            was_on || self.vote(rule, answer.confidence(), probability, now)
        } else {
            self.vote(rule, answer.confidence(), probability, now)
        };
        Some(AlertInfo { on: self.on, changed, since: self.since, probability })
    }

    /// Counts what a clip says. Returns whether that switches the alert.
    fn vote(&mut self, rule: &AlertRule, confidence: f64, probability: f64, now: DateTime<Utc>) -> bool {
        if confidence < rule.min_confidence {
            return false;
        }
        let vote = match probability {
            p if p >= rule.on => Vote::For,
            p if p < rule.off => Vote::Against,
            _ => Vote::Neither,
        };
        self.votes.push_back(vote);
        while self.votes.len() > rule.last {
            self.votes.pop_front();
        }
        let (wanted, pause) =
            if self.on { (Vote::Against, rule.min_duration) } else { (Vote::For, rule.cool_down) };
        let votes = self.votes.iter().filter(|vote| **vote == wanted).count();
        let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        // A clock that was set back does not hold it up.
        let rests = |since| (TimeDelta::zero()..pause).contains(&now.signed_duration_since(since));
        if vote != wanted || votes < rule.of || self.since.is_some_and(rests) {
            return false;
        }
        // The clips that switched it have had their say.
        (self.on, self.since) = (!self.on, Some(now));
        self.votes.clear();
        true
    }
}

/// Judges an event by all rules of its camera, by their names. States of rules that are gone are forgotten.
pub fn judge(
    rules: &BTreeMap<String, AlertRule>,
    states: &mut AlertStates,
    event: &Event,
) -> BTreeMap<String, AlertInfo> {
    states.retain(|name, _| rules.contains_key(name));
    let judged = rules.iter().filter_map(|(name, rule)| {
        let info = states.entry(name.clone()).or_default().judge(rule, event)?;
        Some((name.clone(), info))
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule(of: usize, last: usize) -> AlertRule {
        AlertRule {
            question: "gate".into(),
            answer: "yes".into(),
            on: 0.8,
            off: 0.5,
            of,
            last,
            min_confidence: 0.2,
            min_duration: Duration::ZERO,
            cool_down: Duration::ZERO,
            device_class: None,
        }
    }

    /// The event of the clip that ends after so many seconds, with this probability of yes.
    fn event(second: i64, probability: f64, confidence: f64) -> Event {
        let end = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        let answer = json!({"type": "predicate", "probability": probability, "answer": "yes",
            "confidence": confidence, "calibrated": false});
        let clip = json!({"seq": 0, "start": end, "end": end, "clock": "arrival", "frames": [], "width": 1, "height": 1,
            "gap": false});
        let model = json!({"id": "", "revision": "", "device": "", "dtype": ""});
        serde_json::from_value(json!({
            "schema": 1, "id": uuid::Uuid::nil(), "type": "answers", "node": "n", "camera": "c", "description": "",
            "answers": {"gate": answer}, "clip": clip, "prompt": "", "finish_reason": "stop", "model": model,
            "tokens": {"prompt": 0, "image": 0, "generated": 0},
            "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
            "dropped": {"clips": 0},
        }))
        .unwrap()
    }

    /// The seconds at which the alert is switched, by one clip a second with these probabilities of yes.
    fn switched(rule: &AlertRule, probabilities: &[f64]) -> Vec<(i64, bool)> {
        let mut state = AlertState::default();
        let mut switched = Vec::new();
        for (second, probability) in (0..).zip(probabilities) {
            let info = state.judge(rule, &event(second, *probability, 1.0)).unwrap();
            assert_eq!((info.on, info.probability), (state.is_on(), *probability));
            if info.changed {
                switched.push((second, info.on));
            }
        }
        switched
    }

    #[test]
    fn so_many_of_the_last_clips_switch_it() {
        let probabilities = [0.9, 0.1, 0.6, 0.9, 0.8, 0.7, 0.6, 0.4, 0.9, 0.4, 0.1];
        assert_eq!(switched(&rule(1, 1), &probabilities)[..3], [(0, true), (1, false), (3, true)]);
        // Between the thresholds nothing is said.
        assert_eq!(switched(&rule(2, 3), &probabilities), [(4, true), (9, false)]);
        assert_eq!(switched(&rule(3, 3), &probabilities), []);
        // What switched it on does not keep it on.
        assert_eq!(switched(&rule(1, 5), &[0.9, 0.1, 0.6, 0.6]), [(0, true), (1, false)]);
    }

    #[test]
    fn it_stays_on_and_off_for_as_long_as_it_must() {
        let rule = AlertRule { min_duration: SECOND * 3, cool_down: SECOND * 2, ..rule(1, 1) };
        let probabilities = [0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9];
        assert_eq!(switched(&rule, &probabilities), [(0, true), (3, false), (5, true)]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_hold_it_up_and_another_question_begins_anew() {
        let mut of_gate = AlertRule { min_duration: SECOND * 3, ..rule(1, 1) };
        let mut state = AlertState::default();
        assert!(state.judge(&of_gate, &event(1000, 0.9, 1.0)).unwrap().on);
        assert!(!state.judge(&of_gate, &event(10, 0.1, 1.0)).unwrap().on);
        assert!(state.judge(&of_gate, &event(20, 0.9, 1.0)).unwrap().on);
        of_gate.answer = "no".into();
        let info = state.judge(&of_gate, &event(21, 0.9, 1.0)).unwrap();
        assert!(!info.on && info.changed);
        let info = state.judge(&of_gate, &event(22, 0.1, 1.0)).unwrap();
        assert!(info.on && info.changed);
    }

    #[test]
    fn neither_a_missing_answer_nor_one_without_confidence_switches_it() {
        let rule = rule(1, 1);
        let mut state = AlertState::default();
        assert!(!state.judge(&rule, &event(0, 0.9, 0.1)).unwrap().on);
        assert!(state.judge(&rule, &event(1, 0.9, 0.2)).unwrap().on);
        assert!(state.judge(&rule, &event(2, 0.1, 0.1)).unwrap().on);
        let none = Event { answers: BTreeMap::new(), ..event(3, 0.1, 1.0) };
        assert_eq!(state.judge(&rule, &none), None);
        assert!(state.is_on());
    }

    #[test]
    fn a_rule_that_is_gone_is_forgotten_and_another_begins_off() {
        let mut states = AlertStates::new();
        let rules = BTreeMap::from([("a".to_owned(), rule(1, 1))]);
        assert!(judge(&rules, &mut states, &event(0, 0.9, 1.0))["a"].changed);
        let rules = BTreeMap::from([("b".to_owned(), rule(1, 1))]);
        assert!(!judge(&rules, &mut states, &event(1, 0.1, 1.0))["b"].on);
        assert_eq!(states.keys().collect::<Vec<_>>(), ["b"]);
    }

    proptest! {
        #[test]
        fn on_and_off_take_turns_whatever_is_answered_and_a_restart_changes_nothing(
            clips in prop::collection::vec((0.0..=1.0, 0.0..=1.0), 0..80),
            of in 1_usize..5,
            more in 0_usize..5,
            seconds in (0_u32..5, 0_u32..5),
            restart in 0_usize..80,
        ) {
            let rule = AlertRule {
                min_duration: SECOND * seconds.0,
                cool_down: SECOND * seconds.1,
                ..rule(of, of + more)
            };
            let (mut state, mut last) = (AlertState::default(), None::<(i64, bool)>);
            for (second, (probability, confidence)) in (0..).zip(&clips) {
                if second == restart as i64 {
                    state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
                }
                let info = state.judge(&rule, &event(second, *probability, *confidence)).unwrap();
                if !info.changed {
                    prop_assert_eq!(info.on, last.is_some_and(|(_, on)| on));
                    continue;
                }
                prop_assert_eq!(info.on, last.is_none_or(|(_, on)| !on));
                prop_assert!(*confidence >= rule.min_confidence);
                let speaks = if info.on { *probability >= rule.on } else { *probability < rule.off };
                prop_assert!(speaks);
                if let Some((since, was_on)) = last {
                    let pause = i64::from(if was_on { seconds.0 } else { seconds.1 });
                    prop_assert!(second - since >= pause);
                }
                last = Some((second, info.on));
            }
        }
    }
}
