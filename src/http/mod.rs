//! The HTTP server. It knows no answers itself: `app/` passes it the functions that do ([`StatusSource`]).
//!
//! | file | what it serves |
//! |---|---|
//! | `server.rs`, `connection_limit.rs` | the port, the router, how many connections may be open |
//! | `status.rs` | `/metrics`, `/healthz`, `/readyz` |
//!
//! Each further group of routes is a file beside `status.rs` with a `router` of its own.

mod connection_limit;
mod server;
mod status;

pub use server::{BindError, bind, serve};
pub use status::StatusSource;
