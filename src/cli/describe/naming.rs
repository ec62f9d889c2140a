//! Names that are made from those of sources: camera ids and files.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::camera::CameraId;

/// The most characters of a camera id.
const MAX_ID: usize = 64;
/// The most bytes of a file name on the usual file systems.
const MAX_FILE_NAME: usize = 255;
/// The ending of a file that is being written.
pub const PART: &str = ".part";

/// Makes a camera id from a name. A name that cannot be an id as it is, but for capitals, is told from all others by a
/// digest of `text`, which names the source.
pub fn camera_id(name: &str, text: &str) -> CameraId {
    name.to_ascii_lowercase().parse().unwrap_or_else(|_| digested_id(name, text))
}

/// Makes a camera id from a name and a digest of `text`, which names the source.
pub fn digested_id(name: &str, text: &str) -> CameraId {
    let digest = digest(text);
    let allowed = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '-') { c } else { '_' };
    let kept: String = name.to_lowercase().chars().map(allowed).take(MAX_ID - 1 - digest.len()).collect();
    let kept = kept.trim_matches('_');
    let id = if kept.is_empty() { digest } else { format!("{kept}-{digest}") };
    id.parse().expect("only characters that are allowed")
}

/// Twelve hexadecimal digits that hardly another text has.
pub fn digest(text: &str) -> String {
    Sha256::digest(text)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The output of a source with its ending, such as `.srt`. A name that would be too long is cut.
pub fn with_ending(output: &Path, ending: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let room = MAX_FILE_NAME - ending.len() - PART.len();
    if name.len() <= room {
        return output.with_file_name(format!("{name}{ending}"));
    }
    let digest = digest(&name);
    let cut = name.floor_char_boundary(room - 1 - digest.len());
    output.with_file_name(format!("{}-{digest}{ending}", &name[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_within_a_letter_of_its_script() {
        let name = format!("{}.mp4", "映".repeat(83));
        let cut = with_ending(Path::new(&name), ".jsonl");
        let cut = cut.to_str().unwrap();
        assert!(
            cut.len() + PART.len() <= MAX_FILE_NAME && cut.starts_with("映映") && cut.ends_with(".jsonl")
        );
        assert_eq!(with_ending(Path::new("a/b.mp4"), ".srt"), Path::new("a/b.mp4.srt"));
    }
}
