//! The configuration: built-in defaults, a TOML file and the environment in, a checked [`Config`] out.
//! Nothing is coerced and no unknown key is ignored. All errors are reported together, each with its
//! location and what to do.
//!
//! - [`schema`] lists every key of every section: its type, default and meaning.
//! - One file per section (`node`, `model`, `mqtt`, `outbox`, `http`, `camera`) holds the keys of the
//!   section, the settings that come out of them, and the checks between: a new key is added there.
//! - `toml_file` and `environment` each read one layer; `layers` merges them with the crate `config`.
//! - `value` checks the type and bounds of each merged value; `load` puts everything together.

mod camera;
mod diagnostic;
mod environment;
mod hints;
mod http;
mod key;
mod layer;
mod layers;
mod load;
mod login;
mod model;
mod mqtt;
mod node;
mod outbox;
mod prompt;
pub mod schema;
mod secret;
mod section;
mod source;
pub mod test_source;
mod toml_file;
pub mod units;
mod value;

pub use camera::{CameraSettings, FrameSampling, MAX_OVERLAP, MAX_PRIORITY};
pub use diagnostic::ConfigError;
pub use http::HttpSettings;
pub use key::{Key, Kind};
pub use load::{Config, DEFAULT_FILE, Loaded, load};
pub use model::{DEFAULT_MODEL, DEFAULT_REVISION, ModelSettings};
pub use mqtt::{MqttSettings, MqttVersion, Tls, check_prefix};
pub use node::{NodeSettings, default_node_id};
pub use outbox::OutboxSettings;
pub use prompt::{DEFAULT_PROMPT, check_prompt, default_prompt};
pub use secret::{Login, Secret, read as read_secret};
pub use source::{
    BadSource, NetworkAddress, Origin, ParsedSource, Property, PropertyValue, Source, StreamOptions,
    Transport, mask, shipped_pipelines,
};
