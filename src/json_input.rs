//! JSON that others wrote: what is wrong with it is told with its place, and whole numbers may be written as fractions.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IntoDeserializer, Unexpected, Visitor},
};
use serde_json::Value;

/// What is wrong in a JSON document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place, such as `messages[0].role`; empty: the document as a whole.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl Mistake {
    /// `why` at `path`.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// What serde found. `root`: the place of what it read.
    fn of(error: &serde_path_to_error::Error<serde_json::Error>, root: &str) -> Self {
        let found = error.path().to_string();
        let path = match (root, found.as_str()) {
            (root, ".") => root.to_owned(),
            ("", found) => found.to_owned(),
            (root, found) if found.starts_with('[') => format!("{root}{found}"),
            (root, found) => format!("{root}.{found}"),
        };
        let mut why = error.inner().to_string();
        // The path says it better than a column.
        if error.inner().is_data()
            && let Some(position) = why.rfind(" at line ")
        {
            why.truncate(position);
        }
        Self { path, why }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, why } = self;
        if path.is_empty() { f.write_str(why) } else { write!(f, "{path}: {why}") }
    }
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it. What is no JSON at all has no place.
pub fn from_slice<T: DeserializeOwned>(document: &[u8]) -> Result<T, Mistake> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let Mistake { path, why } = Mistake::of(&error, "");
        if error.inner().is_data() { Mistake { path, why } } else { Mistake::new("", why) }
    })?;
    deserializer.end().map_err(|error| Mistake::new("", error.to_string()))?;
    Ok(read)
}

/// Reads the value that stands at `path`.
///
/// # Errors
/// What is wrong with it.
pub fn from_value<T: DeserializeOwned>(value: Value, path: &str) -> Result<T, Mistake> {
    serde_path_to_error::deserialize(value).map_err(|error| Mistake::of(&error, path))
}

/// A whole number, which some clients write as 1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<T>(pub T);

/// Up to this a float holds each whole number.
const MAX_WHOLE_FLOAT: f64 = (1_u64 << 53) as f64;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor(PhantomData)).map(Self)
    }
}

struct WholeVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for WholeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        if number.fract() == 0.0 && number.abs() <= MAX_WHOLE_FLOAT {
            return self.visit_i64(number as i64);
        }
        Err(E::invalid_value(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Outer {
        count: Option<Whole<u64>>,
        inner: Option<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        edge: Whole<i64>,
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (document, wanted) in [
            (r#"{"count": -1}"#, "count: invalid value: integer `-1`, expected u64"),
            (r#"{"count": 1.5}"#, "count: invalid value: floating point `1.5`, expected a whole number"),
            (r#"{"count": 1e300}"#, "count: invalid value: floating point `1e+300`, expected a whole number"),
            (r#"{"inner": [{"edge": 1}, {"edge": "x"}]}"#, "inner[1].edge: invalid type: string \"x\", "),
            (r#"{"inner": [{}]}"#, "inner[0]: missing field `edge`"),
            ("3", "invalid type: integer `3`"),
            (r#"{"count": 1"#, "EOF while parsing an object at line 1"),
            ("{} {}", "trailing characters"),
        ] {
            let why = from_slice::<Outer>(document.as_bytes()).unwrap_err().to_string();
            assert!(why.starts_with(wanted), "{document}: {why}");
        }
        let value = serde_json::json!({"edge": null});
        let mistake = from_value::<Inner>(value, "list[3]").unwrap_err();
        assert_eq!(mistake.path, "list[3].edge");
        let mistake = from_value::<Vec<Inner>>(serde_json::json!([1]), "list").unwrap_err();
        assert_eq!(mistake.path, "list[0]");
    }

    #[test]
    fn whole_numbers_may_be_written_as_fractions() {
        let read = |document: &str| from_slice::<Outer>(document.as_bytes()).unwrap();
        assert_eq!(read(r#"{"count": 100.0}"#).count, Some(Whole(100)));
        assert_eq!(read(r#"{"count": 18446744073709551615}"#).count, Some(Whole(u64::MAX)));
        assert_eq!(read(r#"{"count": null}"#).count, None);
        assert_eq!(read(r#"{"inner": [{"edge": -1.0}]}"#).inner, Some(vec![Inner { edge: Whole(-1) }]));
    }
}
