//! Clips in, descriptions out. [`load()`] gives a [`Describer`] for a checkpoint; [`worker`] batches the clips of a
//! queue for it.
//!
//! Another model family is a folder beside `smolvlm/` and a match arm in `load.rs`. A describer that runs elsewhere
//! is a file here that implements the same trait.

mod batch_sizer;
mod change_gate;
pub mod describer;
pub mod load;
pub mod options;
#[cfg(test)]
mod small_device;
pub mod smolvlm;
mod warm_up;
pub mod worker;

pub use describer::{DescribeError, Describer, Description, Footage, StageTimes};
pub use load::{load, probe};
pub use options::LoadOptions;
pub use warm_up::warm_up;
