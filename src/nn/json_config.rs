//! Reads JSON files of a model directory. Values are looked up by dotted key and checked; an error names the file, the
//! key, and what the value should be.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::error::LoadError;

/// Largest text file of a checkpoint that is read. The published tokenizer has 3.5 MB.
const MAX_JSON: u64 = 64 << 20;

/// Reads a text file of a model directory. Returns its path and its content.
///
/// # Errors
/// When the directory or the file does not exist, or the file is too large or not UTF-8.
pub fn read_text(dir: &Path, name: &str) -> Result<(PathBuf, String), LoadError> {
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

/// A JSON object, read from a file. `null` counts as absent, as in the reference.
pub struct JsonConfig {
    path: PathBuf,
    root: Value,
}

impl JsonConfig {
    /// Reads a file of a model directory.
    ///
    /// # Errors
    /// When it cannot be read or is not a JSON object.
    pub fn read(dir: &Path, name: &str) -> Result<Self, LoadError> {
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

    /// The error for a value that cannot be used. `problem` continues a sentence that begins with the key.
    pub fn wrong(&self, key: &str, problem: impl Into<String>) -> LoadError {
        LoadError::Key { path: self.path.clone(), key: key.into(), problem: problem.into() }
    }

    /// The value at a dotted key; numbers index arrays. None if it is absent.
    ///
    /// # Errors
    /// When a level above it is neither an object nor an array.
    pub fn get(&self, key: &str) -> Result<Option<&Value>, LoadError> {
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

    /// A string. None if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, format!("is {value}: it must be a string")))
    }

    /// A whole number from 1 to `max`, or `default` if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn size(&self, key: &str, default: usize, max: usize) -> Result<usize, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| (1..=max).contains(n))
            .ok_or_else(|| self.wrong(key, format!("is {value}: it must be a whole number from 1 to {max}")))
    }

    /// A number, or `default` if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(key, format!("is {value}: it must be a number")))
    }

    /// A number above 0, or `default` if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        let x = self.number(key, default)?;
        if x > 0.0 { Ok(x) } else { Err(self.wrong(key, format!("is {x}: it must be above 0"))) }
    }

    /// Checks that a number, if the key is present, is `wanted` up to rounding.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn must_be_about(&self, key: &str, wanted: f64) -> Result<(), LoadError> {
        let x = self.number(key, wanted)?;
        if (x - wanted).abs() < 1e-9 {
            return Ok(());
        }
        Err(self.wrong(key, format!("is {x}: this program only runs models with {wanted}")))
    }

    /// A boolean, or `default` if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        let Some(value) = self.get(key)? else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, format!("is {value}: it must be true or false")))
    }

    /// Checks that a string is `wanted`. An absent key has the value `default`.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn must_be(&self, key: &str, default: &str, wanted: &str) -> Result<(), LoadError> {
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

    /// A token id below `vocab`, or `default` if the key is absent.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn token(&self, key: &str, default: u32, vocab: usize) -> Result<u32, LoadError> {
        match self.get(key)? {
            Some(value) => self.token_id(key, value, vocab),
            None => self.token_id(key, &Value::from(default), vocab),
        }
    }

    /// One token id below `vocab`, or a list of them.
    ///
    /// # Errors
    /// When the value is something else, absent or an empty list.
    pub fn tokens(&self, key: &str, vocab: usize) -> Result<Vec<u32>, LoadError> {
        let ids = match self.get(key)? {
            Some(Value::Array(list)) => {
                list.iter().map(|v| self.token_id(key, v, vocab)).collect::<Result<_, _>>()?
            }
            Some(value) => vec![self.token_id(key, value, vocab)?],
            None => Vec::new(),
        };
        if ids.is_empty() {
            return Err(self.wrong(key, "is missing: without it an answer has no end"));
        }
        Ok(ids)
    }

    fn token_id(&self, key: &str, value: &Value, vocab: usize) -> Result<u32, LoadError> {
        value.as_u64().filter(|&n| n < vocab as u64).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            self.wrong(key, format!("is {value}: it must be a token id below vocab_size {vocab}"))
        })
    }

    /// Checks that `whole`, the value of `key`, is a multiple of `parts`, the value of `parts_key`.
    ///
    /// # Errors
    /// When it is not.
    pub fn divides(&self, key: &str, whole: usize, parts_key: &str, parts: usize) -> Result<(), LoadError> {
        if whole.is_multiple_of(parts) {
            return Ok(());
        }
        Err(self.wrong(key, format!("is {whole}: not a multiple of {parts_key} {parts}")))
    }
}
