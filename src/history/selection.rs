//! Of which events.

use chrono::{DateTime, Utc};
use rusqlite::types::Value;

use crate::camera::CameraId;

/// Events by camera, time and alert. What is `None` leaves none out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of this camera.
    pub camera: Option<CameraId>,
    /// Those whose clip ended then or later.
    pub from: Option<DateTime<Utc>>,
    /// Those whose clip ended then or earlier.
    pub to: Option<DateTime<Utc>>,
    /// Those that switched the alert of this name.
    pub alert: Option<String>,
}

impl Selection {
    /// Whether it leaves none out.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// As conditions on the table `events`, each with a value.
    pub(super) fn conditions(&self) -> Vec<(&'static str, Value)> {
        let mut all = Vec::new();
        all.extend(self.camera.as_ref().map(|it| ("events.camera = ?", it.as_str().to_owned().into())));
        all.extend(self.from.map(|it| ("events.at >= ?", it.timestamp_millis().into())));
        all.extend(self.to.map(|it| ("events.at <= ?", it.timestamp_millis().into())));
        let switched = "events.row IN (SELECT event FROM transitions WHERE alert = ?)";
        all.extend(self.alert.clone().map(|it| (switched, it.into())));
        all
    }
}
