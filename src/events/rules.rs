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
        let changed = answer.confidence() >= rule.min_confidence && self.vote(rule, probability, now);
        Some(AlertInfo { on: self.on, changed, since: self.since, probability })
    }

    /// Counts what a clip says. Returns whether that switches the alert.
    fn vote(&mut self, rule: &AlertRule, probability: f64, now: DateTime<Utc>) -> bool {
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
        let rests = self.since.is_some_and(|since| now.signed_duration_since(since) < pause);
        if votes < rule.of || rests {
            return false;
        }
        // The clips that switched it have had their say.
        *self = Self { on: !self.on, since: Some(now), votes: VecDeque::new() };
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
