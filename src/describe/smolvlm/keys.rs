//! A JSON file of a model directory, asked for its values by dotted key: in comes a path, out come
//! checked numbers, or an error that names the file, the key and what it should hold.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::error::LoadError;

/// Largest JSON file of a checkpoint that is read; the published tokenizer has 3.5 MB.
const MAX_JSON: u64 = 64 << 20;

/// Reads a text file of a model directory.
pub(super) fn read_text(dir: &Path, name: &str) -> Result<(PathBuf, String), LoadError> {
    if !dir.is_dir() {
        return Err(LoadError::NotADirectory { dir: dir.into() });
    }
    let path = dir.join(name);
    let text = fs::metadata(&path).and_then(|m| {
        if !m.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        if m.len() > MAX_JSON {
            return Err(io::Error::other(format!("it has {} bytes: too many for such a file", m.len())));
        }
        fs::read_to_string(&path)
    });
    match text {
        Ok(text) => Ok((path, text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(LoadError::Missing { path }),
        Err(source) => Err(LoadError::Unreadable { path, source }),
    }
}

/// A JSON file whose values are asked for by dotted key; `null` counts as absent, as in the reference.
pub(super) struct Keys {
    path: PathBuf,
    root: Value,
}

impl Keys {
    pub(super) fn read(dir: &Path, name: &str) -> Result<Self, LoadError> {
        let (path, text) = read_text(dir, name)?;
        match serde_json::from_str(&text) {
            Ok(root @ Value::Object(_)) => Ok(Self { path, root }),
            Ok(_) => Err(LoadError::Key {
                path,
                key: "the file".into(),
                problem: "must hold a JSON object: download the model again".into(),
            }),
            Err(source) => Err(LoadError::NotJson { path, source }),
        }
    }

    pub(super) fn wrong(&self, key: &str, problem: impl Into<String>) -> LoadError {
        LoadError::Key { path: self.path.clone(), key: key.into(), problem: problem.into() }
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<&Value>, LoadError> {
        let mut at = &self.root;
        for part in key.split('.') {
            let next = match at {
                Value::Object(map) => map.get(part),
                Value::Array(list) => part.parse().ok().and_then(|i: usize| list.get(i)),
                _ => {
                    return Err(
                        self.wrong(key, "cannot be read: one of the levels above it holds a plain value")
                    );
                }
            };
            match next {
                None | Some(Value::Null) => return Ok(None),
                Some(value) => at = value,
            }
        }
        Ok(Some(at))
    }

    /// A whole number from 1 to `max`.
    pub(super) fn size(&self, key: &str, default: usize, max: usize) -> Result<usize, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (1..=max).contains(n))
            .ok_or_else(|| self.wrong(key, format!("is {value}: it must be a whole number from 1 to {max}")))
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(key, format!("is {value}: it must be a number")))
    }

    pub(super) fn positive(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        let x = self.number(key, default)?;
        if x > 0.0 { Ok(x) } else { Err(self.wrong(key, format!("is {x}: it must be above 0"))) }
    }

    pub(super) fn must_be_about(&self, key: &str, wanted: f64) -> Result<(), LoadError> {
        let x = self.number(key, wanted)?;
        if (x - wanted).abs() < 1e-9 {
            return Ok(());
        }
        Err(self.wrong(key, format!("is {x}: this program only runs models with {wanted}")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, format!("is {value}: it must be true or false")))
    }

    pub(super) fn must_be(&self, key: &str, default: &str, wanted: &str) -> Result<(), LoadError> {
        match self.get(key)? {
            None if default == wanted => Ok(()),
            None => {
                Err(self.wrong(key, format!("is missing: this program only runs models with {wanted:?}")))
            }
            Some(Value::String(s)) if s == wanted => Ok(()),
            Some(other) => {
                Err(self.wrong(key, format!("is {other}: this program only runs models with {wanted:?}")))
            }
        }
    }

    /// The id of a word of the vocabulary.
    pub(super) fn token(&self, key: &str, default: u32, vocab: usize) -> Result<u32, LoadError> {
        match self.get(key)? {
            Some(value) => self.word(key, value, vocab),
            None => self.word(key, &Value::from(default), vocab),
        }
    }

    /// One id or a list of them; there is no default.
    pub(super) fn tokens(&self, key: &str, vocab: usize) -> Result<Vec<u32>, LoadError> {
        let ids = match self.get(key)? {
            Some(Value::Array(list)) => {
                list.iter().map(|v| self.word(key, v, vocab)).collect::<Result<_, _>>()?
            }
            Some(value) => vec![self.word(key, value, vocab)?],
            None => Vec::new(),
        };
        if ids.is_empty() {
            return Err(self.wrong(key, "is missing: without it an answer has no end"));
        }
        Ok(ids)
    }

    fn word(&self, key: &str, value: &Value, vocab: usize) -> Result<u32, LoadError> {
        value.as_u64().filter(|&n| n < vocab as u64).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            self.wrong(key, format!("is {value}: it must be a token id below vocab_size {vocab}"))
        })
    }

    /// Refuses a `whole` that `parts` does not divide.
    pub(super) fn divides(
        &self,
        key: &str,
        whole: usize,
        parts_key: &str,
        parts: usize,
    ) -> Result<(), LoadError> {
        if whole.is_multiple_of(parts) {
            return Ok(());
        }
        Err(self.wrong(key, format!("is {whole}: not a multiple of {parts_key} {parts}")))
    }
}
