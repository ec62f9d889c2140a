//! The folder of `describe --output-dir`: a file for each source, and a record of those that are whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::Write,
    mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::usage::UsageError,
    naming::{PART, with_ending},
    source::NamedSource,
    text::on_one_line,
};
use crate::logging::tell;

/// The file in the folder that records which others are whole: a line of JSON for each.
const RECORDS: &str = ".camscribe.jsonl";

/// The open folder. No other camscribe writes into it meanwhile.
pub struct OutputDir {
    folder: PathBuf,
    /// What the names of outputs end with, such as `.srt`.
    ending: &'static str,
    /// What is asked, how and of which model.
    question: String,
    records: BTreeMap<String, Record>,
    /// The record ends within a line.
    torn: bool,
    _lock: File,
}

/// What is known of an output that is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Its path in the folder.
    output: String,
    /// Its length in bytes.
    bytes: u64,
    /// The absolute path of its source.
    source: PathBuf,
    source_bytes: u64,
    source_modified: DateTime<Utc>,
    /// What was asked, how and of which model.
    question: String,
}

/// The file of one source while it is written.
pub struct SourceOutput {
    /// Where descriptions go.
    pub file: File,
    /// Its path until it is whole.
    part: PathBuf,
    path: PathBuf,
    /// Of what is being read: without the length of the output.
    record: Record,
}

/// What is to be done for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputState {
    /// Its output is whole.
    Whole,
    /// Its output was whole, but the source has changed since, or other things were asked.
    Outdated,
    /// It has no output.
    Missing,
}

impl OutputDir {
    /// Opens or creates a folder.
    ///
    /// # Errors
    /// When it cannot be written, or another camscribe writes into it.
    pub fn open(folder: &Path, ending: &'static str) -> anyhow::Result<Self> {
        let unwritable = || format!("the folder {} cannot be written", folder.display());
        fs::create_dir_all(folder).with_context(unwritable)?;
        let lock = File::open(folder).with_context(unwritable)?;
        // Some file systems know no locks.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            let folder = folder.display();
            bail!("another camscribe writes into {folder}: wait for its end, or choose another folder");
        }
        let path = folder.join(RECORDS);
        let written = fs::read(&path).unwrap_or_default();
        let torn = written.last().is_some_and(|last| *last != b'\n');
        // A line may have been cut off.
        let records = String::from_utf8_lossy(&written);
        let records = records.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
        let records = records.map(|record| (record.output.clone(), record)).collect();
        let (folder, question) = (folder.into(), String::new());
        Ok(Self { folder, ending, question, records, torn, _lock: lock })
    }

    /// States what is asked, how and of which model: outputs of other questions are outdated.
    pub fn ask(&mut self, question: String) {
        self.question = question;
    }

    /// Checks that no output would be written over a source, or over a file that is not an output.
    ///
    /// # Errors
    /// With the first that would.
    pub fn check(&self, sources: &[NamedSource]) -> Result<(), UsageError> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
        let files: BTreeSet<_> =
            sources.iter().filter_map(|source| source.file()).filter_map(identity).collect();
        for source in sources {
            let (path, part) = self.paths(source);
            let taken =
                [path, part].into_iter().find(|it| identity(it).is_some_and(|it| files.contains(&it)));
            if let Some(path) = taken {
                let path = path.display();
                return Err(UsageError(format!(
                    "{path} is a source and cannot be an output: write into another folder"
                )));
            }
            let (path, _) = self.paths(source);
            if path.exists() && !self.records.contains_key(&self.key(source)) {
                let path = path.display();
                return Err(UsageError(format!(
                    "{path} exists, and camscribe does not know it as an output of its own: move it away, or write into \
                     another folder"
                )));
            }
        }
        Ok(())
    }

    /// What is to be done for a source.
    pub fn state(&self, source: &NamedSource) -> OutputState {
        let (path, _) = self.paths(source);
        let known = self.records.get(&self.key(source)).zip(fs::metadata(path).ok());
        match known.filter(|(record, output)| record.bytes == output.len()) {
            None => OutputState::Missing,
            Some((record, _)) if self.record(source, record.bytes) == *record => OutputState::Whole,
            Some(_) => OutputState::Outdated,
        }
    }

    /// Creates the file of a source.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, source: &NamedSource) -> anyhow::Result<SourceOutput> {
        let (path, part) = self.paths(source);
        let folder = path.parent().unwrap_or(&self.folder);
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&part));
        let file = file.with_context(|| format!("{} cannot be written", part.display()))?;
        Ok(SourceOutput { file, part, path, record: self.record(source, 0) })
    }

    /// Gives the file of a source its name: it is whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self, SourceOutput { file, part, path, record }: SourceOutput) -> anyhow::Result<()> {
        let finish = || {
            file.sync_all()?;
            // The record first: without it nobody would know the file as an output.
            let record = Record { bytes: file.metadata()?.len(), ..record };
            let before = if mem::take(&mut self.torn) { "\n" } else { "" };
            let line = format!("{before}{}\n", serde_json::to_string(&record)?);
            let records = File::options().append(true).create(true).open(self.folder.join(RECORDS));
            records?.write_all(line.as_bytes())?;
            fs::rename(&part, &path)
        };
        finish().with_context(|| format!("{} cannot be written", path.display()))
    }

    /// The path of the output of a source, and its path until it is whole.
    fn paths(&self, source: &NamedSource) -> (PathBuf, PathBuf) {
        let path = self.folder.join(self.key(source));
        let mut part = path.clone().into_os_string();
        part.push(PART);
        (path, part.into())
    }

    /// The path of the output of a source in the folder. An earlier run may have given the plain name to another source,
    /// or this source a digest.
    fn key(&self, source: &NamedSource) -> String {
        let key = |output: &Path| with_ending(output, self.ending).to_string_lossy().into_owned();
        let (plain, digested) = (key(&source.output), key(&source.digested_output()));
        let identity = source.identity();
        let of = |key: &str| self.records.get(key).map(|record| record.source == identity);
        match (of(&plain), of(&digested)) {
            (Some(true), _) => plain,
            (_, Some(true)) | (Some(false), _) => digested,
            _ if source.clashes => digested,
            _ => plain,
        }
    }

    /// The record of a source's output of so many bytes, as it would be now. A stream is never what it was.
    fn record(&self, source: &NamedSource, bytes: u64) -> Record {
        let file = source.file().and_then(|path| fs::metadata(path).ok());
        let modified = file.as_ref().and_then(|file| file.modified().ok()).map(DateTime::from);
        Record {
            output: self.key(source),
            bytes,
            source: source.identity(),
            source_bytes: file.map_or(0, |file| file.len()),
            source_modified: modified.unwrap_or_else(Utc::now),
            question: self.question.clone(),
        }
    }
}

impl SourceOutput {
    /// The path of the file until it is whole.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Says where the beginning of an output is that will not become whole.
    pub fn abandon(self) {
        match self.file.metadata() {
            Ok(it) if it.len() > 0 => {
                let part = on_one_line(&self.part.to_string_lossy());
                tell(format_args!("what was described of it is in {part}"));
            }
            _ => drop(fs::remove_file(&self.part)),
        }
    }
}
