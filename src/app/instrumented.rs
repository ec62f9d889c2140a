//! A describer whose work is counted in the metrics.

use std::sync::Arc;

use crate::{
    answer::{DescribeError, Description, Piece, StageTimes},
    camera::CameraId,
    describe::{Describer, RoomFor, Work},
    device::{DeviceMemory, GpuInfo},
    event::ModelInfo,
    heartbeat::Heartbeat,
    metrics::{Metrics, Stage},
    request::Request,
};

/// A describer whose work is counted in the metrics. Forwards what the worker calls; what a model says about itself once
/// (how it takes frames) is asked for before it is wrapped.
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

    fn gpu(&self) -> Option<GpuInfo> {
        self.model.gpu()
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        let Self { model, device, metrics } = self;
        let mut work = InstrumentedWork { work, metrics, cameras: Vec::new() };
        let ended = model.run(&mut work);
        if let Err(DescribeError::OutOfMemory(_)) = ended {
            metrics.out_of_memory(device);
        }
        self.record_memory();
        ended
    }
}

/// Work that is counted in the metrics.
struct InstrumentedWork<'a> {
    work: &'a mut dyn Work,
    metrics: &'a Metrics,
    /// The camera of each request so far that is about a clip.
    cameras: Vec<Option<CameraId>>,
}

impl Work for InstrumentedWork<'_> {
    fn more(&mut self, running: usize, room_for: RoomFor<'_>) -> Vec<Request> {
        let requests = self.work.more(running, room_for);
        if !requests.is_empty() {
            self.metrics.batch(running + requests.len());
            self.cameras.extend(requests.iter().map(|request| request.camera.clone()));
        }
        requests
    }

    fn is_cancelled(&self, number: usize) -> bool {
        self.work.is_cancelled(number)
    }

    fn piece(&mut self, number: usize, piece: Piece) {
        self.work.piece(number, piece);
    }

    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>) {
        if let Ok(description) = &answer {
            self.metrics.stage(Stage::Decode, description.stages.decode);
        }
        self.work.answered(number, answer);
    }

    fn spent(&mut self, numbers: &[usize], time: StageTimes) {
        let StageTimes { preprocess, vision, prefill, decode } = time;
        for (stage, time) in [
            (Stage::Preprocess, preprocess),
            (Stage::Vision, vision),
            (Stage::Prefill, prefill),
            (Stage::Decode, decode),
        ] {
            if time.is_zero() {
                continue;
            }
            // Steps of decoding are counted answer by answer.
            if stage != Stage::Decode {
                self.metrics.stage(stage, time);
            }
            let cameras = numbers.iter().filter_map(|number| self.cameras.get(*number));
            self.metrics.model_time(stage, time / numbers.len().max(1) as u32, cameras.flatten());
        }
        self.work.spent(numbers, time);
    }
}
