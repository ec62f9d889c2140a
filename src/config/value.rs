//! Strict types: a value as written becomes a value of its key's type, or an error. Nothing is coerced.

use std::{fmt, time::Duration};

use ::config::ValueKind;

use super::{diagnostic::Location, key::Kind, source, units};

/// The most characters of a wrong value that an error message repeats.
const MAX_SHOWN: usize = 60;

/// The values of a section by key, as written.
pub type Table = ::config::Map<String, ::config::Value>;

/// A value as written, and where.
#[derive(Clone, Debug)]
pub struct RawEntry {
    /// Of any type that the layer has.
    pub value: ValueKind,
    /// Where it was written.
    pub location: Location,
}

impl RawEntry {
    /// The merged `value` of the key at `path`, such as `model.id`.
    pub fn new(value: &::config::Value, path: &str) -> Self {
        Self { value: value.kind.clone(), location: Location::of(value, path) }
    }

    /// Whether the layer holds nothing but text, so that the key's type says how to read it: the
    /// environment and the defaults. TOML has types of its own.
    fn is_untyped(&self) -> bool {
        !matches!(self.location, Location::File { .. })
    }
}

/// A value of the right type, within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`].
    Int(u64),
    /// Of [`Kind::Fraction`].
    Fraction(f64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Size`], in bytes.
    Size(u64),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => toml::Value::from(text.as_str()).fmt(f),
            Self::Bool(yes) => yes.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Fraction(number) => toml::Value::from(*number).fmt(f),
            Self::Duration(time) => write!(f, "\"{}\"", units::format_duration(*time)),
            Self::Size(bytes) => write!(f, "\"{}\"", units::format_size(*bytes)),
            Self::List(texts) => toml::Value::from(texts.clone()).fmt(f),
        }
    }
}

/// Reads `raw` as a value of the type `kind`.
///
/// # Errors
/// What the key needs, what was found, and how to write it.
pub fn convert(kind: Kind, raw: &RawEntry) -> Result<Value, String> {
    let wrong = |hint: &str| Err(mismatch(kind, &shown(&raw.value)) + hint);
    match (kind, &raw.value) {
        (Kind::List, ValueKind::Array(elements)) => texts(elements).map(Value::List),
        (Kind::List, ValueKind::String(text)) if raw.is_untyped() => {
            let texts = text.split(',').map(|text| text.trim().to_owned());
            Ok(Value::List(if text.trim().is_empty() { Vec::new() } else { texts.collect() }))
        }
        (Kind::List, ValueKind::String(_)) => wrong(": write it in brackets"),
        (Kind::Text, ValueKind::String(text)) => Ok(Value::Text(text.clone())),
        (Kind::Choice(names), ValueKind::String(text)) if names.contains(&text.as_str()) => {
            Ok(Value::Text(text.clone()))
        }
        (Kind::Bool, ValueKind::Boolean(yes)) => Ok(Value::Bool(*yes)),
        (Kind::Bool, ValueKind::String(text)) if raw.is_untyped() => {
            text.parse().map(Value::Bool).or_else(|_| wrong(""))
        }
        (Kind::Bool, ValueKind::String(_)) => wrong(": write it without quotes"),
        (Kind::Int(min, max), ValueKind::I64(number)) => {
            in_bounds(u64::try_from(*number).ok(), min, max).map(Value::Int).map_or_else(|| wrong(""), Ok)
        }
        (Kind::Int(min, max), ValueKind::String(text)) if raw.is_untyped() => {
            in_bounds(whole_number(text), min, max).map(Value::Int).map_or_else(|| wrong(""), Ok)
        }
        (Kind::Fraction(min, max), value) => match fraction(value, raw.is_untyped()) {
            Some(number) if (min..=max).contains(&number) => Ok(Value::Fraction(number)),
            _ => wrong(""),
        },
        (Kind::Int(..), ValueKind::String(text)) if whole_number(text).is_some() => {
            wrong(": write it without quotes")
        }
        (Kind::Duration(min, max), ValueKind::String(text)) => {
            let time = units::parse_duration(text)?;
            in_bounds(Some(time), min, max).map(Value::Duration).map_or_else(|| wrong(""), Ok)
        }
        (Kind::Size(min, max), ValueKind::String(text)) => {
            let bytes = units::parse_size(text)?;
            in_bounds(Some(bytes), min, max).map(Value::Size).map_or_else(|| wrong(""), Ok)
        }
        (Kind::Duration(..) | Kind::Size(..), ValueKind::I64(_)) => {
            wrong(", a number without a unit: write it in quotes, with its unit")
        }
        // The number may be a password in a wrong place: it is not repeated.
        (Kind::Text, ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::Float(_)) => {
            Err("needs text, not a number: write it in quotes".into())
        }
        (Kind::Text | Kind::Choice(_), ValueKind::I64(_) | ValueKind::Boolean(_)) => {
            wrong(": write it in quotes")
        }
        _ => wrong(""),
    }
}

/// The error text for a key of the type `kind` that holds `found`.
pub fn mismatch(kind: Kind, found: &str) -> String {
    format!("needs {kind}, not {found}")
}

fn in_bounds<T: PartialOrd>(value: Option<T>, min: T, max: T) -> Option<T> {
    value.filter(|value| (min..=max).contains(value))
}

/// The elements of a list, each of which must be text.
fn texts(elements: &[::config::Value]) -> Result<Vec<String>, String> {
    let text = |(place, element): (usize, &::config::Value)| match &element.kind {
        ValueKind::String(text) => Ok(text.clone()),
        _ => Err(format!("needs {}; number {} of it is no text: write it in quotes", Kind::List, place + 1)),
    };
    elements.iter().enumerate().map(text).collect()
}

/// The number that a value is; text counts only where the layer is `untyped`.
fn fraction(value: &ValueKind, untyped: bool) -> Option<f64> {
    match value {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => Some(*number as f64),
        ValueKind::String(text) if untyped => text.parse().ok(),
        _ => None,
    }
}

fn whole_number(text: &str) -> Option<u64> {
    // `parse` alone takes a sign, too.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The value as an error message repeats it: short and without credentials.
fn shown(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => {
            let masked = source::mask(text);
            match masked.char_indices().nth(MAX_SHOWN) {
                Some((end, _)) => format!("{:?}…", &masked[..end]),
                None => format!("{masked:?}"),
            }
        }
        ValueKind::Boolean(yes) => yes.to_string(),
        ValueKind::I128(number) => format!("the number {number}"),
        ValueKind::Float(number) => format!("the number {number:?}"),
        ValueKind::Array(_) => "a list".into(),
        number => number.to_string(),
    }
}
