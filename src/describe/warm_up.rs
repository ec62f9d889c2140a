//! A first small inference.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};

use super::describer::Describer;
use crate::{
    answer::DescribeError,
    camera::{BadCameraId, CameraId},
    clip::Clip,
    frame::{Clock, Frame},
    prompt_spec::PromptSpec,
    request::Request,
};

/// Describes one small clip, to find what only computing can show before there are cameras: a device that fails, weights
/// that give no numbers. It also makes the first batch faster.
///
/// # Errors
/// When the model cannot describe anything.
pub fn warm_up(describer: &mut dyn Describer) -> Result<(), DescribeError> {
    let heartbeat = describer.heartbeat();
    heartbeat.beat();
    let clip = grey_clip().map_err(|error| DescribeError::Request(error.to_string()))?;
    let described = describer.answer(&[Request::from(&clip)], &mut |_, _| ())?;
    heartbeat.idle();
    described.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
}

/// A grey frame with a short question and an answer of at most one token.
///
/// # Errors
/// Never: its camera has a valid name.
pub(super) fn grey_clip() -> Result<Clip, BadCameraId> {
    let (start, duration) = (Utc::now(), TimeDelta::seconds(1));
    let (camera, side) = ("warm-up".parse::<CameraId>()?, 64);
    let frame = Frame {
        camera: camera.clone(),
        captured_at: start,
        clock: Clock::Arrival,
        pts: Duration::ZERO,
        width: side,
        height: side,
        rgb: vec![128; (side * side * 3) as usize].into(),
        original: None,
    };
    Ok(Clip {
        camera,
        seq: 0,
        start,
        end: start + duration,
        clock: Clock::Arrival,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(1),
        frames: vec![frame],
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec::new("What is this?", 1)),
    })
}
