//! Topics on which the broker may still keep something of this node: those that are in use, and those
//! that went out of use while nobody could tell it. Kept beyond the process, so that a camera, a name or
//! a prefix that was changed while camscribe did not run, or while the broker was away, leaves no ghost
//! in Home Assistant.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::state;

/// In the state directory.
const FILE: &str = "retained.json";

/// See above.
#[derive(Debug)]
pub struct Former {
    /// None: nothing is kept beyond the process.
    file: Option<PathBuf>,
    told: BTreeSet<String>,
}

impl Former {
    /// Those that an earlier process used.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let file = state_dir.map(|folder| folder.join(FILE));
        let mut told = file.as_deref().map_or_else(BTreeSet::new, |file| {
            state::read(file).unwrap_or_else(|error| {
                tracing::error!("what was retained at the broker is forgotten: {error:#}");
                BTreeSet::<String>::new()
            })
        });
        // A broker would end the connection for them.
        told.retain(|topic| !topic.is_empty() && !topic.contains(['+', '#', '\0']));
        Self { file, told }
    }

    /// These are used from now on.
    pub fn tell(&mut self, topics: BTreeSet<String>) {
        let before = self.told.len();
        self.told.extend(topics);
        if self.told.len() > before {
            self.write();
        }
    }

    /// Those that were used and are not among `topics`.
    pub fn without(&self, topics: &BTreeSet<String>) -> Vec<String> {
        self.told.difference(topics).cloned().collect()
    }

    /// The broker has forgotten all but these.
    pub fn forget_others(&mut self, topics: BTreeSet<String>) {
        if topics != self.told {
            self.told = topics;
            self.write();
        }
    }

    fn write(&self) {
        if let Some(file) = &self.file
            && let Err(error) = state::write(file, &self.told)
        {
            tracing::warn!("what is retained at the broker will not outlive this process: {error:#}");
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
    fn a_topic_that_is_out_of_use_is_remembered_until_the_broker_has_forgotten_it() {
        let state = tempfile::tempdir().unwrap();
        let read = || Former::read(Some(state.path()));
        read().tell(set(&["a", "b"]));
        for _ in 0..2 {
            let mut former = read();
            former.tell(set(&["b", "c"]));
            assert_eq!(former.without(&set(&["b", "c"])), ["a"]);
        }
        read().forget_others(set(&["b", "c"]));
        assert!(read().without(&set(&["b", "c"])).is_empty());
        for text in ["{", r##"["#", "a/+"]"##] {
            std::fs::write(state.path().join(FILE), text).unwrap();
            assert!(read().without(&set(&[])).is_empty(), "{text}");
        }
    }
}
