//! The outbox: the bounded, durable queue between the model and the broker.
//!
//! A worker appends finished events. An event is on disk when [`Outbox::append`] returns. The
//! publisher takes the oldest event, and the outbox keeps it until the broker has acknowledged it.
//! After a lost connection the publisher takes all unacknowledged events again. Rows that the disk
//! does not take wait in memory, in order, until it does.
//!
//! When the outbox is full, the oldest waiting event is dropped and counted. Only the newest snapshot
//! of a camera is kept, because only the newest is published. Snapshots have their own limit, and an
//! event survives the loss of its snapshot.
//!
//! | file | what it holds |
//! |---|---|
//! | `durable_queue.rs` | the outbox itself |
//! | `ledger.rs` | which rows wait, and what was lost |
//! | `message.rs`, `row.rs` | what goes in and comes out; rows of the tables |
//! | `database.rs`, `migrations.rs` | the SQL; the layouts |
//! | `folder.rs` | the state directory |
//! | `spill.rs` | what the disk does not take |
//! | `status.rs` | limits and counts |
//! | `tests.rs` | property tests against a simple model |

mod database;
mod durable_queue;
mod folder;
mod ledger;
mod message;
mod migrations;
mod row;
mod spill;
mod status;

pub use durable_queue::{InUse, Outbox};
pub use folder::is_in_use;
pub use message::{InFlight, Message, Snapshot};
pub use row::Row;
pub use status::{Limits, Status, Storage};

#[cfg(test)]
mod tests;
