//! Why a database cannot be opened or read.

use std::fmt;

use rusqlite::ErrorCode;

/// Why a database cannot be opened or read. The texts are for people.
#[derive(Debug)]
pub enum Fault {
    /// Its content is not what it should be.
    Damaged(String),
    /// A newer camscribe wrote it.
    Newer {
        /// The layout of the file.
        found: i32,
        /// The newest layout that this version reads.
        known: i32,
    },
    /// The disk or the file system fails.
    Unusable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) | Self::Unusable(why) => f.write_str(why),
            Self::Newer { found, known } => {
                write!(f, "its layout is {found}, and this version reads layouts up to {known}")
            }
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            // Unknown: a table or a column does not exist.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) | None => {
                Self::Damaged(why)
            }
            Some(_) => Self::Unusable(why),
        }
    }
}
