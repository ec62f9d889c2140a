//! A device with little memory, for unit tests.

use std::{sync::Arc, time::Duration};

use super::{
    describer::{Describer, Work, in_batches},
    warm_up::grey_clip,
};
use crate::{
    answer::{DescribeError, Description, StageTimes},
    clip::Clip,
    device::GpuInfo,
    event::{FinishReason, ModelInfo, Tokens},
    heartbeat::Heartbeat,
    prompt_spec::PromptSpec,
    request::{Content, Request},
};

/// Describes a clip by its number, if its batch fits.
pub struct SmallDevice {
    /// Frames that fit.
    pub memory: usize,
    /// The memory that it reports.
    pub reported: Option<usize>,
    /// Sizes of the batches that it was given.
    pub batches: Vec<usize>,
    /// What the next call returns instead of descriptions.
    pub next_error: Option<DescribeError>,
    /// If it is a CPU, the seconds that it says it takes to read a clip, and to decode the answers of any number of them.
    /// Otherwise it is a GPU.
    pub cpu_seconds: Option<(u32, u32)>,
}

impl SmallDevice {
    pub fn new(memory: usize) -> Self {
        Self { memory, reported: None, batches: Vec::new(), next_error: None, cpu_seconds: None }
    }
}

impl Describer for SmallDevice {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "small".into(), revision: String::new(), device: "gpu".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::default()
    }

    fn gpu(&self) -> Option<GpuInfo> {
        let gpu = GpuInfo {
            name: "small".into(),
            compute_capability: "9.0".into(),
            cuda: "13.0".into(),
            memory_bytes: 0,
            free_bytes: 0,
        };
        self.cpu_seconds.is_none().then_some(gpu)
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        let reported = self.reported;
        let room_for = |pictures| Some(reported? / pictures);
        in_batches(work, &room_for, |requests| {
            self.batches.push(requests.len());
            if let Some(error) = self.next_error.take() {
                return Err(error);
            }
            if requests.iter().map(Request::pictures).sum::<usize>() > self.memory {
                return Err(DescribeError::OutOfMemory("full".into()));
            }
            let (begin, decode) = self.cpu_seconds.unwrap_or_default();
            let stages = StageTimes {
                vision: Duration::from_secs(1) * begin * requests.len() as u32,
                decode: Duration::from_secs(1) * decode,
                ..StageTimes::default()
            };
            Ok(requests.iter().map(|request| Ok(Description { stages, ..repeat(request) })).collect())
        })
    }
}

/// Clips of one frame each, which are asked for their number, from 0.
pub fn clips(count: u64) -> Vec<Clip> {
    let clip = |seq: u64| {
        let prompt_spec = Arc::new(PromptSpec::new(seq.to_string(), 1));
        Clip { seq, prompt_spec, ..grey_clip().unwrap() }
    };
    (0..count).map(clip).collect()
}

fn repeat(request: &Request) -> Description {
    let text = request.prompt.clone().or_else(|| match request.messages[0].content.last()? {
        Content::Text(text) => Some(text.clone()),
        _ => None,
    });
    description(&text.expect("a request has a prompt"))
}

/// A description of these words.
pub fn description(text: &str) -> Description {
    Description {
        text: text.into(),
        labels: Vec::new(),
        finish_reason: FinishReason::Stop,
        tokens: Tokens::default(),
        stages: StageTimes::default(),
    }
}
