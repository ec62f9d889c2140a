//! A decode loop whose state is in the device's memory: token ids, slots in use, keys and values. Every step is the same
//! launches with the same arguments, so they are captured once as a CUDA graph and then replayed with a single call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use candle_core::Tensor;

use super::{
    super::{
        super::{
            decoder::Decoder,
            error::{DeviceFailure, Result},
            observer::{ActivationObserver, ActivationPoint},
            sequence::KvCache,
        },
        traits::{DecodeLoop, NextToken},
    },
    backend::{Backend, Graph},
    decode_step::DecodeStep,
};

/// Fewest remaining steps that are worth a capture.
const MIN_STEPS: usize = 8;

/// Decodes the sequences of one cache.
pub struct KernelDecodeLoop<'a> {
    step: DecodeStep<'a>,
    /// Whether steps may be captured. Cleared when a capture fails.
    graphs: &'a AtomicBool,
    /// The captured step.
    graph: Option<Box<dyn Graph>>,
    /// The token ids that `step.ids` holds. Empty before the first step.
    ids: Vec<u32>,
    /// Slots in use, as counted on the device.
    len: usize,
    /// Slots of the cache.
    capacity: usize,
    /// Finished steps.
    steps: usize,
}

impl<'a> KernelDecodeLoop<'a> {
    /// A loop that continues the sequences of `cache`. None if the kernels do not support this decoder.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    pub fn new(
        backend: &'a dyn Backend,
        graphs: &'a AtomicBool,
        decoder: &'a Decoder,
        cache: &KvCache,
    ) -> Result<Option<Self>> {
        let Some(step) = DecodeStep::new(backend, decoder, cache)? else { return Ok(None) };
        let (len, capacity) = (cache.len, step.capacity()?);
        Ok(Some(Self { step, graphs, graph: None, ids: Vec::new(), len, capacity, steps: 0 }))
    }

    /// Captures the second step, if at least [`MIN_STEPS`] steps remain. The first step is not captured, because it loads
    /// kernels and libraries, which a capture does not allow. If the capture fails, steps are launched kernel by kernel.
    fn capture(&mut self) {
        if self.steps != 1 || self.capacity - self.len < MIN_STEPS || !self.graphs.load(Relaxed) {
            return;
        }
        match self.step.backend.capture(&mut || self.step.launch()) {
            Ok(graph) => self.graph = graph,
            Err(why) => {
                tracing::warn!(
                    "a decode step cannot be captured as a CUDA graph, which makes decoding slower: {why}"
                );
                // With more free memory a later capture may succeed.
                self.graphs.store(DeviceFailure::classify(&why.to_string()).is_out_of_memory(), Relaxed);
            }
        }
    }
}

impl DecodeLoop for KernelDecodeLoop<'_> {
    fn step(
        &mut self,
        ids: &[u32],
        cache: &mut KvCache,
        observe: ActivationObserver<'_>,
    ) -> Result<NextToken> {
        if cache.len != self.len || self.len == self.capacity {
            candle_core::bail!(
                "a decode step at slot {}: the loop is at slot {} of {}",
                cache.len,
                self.len,
                self.capacity
            );
        }
        if self.ids != ids {
            self.step.ids.slice_set(&Tensor::new(ids, self.step.ids.device())?, 0, 0)?;
        }
        self.capture();
        match &self.graph {
            // SAFETY: `self.step` keeps all memory that the launches use.
            Some(graph) => unsafe { graph.replay() }?,
            None => self.step.launch()?,
        }
        self.steps += 1;
        self.len += 1;
        cache.len += 1;
        self.ids = self.step.ids.to_vec1()?;
        observe(ActivationPoint::Logits, &self.step.logits)?;
        Ok(NextToken { logits: self.step.logits.clone(), argmax: self.ids.clone() })
    }
}
