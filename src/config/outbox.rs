//! `[outbox]`: the queue on disk for what the broker has not confirmed.

use super::{
    key::{Key, Kind, names},
    section::Section,
};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

const STORAGES: [(&str, bool); 2] = [("disk", true), ("memory", false)];

pub const KEYS: &[Key] = &[
    Key::new(
        "storage",
        Kind::Choice(&names(&STORAGES)),
        "disk",
        "Where descriptions wait: disk, or memory, which spares the disk and loses them when camscribe ends",
    ),
    Key::new(
        "max_bytes",
        Kind::Size(MIB, TIB),
        "512MiB",
        "The most bytes of waiting descriptions; beyond that the oldest are dropped",
    ),
    Key::new(
        "snapshot_bytes",
        Kind::Size(MIB, TIB),
        "128MiB",
        "The most bytes of waiting snapshots, of which each camera keeps its newest",
    ),
];

/// `[outbox]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSettings {
    /// Whether descriptions wait on disk, else in memory.
    pub on_disk: bool,
    /// The most bytes of events that wait for the broker.
    pub max_bytes: u64,
    /// The most bytes of snapshots that wait for the broker.
    pub snapshot_bytes: u64,
}

impl OutboxSettings {
    /// The settings of a checked section.
    pub(super) fn read(section: &Section) -> Self {
        Self {
            on_disk: section.choice("storage", &STORAGES),
            max_bytes: section.number("max_bytes"),
            snapshot_bytes: section.number("snapshot_bytes"),
        }
    }
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("outbox", KEYS))
    }
}
