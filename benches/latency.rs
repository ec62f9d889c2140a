//! How old descriptions are when cameras want more than the model can do: so many cameras, at so many times its speed.
//!
//!     cargo bench --bench latency -- [SECONDS]
//!
//! SECONDS is how long each row takes. The queue and the worker are camscribe's own. The model is simulated: it sleeps for
//! as long as a CPU computes. It reads the frames of clips one after the other, and decodes their answers together. Times
//! are in multiples of what it takes for one clip alone.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use camscribe::{
    answer::{DescribeError, Description, StageTimes},
    camera::CameraId,
    clip::Clip,
    describe::{
        Describer, Work,
        worker::{self, Batching},
    },
    event::{FinishReason, ModelInfo, Tokens},
    frame::Clock,
    heartbeat::Heartbeat,
    prompt_spec::PromptSpec,
    queue::{CLIPS_PER_CAMERA, ClipQueue, Overflow},
};
use chrono::DateTime;

/// What a further sequence adds to a step: `RESULTS.md`, "CPU, several clips at once".
const FURTHER: f64 = 0.17;
const STEPS: u32 = 20;
/// The default of the configuration.
const MAX_BATCH: usize = 16;

/// A CPU.
#[derive(Clone, Copy)]
struct Cpu {
    name: &'static str,
    /// It reads a clip in this time.
    begin: Duration,
    /// It makes a step for one clip in this time.
    step: Duration,
}

/// About the parts that the 256M model has: eight frames take nine times as long as the words about them.
const FRAMES: Cpu =
    Cpu { name: "frames", begin: Duration::from_millis(45), step: Duration::from_micros(250) };
/// A small picture and a long answer.
const WORDS: Cpu = Cpu { name: "words", begin: Duration::from_millis(5), step: Duration::from_micros(2250) };

impl Cpu {
    /// The steps that are left for each sequence.
    fn step(&self, running: &mut [(usize, u32)]) -> Duration {
        let start = Instant::now();
        thread::sleep(self.step.mul_f64(1.0 + FURTHER * (running.len() - 1) as f64));
        running.iter_mut().for_each(|(_, left)| *left -= 1);
        start.elapsed()
    }
}

impl Describer for Cpu {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "sleeps".into(), revision: String::new(), device: "cpu".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::default()
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        let (mut running, mut given): (Vec<(usize, u32)>, usize) = (Vec::new(), 0);
        loop {
            let joining = work.more(running.len(), &|_| None).len();
            if joining > 0 {
                let start = Instant::now();
                thread::sleep(self.begin * joining as u32);
                let numbers: Vec<usize> = (given..given + joining).collect();
                work.spent(&numbers, StageTimes { vision: start.elapsed(), ..StageTimes::default() });
                running.extend(numbers.into_iter().map(|number| (number, STEPS)));
                given += joining;
                continue;
            }
            if running.is_empty() {
                return Ok(());
            }
            let decode = self.step(&mut running);
            let numbers: Vec<usize> = running.iter().map(|(number, _)| *number).collect();
            work.spent(&numbers, StageTimes { decode, ..StageTimes::default() });
            running.retain(|(number, left)| {
                if *left == 0 {
                    work.answered(*number, Ok(description()));
                }
                *left > 0
            });
        }
    }
}

fn description() -> Description {
    Description {
        text: "Something.".into(),
        labels: Vec::new(),
        finish_reason: FinishReason::Stop,
        tokens: Tokens::default(),
        stages: StageTimes::default(),
    }
}

fn clip(camera: &CameraId, seq: u64) -> Clip {
    Clip {
        camera: camera.clone(),
        seq,
        start: DateTime::UNIX_EPOCH,
        end: DateTime::UNIX_EPOCH,
        clock: Clock::File,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(8),
        frames: Vec::new(),
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec::new("What happens?", 8)),
    }
}

/// The names of so many cameras.
fn cameras(count: u32) -> Vec<CameraId> {
    (0..count).map(|i| format!("camera-{i}").parse().expect("a good name")).collect()
}

/// What became of the clips of the live cameras and of a file.
#[derive(Default)]
struct Fates {
    /// Seconds from the end of each clip of a live camera to its description.
    ages: Vec<f64>,
    of_file: usize,
}

impl Fates {
    fn quantile(&self, q: f64) -> f64 {
        let rank = (self.ages.len() as f64 * q).ceil() as usize;
        self.ages[rank - 1]
    }
}

/// Describes what these feed until the time is over.
fn describe(mut cpu: Cpu, time: Duration, feed: impl Fn(&ClipQueue, Instant) + Sync) -> Fates {
    let queue = ClipQueue::new(CLIPS_PER_CAMERA);
    let batching = Batching {
        max_batch: NonZeroUsize::new(MAX_BATCH).expect("not 0"),
        linger: Duration::ZERO,
        client_share: 0.25,
    };
    let mut fates = Fates::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            feed(&queue, Instant::now() + time);
            queue.close();
            // What is left is described without new clips: that is no load.
            queue.discard();
        });
        worker::run(&mut cpu, &queue, batching, |outcome| {
            if outcome.clip.camera.as_str() == "file" {
                fates.of_file += 1;
            } else {
                fates.ages.push(outcome.timing.queued_at.elapsed().as_secs_f64());
            }
        })
        .expect("it only sleeps");
    });
    fates.ages.sort_by(f64::total_cmp);
    fates
}

/// What one clip alone takes: the median of some.
fn alone(cpu: Cpu) -> f64 {
    let camera = &cameras(1)[0];
    let fates = describe(cpu, Duration::ZERO, |queue, _| {
        for seq in 0..9 {
            queue.push(clip(camera, seq), Overflow::DropOldest).expect("open");
            thread::sleep((cpu.begin + cpu.step * STEPS) * 2);
        }
    });
    fates.quantile(0.5)
}

/// The live cameras make clips in turn, `speed` times as many together as the model describes one at a time. The file
/// makes them as fast as they are taken.
fn row(cpu: Cpu, (count, with_file): (u32, bool), speed: f64, time: Duration) {
    let own = alone(cpu);
    let (cameras, pause) = (cameras(count), Duration::from_secs_f64(own / speed));
    let fates = describe(cpu, time, |queue, end| {
        let live = || {
            let start = Instant::now();
            for seq in 0u32.. {
                thread::sleep((pause * seq).saturating_sub(start.elapsed()));
                let camera = &cameras[(seq % count) as usize];
                if Instant::now() > end || queue.push(clip(camera, seq.into()), Overflow::DropOldest).is_err()
                {
                    return;
                }
            }
        };
        let file = || {
            let file: CameraId = "file".parse().expect("a good name");
            while Instant::now() < end && queue.push(clip(&file, 0), Overflow::Block).is_ok() {}
        };
        thread::scope(|scope| {
            if with_file {
                scope.spawn(file);
            }
            live();
            queue.unregister(&"file".parse().expect("a good name"));
        });
    });
    println!(
        "| {} | {count}{} | {speed} | {:.2} | {:.2} | {:.2} | {:.2} |",
        cpu.name,
        if with_file { " and a file" } else { "" },
        fates.quantile(0.5) / own,
        fates.quantile(0.95) / own,
        fates.ages.len() as f64 * own / time.as_secs_f64(),
        fates.of_file as f64 * own / time.as_secs_f64(),
    );
}

fn main() {
    // cargo adds --bench.
    let seconds: f64 = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(5.0);
    let time = Duration::from_secs_f64(seconds);
    println!("| model | cameras | speed | age, p50 | p95 | live clips in one clip's time | of the file |");
    println!("|---|---|---|---|---|---|---|");
    for (cpu, counts) in [
        (FRAMES, &[(1, false), (2, false), (4, false), (8, false), (3, true)][..]),
        (WORDS, &[(8, false)][..]),
    ] {
        for count in counts {
            for speed in [0.5, 1.0, 2.0, 4.0] {
                row(cpu, *count, speed, time);
            }
        }
    }
}
