//! What the disk does not take, in order.

use std::{collections::BTreeMap, ops::Bound::Included};

use super::{Item, Key, Row, Table, cost};

/// Rows and what they cost.
#[derive(Debug, Default)]
pub(super) struct Memory {
    rows: BTreeMap<Key, Item>,
    bytes: BTreeMap<Table, u64>,
}

impl Memory {
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

    /// The first row of `table` from `from` on.
    pub fn first(&self, table: Table, from: Row) -> Option<(Row, &Item)> {
        let all = (Included((table, from)), Included((table, Row::LAST)));
        self.rows.range(all).next().map(|((_, row), item)| (*row, item))
    }

    /// What the rows of `table` cost.
    pub fn bytes(&self, table: Table) -> u64 {
        self.bytes.get(&table).copied().unwrap_or_default()
    }

    /// The oldest rows, events before snapshots, of one table only: at most `count`, and no more than
    /// `bytes` unless the first alone is.
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
