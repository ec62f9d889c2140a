//! Requests in, answers out. [`load()`] gives a [`Describer`] for a checkpoint; [`worker`] batches the clips of a
//! queue for it.
//!
//! | file | what it holds |
//! |---|---|
//! | `describer.rs` | the trait, and what it exchanges |
//! | `load.rs`, `options.rs` | which model family a checkpoint is of; how it is loaded |
//! | `smolvlm/` | a model family; another one is a folder beside it |
//! | `worker.rs` | from the queue to the describer, batch by batch |
//! | `batch_sizer.rs`, `small_device.rs` | how many clips fit into the memory; a device with little of it, for tests |
//! | `change_gate.rs` | what is remembered of each camera for the change gate |
//! | `warm_up.rs` | a first small inference |

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

pub use describer::{Answers, DescribeError, Describer, Description, Footage, StageTimes, TextObserver};
pub use load::{load, probe};
pub use options::LoadOptions;
pub use warm_up::warm_up;
