//! Home Assistant's discovery messages: with them it shows the node and each camera as devices without being
//! configured. Pure.
//!
//! A node and a camera come in, retained (topic, JSON) pairs go out, by the rules of
//! <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>.
//!
//! | file | what it holds |
//! |---|---|
//! | `discovery.rs` | the messages of node and cameras, and their topics |
//! | `camera.rs`, `node.rs` | what a camera shows; what the node shows |
//! | `entity.rs` | one message, without what all have |

mod camera;
mod discovery;
mod entity;
mod node;

pub use discovery::{Discovery, is_config};
