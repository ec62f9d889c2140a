//! A section with a checked value for every key that it has.

use std::{collections::BTreeMap, time::Duration};

use super::{
    diagnostic::{Diagnostics, Location},
    key::Key,
    value::{RawEntry, Table, Value, convert},
};

/// A checked value and where it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Of its key's type.
    pub value: Value,
    /// [`Location::Unset`] for a default.
    pub location: Location,
}

/// The entries of a section by key. A key that nobody set, or that was wrong, has its default.
#[derive(Clone, Debug)]
pub struct Section {
    path: String,
    entries: BTreeMap<&'static str, Entry>,
}

impl Section {
    /// The defaults of the section `path`, such as `model`.
    pub fn defaults(path: &str, keys: &[Key]) -> Self {
        let none = Table::new();
        Self::check(path, keys, &none, None, &mut Diagnostics::default())
    }

    /// Checks the values that are set in the section `path`. A key that is not set, or wrong, has its
    /// entry of `fallback`, else its own default.
    pub fn check(
        path: &str,
        keys: &[Key],
        set: &Table,
        fallback: Option<&Self>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut entry = |key: &Key| {
            let path = format!("{path}.{}", key.name);
            let set =
                set.get(key.name).and_then(|value| checked(key, &RawEntry::new(value, &path), diagnostics));
            let inherited = || fallback?.entries.get(key.name).cloned();
            set.or_else(inherited).unwrap_or_else(|| default_of(key, &path))
        };
        let entries = keys.iter().map(|key| (key.name, entry(key))).collect();
        Self { path: path.into(), entries }
    }

    /// The section that options of the command line make: `("window", "8s")` is `--window 8s`.
    pub fn of_options<'a>(
        path: &str,
        keys: &[Key],
        options: impl IntoIterator<Item = (&'static str, &'a str)>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let entry = |(key, text): (&str, &str)| {
            let option = Location::Option { name: format!("--{}", key.replace('_', "-")) };
            (key.to_owned(), option.value(text))
        };
        let set = options.into_iter().map(entry).collect();
        Self::check(path, keys, &set, None, diagnostics)
    }

    /// The dotted path of this section, such as `cameras.porch`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The entry of a key of this section.
    pub fn entry(&self, name: &str) -> &Entry {
        &self.entries[name]
    }

    /// Replaces the value of a key by one that follows from other keys.
    pub fn derive(&mut self, name: &str, value: Value) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.value = value;
        }
    }

    /// Whether a file or the environment sets this key.
    pub fn is_set(&self, name: &str) -> bool {
        !matches!(self.entry(name).location, Location::Unset { .. })
    }

    /// The text of a [`Kind::Text`](super::key::Kind::Text) key.
    pub fn text(&self, name: &str) -> &str {
        match &self.entry(name).value {
            Value::Text(text) => text,
            other => unreachable!("{name} is not text in the schema but {other:?}"),
        }
    }

    /// The text of a [`Kind::Text`](super::key::Kind::Text) key, `None` if it is empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// The choice of a [`Kind::Choice`](super::key::Kind::Choice) key, whose words are those of `choices`.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> T {
        let word = self.text(name);
        match choices.iter().find(|(known, _)| *known == word) {
            Some((_, choice)) => *choice,
            None => unreachable!("{name} has other words in the schema than its choices: {word}"),
        }
    }

    /// The value of a [`Kind::Bool`](super::key::Kind::Bool) key.
    pub fn bool(&self, name: &str) -> bool {
        self.entry(name).value == Value::Bool(true)
    }

    /// The value of a [`Kind::Int`](super::key::Kind::Int) key, or the bytes of a [`Kind::Size`](super::key::Kind::Size) key.
    pub fn number(&self, name: &str) -> u64 {
        match self.entry(name).value {
            Value::Int(number) | Value::Size(number) => number,
            ref other => unreachable!("{name} is not a number in the schema but {other:?}"),
        }
    }

    /// The value of a [`Kind::Fraction`](super::key::Kind::Fraction) key.
    pub fn fraction(&self, name: &str) -> f64 {
        match self.entry(name).value {
            Value::Fraction(number) => number,
            ref other => unreachable!("{name} is not a fraction in the schema but {other:?}"),
        }
    }

    /// The texts of a [`Kind::List`](super::key::Kind::List) key.
    pub fn list(&self, name: &str) -> &[String] {
        match &self.entry(name).value {
            Value::List(texts) => texts,
            other => unreachable!("{name} is not a list in the schema but {other:?}"),
        }
    }

    /// The value of a [`Kind::Duration`](super::key::Kind::Duration) key.
    pub fn duration(&self, name: &str) -> Duration {
        match self.entry(name).value {
            Value::Duration(time) => time,
            ref other => unreachable!("{name} is not a duration in the schema but {other:?}"),
        }
    }
}

fn checked(key: &Key, raw: &RawEntry, diagnostics: &mut Diagnostics) -> Option<Entry> {
    match convert(key.kind, raw) {
        Ok(value) => Some(Entry { value, location: raw.location.clone() }),
        Err(why) => {
            diagnostics.error(&raw.location, why);
            None
        }
    }
}

/// The default of the key at `path`; empty text for a key that must be set.
fn default_of(key: &Key, path: &str) -> Entry {
    let text = key.default.unwrap_or_default();
    let raw = RawEntry { value: text.into(), location: Location::Unset { key: path.into() } };
    let value = convert(key.kind, &raw);
    Entry { value: value.unwrap_or(Value::Text(String::new())), location: raw.location }
}
