//! What of a camera's picture is seen, as configured.

use std::collections::{BTreeMap, BTreeSet};

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

    /// What it hides, a line each, for records of pictures that are seen through it. The names of masks are not among it.
    pub fn lines(&self) -> String {
        let crop = self.crop.map(|crop| format!("crop {crop}"));
        let masks: BTreeSet<_> = self.masks.values().map(|polygon| format!("mask {polygon}")).collect();
        crop.into_iter().chain(masks).collect::<Vec<_>>().join("\n")
    }

    /// Whether a picture that was seen through a view with these [`View::lines`] hides all that this one hides.
    pub fn is_within(&self, lines: &str) -> bool {
        let known: BTreeSet<_> = lines.lines().collect();
        self.lines().lines().all(|line| known.contains(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_may_be_seen_if_all_that_is_hidden_now_was_hidden_then() {
        let view = |crop: Option<&str>, masks: &[&str]| View {
            crop: crop.map(|text| text.parse().unwrap()),
            masks: masks.iter().map(|text| ((*text).to_owned(), text.parse().unwrap())).collect(),
        };
        let (street, garden) = ("0,0 1,0 1,0.4", "0,0.5 1,0.5 1,0.9");
        let then = view(Some("0.1,0 1,0.5"), &[street, garden]).lines();
        for now in [view(None, &[]), view(None, &[garden]), view(Some("0.1,0 1,0.5"), &[street])] {
            assert!(now.is_within(&then), "{now:?}");
        }
        for now in [view(Some("0.2,0 1,0.5"), &[]), view(None, &["0,0 1,0 1,0.41"])] {
            assert!(!now.is_within(&then), "{now:?}");
        }
        assert!(view(None, &[]).is_within("") && !view(None, &[street]).is_within(""));
        // It is what people write, whatever they call it.
        assert_eq!(view(None, &["0,0, 1,0, 1,0.4"]).lines(), view(None, &[street]).lines());
    }
}
