//! The metrics of cameras' questions and alerts, and of questions that are asked about a camera now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{
    labels::{AskEnd, OfAnswer, OfAsk, OfQuestion, OfTransition, Switched},
    readings::Counters,
};
use crate::{
    camera::CameraId,
    event::{Event, EventKind, QuestionAnswer},
};

/// Upper bounds of the buckets of probabilities.
const PROBABILITIES: [f64; 12] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0];
/// Upper bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0];

/// What is counted of questions and alerts.
#[derive(Debug)]
pub struct QuestionMetrics {
    answers: Counters<OfAnswer>,
    probabilities: Family<OfQuestion, Histogram, fn() -> Histogram>,
    transitions: Counters<OfTransition>,
    asks: Counters<OfAsk>,
    ask_seconds: Histogram,
    /// The labels that are in use, by camera.
    used: Mutex<BTreeMap<CameraId, Used>>,
}

#[derive(Debug, Default)]
struct Used {
    answers: BTreeSet<OfAnswer>,
    questions: BTreeSet<OfQuestion>,
    transitions: BTreeSet<OfTransition>,
}

impl Default for QuestionMetrics {
    fn default() -> Self {
        Self {
            answers: Counters::default(),
            probabilities: Family::new_with_constructor(|| Histogram::new(PROBABILITIES)),
            transitions: Counters::default(),
            asks: Counters::default(),
            ask_seconds: Histogram::new(SECONDS),
            used: Mutex::default(),
        }
    }
}

impl QuestionMetrics {
    /// Adds the metrics to the registry.
    pub(super) fn register(&self, r: &mut Registry) {
        let help = "Answers to the questions about clips; unchanged clips do not count";
        r.register("camscribe_answers", help, self.answers.clone());
        let help = "Probabilities of yes, or of the answer that was chosen";
        r.register("camscribe_answer_probability", help, self.probabilities.clone());
        r.register("camscribe_alert_transitions", "Alerts that went on or off", self.transitions.clone());
        let help = "Questions about what a camera shows now, and how they ended";
        r.register("camscribe_asks", help, self.asks.clone());
        let help = "From a question about what a camera shows now to its answer";
        r.register("camscribe_ask_seconds", help, self.ask_seconds.clone());
    }

    /// Counts the answers of an event, and the alerts that it switched. What could have been answered or switched is
    /// there at zero, so that Prometheus sees the first time as an increase.
    pub(super) fn event(&self, event: &Event) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.entry(event.camera.clone()).or_default();
        let camera = || event.camera.clone();
        for (question, answer) in event.answers.iter().filter(|_| event.kind != EventKind::Unchanged) {
            for possible in possible(answer) {
                let of = OfAnswer { camera: camera(), question: question.clone(), answer: possible.into() };
                self.answers.get_or_create(&of).inc_by(u64::from(possible == answer.answer()));
                used.answers.insert(of);
            }
            let of = OfQuestion { camera: camera(), question: question.clone() };
            let told = if let QuestionAnswer::Predicate { .. } = answer { "yes" } else { answer.answer() };
            let probability = answer.probability_of(told).unwrap_or_default();
            self.probabilities.get_or_create(&of).observe(probability);
            used.questions.insert(of);
        }
        for (alert, info) in &event.alerts {
            for state in [Switched::On, Switched::Off] {
                let of = OfTransition { camera: camera(), alert: alert.clone(), state };
                let is_this = info.changed && info.on == (state == Switched::On);
                self.transitions.get_or_create(&of).inc_by(u64::from(is_this));
                used.transitions.insert(of);
            }
        }
    }

    /// Counts a question about what a camera shows now, which ended after this time.
    pub(super) fn asked(&self, camera: &CameraId, end: AskEnd, after: Duration) {
        self.asks.get_or_create(&OfAsk { camera: camera.clone(), end }).inc();
        if end == AskEnd::Answered {
            self.ask_seconds.observe(after.as_secs_f64());
        }
    }

    /// Creates the counters of a camera at zero.
    pub(super) fn create(&self, camera: &CameraId) {
        for end in AskEnd::ALL {
            drop(self.asks.get_or_create(&OfAsk { camera: camera.clone(), end }));
        }
    }

    /// Removes what was counted of a camera.
    pub(super) fn remove(&self, camera: &CameraId) {
        for end in AskEnd::ALL {
            self.asks.remove(&OfAsk { camera: camera.clone(), end });
        }
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(camera);
        let Used { answers, questions, transitions } = used.unwrap_or_default();
        for of in &answers {
            self.answers.remove(of);
        }
        for of in &questions {
            self.probabilities.remove(of);
        }
        for of in &transitions {
            self.transitions.remove(of);
        }
    }
}

/// What could have been answered.
fn possible(answer: &QuestionAnswer) -> Vec<&str> {
    match answer {
        QuestionAnswer::Predicate { .. } => vec!["yes", "no"],
        QuestionAnswer::Choice { probabilities, .. } => {
            probabilities.iter().map(|it| it.value.as_str()).collect()
        }
    }
}
