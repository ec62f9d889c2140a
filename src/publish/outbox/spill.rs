//! Rows that the disk has not taken, in order, in memory.

use std::{collections::BTreeMap, ops::Bound::Included};

use super::row::{Item, Key, Row, Table, cost};

/// Rows in memory, and their cost by table.
#[derive(Debug, Default)]
pub(super) struct Spill {
    rows: BTreeMap<Key, Item>,
    bytes: BTreeMap<Table, u64>,
}

impl Spill {
    pub fn insert(&mut self, key: Key, item: Item) {
        *self.bytes.entry(key.0).or_default() += cost(item.payload.len());
        self.rows.insert(key, item);
    }

    pub fn remove(&mut self, key: Key) -> Option<Item> {
        let item = self.rows.remove(&key)?;
        if let Some(bytes) = self.bytes.get_mut(&key.0) {
            *bytes -= cost(item.payload.len());
        }
        Some(item)
    }

    /// The first row of `table` that is `from` or later.
    pub fn first(&self, table: Table, from: Row) -> Option<(Row, &Item)> {
        let all = (Included((table, from)), Included((table, Row::LAST)));
        self.rows.range(all).next().map(|((_, row), item)| (*row, item))
    }

    /// The cost of all rows of `table`, bytes.
    pub fn bytes(&self, table: Table) -> u64 {
        self.bytes.get(&table).copied().unwrap_or_default()
    }

    /// The oldest events, or the oldest snapshots where there are no events: at most `count` rows, and
    /// at most `bytes`, but always at least one row.
    pub fn oldest(&self, count: usize, bytes: u64) -> Vec<(Key, Item)> {
        let Some(((table, _), _)) = self.rows.first_key_value() else { return Vec::new() };
        let mut sum = 0;
        let fits = |(key, item): &(&Key, &Item)| {
            let first = sum == 0;
            sum += cost(item.payload.len());
            key.0 == *table && (first || sum <= bytes)
        };
        let rows = self.rows.iter().take(count).take_while(fits);
        rows.map(|(key, item)| (*key, item.clone())).collect()
    }
}
