//! Errors and warnings about a configuration: the location of a value, what is wrong with it, what to
//! do. All errors are gathered before any is reported.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Where a value was written. A merged value carries its location as the text of its origin: `Display`
/// writes that text, [`Location::of`] reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A file as a whole.
    WholeFile {
        /// The file, as it is shown.
        file: String,
    },
    /// In a file.
    File {
        /// The file, as it is shown.
        file: String,
        /// Counts from 1.
        line: usize,
        /// The dotted path of the key or section; empty: the line as a whole.
        key: String,
    },
    /// In the environment.
    Environment {
        /// The name of the variable.
        variable: String,
    },
    /// On the command line.
    Option {
        /// The name of the option, such as `--window`.
        name: String,
    },
    /// Nowhere: the key has its default, or is missing.
    Unset {
        /// The dotted path of the key; empty: the configuration as a whole.
        key: String,
    },
}

/// What the origin of an environment variable's value begins with.
const VARIABLE: &str = "environment variable ";

impl Location {
    /// The location of a merged value: read from its origin, or [`Location::Unset`] of the key `key`
    /// for a default, which has none.
    pub fn of(value: &::config::Value, key: &str) -> Self {
        value.origin().and_then(Self::from_origin).unwrap_or_else(|| Self::Unset { key: key.into() })
    }

    fn from_origin(origin: &str) -> Option<Self> {
        if let Some(variable) = origin.strip_prefix(VARIABLE) {
            return Some(Self::Environment { variable: variable.into() });
        }
        if origin.starts_with("--") {
            return Some(Self::Option { name: origin.into() });
        }
        let (line, key) = origin.rsplit_once(": ")?;
        let (file, line) = line.rsplit_once(':')?;
        Some(Self::File { file: file.into(), line: line.parse().ok()?, key: key.into() })
    }

    /// A value without a type that says where it was written.
    pub fn value(&self, kind: impl Into<::config::ValueKind>) -> ::config::Value {
        ::config::Value::new(Some(&self.to_string()), kind)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WholeFile { file } => f.write_str(file),
            Self::File { file, line, key } if key.is_empty() => write!(f, "{file}:{line}"),
            Self::File { file, line, key } => write!(f, "{file}:{line}: {key}"),
            Self::Environment { variable } => write!(f, "{VARIABLE}{variable}"),
            Self::Option { name } => f.write_str(name),
            Self::Unset { key } => f.write_str(key),
        }
    }
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Diagnostic {
    location: Location,
    text: String,
}

impl Diagnostic {
    /// One line for the person who wrote the configuration, whose main file is `file`.
    fn line(&self, file: &Path) -> String {
        let Self { location, text } = self;
        match location {
            Location::Unset { key } if key.is_empty() => format!("{}: {text}", file.display()),
            Location::Unset { key } => format!("{}: {key}: {text}", file.display()),
            _ => format!("{location}: {text}"),
        }
    }
}

/// Why a configuration cannot be used: all errors, one a line, in the order of the file.
#[derive(Debug, thiserror::Error)]
#[error("{}", .lines.join("\n"))]
pub struct ConfigError {
    lines: Vec<String>,
}

/// The errors and warnings found so far in a configuration.
#[derive(Debug, Default)]
pub struct Diagnostics {
    file: PathBuf,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// What is wrong with credentials, by the section that needs them.
    credentials: BTreeMap<String, Diagnostic>,
}

impl Diagnostics {
    /// None yet, for a configuration whose main file is `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, ..Self::default() }
    }

    /// Adds an error: the configuration cannot be used.
    pub fn error(&mut self, location: &Location, text: impl Into<String>) {
        self.errors.push(Diagnostic { location: location.clone(), text: text.into() });
    }

    /// Adds a warning: the configuration can be used, but should be changed.
    pub fn warning(&mut self, location: &Location, text: impl Into<String>) {
        self.warnings.push(Diagnostic { location: location.clone(), text: text.into() });
    }

    /// Adds an error about the credential that the section `section` needs: only a restart can mend it, because the
    /// service manager passes credentials at the start.
    pub fn credential_error(&mut self, section: &str, location: &Location, text: impl Into<String>) {
        let error = Diagnostic { location: location.clone(), text: text.into() };
        self.credentials.insert(section.into(), error);
    }

    /// Turns errors about credentials into warnings. Returns the sections that need them.
    pub fn defer_credentials(&mut self) -> Vec<String> {
        let deferred = std::mem::take(&mut self.credentials);
        let section = |(section, Diagnostic { location, text }): (String, Diagnostic)| {
            self.warning(&location, format!("{text}; until then, what is new in {section} is not applied"));
            section
        };
        deferred.into_iter().map(section).collect()
    }

    /// Whether there is no error so far.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.credentials.is_empty()
    }

    /// The warnings, one a line.
    ///
    /// # Errors
    /// All errors, if there are any.
    pub fn finish(self) -> Result<Vec<String>, ConfigError> {
        if self.is_clean() { Ok(lines(self.warnings, &self.file)) } else { Err(self.into_error()) }
    }

    /// All errors, of which there must be one.
    pub fn into_error(mut self) -> ConfigError {
        self.errors.extend(self.credentials.into_values());
        ConfigError { lines: lines(self.errors, &self.file) }
    }
}

/// Each diagnostic once, in the order of the file.
fn lines(mut diagnostics: Vec<Diagnostic>, file: &Path) -> Vec<String> {
    diagnostics.sort();
    diagnostics.dedup();
    diagnostics.iter().map(|diagnostic| diagnostic.line(file)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_location_survives_as_the_origin_of_a_value(
            file in "(/[a-zA-Z0-9 :._-]{1,8}){1,3}\\.toml",
            line in 1_usize..,
            key in "[a-z]{1,8}(\\.[a-z0-9_-]{1,8}){1,2}",
            variable in "CAMSCRIBE__[A-Z_]{1,20}",
        ) {
            for location in [Location::File { file: file.clone(), line, key: key.clone() }, Location::Environment { variable: variable.clone() }, Location::Option { name: format!("--{key}") }] {
                prop_assert_eq!(&Location::of(&location.value(true), "unused"), &location);
            }
            let default = ::config::Value::new(None, true);
            prop_assert_eq!(Location::of(&default, &key), Location::Unset { key: key.clone() });
        }
    }
}
