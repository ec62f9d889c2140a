//! What is wrong with a configuration, said to the person who wrote it: where, what was found, what
//! to do. All mistakes of a configuration are gathered before any is reported.

use std::{fmt, path::PathBuf};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file; lines count from 1.
    File { line: usize, key: String },
    /// In the environment.
    Environment { variable: String },
    /// Nowhere: it is missing, or it is the default.
    Nowhere { key: String },
}

/// One thing that is wrong, or that deserves a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    place: Place,
    text: String,
}

/// Why a configuration cannot be used: all mistakes, in the order of the file.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{}", mistake.sentence(&self.file.display().to_string()))?;
        }
        Ok(())
    }
}

impl Mistake {
    fn sentence(&self, file: &str) -> String {
        match &self.place {
            Place::File { line, key } if key.is_empty() => format!("{file}:{line}: {}", self.text),
            Place::File { line, key } => format!("{file}:{line}: {key}: {}", self.text),
            Place::Environment { variable } => format!("environment variable {variable}: {}", self.text),
            Place::Nowhere { key } if key.is_empty() => format!("{file}: {}", self.text),
            Place::Nowhere { key } => format!("{file}: {key}: {}", self.text),
        }
    }
}

/// Mistakes and warnings as they are found.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Report {
    /// Nothing found yet in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Notes something that must be mended.
    pub fn mistake(&mut self, place: &Place, text: impl Into<String>) {
        self.mistakes.push(Mistake { place: place.clone(), text: text.into() });
    }

    /// Notes something that works but should not stay.
    pub fn warning(&mut self, place: &Place, text: impl Into<String>) {
        self.warnings.push(Mistake { place: place.clone(), text: text.into() });
    }

    /// Whether nothing must be mended so far.
    pub fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// The warnings as sentences, or the mistakes as an error.
    pub fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        if self.mistakes.is_empty() {
            self.warnings.sort();
            self.warnings.dedup();
            let file = self.file.display().to_string();
            return Ok(self.warnings.iter().map(|w| w.sentence(&file)).collect());
        }
        self.mistakes.sort();
        self.mistakes.dedup();
        Err(ConfigError { file: self.file, mistakes: self.mistakes })
    }
}
