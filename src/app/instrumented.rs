//! A describer whose work is counted in the metrics.

use std::{num::NonZeroUsize, sync::Arc};

use crate::{
    describe::{Answers, DescribeError, Describer, TextObserver},
    device::DeviceMemory,
    event::ModelInfo,
    heartbeat::Heartbeat,
    metrics::{Metrics, Stage},
    request::Request,
};

/// A describer whose work is counted in the metrics. Forwards what the worker calls; what a model says about itself once
/// (its GPU, its frame scaling) is asked for before it is wrapped.
pub struct InstrumentedDescriber<'a> {
    model: Box<dyn Describer>,
    device: String,
    metrics: &'a Metrics,
}

impl<'a> InstrumentedDescriber<'a> {
    /// Wraps `model`. `device` is the label of its metrics.
    pub fn new(model: Box<dyn Describer>, device: String, metrics: &'a Metrics) -> Self {
        let instrumented = Self { model, device, metrics };
        instrumented.record_memory();
        instrumented
    }

    /// Records the device's memory, if it has memory of its own.
    fn record_memory(&self) {
        if let Some(DeviceMemory { used, total }) = self.model.device_memory() {
            self.metrics.device_memory(&self.device, used, total);
        }
    }
}

impl Describer for InstrumentedDescriber<'_> {
    fn model(&self) -> ModelInfo {
        self.model.model()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        self.model.heartbeat()
    }

    fn max_batch(&self, pictures: usize) -> Option<NonZeroUsize> {
        self.model.max_batch(pictures)
    }

    fn answer(&mut self, requests: &[Request], on_text: TextObserver<'_>) -> Result<Answers, DescribeError> {
        self.metrics.batch(requests.len());
        let answers = self.model.answer(requests, on_text).inspect_err(|error| {
            if matches!(error, DescribeError::OutOfMemory(_)) {
                self.metrics.out_of_memory(&self.device);
            }
        })?;
        // All requests of a batch have the same times.
        if let Some(Ok(description)) = answers.iter().find(|it| it.is_ok()) {
            let stages = description.stages;
            for (stage, time) in [
                (Stage::Preprocess, stages.preprocess),
                (Stage::Vision, stages.vision),
                (Stage::Prefill, stages.prefill),
                (Stage::Decode, stages.decode),
            ] {
                let cameras = requests.iter().map(|request| request.camera.as_ref());
                self.metrics.batch_stage(stage, time, cameras);
            }
        }
        self.record_memory();
        Ok(answers)
    }
}
