//! How many cameras the model keeps up with, tried: clips arrive as cameras make them, each camera
//! one a period at a moment of its own, and the product's own queue and worker put them together and
//! have them described on the device.

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::model::Model;
use crate::{
    camera::CameraId,
    clip::Clip,
    describe::worker::{self, Batching},
    nn::weights::random::mix,
    queue::{CLIPS_PER_CAMERA, ClipQueue, Overflow},
};

/// A camera makes one clip in this time: the product's default window.
const PERIOD: Duration = Duration::from_secs(8);
/// The product's default.
const LINGER: Duration = Duration::from_millis(20);
/// The most that the configuration takes.
pub const MAX_BATCH: usize = 64;
/// Numbers of cameras tried before giving up, each a tenth below the last.
const TRIES: usize = 5;

/// What the trials said.
#[derive(Debug, Serialize)]
pub struct Cameras {
    /// Seconds from one clip of a camera to its next.
    pub period_s: f64,
    /// Most clips in a batch: of those measured that the configuration takes, the size with the most clips a
    /// second.
    pub max_batch: usize,
    /// Seconds that an incomplete batch waits.
    pub linger_s: f64,
    /// Cameras of the first trial that was kept up with; 0 if none was.
    pub sustained: usize,
    /// Every trial, really computed on the device in real time.
    pub trials: Vec<Trial>,
}

/// One number of cameras, watched for some periods.
#[derive(Debug, Serialize)]
pub struct Trial {
    pub cameras: usize,
    /// Clips that each camera made.
    pub periods: u64,
    /// Clips that made room for newer ones.
    pub dropped: u64,
    /// Seconds from a clip's end to its description: half of the clips, and 99 of 100, took no longer.
    pub median_delay_s: f64,
    pub p99_delay_s: f64,
    /// Mean delay of each period's clips: where it grows the model falls behind.
    pub mean_delay_by_period_s: Vec<f64>,
    /// Nothing was dropped, 99 of 100 clips took at most a period, and delays did not grow.
    pub kept_up: bool,
}

/// Tries as many cameras as batches of `max_batch` at `clips_per_s` are enough for, then fewer, until
/// a trial is kept up with.
pub fn sustained(
    model: &mut Model,
    (max_batch, clips_per_s): (usize, f64),
    periods: u64,
    seed: u64,
) -> Result<Cameras> {
    let batching =
        Batching { max_batch: NonZeroUsize::new(max_batch).context("a batch has a clip")?, linger: LINGER };
    let mut cameras = (clips_per_s * PERIOD.as_secs_f64()) as usize;
    let mut trials: Vec<Trial> = vec![];
    while cameras > 0 && trials.len() < TRIES && !trials.last().is_some_and(|trial| trial.kept_up) {
        trials.push(Trial::run(model, cameras, batching, periods, seed)?);
        cameras = cameras * 9 / 10;
    }
    let kept_up = trials.last().filter(|trial| trial.kept_up);
    Ok(Cameras {
        period_s: PERIOD.as_secs_f64(),
        max_batch,
        linger_s: LINGER.as_secs_f64(),
        sustained: kept_up.map_or(0, |trial| trial.cameras),
        trials,
    })
}

impl Trial {
    fn run(model: &mut Model, cameras: usize, batching: Batching, periods: u64, seed: u64) -> Result<Self> {
        let ids: Vec<CameraId> =
            (0..cameras).map(|i| format!("camera-{i}").parse()).collect::<Result<_, _>>()?;
        let example = model.clip(&"camera".parse()?, 0);
        let queue = ClipQueue::new(CLIPS_PER_CAMERA);
        let mut delays: Vec<Vec<f64>> = vec![vec![]; periods as usize];
        thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                for (at, camera, seq) in arrivals(cameras, periods, seed) {
                    thread::sleep(at.saturating_sub(start.elapsed()));
                    let clip = Clip { camera: ids[camera].clone(), seq, ..example.clone() };
                    if queue.push(clip, Overflow::DropOldest).is_err() {
                        return;
                    }
                }
                queue.close();
            });
            let done = worker::run(model, &queue, batching, |outcome| {
                if outcome.answer.is_ok() {
                    delays[outcome.clip.seq as usize].push(outcome.timing.queued_at.elapsed().as_secs_f64());
                }
            });
            // The cameras end with the model.
            queue.close();
            done
        })?;
        Ok(Self::judge(cameras, delays, queue.dropped().values().sum()))
    }

    /// `delays`: seconds, by the period in which the clip arrived.
    fn judge(cameras: usize, delays: Vec<Vec<f64>>, dropped: u64) -> Self {
        let mean = |delays: &Vec<f64>| delays.iter().sum::<f64>() / delays.len().max(1) as f64;
        let means: Vec<f64> = delays.iter().map(mean).collect();
        let (periods, mut all) = (delays.len() as u64, delays.concat());
        all.sort_by(f64::total_cmp);
        let share = |share: f64| {
            let rank = (all.len() as f64 * share).ceil() as usize;
            all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        let p99 = share(0.99);
        // The first period begins with an idle device, so it cannot be compared. Delays of a steady
        // state differ a little by chance.
        let steady = match means.get(1..) {
            Some([second, .., last]) => *last <= second * 1.2 + LINGER.as_secs_f64(),
            _ => true,
        };
        Self {
            cameras,
            periods,
            dropped,
            median_delay_s: share(0.5),
            p99_delay_s: p99,
            mean_delay_by_period_s: means,
            kept_up: dropped == 0 && steady && p99 <= PERIOD.as_secs_f64(),
        }
    }
}

/// When clips arrive, in order: moment, camera, the clip's number. Cameras were not started together:
/// each has its moment within the period by chance.
fn arrivals(cameras: usize, periods: u64, seed: u64) -> Vec<(Duration, usize, u64)> {
    let phase = |camera: usize| mix(mix(seed) ^ camera as u64) as f64 / u64::MAX as f64;
    let clips = (0..periods).flat_map(|seq| (0..cameras).map(move |camera| (camera, seq)));
    let mut all: Vec<_> =
        clips.map(|(camera, seq)| (PERIOD.mul_f64(seq as f64 + phase(camera)), camera, seq)).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_camera_makes_one_clip_a_period_at_a_moment_of_its_own() {
        let all = arrivals(50, 3, 1);
        assert_eq!(all.len(), 150);
        for (at, camera, seq) in &all {
            let next = all.iter().find(|(_, c, s)| c == camera && *s == seq + 1);
            assert!(next.is_none_or(|(later, ..)| later.abs_diff(*at + PERIOD) < Duration::from_micros(1)));
        }
        let first_half = all.iter().filter(|(at, ..)| *at < PERIOD / 2).count();
        assert!((15..=35).contains(&first_half), "{first_half}");
    }

    #[test]
    fn a_trial_is_kept_up_with_when_nothing_is_lost_late_or_ever_later() {
        let judge =
            |delays: [f64; 3], dropped| Trial::judge(4, delays.map(|delay| vec![delay; 4]).to_vec(), dropped);
        let trial = judge([0.5, 1., 1.1], 0);
        assert!(trial.kept_up && trial.p99_delay_s == 1.1 && trial.median_delay_s == 1.);
        assert!(!judge([0.5, 1., 1.1], 1).kept_up, "a clip was dropped");
        assert!(!judge([9., 9., 9.], 0).kept_up, "too late");
        assert!(!judge([0.5, 1., 1.5], 0).kept_up, "ever later");
    }
}
