//! SQLite databases in the state directory: opened, migrated, and kept aside when they cannot be used. What they hold is
//! their owners' business.
//!
//! | file | what it holds |
//! |---|---|
//! | `file.rs` | a database's file: made, opened, renamed |
//! | `kind.rs` | what databases differ in |
//! | `migrations.rs` | the steps between layouts |
//! | `fault.rs` | why a database cannot be used |

mod fault;
mod file;
mod kind;
mod migrations;

pub use fault::Fault;
pub use file::{BUSY_TIMEOUT, connect, create, open};
pub use kind::{Kind, Migration};
pub use migrations::{check_kind, migrate};
