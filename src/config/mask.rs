//! `crop` and `masks.<name>` of `[cameras.<id>]`: what is seen of a camera's picture.

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    section::Section,
};
use crate::view::{CannotApply, Crop, Polygon, SizedView, View};

/// The sides of the picture by which is judged whether masks leave anything of it, pixels: those of few cameras are longer.
const SAMPLE: u32 = 4000;

/// The only key of a mask, whose value is written in place of the section.
pub const POLYGON: Key = Key::required(
    "polygon",
    Kind::Text,
    "The corners of what is black, in parts of the picture: such as 0,0 1,0 1,0.4 0,0.4; or with commas only, as \
     Frigate has them",
);

pub const KEYS: &[Key] = &[POLYGON];

/// The crop in the checked section of a camera. `None`: the whole picture.
pub fn read_crop(section: &Section, diagnostics: &mut Diagnostics) -> Option<Crop> {
    let crop = section.optional("crop")?.parse::<Crop>();
    crop.inspect_err(|why| diagnostics.error(&section.entry("crop").location, why.to_string())).ok()
}

/// Adds the mask `name` of a checked section to those in `view`.
pub fn add(section: &Section, name: &str, view: &mut View, diagnostics: &mut Diagnostics) {
    let location = &section.entry(POLYGON.name).location;
    match section.text(POLYGON.name).parse::<Polygon>() {
        Ok(polygon) => {
            view.masks.insert(name.into(), polygon);
            if matches!(SizedView::new(view, SAMPLE, SAMPLE), Err(CannotApply::AllBlack { .. })) {
                let masks = if view.masks.len() > 1 { ", with the other masks," } else { "" };
                let picture = if view.crop.is_some() { "crop" } else { "picture" };
                diagnostics
                    .error(location, format!("covers{masks} the whole {picture}: nothing would be seen"));
                // Told once, at the mask that hides the last of it.
                view.masks.remove(name);
            }
        }
        // A section whose value is of another type has the empty default, and that was told.
        Err(_) if !section.is_set(POLYGON.name) => {}
        Err(why) => diagnostics.error(location, why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::{ConfigError, Loaded, load};

    fn read(camera: &str) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, format!("[cameras.porch]\nuri = \"test://shapes\"\n{camera}")).unwrap();
        load(Some(&file))
    }

    #[test]
    fn a_camera_has_its_crop_and_its_masks_and_what_is_printed_means_the_same() {
        let file = "crop = \"0.2,0.1 0.9,0.8\"\nmasks.street = \"0,0 1,0 1,0.4 0,0.4\"\n\
                    [cameras.porch.masks]\na-b = \"0,0,0.5,0,0.5,0.5\"\n";
        assert!(read(file).is_err(), "a table is written twice");
        let file = file.replace("[cameras.porch.masks]\n", "masks.");
        let loaded = read(&file).unwrap();
        let view = loaded.config.cameras.values().next().unwrap().view.clone().unwrap();
        assert_eq!(view.crop.unwrap().to_string(), "0.2,0.1 0.9,0.8");
        assert_eq!(view.masks.keys().collect::<Vec<_>>(), ["a-b", "street"]);
        let printed = loaded.to_toml();
        assert!(printed.contains("\nmasks.street = \"0,0 1,0 1,0.4 0,0.4\"\n"), "{printed}");
        let parsed: toml::Table = printed.parse().unwrap();
        assert_eq!(parsed["cameras"]["porch"]["masks"]["a-b"].as_str(), Some("0,0,0.5,0,0.5,0.5"));
        let section = read("[cameras.porch.masks]\nstreet = \"0,0 1,0 1,0.4 0,0.4\"\n").unwrap();
        assert_eq!(section.config.cameras.values().next().unwrap().view.as_ref().unwrap().masks.len(), 1);
        assert_eq!(read("").unwrap().config.cameras.values().next().unwrap().view, None);
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        let many: String = (0..33).map(|n| format!("masks.m{n:02} = \"0,0 0.1,0 0.1,0.1\"\n")).collect();
        for (camera, key, text) in [
            ("crop = \"0,0\"", "c.toml:3: cameras.porch.crop", "has 1 corners: a crop has two"),
            ("crop = 5", "c.toml:3: cameras.porch.crop", "needs text, not a number"),
            ("crop = \"0.5,0.5 0.1,0.1\"", "c.toml:3: cameras.porch.crop", "in the wrong order"),
            ("masks.a = \"0,0 1,0\"", "c.toml:3: cameras.porch.masks.a", "has 2 corners"),
            ("masks.a = \"0,0 1,0 1,1 1\"", "c.toml:3: cameras.porch.masks.a", "\"1\" is no corner"),
            ("masks.a = \"0,0,1,0,1\"", "c.toml:3: cameras.porch.masks.a", "has 5 numbers, an odd count"),
            (
                "masks.a = \"0,0 640,0 1,1\"",
                "c.toml:3: cameras.porch.masks.a",
                "640 is outside of the picture",
            ),
            (
                "masks.a = \"0,0 1,1 1,0 0,1\"",
                "c.toml:3: cameras.porch.masks.a",
                "corner 1 crosses or touches",
            ),
            ("masks.a = \"0,0 0.5,0.5 1,1\"", "c.toml:3: cameras.porch.masks.a", "has no area"),
            ("masks.a = \"0,0 1,0 1,1 0,1\"", "c.toml:3: cameras.porch.masks.a", "covers the whole picture"),
            (
                "masks.b = \"0,0.5 1,0.5 1,1 0,1\"\nmasks.a = \"0,0 1,0 1,0.5 0,0.5\"",
                "c.toml:3: cameras.porch.masks.b",
                "covers, with the other masks, the whole picture",
            ),
            (
                "masks.a = \"0,0 0.5,0 0.5,1 0,1\"\ncrop = \"0.1,0.2 0.4,0.9\"",
                "c.toml:3: cameras.porch.masks.a",
                "covers the whole crop: nothing would be seen",
            ),
            ("masks.a = 5", "c.toml:3: cameras.porch.masks.a", "needs text, not a number"),
            ("masks.a = [\"0,0\"]", "c.toml:3: cameras.porch.masks.a", "needs text, not a list"),
            ("masks.a.b = \"0,0\"", "c.toml:3: cameras.porch.masks.a", "needs text, not a section"),
            ("masks.A = \"0,0\"", "c.toml:3: cameras.porch.masks.A", "cannot name a mask"),
            ("masks = \"0,0\"", "c.toml:3: cameras.porch.masks", "each mask has a name: write masks.street"),
            ("mask.a = \"0,0\"", "c.toml:3: cameras.porch.mask", "did you mean masks?"),
            (&many, "c.toml:35: cameras.porch.masks.m32", "more than 32 masks"),
            ("[defaults]\ncrop = \"0,0 1,1\"", "c.toml:4: defaults.crop", "a crop of its own"),
            ("[defaults]\nmasks.a = \"\"", "c.toml:4: defaults.masks", "masks of its own"),
            ("[masks]\na = \"\"", "c.toml:3: masks", "masks of its own"),
        ] {
            let error = read(&format!("{camera}\n")).expect_err(camera).to_string();
            assert!(error.contains(&format!("{key}: ")) && error.contains(text), "{camera}: {error}");
            assert_eq!(error.lines().count(), 1, "{camera}: {error}");
        }
    }
}
