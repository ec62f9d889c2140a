//! Why a URI names no source.

use crate::config::test_source::TestSourceError;

/// A URI that names no source. Its text never repeats credentials.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSource(pub(super) String);

impl From<TestSourceError> for BadSource {
    fn from(error: TestSourceError) -> Self {
        Self(error.to_string())
    }
}
