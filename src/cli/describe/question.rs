//! What is asked, how and of which model, in short: whether an output of an earlier run would come out the same.

use std::{fs, path::Path, time::SystemTime};

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{args::DescribeArgs, naming::digest};
use crate::{clip::TimeRange, config::CameraSettings, event::ModelInfo};

/// A digest of all that descriptions depend on, but for their source and the device.
pub fn question(
    args: &DescribeArgs,
    settings: &CameraSettings,
    range: TimeRange,
    model: &ModelInfo,
) -> String {
    let asked = json!({
        "model": [model.id, model.revision],
        "model_changed": last_change(Path::new(&model.id)).map(DateTime::<Utc>::from),
        "dtype": format!("{:?}", args.dtype),
        "describe": settings.prompt_spec.describe,
        "questions": format!("{:?}", settings.prompt_spec.questions),
        "prompt": settings.prompt_spec.prompt,
        "max_tokens": settings.prompt_spec.max_tokens,
        "clips": (settings.window, settings.stride, settings.frames),
        "sampling": format!("{:?}", args.sampling),
        "range": (range.from, range.to),
        "format": args.format.ending(),
    });
    digest(&asked.to_string())
}

/// When a file of a model's folder was changed last. `None`: the model is no folder.
fn last_change(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.filter_map(|entry| fs::metadata(entry.path()).ok()?.modified().ok()).max()
}
