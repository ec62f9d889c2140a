//! Models by hub id: finds one in the cache without any network, or downloads it there.

mod id;

pub use id::{BadId, check_id, check_revision};
