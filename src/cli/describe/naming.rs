//! Names that are made from those of sources: camera ids and files. Different sources have different ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::source::NamedSource;
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

fn digested_id(name: &str, text: &str) -> CameraId {
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

/// Gives different sources different camera ids and outputs.
pub fn distinguish(sources: &mut [NamedSource]) {
    let ids = shared(sources, |source| source.camera.to_string());
    // Some file systems do not tell capitals from small letters.
    let outputs = shared(sources, |source| source.output.to_string_lossy().to_lowercase());
    for (i, source) in sources.iter_mut().enumerate() {
        if ids.contains(&i) {
            source.camera = digested_id(source.camera.as_str(), &source.text);
        }
        if outputs.contains(&i) {
            source.output.as_mut_os_string().push(format!("-{}", digest(&source.text)));
        }
    }
}

/// The indices of sources whose key another source has, too.
fn shared(sources: &[NamedSource], key: impl Fn(&NamedSource) -> String) -> BTreeSet<usize> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, source) in sources.iter().enumerate() {
        by_key.entry(key(source)).or_default().push(i);
    }
    let differ = |group: &Vec<usize>| group.iter().any(|i| sources[*i].text != sources[group[0]].text);
    by_key.into_values().filter(differ).flatten().collect()
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

    fn named(text: &str) -> NamedSource {
        NamedSource::parse(text).unwrap()
    }

    #[test]
    fn different_names_have_different_ids_and_plain_ones_keep_theirs() {
        assert_eq!(named("films/Holiday_2.mp4").camera.as_str(), "holiday_2");
        let texts = [
            "a b.mp4",
            "a_b.mp4",
            "a-b.mp4",
            "a.b.mp4",
            "a!b.mp4",
            "日本.mp4",
            "東京.mp4",
            "été.mp4",
            "ete.mp4",
            "x/clip.mp4",
            "y/clip.mp4",
            "y/clip.avi",
            "IMG.mp4",
            "img.mp4",
            "-.mp4",
            "_.mp4",
            ".mp4",
        ];
        let long = ["n", "m"].map(|end| format!("{}{end}.mp4", "long".repeat(20)));
        let mut sources: Vec<_> = texts.iter().map(|text| named(text)).collect();
        sources.extend(long.iter().map(|text| named(text)));
        distinguish(&mut sources);
        let ids: BTreeSet<_> = sources.iter().map(|source| source.camera.clone()).collect();
        assert_eq!(ids.len(), sources.len(), "{ids:?}");
        let outputs: BTreeSet<_> =
            sources.iter().map(|it| it.output.to_string_lossy().to_lowercase()).collect();
        assert_eq!(outputs.len(), sources.len(), "{outputs:?}");
        assert_eq!(sources[5].output, Path::new("日本.mp4"));
        assert!(sources[9].output.to_str().unwrap().starts_with("clip.mp4-"));
    }

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
