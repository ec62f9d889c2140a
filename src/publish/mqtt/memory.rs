//! What one connection to the broker teaches the next.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{super::outbox::Row, wire::Protocol};

/// An event that the broker does not take so often in a row, without a clear reason, is given up: with the
/// pauses in between these are some minutes.
const UNCLEAR: u32 = 10;

/// Names a message: its topic, and its row if it is an event.
pub(super) type Key = (String, Option<Row>);

/// What is known of the broker from one connection to the next.
#[derive(Debug)]
pub(super) struct Memory {
    /// It keeps retained messages.
    pub retain: bool,
    /// It takes messages that it must acknowledge.
    pub qos1: bool,
    /// Whether it speaks only MQTT 3.1.1.
    pub lacks_5: Lacks5,
    /// Messages that were under way when it objected to one of them. Until each has met its fate,
    /// messages go one at a time, so that the next objection names the culprit. Those that it does not
    /// take for now are among them: what would follow them would arrive once a try.
    pub suspects: BTreeSet<Key>,
    /// The smallest packet that it found too large, bytes.
    pub too_large: Option<usize>,
    /// Connections in a row that it ended with messages under way and none delivered.
    pub hang_ups: u32,
    /// Connections in a row that it ended before it had answered what we want to listen to.
    pub unheard: u32,
    /// The broker does not let us listen, or somebody sends what is too large to be read: nothing is
    /// listened to until then.
    pub deaf: Option<Instant>,
    /// The event that it did not take without a clear reason, and how often in a row.
    pub unclear: Option<(Row, u32)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            retain: true,
            qos1: true,
            lacks_5: Lacks5::No,
            suspects: BTreeSet::new(),
            too_large: None,
            hang_ups: 0,
            unheard: 0,
            deaf: None,
            unclear: None,
        }
    }
}

impl Memory {
    /// The broker did not take an event, and gave no clear reason. Gives whether that was so often enough.
    pub fn unclear(&mut self, row: Row) -> bool {
        let before = self.unclear.filter(|(last, _)| *last == row).map_or(0, |(_, times)| times);
        self.unclear = Some((row, before + 1));
        before + 1 >= UNCLEAR
    }
}

/// What is known of a broker that may be older than MQTT 5. Some of them just hang up on a version
/// that they do not know, and so does a broken line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks5 {
    /// Nothing speaks for it.
    No,
    /// It hung up: 3.1.1 is tried.
    Perhaps,
    /// It answers to 3.1.1, so the line is good: 5 is tried once more.
    AskedAgain,
    /// It said so, or hung up again.
    Yes,
}

impl Lacks5 {
    /// What to try next.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::No | Self::AskedAgain => Protocol::V5,
            Self::Perhaps | Self::Yes => Protocol::V311,
        }
    }
}
