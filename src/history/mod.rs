//! The history: every event, every switching of an alert, and the frames that the model saw, in a database of its own that
//! can be searched. It is written behind the outbox, on a thread of its own, and can hold up nothing: what it cannot take
//! waits in the outbox's file without frames, and a disk without room stops the history only.
//!
//! | file | what it holds |
//! |---|---|
//! | `handle.rs`, `hooks.rs` | the history as others use it; what it asks of them |
//! | `recorder.rs` | the thread that writes it |
//! | `record.rs`, `picture.rs` | what is written: events, and frames as pictures |
//! | `writer.rs`, `reader.rs`, `selection.rs` | the SQL: writing, forgetting, reading, and of which events |
//! | `query.rs` | what people search for, and how good a match is |
//! | `layout.rs` | the tables |
//! | `status.rs`, `error.rs` | how it is doing; why it cannot be used |

mod error;
mod handle;
mod hooks;
mod layout;
mod picture;
mod query;
mod reader;
mod record;
mod recorder;
mod selection;
mod status;
mod writer;

#[cfg(test)]
mod tests;

pub use error::HistoryError;
pub use handle::History;
pub use hooks::{MayStay, Outboxed, Recorded, Waiting};
pub use layout::FILE;
pub use picture::{PictureError, read_lossless};
pub use query::Part;
pub use reader::{Cursor, EventDetails, FrameDetails, KeptFrame, Listed, Page, Reader};
pub use record::{Evidence, Record, Replay};
pub use selection::Selection;
pub use status::{Limits, State, Status};
pub use writer::{Forgotten, Writer};
