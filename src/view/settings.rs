//! What of a camera's picture is seen, as configured.

use std::collections::BTreeMap;

use super::{crop::Crop, polygon::Polygon};

/// What of a camera's picture is seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The part that is left. `None`: the whole picture.
    pub crop: Option<Crop>,
    /// What is black, by name.
    pub masks: BTreeMap<String, Polygon>,
}

impl View {
    /// Whether all of the picture is seen.
    pub fn is_whole(&self) -> bool {
        self.crop.is_none() && self.masks.is_empty()
    }
}
