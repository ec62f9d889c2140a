//! All sources of a run, in the order in which they are described.

use anyhow::bail;

use super::{
    super::usage::UsageError,
    args::{DescribeArgs, SamplingArg},
    folder::Found,
    naming::distinguish,
    printer::Format,
    source::NamedSource,
};
use crate::config::Origin;

/// What a run describes.
pub struct Sources {
    /// The sources.
    pub all: Vec<NamedSource>,
    /// What cannot be a source, and why.
    pub unusable: Vec<(String, String)>,
    /// Files in folders that are no videos.
    pub passed_over: usize,
}

impl Sources {
    /// Parses the arguments, searches folders, and gives the sources the login of the command line.
    ///
    /// # Errors
    /// When an argument is no source, or the sources do not go with other arguments.
    pub fn find(args: &DescribeArgs) -> anyhow::Result<Self> {
        let mut sources = Self { all: Vec::new(), unusable: Vec::new(), passed_over: 0 };
        let mut found = Found::default();
        for text in &args.sources {
            let source = NamedSource::parse(text)?;
            match source.file().filter(|path| path.is_dir()) {
                None => sources.all.push(source),
                Some(folder) => {
                    found.search(folder);
                    for path in found.videos.drain(..) {
                        match NamedSource::in_folder(folder, &path) {
                            Some(source) => sources.all.push(source),
                            None => {
                                let why = "the name is not UTF-8: rename the file";
                                sources.unusable.push((format!("{path:?}"), why.into()));
                            }
                        }
                    }
                }
            }
        }
        sources.passed_over = found.passed_over;
        sources.unusable.extend(found.unreadable);
        if sources.all.is_empty() && sources.unusable.is_empty() {
            bail!("{}: there is no video in it", args.sources.join(", "));
        }
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
