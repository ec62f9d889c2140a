//! The HTTP server. It knows no answers itself: `app/` passes it the functions that do ([`StatusSource`],
//! [`CameraSource`], [`EventsSource`], [`ApiSource`]).
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs`, `connections.rs` | the port, the router, how many connections may be open |
//! | `access.rs`, `tls.rs` | who may come in |
//! | `unread.rs` | what clients still send when they are answered already |
//! | `exchange.rs` | what is counted and logged of each request |
//! | `status.rs` | `/metrics`, `/healthz`, `/readyz` |
//! | `page.rs`, `page/` | `/`: the page |
//! | `login.rs` | `/api/login`: a cookie for who has the token |
//! | `node.rs`, `cameras.rs`, `events.rs`, `live.rs` | `/api`: what the page shows, and what can be done there |
//! | `documents.rs`, `openapi.rs` | what `/api` answers; the same for machines |
//! | `openai/` | `/v1`: questions to the model |
//! | `api_error.rs` | errors as OpenAI's API shapes them |
//!
//! Each further group of routes is a file or folder beside `status.rs` with a `router` of its own.

mod access;
mod api_error;
mod cameras;
mod connections;
pub mod documents;
mod events;
mod exchange;
mod live;
mod login;
mod node;
mod openai;
mod openapi;
mod page;
mod server;
mod status;
mod tls;
mod unread;

#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use api_error::ApiError;
pub use cameras::{Asking, CameraSource, Changes, Snapshots};
pub use events::{EventLists, EventsQuery, EventsSource};
pub use live::{EventsAfter, Live, LiveSource, Message, message};
pub use node::NodeSource;
pub use openai::{ApiSource, Film, FilmReader, NotAsked, ServedModel, read_request};
pub use server::{BindError, Server, bind, serve};
pub use status::StatusSource;
pub use tls::{ServerTlsError, server_config};
