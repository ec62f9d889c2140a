//! The connection that reads: pages of events, searches, frames.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use image::ImageFormat;
use rusqlite::{
    Connection, OptionalExtension, Row, params, params_from_iter,
    types::{Type, Value},
};
use uuid::Uuid;

use super::{
    error::HistoryError,
    layout::{FILE, KIND},
    picture::{PictureError, to_jpeg},
    query::{MARKS, Part, fts_query, score, snippet},
    record::{Replay, decompress},
    selection::Selection,
    writer::Forgotten,
};
use crate::{
    event::Event,
    sqlite::{self, Fault},
};

/// The newest matches of a search are ranked, so many of them.
const RANKED: usize = 1000;

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// After this event: its time and row.
    After(i64, i64),
    /// Of a search: after so many matches, among the events up to this row.
    Rank(i64, usize),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(at, row) => write!(f, "{at}.{row}"),
            Self::Rank(row, place) => write!(f, "r{row}.{place}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers = |text: &str| {
            let (one, other) = text.split_once('.')?;
            Some((one.parse::<i64>().ok()?, other.parse::<i64>().ok()?))
        };
        match text.strip_prefix('r') {
            Some(rest) => {
                let (row, place) = numbers(rest).ok_or(())?;
                Ok(Self::Rank(row, usize::try_from(place).map_err(|_| ())?))
            }
            None => numbers(text).map(|(at, row)| Self::After(at, row)).ok_or(()),
        }
    }
}

/// An event of a page.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The event.
    pub event: Event,
    /// How many of its frames are kept.
    pub frames: usize,
    /// Of a search: the words around the first match.
    pub snippet: Option<Vec<Part>>,
}

/// Some events, and where the next ones begin.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Listed>,
    /// Where the next page begins. `None`: this is the last.
    pub next: Option<Cursor>,
}

/// A kept frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameDetails {
    /// When it was, since the start of the clip.
    pub offset: Duration,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// An event and what is kept of it.
#[derive(Clone, Debug)]
pub struct EventDetails {
    /// The event.
    pub event: Event,
    /// Its frames, in order.
    pub frames: Vec<FrameDetails>,
    /// What of the camera's picture the frames show. `None`: no frames are kept.
    pub view: Option<String>,
    /// Whether the frames have every pixel as the model saw it.
    pub is_lossless: bool,
    /// What it takes to describe the frames again.
    pub replay: Option<Replay>,
    /// The event of its camera before it, in the order of [`Reader::newest`].
    pub older: Option<Uuid>,
    /// The one after it.
    pub newer: Option<Uuid>,
}

/// A frame as it is kept.
#[derive(Clone, Debug)]
pub struct KeptFrame {
    /// JPEG, or PNG if it is lossless.
    pub bytes: Vec<u8>,
    /// What of the camera's picture it shows.
    pub view: String,
    /// The camera.
    pub camera: String,
}

impl KeptFrame {
    /// What the name of a file ends with that holds it: `jpg`, or `png`.
    pub fn extension(&self) -> &'static str {
        let is_png = image::guess_format(&self.bytes).is_ok_and(|format| format == ImageFormat::Png);
        if is_png { "png" } else { "jpg" }
    }

    /// The frame as JPEG.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn into_jpeg(self) -> Result<Vec<u8>, PictureError> {
        to_jpeg(self.bytes)
    }
}

/// The connection that reads.
pub struct Reader(Connection);

const COLUMNS: &str = "events.row, events.at, events.event, \
                       (SELECT count(*) FROM frames WHERE frames.event = events.row)";

impl Reader {
    /// Opens the history in `folder`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(folder: &Path) -> Result<Self, Fault> {
        let connection = sqlite::connect(&folder.join(FILE))?;
        sqlite::check_kind(&connection, &KIND)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(Self(connection))
    }

    /// The newest of the selected events, but those of unchanged clips that switched no alert; at most `limit`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest(
        &self,
        selection: &Selection,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, HistoryError> {
        let mut conditions = selection.conditions();
        let mut sql = format!("SELECT {COLUMNS} FROM events WHERE true");
        if selection.alert.is_none() {
            sql += " AND events.kind <> 2";
        }
        if let Some(Cursor::After(at, row)) = before {
            conditions.push(("(events.at, events.row) < (?", at.into()));
            conditions.push((" ?)", row.into()));
        }
        let mut values: Vec<Value> = Vec::new();
        for (condition, value) in conditions {
            // The second half of a pair.
            sql += if condition == " ?)" { "," } else { " AND " };
            sql += condition;
            values.push(value);
        }
        sql += " ORDER BY events.at DESC, events.row DESC LIMIT ?";
        values.push((limit as i64 + 1).into());
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| {
            Ok((Cursor::After(row.get(1)?, row.get(0)?), listed(row, None)?))
        })?;
        let mut found: Vec<(Cursor, Listed)> = rows.filter_map(readable).collect::<Result<_, _>>()?;
        let is_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().map(|(cursor, _)| *cursor).filter(|_| is_more);
        Ok(Page { events: found.into_iter().map(|(_, listed)| listed).collect(), next })
    }

    /// The selected events in whose words `text` occurs, the best match first; at most `limit`. Of the newest 1000
    /// matches.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn search(
        &self,
        text: &str,
        selection: &Selection,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, HistoryError> {
        let Some(mut query) = fts_query(text) else { return Ok(Page::default()) };
        if let Some(camera) = &selection.camera {
            query = format!("{query} AND camera : \"{camera}\"");
        }
        let (anchor, place) = match from {
            Some(Cursor::Rank(row, place)) => (row, place),
            _ => (self.last_row()?, 0),
        };
        let (conditions, values): (Vec<_>, Vec<_>) = selection.conditions().into_iter().unzip();
        let conditions: String = conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        let (first, last) = self.rows_within(selection)?;
        let [before, after] = MARKS.map(u32::from);
        let sql = format!(
            "SELECT events.row, events.at, highlight(search, 0, char({before}), char({after})) FROM search \
             JOIN events ON events.row = search.rowid WHERE search MATCH ? AND search.rowid BETWEEN ? AND ?{conditions} \
             ORDER BY search.rowid DESC LIMIT {RANKED}"
        );
        let bounds: [Value; 3] = [query.into(), first.into(), anchor.min(last).into()];
        let mut statement = self.0.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(bounds.into_iter().chain(values)), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        let found: Vec<(i64, i64, String)> = rows.collect::<Result<_, _>>()?;
        let mut found: Vec<_> = found.into_iter().map(|it| (score(&it.2), it)).collect();
        // Of equal ones the newest comes first.
        found.sort_by(|(one, (_, time, _)), (other, (_, later, _))| {
            other.total_cmp(one).then(later.cmp(time))
        });
        let next = place + limit;
        let next = (found.len() > next).then_some(Cursor::Rank(anchor, next));
        let sql = format!("SELECT {COLUMNS} FROM events WHERE row = ?");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut events = Vec::new();
        for (_, (row, _, marked)) in found.into_iter().skip(place).take(limit) {
            // It may have been forgotten meanwhile.
            let event = statement.query_row([row], |row| listed(row, Some(snippet(&marked)))).optional();
            events.extend(event.transpose().and_then(readable).transpose()?);
        }
        Ok(Page { events, next })
    }

    /// An event and what is kept of it. `None`: there is no such event.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn details(&self, id: Uuid) -> Result<Option<EventDetails>, HistoryError> {
        let sql = "SELECT events.row, events.event, view, is_lossless, replay FROM events \
                   LEFT JOIN evidence ON evidence.event = events.row WHERE id = ?";
        let mut statement = self.0.prepare_cached(sql)?;
        let found = statement.query_row([id.as_bytes()], |row| {
            let replay: Option<String> = row.get(4)?;
            let details = EventDetails {
                event: event(row, 1)?,
                frames: Vec::new(),
                view: row.get(2)?,
                is_lossless: row.get::<_, Option<bool>>(3)?.unwrap_or_default(),
                replay: replay.and_then(|text| serde_json::from_str(&text).ok()),
                older: None,
                newer: None,
            };
            Ok((row.get::<_, i64>(0)?, details))
        });
        let Some((row, mut details)) = found.optional()? else { return Ok(None) };
        details.older = self.neighbour(&details.event, row, ("<", "DESC"))?;
        details.newer = self.neighbour(&details.event, row, (">", "ASC"))?;
        let sql = "SELECT offset_us, width, height FROM frames WHERE event = ? ORDER BY number";
        let mut statement = self.0.prepare_cached(sql)?;
        let frames = statement.query_map([row], |row| {
            let offset = Duration::from_micros(row.get::<_, i64>(0)?.unsigned_abs());
            Ok(FrameDetails { offset, width: row.get(1)?, height: row.get(2)? })
        })?;
        details.frames = frames.collect::<Result<_, _>>()?;
        Ok(Some(details))
    }

    /// A frame of an event, counted from 0. `None`: there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn frame(&self, id: Uuid, number: usize) -> Result<Option<KeptFrame>, HistoryError> {
        let sql = "SELECT picture, view, events.camera FROM events JOIN evidence ON evidence.event = events.row \
                   JOIN frames ON frames.event = events.row WHERE id = ? AND number = ?";
        let mut statement = self.0.prepare_cached(sql)?;
        let frame = statement.query_row(params![id.as_bytes(), number as i64], |row| {
            Ok(KeptFrame { bytes: row.get(0)?, view: row.get(1)?, camera: row.get(2)? })
        });
        Ok(frame.optional()?)
    }

    /// The events that came after this one, in order, those of unchanged clips too; at most `limit`. `None`: there is no
    /// such event.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn after(&self, id: Uuid, limit: usize) -> Result<Option<Vec<Event>>, HistoryError> {
        let sql = "SELECT row FROM events WHERE id = ?";
        let row: Option<i64> = self.0.query_row(sql, [id.as_bytes()], |row| row.get(0)).optional()?;
        let Some(row) = row else { return Ok(None) };
        let mut statement =
            self.0.prepare_cached("SELECT event FROM events WHERE row > ? ORDER BY row LIMIT ?")?;
        let events = statement.query_map(params![row, limit as i64], |row| event(row, 0))?;
        Ok(Some(events.filter_map(readable).collect::<Result<_, _>>()?))
    }

    /// Passes each of the selected events to `each`, in the order in which they came, those of unchanged clips too, with
    /// the number of its frames.
    ///
    /// # Errors
    /// When the file cannot be read, and those of `each`.
    pub fn for_each<E: From<HistoryError>>(
        &self,
        selection: &Selection,
        mut each: impl FnMut(&Event, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let (conditions, values): (Vec<_>, Vec<_>) = selection.conditions().into_iter().unzip();
        let conditions: String = conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        let sql = format!("SELECT {COLUMNS} FROM events WHERE true{conditions} ORDER BY row");
        let failed = |error: rusqlite::Error| E::from(error.into());
        let mut statement = self.0.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if let Some(listed) = readable(listed(row, None)) {
                let Listed { event, frames, .. } = listed.map_err(failed)?;
                each(&event, frames)?;
            }
        }
        Ok(())
    }

    /// What would be forgotten with the selected events: how many there are, those of unchanged clips too, and how many
    /// frames they have.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count(&self, selection: &Selection) -> Result<Forgotten, HistoryError> {
        let (conditions, values): (Vec<_>, Vec<_>) = selection.conditions().into_iter().unzip();
        let conditions: String = conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        let sql = format!(
            "SELECT count(*), coalesce(sum((SELECT count(*) FROM frames WHERE frames.event = events.row)), 0) \
             FROM events WHERE true{conditions}"
        );
        let count = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(self.0.query_row(&sql, params_from_iter(values), |row| {
            Ok(Forgotten { events: count(row, 0)?, frames: count(row, 1)? })
        })?)
    }

    /// Reads all that `read` reads as it is now, whatever is written meanwhile.
    ///
    /// # Errors
    /// When the file cannot be read, and those of `read`.
    pub fn at_once<T, E: From<HistoryError>>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        // It ends when it is dropped.
        let _transaction = self.0.unchecked_transaction().map_err(HistoryError::from)?;
        read(self)
    }

    /// The event of the same camera beside this one.
    fn neighbour(
        &self,
        event: &Event,
        row: i64,
        (is_beyond, order): (&str, &str),
    ) -> rusqlite::Result<Option<Uuid>> {
        let sql = format!(
            "SELECT id FROM events WHERE camera = ? AND kind <> 2 AND (at, row) {is_beyond} (?, ?) \
             ORDER BY at {order}, row {order} LIMIT 1"
        );
        let (camera, at) = (event.camera.as_str(), event.clip.end.timestamp_millis());
        let mut statement = self.0.prepare_cached(&sql)?;
        let id = statement.query_row(params![camera, at, row], |row| row.get::<_, [u8; 16]>(0)).optional()?;
        Ok(id.map(Uuid::from_bytes))
    }

    fn last_row(&self) -> rusqlite::Result<i64> {
        self.0.query_row("SELECT coalesce(max(row), 0) FROM events", [], |row| row.get(0))
    }

    /// The first and the last row of the events whose clips ended in the selected time, so that a search need not look
    /// at others.
    fn rows_within(&self, selection: &Selection) -> rusqlite::Result<(i64, i64)> {
        if selection.from.is_none() && selection.to.is_none() {
            return Ok((0, i64::MAX));
        }
        let bound = |time: Option<DateTime<Utc>>, all| time.map_or(all, |it| it.timestamp_millis());
        let sql = "SELECT coalesce(min(row), 0), coalesce(max(row), -1) FROM events \
                   WHERE kind <> 2 AND at BETWEEN ? AND ?";
        let bounds = [bound(selection.from, i64::MIN), bound(selection.to, i64::MAX)];
        self.0.query_row(sql, bounds, |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

/// Leaves out an event that is damaged: others are worth reading all the same.
fn readable<T>(read: rusqlite::Result<T>) -> Option<rusqlite::Result<T>> {
    match read {
        Err(rusqlite::Error::FromSqlConversionFailure(_, _, error)) => {
            tracing::warn!("an event of the history is damaged, and left out: {error}");
            None
        }
        read => Some(read),
    }
}

fn listed(row: &Row<'_>, snippet: Option<Vec<Part>>) -> rusqlite::Result<Listed> {
    let frames = row.get::<_, i64>(3)?;
    Ok(Listed { event: event(row, 2)?, frames: frames.unsigned_abs() as usize, snippet })
}

fn event(row: &Row<'_>, column: usize) -> rusqlite::Result<Event> {
    let bytes = row.get_ref(column)?.as_blob()?;
    decompress(bytes)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error)))
}
