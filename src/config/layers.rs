//! The layers of the configuration: built-in defaults, the main file over them, its fragments over that, and the
//! environment over all.
//! The crate `config` merges them.

use std::path::{Path, PathBuf};

use ::config::{Config, Value, ValueKind};

use super::{
    diagnostic::Diagnostics,
    environment, fragments,
    layer::{Declared, Layer},
    schema, toml_file,
    value::Table,
};

/// All layers merged.
#[derive(Debug)]
pub struct Layers {
    merged: Value,
    /// The sections that any layer declares.
    pub declared: Declared,
    /// The fragments that were read after the main file.
    pub fragments: Vec<PathBuf>,
}

impl Layers {
    /// Reads and merges all layers. `None`: `file` or a fragment of it cannot be read, and `diagnostics`
    /// says why. A missing file counts as empty unless it is `required`.
    pub fn read(file: &Path, required: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let main = toml_file::read(file, required, diagnostics);
        let fragments = fragments::beside(file, diagnostics)?;
        let mut files = vec![main];
        files.extend(fragments.iter().map(|fragment| toml_file::read(fragment, true, diagnostics)));
        let mut layers = vec![defaults()];
        layers.extend(files.into_iter().collect::<Option<Vec<_>>>()?);
        layers.push(environment::read(&declared(&layers), diagnostics));
        Some(Self { fragments, ..Self::merge(layers) })
    }

    /// Merges layers, the lowest first.
    fn merge(layers: Vec<Layer>) -> Self {
        let declared = declared(&layers);
        let merged = Config::builder().add_source(layers).build();
        let merged = merged.expect("layers are in memory, and their paths are valid").cache;
        Self { merged, declared, fragments: Vec::new() }
    }

    /// What is set in the section at `path`, such as `cameras.porch`.
    pub fn section(&self, path: &str) -> Table {
        let found = path.split('.').try_fold(&self.merged, |section, name| match &section.kind {
            ValueKind::Table(table) => table.get(name),
            _ => None,
        });
        found.cloned().and_then(|section| section.into_table().ok()).unwrap_or_default()
    }
}

/// The lowest layer: the defaults of the schema, as text and without an origin.
fn defaults() -> Layer {
    let mut layer = Layer::default();
    for section in schema::SECTIONS {
        for key in section.keys {
            if let Some(text) = key.default {
                layer.set(section.name, key.name, Value::new(None, text));
            }
        }
    }
    layer
}

fn declared(layers: &[Layer]) -> Declared {
    let mut declared = Declared::default();
    layers.iter().for_each(|layer| declared.extend(layer.declared()));
    declared
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::diagnostic::Location, *};

    fn file(line: usize) -> Location {
        Location::File { file: "c.toml".into(), line, key: "model.id".into() }
    }

    #[test]
    fn the_highest_layer_that_sets_a_key_gives_its_value_and_location() {
        let (mut lower, mut higher) = (Layer::default(), Layer::default());
        lower.set("model", "id", file(1).value("lower"));
        lower.set("model", "max_batch", file(2).value(4_i64));
        higher.set("model", "id", file(3).value("higher"));
        let model = Layers::merge(vec![defaults(), lower, higher]).section("model");
        let location = |key: &str| Location::of(&model[key], key);
        assert_eq!((&model["id"].kind, location("id")), (&ValueKind::String("higher".into()), file(3)));
        assert_eq!((&model["max_batch"].kind, location("max_batch")), (&ValueKind::I64(4), file(2)));
        assert_eq!(location("linger"), Location::Unset { key: "linger".into() });
    }

    #[test]
    fn any_camera_that_a_layer_declares_is_one_and_its_keys_come_from_all_layers() {
        let (mut lower, mut higher) = (Layer::default(), Layer::default());
        ["a-b", "1", "_"].iter().for_each(|id| lower.declare(format!("cameras.{id}")));
        higher.declare("cameras.a-b.alerts.x".into());
        lower.set("cameras.a-b", "frames", file(1).value(4_i64));
        higher.set("cameras.a-b", "enabled", file(2).value(false));
        let merged = Layers::merge(vec![lower, higher]);
        assert!(merged.declared.names("cameras").eq(["1", "_", "a-b"]));
        assert!(merged.declared.names("cameras.a-b.alerts").eq(["x"]));
        let keys: BTreeSet<_> = merged.section("cameras.a-b").into_keys().collect();
        assert_eq!(keys, ["enabled", "frames"].map(String::from).into());
        assert!(merged.section("cameras.1").is_empty());
    }

    #[test]
    fn a_list_is_overridden_as_a_whole() {
        let (mut lower, mut higher) = (Layer::default(), Layer::default());
        let list = |line, texts: &[&str]| {
            let elements = texts.iter().map(|text| file(line).value(*text)).collect::<Vec<_>>();
            file(line).value(ValueKind::Array(elements))
        };
        lower.set("defaults", "questions", list(1, &["a", "b", "c"]));
        higher.set("defaults", "questions", list(2, &["d"]));
        let merged = Layers::merge(vec![defaults(), lower, higher]).section("defaults");
        assert_eq!(merged["questions"].kind, list(2, &["d"]).kind);
        assert_eq!(Location::of(&merged["questions"], ""), file(2));
    }
}
