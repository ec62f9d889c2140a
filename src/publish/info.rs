//! What runs here and how it is doing: the payloads of the node's topics `info` and `load`, and the states in a
//! camera's `status`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    camera::{CameraId, CameraState},
    device::GpuInfo,
    event::ModelInfo,
};

/// What runs here.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// camscribe's version.
    pub version: String,
    /// The model that describes clips; `model.device` is the device that it runs on.
    pub model: ModelInfo,
    /// The GPU; `None` where the model runs on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuInfo>,
    /// The enabled cameras.
    pub cameras: BTreeMap<CameraId, CameraInfo>,
    /// The last time that the configuration was read again; `None` before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadInfo>,
}

/// A time that the configuration was read again.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadInfo {
    /// When.
    #[serde(serialize_with = "crate::event::millis")]
    pub time: DateTime<Utc>,
    /// Why the new configuration was rejected, in one line; `None`: it is active.
    pub error: Option<String>,
}

/// What is known of a camera.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CameraInfo {
    /// The decoder that was chosen; `None` before the camera runs.
    pub decoder: Option<String>,
}

/// How the node keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Clips that wait for the model.
    pub queue_clips: usize,
    /// Events that the broker has not acknowledged.
    pub outbox_messages: usize,
    /// Clips without an event, of all cameras and for all reasons.
    pub dropped_clips: u64,
    /// Events that were dropped because the outbox was full.
    pub dropped_events: u64,
}

/// The `state` in a camera's status topic. The contract has four names: a camera that refuses the
/// credentials is `offline`, and `why` says so.
pub fn state_name(state: CameraState) -> &'static str {
    match state {
        CameraState::Unauthorised => CameraState::Offline.as_str(),
        other => other.as_str(),
    }
}
