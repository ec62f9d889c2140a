//! Tries how many cameras the model keeps up with. Each simulated camera makes one clip per period, at its own moment
//! within the period. camscribe's own queue and worker batch the clips and have them described on the device.

use std::{
    fmt,
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::random_model::RandomModel;
use crate::{
    camera::CameraId,
    clip::Clip,
    describe::worker::{self, Batching},
    nn::weights::random::mix,
    queue::{CLIPS_PER_CAMERA, ClipQueue, Overflow},
};

/// A camera makes one clip in this time: the default length of a clip.
const PERIOD: Duration = Duration::from_secs(8);
/// How long an incomplete batch waits for more clips: the default.
const LINGER: Duration = Duration::from_millis(20);
/// The largest batch size that the configuration accepts.
pub const MAX_BATCH: usize = 64;
/// Most trials. Each has a tenth fewer cameras than the one before.
const TRIES: usize = 5;

/// The results of all trials.
#[derive(Debug, Serialize)]
pub struct CameraTrials {
    /// Seconds from one clip of a camera to its next.
    pub period_s: f64,
    /// Most clips in a batch: the batch size with the most clips per second among those measured that the
    /// configuration accepts.
    pub max_batch: usize,
    /// Seconds that an incomplete batch waits for more clips.
    pub linger_s: f64,
    /// Cameras of the first trial that the model kept up with; 0 if it never did.
    pub sustained: usize,
    /// Every trial. The device computed it in real time.
    pub trials: Vec<Trial>,
}

/// The result of one trial.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// Cameras.
    pub cameras: usize,
    /// Clips that each camera made.
    pub periods: u64,
    /// Clips that the queue dropped in favour of newer ones.
    pub dropped: u64,
    /// Seconds from the end of a clip to its description; median of all clips.
    pub median_delay_s: f64,
    /// The same delay; 99th percentile.
    pub p99_delay_s: f64,
    /// The same delay; mean of the clips of each period. If it grows, the model falls behind.
    pub mean_delay_by_period_s: Vec<f64>,
    /// Whether no clip was dropped, the 99th percentile is at most one period, and delays did not grow.
    pub kept_up: bool,
}

/// Runs trials until the model keeps up with one. The first has as many cameras as `clips_per_s`, the measured rate
/// in batches of `max_batch`, would suffice for; each further one has fewer.
///
/// # Errors
/// When the device fails.
pub fn run(
    model: &mut RandomModel,
    (max_batch, clips_per_s): (usize, f64),
    periods: u64,
    seed: u64,
) -> Result<CameraTrials> {
    let batching = Batching {
        max_batch: NonZeroUsize::new(max_batch).context("a batch has a clip")?,
        linger: LINGER,
        client_share: 0.0,
    };
    let mut cameras = (clips_per_s * PERIOD.as_secs_f64()) as usize;
    let mut trials: Vec<Trial> = vec![];
    while cameras > 0 && trials.len() < TRIES && !trials.last().is_some_and(|trial| trial.kept_up) {
        trials.push(Trial::run(model, cameras, batching, periods, seed)?);
        cameras = cameras * 9 / 10;
    }
    let kept_up = trials.last().filter(|trial| trial.kept_up);
    Ok(CameraTrials {
        period_s: PERIOD.as_secs_f64(),
        max_batch,
        linger_s: LINGER.as_secs_f64(),
        sustained: kept_up.map_or(0, |trial| trial.cameras),
        trials,
    })
}

impl Trial {
    fn run(
        model: &mut RandomModel,
        cameras: usize,
        batching: Batching,
        periods: u64,
        seed: u64,
    ) -> Result<Self> {
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
            // If the model failed, this ends the cameras, too.
            queue.close();
            done
        })?;
        Ok(Self::judge(cameras, delays, queue.dropped().values().sum()))
    }

    /// Evaluates a trial. `delays` holds the delays in seconds of the clips of each period.
    fn judge(cameras: usize, delays: Vec<Vec<f64>>, dropped: u64) -> Self {
        let mean = |delays: &Vec<f64>| delays.iter().sum::<f64>() / delays.len().max(1) as f64;
        let means: Vec<f64> = delays.iter().map(mean).collect();
        let (periods, mut all) = (delays.len() as u64, delays.concat());
        all.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let rank = (all.len() as f64 * q).ceil() as usize;
            all.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        let p99 = quantile(0.99);
        // The first period begins with an idle device, so it is not compared. The allowance of 20 % covers chance.
        let steady = match means.get(1..) {
            Some([second, .., last]) => *last <= second * 1.2 + LINGER.as_secs_f64(),
            _ => true,
        };
        Self {
            cameras,
            periods,
            dropped,
            median_delay_s: quantile(0.5),
            p99_delay_s: p99,
            mean_delay_by_period_s: means,
            kept_up: dropped == 0 && steady && p99 <= PERIOD.as_secs_f64(),
        }
    }
}

/// The arrivals of all clips in order of time: time since the start, camera, and the clip's number. Each camera has a
/// random phase within the period, because real cameras are not started together.
fn arrivals(cameras: usize, periods: u64, seed: u64) -> Vec<(Duration, usize, u64)> {
    let phase = |camera: usize| mix(mix(seed) ^ camera as u64) as f64 / u64::MAX as f64;
    let clips = (0..periods).flat_map(|seq| (0..cameras).map(move |camera| (camera, seq)));
    let mut all: Vec<_> =
        clips.map(|(camera, seq)| (PERIOD.mul_f64(seq as f64 + phase(camera)), camera, seq)).collect();
    all.sort();
    all
}

impl fmt::Display for CameraTrials {
    /// The result, and a line for each trial.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fewer = self.trials.last().filter(|trial| !trial.kept_up);
        let sustained =
            fewer.map_or(self.sustained.to_string(), |trial| format!("fewer than {}", trial.cameras));
        write!(
            f,
            "cameras sustained: {sustained} (a clip every {} s each; batches of up to {}, linger {} ms)",
            self.period_s,
            self.max_batch,
            self.linger_s * 1000.
        )?;
        if self.trials.is_empty() {
            write!(f, "; not tried: one clip takes longer than that")?;
        }
        for trial in &self.trials {
            write!(
                f,
                "\n  {} cameras for {} clips each: 99 of 100 described within {:.2} s, half within {:.2} s, \
                 {} dropped: {}",
                trial.cameras,
                trial.periods,
                trial.p99_delay_s,
                trial.median_delay_s,
                trial.dropped,
                if trial.kept_up { "kept up" } else { "did not keep up" }
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_camera_makes_one_clip_per_period_at_its_own_phase() {
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
    fn the_model_keeps_up_when_no_clip_is_dropped_or_late_and_delays_do_not_grow() {
        let judge =
            |delays: [f64; 3], dropped| Trial::judge(4, delays.map(|delay| vec![delay; 4]).to_vec(), dropped);
        let trial = judge([0.5, 1., 1.1], 0);
        assert!(trial.kept_up && trial.p99_delay_s == 1.1 && trial.median_delay_s == 1.);
        assert!(!judge([0.5, 1., 1.1], 1).kept_up, "a clip was dropped");
        assert!(!judge([9., 9., 9.], 0).kept_up, "too late");
        assert!(!judge([0.5, 1., 1.5], 0).kept_up, "delays grow");
    }
}
