//! Raw values made strict: each is checked against its key's kind and bounds, nothing is coerced.
//! What comes out is complete: a key that nobody wrote, or that was wrong, holds its default.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    keys::{Key, Kind},
    layers::{Leaf, Leaves},
    mistake::{Place, Report},
    source, units,
};

/// A value as it was written.
#[derive(Clone, Debug)]
pub enum Raw {
    /// TOML text.
    Text(String),
    /// TOML whole number.
    Int(i64),
    /// TOML boolean.
    Bool(bool),
    /// Anything else that TOML knows, in words: no key takes it.
    Other(String),
    /// From the environment, where everything is text and the key says how to read it.
    Environment(String),
}

/// A value of the right type, within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// See [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// See [`Kind::Bool`].
    Bool(bool),
    /// See [`Kind::Int`].
    Int(u64),
    /// See [`Kind::Duration`].
    Duration(Duration),
    /// See [`Kind::Size`], bytes.
    Size(u64),
}

impl fmt::Display for Value {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => toml::Value::from(text.as_str()).fmt(f),
            Self::Bool(yes) => yes.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Duration(time) => write!(f, "\"{}\"", units::show_duration(*time)),
            Self::Size(bytes) => write!(f, "\"{}\"", units::show_size(*bytes)),
        }
    }
}

/// A checked value and where it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Of its key's kind.
    pub value: Value,
    /// [`Place::Nowhere`]: it is the default.
    pub place: Place,
}

/// A section with an entry for every key that it has.
#[derive(Clone, Debug)]
pub struct Section(BTreeMap<&'static str, Entry>);

impl Section {
    /// Checks what was written in the section `path`, and completes it: from `fallback` first, from
    /// the keys' own defaults then.
    pub fn check(
        path: &str,
        keys: &[Key],
        leaves: &Leaves,
        fallback: Option<&Self>,
        report: &mut Report,
    ) -> Self {
        let entry = |key: &Key| {
            let written = leaves.get(key.name).and_then(|leaf| checked(key, leaf, report));
            written.or_else(|| fallback?.0.get(key.name).cloned()).unwrap_or_else(|| {
                let place = Place::Nowhere { key: format!("{path}.{}", key.name) };
                let value = key.default.map(|text| convert(key.kind, &Raw::Environment(text.into())));
                Entry { value: value.and_then(Result::ok).unwrap_or(Value::Text(String::new())), place }
            })
        };
        let mut entry = entry;
        Self(keys.iter().map(|key| (key.name, entry(key))).collect())
    }

    /// The entry of a key of this section's table.
    pub fn entry(&self, name: &str) -> &Entry {
        &self.0[name]
    }

    /// Puts a value that follows from others in a default's place.
    pub fn derive(&mut self, name: &str, value: Value) {
        if let Some(entry) = self.0.get_mut(name) {
            entry.value = value;
        }
    }

    /// Whether somebody wrote this key.
    pub fn is_written(&self, name: &str) -> bool {
        !matches!(self.entry(name).place, Place::Nowhere { .. })
    }

    /// The text of a [`Kind::Text`] or [`Kind::Choice`] key.
    pub fn text(&self, name: &str) -> &str {
        match &self.entry(name).value {
            Value::Text(text) => text,
            other => unreachable!("{name} is not text in the table of keys but {other:?}"),
        }
    }

    /// The text, `None` if it is empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// The value of a [`Kind::Bool`] key.
    pub fn bool(&self, name: &str) -> bool {
        self.entry(name).value == Value::Bool(true)
    }

    /// The value of a [`Kind::Int`] key or the bytes of a [`Kind::Size`] key.
    pub fn number(&self, name: &str) -> u64 {
        match self.entry(name).value {
            Value::Int(number) | Value::Size(number) => number,
            ref other => unreachable!("{name} is not a number in the table of keys but {other:?}"),
        }
    }

    /// The value of a [`Kind::Duration`] key.
    pub fn duration(&self, name: &str) -> Duration {
        match self.entry(name).value {
            Value::Duration(time) => time,
            ref other => unreachable!("{name} is not a duration in the table of keys but {other:?}"),
        }
    }
}

fn checked(key: &Key, leaf: &Leaf, report: &mut Report) -> Option<Entry> {
    match convert(key.kind, &leaf.raw) {
        Ok(value) => Some(Entry { value, place: leaf.place.clone() }),
        Err(why) => {
            report.mistake(&leaf.place, why);
            None
        }
    }
}

fn convert(kind: Kind, raw: &Raw) -> Result<Value, String> {
    let wrong = |hint: &str| Err(format!("needs {}, not {}{hint}", wanted(kind), shown(raw)));
    match (kind, raw) {
        (Kind::Text, Raw::Text(text) | Raw::Environment(text)) => Ok(Value::Text(text.clone())),
        (Kind::Choice(words), Raw::Text(text) | Raw::Environment(text)) => {
            if words.contains(&text.as_str()) {
                Ok(Value::Text(text.clone()))
            } else {
                wrong("")
            }
        }
        (Kind::Bool, Raw::Bool(yes)) => Ok(Value::Bool(*yes)),
        (Kind::Bool, Raw::Environment(text)) => text.parse().map(Value::Bool).or_else(|_| wrong("")),
        (Kind::Bool, Raw::Text(_)) => wrong(": write it without quotes"),
        (Kind::Int(..), Raw::Text(text)) if text.parse::<u64>().is_ok() => wrong(": write it without quotes"),
        (Kind::Int(min, max), Raw::Int(_) | Raw::Environment(_)) => {
            let number = match raw {
                Raw::Int(number) => u64::try_from(*number).ok(),
                Raw::Environment(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
                _ => None,
            };
            number.filter(|n| (min..=max).contains(n)).map(Value::Int).map_or_else(|| wrong(""), Ok)
        }
        (Kind::Duration(min, max), Raw::Text(text) | Raw::Environment(text)) => {
            let time = units::duration(text)?;
            if (min..=max).contains(&time) { Ok(Value::Duration(time)) } else { wrong("") }
        }
        (Kind::Size(min, max), Raw::Text(text) | Raw::Environment(text)) => {
            let bytes = units::size(text)?;
            if (min..=max).contains(&bytes) { Ok(Value::Size(bytes)) } else { wrong("") }
        }
        (Kind::Duration(..) | Kind::Size(..), Raw::Int(_)) => {
            wrong(", a number without a unit: write it in quotes, with its unit")
        }
        // It may be a password in a wrong place: it is not repeated.
        (Kind::Text, Raw::Int(_)) => Err("needs text, not a number: write it in quotes".into()),
        (Kind::Text | Kind::Choice(_), Raw::Int(_) | Raw::Bool(_)) => wrong(": write it in quotes"),
        _ => wrong(""),
    }
}

fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".into(),
        Kind::Bool => "true or false".into(),
        Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Duration(min, max) => {
            format!("a duration from \"{}\" to \"{}\"", units::show_duration(min), units::show_duration(max))
        }
        Kind::Size(min, max) => {
            format!("a size from \"{}\" to \"{}\"", units::show_size(min), units::show_size(max))
        }
        Kind::Choice(words) => {
            let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            format!("one of {}", quoted.join(", "))
        }
    }
}

/// What was found, short enough for a sentence, without credentials.
fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) | Raw::Environment(text) => {
            let masked = source::mask(text);
            match masked.char_indices().nth(60) {
                Some((end, _)) => format!("{:?}…", &masked[..end]),
                None => format!("{masked:?}"),
            }
        }
        Raw::Int(number) => number.to_string(),
        Raw::Bool(yes) => yes.to_string(),
        Raw::Other(words) => words.clone(),
    }
}
