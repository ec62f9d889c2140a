//! Model files: [`resolve()`] finds a model on this machine without any network, [`HubClient::pull`]
//! downloads one and checks every byte of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `id.rs` | names of models and revisions |
//! | `files.rs` | the files that a model consists of |
//! | `builtin.rs` | the model inside the program |
//! | `card.rs` | what a model's card says to programs |
//! | `cache.rs` | where models lie on this machine, our own cache and the Hugging Face cache |
//! | `resolve.rs` | a name in, a folder out, offline |
//! | `client.rs`, `retry.rs` | HTTP with the hub, and when to try again |
//! | `listing.rs`, `download.rs`, `pull.rs` | what the hub has, one file, a whole model |
//! | `progress.rs`, `error.rs` | what a pull reports; why a model is not there |

mod builtin;
mod cache;
mod card;
mod client;
mod download;
mod error;
mod files;
mod id;
mod listing;
mod progress;
mod pull;
mod resolve;
mod retry;

pub use builtin::NAME as BUILTIN;
pub use cache::ModelCaches;
pub use card::card_prompt;
pub use client::HubClient;
pub use error::HubError;
pub use id::{BadId, check_hub_id, check_id, check_revision};
pub use progress::PullProgress;
pub use pull::{Pulled, Target};
pub use resolve::{ModelDir, find, resolve};
pub use retry::RetryPolicy;
