//! Alerts, as configured: when answers to a question switch one on and off.

use std::time::Duration;

/// `[cameras.<id>.alerts.<name>]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRule {
    /// The name of the question that it goes by.
    pub question: String,
    /// The answer that it is about: `yes` or `no`, or one of the question's answers.
    pub answer: String,
    /// From this probability of the answer on, a clip speaks for the alert: 0 to 1.
    pub on: f64,
    /// Below this probability, a clip speaks against it: 0 to `on`.
    pub off: f64,
    /// So many of the last `last` clips must speak for it to switch it on, and against it to switch it off; at least 1.
    pub of: usize,
    /// At least `of`.
    pub last: usize,
    /// A clip counts only if its answer has at least this confidence: 0 to 1.
    pub min_confidence: f64,
    /// It stays on for at least this time.
    pub min_duration: Duration,
    /// After it went off, it stays off for at least this time.
    pub cool_down: Duration,
    /// What kind of binary sensor it is for Home Assistant.
    pub device_class: Option<String>,
}
