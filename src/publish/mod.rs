//! Publishing over MQTT: events, snapshots and states go out, commands come in.
//!
//! Events come through the [`outbox::Outbox`], which keeps each until the broker has it, and so does the
//! newest snapshot of each camera. States (of the node, of the cameras, of what runs here) are set on
//! the [`Publisher`]. They are retained at the broker, and published again after every reconnect. Only
//! [`mqtt`] knows the protocol.
//!
//! | file | what it holds |
//! |---|---|
//! | `publisher.rs` | the handle: states in, a connection behind it |
//! | `outbox/` | the queue of events, on disk |
//! | `mqtt/` | the connection |
//! | `topics.rs`, `home_assistant/` | names of topics; discovery messages |
//! | `commands.rs`, `command_inbox.rs` | commands of subscribers, and those that wait |
//! | `ask_inbox.rs` | questions about cameras that wait, and their answers |
//! | `retained.rs`, `info.rs` | retained messages; the payloads of `info` and `load` |
//! | `profile.rs`, `findings.rs` | a camera's name, questions and alerts; answers and alerts on topics of their own |
//! | `forget.rs` | `camscribe forget`: what a broker retains of a retired node |
//! | `settings.rs`, `shared.rs` | which broker; what publisher and connection share |

mod ask_inbox;
mod command_inbox;
pub mod commands;
mod findings;
mod forget;
pub mod home_assistant;
mod info;
pub mod mqtt;
pub mod outbox;
mod profile;
mod publisher;
mod retained;
mod settings;
mod shared;
pub mod topics;

pub use ask_inbox::{AskInbox, ReplyTo, WaitingAsk};
pub use command_inbox::CommandInbox;
pub use forget::{ForgetError, Kept, forget};
pub use info::{CameraInfo, Info, Load, ReloadInfo, state_name};
pub use profile::CameraProfile;
pub use publisher::{Newest, Prepared, Publisher, SettingsError};
pub use settings::{BrokerAddress, Inboxes, Settings, TlsFiles};
pub use shared::BrokerState;
