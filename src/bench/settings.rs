//! What the benchmark is to measure.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::shapes::Shape;
use crate::device::{DeviceChoice, DtypeChoice, KernelChoice};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sizes of models.
    pub shapes: Vec<Shape>,
    /// Batch sizes in clips, ascending. Empty: 1, 2, 4 and so on, up to 128 on a GPU and up to 4 on the CPU.
    pub batches: Vec<usize>,
    /// Frames of a clip; at least 1.
    pub frames: usize,
    /// Tokens of every answer; at least 2.
    pub new_tokens: usize,
    /// Timed runs of each batch, of which the median counts; at least 1.
    pub repeat: usize,
    /// Clips that each camera makes in a trial of how many cameras the model keeps up with: at least 3, or 0 for no
    /// trials.
    pub periods: u64,
    /// Seed of the random weights and of the moments at which cameras make their clips.
    pub seed: u64,
    /// The device to run on.
    pub device: DeviceChoice,
    /// The number format.
    pub dtype: DtypeChoice,
    /// The kernels.
    pub kernels: KernelChoice,
    /// The file that the JSON document is written to.
    pub json: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shapes: Shape::ALL.to_vec(),
            batches: vec![],
            frames: 8,
            new_tokens: 64,
            repeat: 3,
            periods: 3,
            seed: 1,
            device: DeviceChoice::Auto,
            dtype: DtypeChoice::Auto,
            kernels: KernelChoice::default(),
            json: None,
        }
    }
}

impl Settings {
    /// Checks the limits of every field.
    ///
    /// # Errors
    /// When a field is outside its limits.
    pub fn check(&self) -> Result<()> {
        ensure!(self.frames > 0, "a clip has at least one frame");
        ensure!(self.new_tokens > 1, "an answer has at least two tokens: the time between them is measured");
        ensure!(self.repeat > 0, "a batch is run at least once");
        ensure!(
            self.periods == 0 || self.periods > 2,
            "delays that grow show after three periods: 0, or at least 3"
        );
        ensure!(self.batches.is_sorted() && !self.batches.contains(&0), "batches must be ascending");
        Ok(())
    }

    /// The batch sizes to measure, in clips.
    pub fn batch_sizes(&self, on_cpu: bool) -> Vec<usize> {
        if !self.batches.is_empty() {
            return self.batches.clone();
        }
        let largest = if on_cpu { 4 } else { 128 };
        std::iter::successors(Some(1), |batch| Some(batch * 2))
            .take_while(|batch| *batch <= largest)
            .collect()
    }
}
