//! One layer of the configuration: a source for the crate `config`, which merges layers.

use std::collections::BTreeSet;

use ::config::{ConfigError, Map, Source, Value};

/// What one layer sets, by dotted path such as `cameras.porch.frames`. Each value has its
/// [`Location`](super::diagnostic::Location) as its origin. All paths are in the
/// [schema](super::schema); the types of the values are checked after the merge.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    values: Map<String, Value>,
    declared: Declared,
}

impl Layer {
    /// Sets the key `key` of the section `section`, such as `model`.
    pub fn set(&mut self, section: &str, key: &str, value: Value) {
        self.values.insert(format!("{section}.{key}"), value);
    }

    /// Declares a section that people name, which may set no key at all. `path`: such as `cameras.porch`.
    pub fn declare(&mut self, path: String) {
        self.declared.add(path);
    }

    /// The sections that this layer declares.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

/// Sections that people name, by path, such as `cameras.porch` and `cameras.porch.alerts.parcel`.
#[derive(Clone, Debug, Default)]
pub struct Declared(BTreeSet<String>);

impl Declared {
    /// Adds all sections of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Adds the section at `path`.
    pub fn add(&mut self, path: String) {
        self.0.insert(path);
    }

    /// Whether there is a section at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// The names of the sections in the group at `path`, such as `cameras`, in order.
    pub fn names<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let before = format!("{path}.");
        let from = self.0.range(before.clone()..);
        from.map_while(move |path| path.strip_prefix(&before)).filter(|name| !name.contains('.'))
    }
}
