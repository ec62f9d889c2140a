//! The configuration: built-in defaults, TOML files and the environment in, a checked [`Config`] out.
//! Nothing is coerced and no unknown key is ignored. All errors are reported together, each with its
//! location and what to do.
//!
//! | file | what it holds |
//! |---|---|
//! | `node.rs`, `model.rs`, `mqtt.rs`, `outbox.rs`, `history.rs`, `http.rs`, `log.rs`, `camera.rs`, `question.rs`, `mask.rs`, `alert.rs` | a section: keys, settings, checks |
//! | `login.rs`, `prompt.rs`, `secret.rs`, `pem.rs` | keys, values and files that sections share |
//! | `rtsp_tls.rs` | whom to trust at `rtsps://` addresses |
//! | `source/`, `test_source.rs` | what a `uri` names |
//! | `schema.rs`, `key.rs` | every key of every section; what a key is |
//! | `text_file.rs`, `toml_file.rs`, `fragments.rs`, `environment.rs`, `layer.rs`, `layers.rs` | the layers, and how they are merged |
//! | `section.rs`, `value.rs`, `units.rs` | checked values: types, bounds, durations and sizes |
//! | `named.rs` | the sections that people name: questions, cameras, masks, alerts |
//! | `load.rs` | puts everything together |
//! | `diagnostic.rs`, `hints.rs` | errors and warnings, and what to do about them |

mod alert;
mod camera;
mod diagnostic;
mod environment;
mod fragments;
mod hints;
mod history;
mod http;
mod key;
mod layer;
mod layers;
mod load;
mod log;
mod login;
mod mask;
mod model;
mod mqtt;
mod named;
mod node;
mod outbox;
mod pem;
mod prompt;
mod question;
mod rtsp_tls;
pub mod schema;
mod secret;
mod section;
mod source;
pub mod test_source;
mod text_file;
mod toml_file;
pub mod units;
mod value;

pub use alert::AlertTrial;
pub use camera::{CameraSettings, ClockChoice, FrameSampling, MAX_OVERLAP, MAX_PRIORITY};
pub use diagnostic::ConfigError;
pub use history::{HistorySettings, KeptFrames};
pub use http::HttpSettings;
pub use key::{Key, Kind};
pub use load::{Config, DEFAULT_FILE, Loaded, load, load_for_broker, load_to_calibrate, reload};
pub use log::LogSettings;
pub use model::{DEFAULT_MODEL, DEFAULT_REVISION, ModelSettings};
pub use mqtt::{MqttSettings, MqttVersion, Tls, check_prefix};
pub use node::{NodeSettings, default_node_id};
pub use outbox::OutboxSettings;
pub use prompt::{DEFAULT_PROMPT, check_prompt, default_image_prompt, default_prompt};
pub use question::{MAX_QUESTIONS, check_answers};
pub use rtsp_tls::{Fingerprint, TlsVerify};
pub use secret::{Login, Secret, read as read_secret};
pub use source::{
    BadSource, NetworkAddress, Origin, ParsedSource, Property, PropertyValue, Source, StreamOptions,
    Transport, mask, shipped_pipelines,
};
