//! Where a camera's frames come from: the `uri` of a camera and the SOURCE of `describe`.
//!
//! [`scheme`] has one row for each kind of source. A URI becomes a [`Source`]; credentials are taken out
//! of the URI meanwhile, so that a [`Source`] may be shown to anyone.
//!
//! | file | what it holds |
//! |---|---|
//! | `scheme.rs` | the kinds of source: names, pipelines, properties |
//! | `uri.rs` | a URI in, a source out |
//! | `network.rs` | the address of a network camera |
//! | `mask.rs` | hides passwords |
//! | `error.rs` | why a URI names no source |

mod error;
mod mask;
mod network;
mod scheme;
mod uri;

pub use error::BadSource;
pub use mask::mask;
pub use network::NetworkAddress;
pub use scheme::{Origin, Property, PropertyValue, StreamOptions, Transport, shipped_pipelines};
pub use uri::{ParsedSource, Source};
