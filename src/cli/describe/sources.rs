//! All sources of a run, in the order in which they are described.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::bail;

use super::{
    super::usage::UsageError,
    args::{DescribeArgs, SamplingArg},
    folder::Found,
    naming::digested_id,
    printer::Format,
    source::NamedSource,
};
use crate::config::Origin;

/// Why a file cannot be a source.
const NOT_UTF8: &str = "the name is not UTF-8: rename the file, or describe a link to it with another name";

/// What a run describes.
pub struct Sources {
    /// The sources.
    pub all: Vec<NamedSource>,
    /// What cannot be a source, and why.
    pub unusable: Vec<(String, String)>,
    /// Files in folders that are no videos.
    pub passed_over: Vec<PathBuf>,
}

impl Sources {
    /// Parses the arguments, searches folders, and gives the sources the login of the command line.
    ///
    /// # Errors
    /// When an argument is no source, or the sources do not go with other arguments.
    pub fn find(args: &DescribeArgs) -> anyhow::Result<Self> {
        let mut sources = Self { all: Vec::new(), unusable: Vec::new(), passed_over: Vec::new() };
        let mut found = Found::default();
        for name in &args.sources {
            let Some(text) = name.to_str() else {
                sources.unusable.push((format!("{name:?}"), NOT_UTF8.into()));
                continue;
            };
            let source = NamedSource::parse(text)?;
            let Some(folder) = source.file().filter(|path| path.is_dir()) else {
                sources.all.push(source);
                continue;
            };
            let unreadable = found.unreadable.len();
            let is_new = found.search(folder);
            // A disk may not be mounted.
            if is_new && found.videos.is_empty() && found.unreadable.len() == unreadable {
                sources.unusable.push((text.into(), "there is no video in it".into()));
            }
            for path in found.videos.drain(..) {
                match NamedSource::in_folder(folder, &path) {
                    Some(source) => sources.all.push(source),
                    None => sources.unusable.push((format!("{path:?}"), NOT_UTF8.into())),
                }
            }
        }
        sources.passed_over = found.passed_over;
        sources.unusable.extend(found.unreadable);
        if sources.all.is_empty() && !sources.unusable.is_empty() {
            let all: Vec<_> = sources.unusable.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            bail!("{}", all.join("; "));
        }
        let mut named = BTreeSet::new();
        sources.all.retain(|source| named.insert(source.identity()));
        distinguish(&mut sources.all);
        sources.check(args)?;
        let login = args.login()?;
        let wants_login =
            |it: &&mut NamedSource| it.login.is_none() && matches!(it.source.origin(), Origin::Network(_));
        for source in sources.all.iter_mut().filter(wants_login) {
            source.login.clone_from(&login);
        }
        Ok(sources)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len() + self.unusable.len()
    }

    /// Whether the sources go with the other arguments.
    fn check(&self, args: &DescribeArgs) -> Result<(), UsageError> {
        if args.format == Format::Srt && self.count() > 1 && args.output_dir.is_none() {
            let why = "srt cannot name sources: use vtt, --output-dir, or describe one source at a time";
            return Err(UsageError(why.into()));
        }
        if args.sampling == SamplingArg::Reference
            && let Some(other) = self.all.iter().find(|source| source.file().is_none())
        {
            let why = format!("--sampling reference needs whole files, and {} is not a file", other.text);
            return Err(UsageError(why));
        }
        Ok(())
    }
}

/// Gives different sources different camera ids and outputs.
fn distinguish(sources: &mut [NamedSource]) {
    let ids = shared(sources, |source| source.camera.to_string());
    // Some file systems do not tell capitals from small letters.
    let outputs = shared(sources, |source| source.output.to_string_lossy().to_lowercase());
    for (i, source) in sources.iter_mut().enumerate() {
        if ids.contains(&i) {
            source.camera = digested_id(source.camera.as_str(), &source.text);
        }
        if outputs.contains(&i) {
            source.clashes = true;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let name = |it: &NamedSource| if it.clashes { it.digested_output() } else { it.output.clone() };
        let outputs: BTreeSet<_> =
            sources.iter().map(|it| name(it).to_string_lossy().to_lowercase()).collect();
        assert_eq!(outputs.len(), sources.len(), "{outputs:?}");
        assert_eq!(name(&sources[5]), Path::new("日本.mp4"));
        assert!(name(&sources[9]).to_str().unwrap().starts_with("clip.mp4-"));
    }
}
