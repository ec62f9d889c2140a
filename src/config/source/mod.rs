//! Where a camera's frames come from: the `uri` of a camera and the SOURCE of `describe`.
//!
//! [`scheme`] has one row for each kind of source. A URI becomes a [`Source`]; credentials are taken out
//! of the URI meanwhile, so that a [`Source`] may be shown to anyone.

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
