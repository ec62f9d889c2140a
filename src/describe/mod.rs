//! Requests in, answers out. [`load()`] gives a [`Describer`] for a checkpoint; [`worker`] gives it
//! the clips and requests of a queue.
//!
//! | file | what it holds |
//! |---|---|
//! | `describer.rs` | the trait, and what it exchanges |
//! | `load.rs`, `options.rs` | which model family a checkpoint is of; how it is loaded |
//! | `smolvlm/` | a model family; another one is a folder beside it |
//! | `worker.rs`, `in_flight.rs`, `entry.rs`, `outcome.rs` | from the queue to the describer; what is being answered, and for whom; what becomes of it |
//! | `batch_payoff.rs` | when it pays to describe clips together |
//! | `pace.rs` | when a prompt may join answers under way |
//! | `share.rs` | how the device's time is shared between cameras and clients |
//! | `batch_sizer.rs`, `small_device.rs` | how many clips fit into the memory; a device with little of it, for tests |
//! | `change_gate.rs` | what is remembered of each camera for the change gate |
//! | `answer_format.rs`, `stop_texts.rs` | answers that follow a JSON schema; texts that end an answer |
//! | `warm_up.rs` | a first small inference |

mod answer_format;
mod batch_payoff;
mod batch_sizer;
mod change_gate;
pub mod describer;
mod entry;
mod in_flight;
pub mod load;
pub mod options;
mod outcome;
mod pace;
mod share;
#[cfg(test)]
mod small_device;
pub mod smolvlm;
mod stop_texts;
mod warm_up;
pub mod worker;

pub use describer::{Answers, Describer, FileSampler, Footage, PieceObserver, RoomFor, Work, in_batches};
pub use load::{load, probe};
pub use options::LoadOptions;
pub use warm_up::warm_up;
