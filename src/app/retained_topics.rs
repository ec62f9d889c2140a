//! The topics on which the broker may hold retained messages of this node: those in use, and those that went
//! out of use and were not cleared at the broker yet. The set is kept in the state directory. A camera, name or
//! prefix that was changed while camscribe did not run, or while the broker was away, is cleared later and
//! leaves no dead entity in Home Assistant.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::state_file;

/// The file's name in the state directory.
const FILE: &str = "retained.json";

/// The set of topics, and the file that it is kept in.
#[derive(Debug)]
pub struct RetainedTopics {
    /// None without a state directory: the set ends with the process.
    file: Option<PathBuf>,
    topics: BTreeSet<String>,
}

impl RetainedTopics {
    /// Reads the topics of earlier processes. A file that cannot be read is logged and counts as empty.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let file = state_dir.map(|folder| folder.join(FILE));
        let mut topics = file.as_deref().map_or_else(BTreeSet::new, |file| {
            state_file::read(file).unwrap_or_else(|error| {
                let kept = state_file::set_aside(file, &error);
                tracing::error!(
                    "the list of retained topics cannot be read; messages on topics that are no longer used stay \
                     at the broker: {error:#}{kept}"
                );
                BTreeSet::<String>::new()
            })
        });
        // A broker would end the connection over such topics.
        topics.retain(|topic| !topic.is_empty() && !topic.contains(['+', '#', '\0']));
        Self { file, topics }
    }

    /// Adds topics that are used from now on.
    pub fn add(&mut self, topics: BTreeSet<String>) {
        let before = self.topics.len();
        self.topics.extend(topics);
        if self.topics.len() > before {
            self.write();
        }
    }

    /// Returns the topics of the set that are not in `used`.
    pub fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        self.topics.difference(used).cloned().collect()
    }

    /// Replaces the set: the broker holds retained messages on no other topics than these.
    pub fn replace(&mut self, topics: BTreeSet<String>) {
        if topics != self.topics {
            self.topics = topics;
            self.write();
        }
    }

    fn write(&self) {
        if let Some(file) = &self.file
            && let Err(error) = state_file::write(file, &self.topics)
        {
            tracing::warn!("the list of retained topics cannot be written: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(topics: &[&str]) -> BTreeSet<String> {
        topics.iter().map(|topic| (*topic).into()).collect()
    }

    #[test]
    fn an_unused_topic_is_kept_until_the_broker_has_cleared_it() {
        let state = tempfile::tempdir().unwrap();
        let read = || RetainedTopics::read(Some(state.path()));
        read().add(set(&["a", "b"]));
        for _ in 0..2 {
            let mut topics = read();
            topics.add(set(&["b", "c"]));
            assert_eq!(topics.unused(&set(&["b", "c"])), ["a"]);
        }
        read().replace(set(&["b", "c"]));
        assert!(read().unused(&set(&["b", "c"])).is_empty());
        for text in ["{", r##"["#", "a/+"]"##] {
            std::fs::write(state.path().join(FILE), text).unwrap();
            assert!(read().unused(&set(&[])).is_empty(), "{text}");
        }
    }
}
