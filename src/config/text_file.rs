//! Files that people write with an editor: UTF-8, and not long.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use crate::ownership::user;

/// What UTF-16 files begin with, in either byte order.
const UTF_16: [[u8; 2]; 2] = [[0xFF, 0xFE], [0xFE, 0xFF]];

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If it cannot be read, is no regular file, is longer, or is not UTF-8; the text says what to do.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    // To open a pipe would wait for whoever writes to it.
    if !fs::metadata(path).map_err(refused)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(refused)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    decode(bytes).map_err(io::Error::other)
}

/// Says whom the system refuses a file.
fn refused(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(
        error.kind(),
        format!("user {0} may not read it: let {0} (chown or chmod, for the folders above it, too)", user()),
    )
}

fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
        return Err("it is UTF-16: save it as UTF-8".into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8, but perhaps Latin-1: save it as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_encoding_is_told_with_its_line() {
        assert_eq!(decode("café\n".into()), Ok("café\n".into()));
        let latin = b"a\nb = \"caf\xe9\"\n".to_vec();
        assert!(decode(latin).is_err_and(|why| why.starts_with("line 2 is not UTF-8")));
        assert!(decode(b"\xff\xfea\0".to_vec()).is_err_and(|why| why.starts_with("it is UTF-16")));
    }
}
