//! Clips in, descriptions out. [`load()`] gives a [`Describer`] for a checkpoint; [`worker`] batches the clips of a
//! queue for it.
//!
//! Another model family is a folder beside `smolvlm/` and a match arm in `load.rs`. A describer that runs elsewhere
//! is a file here that implements the same trait.

pub mod change_gate;
pub mod describer;
pub mod load;
pub mod options;
pub mod smolvlm;
pub mod worker;

pub use describer::{DescribeError, Describer, Description, Footage, StageTimes};
pub use load::{load, probe};
pub use options::LoadOptions;
