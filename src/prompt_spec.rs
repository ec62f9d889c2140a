//! What the model is asked about a camera's clips, as configured.
//!
//! The settings of a camera and each of its clips hold a [`PromptSpec`]: what is added here is read in
//! `config/camera.rs` and is at hand wherever a clip is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{alert::AlertRule, calibration::Calibration, decision::Decision};

/// What is asked about a clip, and when it need not be asked again.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSpec {
    /// The user's prompt, as configured.
    pub prompt: String,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// Whether the prompt is asked. Without it there are only the questions.
    pub describe: bool,
    /// What is answered by probabilities.
    pub questions: Vec<NamedQuestion>,
    /// The alerts that go by its answers, by name.
    pub alerts: BTreeMap<String, AlertRule>,
    /// When a clip is not worth a description. `None`: every clip is described.
    pub gate: Option<GateConfig>,
}

impl PromptSpec {
    /// A prompt that is asked about every clip.
    pub fn new(prompt: impl Into<String>, max_tokens: usize) -> Self {
        Self {
            prompt: prompt.into(),
            max_tokens,
            describe: true,
            questions: Vec::new(),
            alerts: BTreeMap::new(),
            gate: None,
        }
    }
}

/// A question about every clip, of `[questions.<name>]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedQuestion {
    /// The name, one level of a topic.
    pub name: String,
    /// What is asked: a predicate or a choice.
    pub decision: Decision,
    /// What corrects the probabilities of its answers, of the model that it is for. `None`: nothing does.
    pub calibration: Option<Arc<Calibration>>,
}

/// When a clip shows nothing new, so that the last description still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// By how much a block's brightness must change to count, of 255.
    pub threshold: u8,
    /// An unchanged scene is described again after this time.
    pub heartbeat: Duration,
}
