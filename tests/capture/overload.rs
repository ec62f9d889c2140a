//! Cameras that offer more clips than the model can describe: each gets its fair share, every drop is
//! counted, and memory does not grow. `CAMSCRIBE_SOAK_SECONDS` makes the run longer.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use camscribe::{
    answer::{DescribeError, Description, StageTimes},
    camera::{CameraId, CameraStatus},
    capture::{self, CameraConfig},
    clip::WindowConfig,
    config::FrameSampling,
    describe::{
        Describer, Work, in_batches,
        worker::{self, Batching},
    },
    event::{FinishReason, ModelInfo, Tokens},
    events::EventBuilder,
    heartbeat::Heartbeat,
    queue::{ClipQueue, Overflow},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{own_process, playback};

const CAMERAS: usize = 8;
/// Clips of a camera per second.
const OFFERED: u32 = 20;
/// How long the describer takes per clip. It can describe a quarter of the clips.
const A_CLIP: Duration = Duration::from_millis(4 * 1000 / (OFFERED as u64 * CAMERAS as u64));

#[derive(Default)]
struct Slow(Arc<Heartbeat>);

impl Describer for Slow {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "slow".into(), revision: String::new(), device: "cpu".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.0)
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        in_batches(work, &|_| None, |requests| {
            thread::sleep(A_CLIP * requests.len() as u32);
            let description = Description {
                text: "Something.".into(),
                labels: Vec::new(),
                finish_reason: FinishReason::Stop,
                tokens: Tokens::default(),
                stages: StageTimes::default(),
            };
            Ok(requests.iter().map(|_| Ok(description.clone())).collect())
        })
    }
}

/// What became of one camera's clips.
#[derive(Debug, Default)]
struct Fate {
    made: u64,
    described: u64,
    /// As its events count them.
    said_dropped: u64,
    /// Described while all cameras ran.
    share: u64,
}

/// Returns the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

async fn overload(priorities: [u64; CAMERAS], time: Duration) -> Vec<Fate> {
    let queue = Arc::new(ClipQueue::new(NonZeroUsize::new(2).unwrap()));
    let fates = Arc::new(Mutex::new(BTreeMap::<CameraId, Fate>::new()));
    let made: Vec<Arc<AtomicU64>> = (0..CAMERAS).map(|_| Arc::default()).collect();
    let cancel = CancellationToken::new();
    let window = Duration::from_secs(1) / OFFERED;
    let mut cameras = Vec::new();
    for (i, priority) in priorities.into_iter().enumerate() {
        let id: CameraId = format!("cam{i}").parse().unwrap();
        queue.register(&id, priority);
        let config = CameraConfig {
            id,
            sampling: FrameSampling::Rate,
            window: WindowConfig { window, stride: window, frames: 2, min_frames: 1 },
            ..playback::camera(&format!("test://ball?width=64&height=64&fps={}", 2 * OFFERED))
        };
        let (queue, made) = (queue.clone(), made[i].clone());
        let sink = move |clip| {
            made.fetch_add(1, Ordering::SeqCst);
            queue.push(clip, Overflow::DropOldest).unwrap();
        };
        let (status, _) = watch::channel(CameraStatus::default());
        cameras.push(tokio::spawn(capture::run(config, sink, status, cancel.clone())));
    }
    // Shares are counted once all cameras run.
    while made.iter().any(|made| made.load(Ordering::SeqCst) < u64::from(OFFERED)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let model = thread::spawn({
        let (queue, fates, cancel) = (queue.clone(), fates.clone(), cancel.clone());
        move || {
            let batching = Batching {
                max_batch: NonZeroUsize::new(16).unwrap(),
                linger: Duration::ZERO,
                client_share: 0.0,
            };
            let mut model = Slow::default();
            let mut events = EventBuilder::new("edge1", model.model());
            worker::run(&mut model, &queue, batching, |outcome| {
                let event = events.build(outcome).1.unwrap();
                let mut fates = fates.lock().unwrap();
                let fate = fates.entry(event.camera).or_default();
                fate.described += 1;
                fate.share += u64::from(!cancel.is_cancelled());
                fate.said_dropped += event.dropped.clips;
            })
            .unwrap();
        }
    });
    let mut memory = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(time / 3).await;
        assert!(queue.len() <= 2 * CAMERAS);
        memory.push(resident());
    }
    println!("resident after a third, two thirds and all of {time:?}: {memory:?} KiB");
    assert!(memory[2] < memory[0] + 4 * 1024, "memory grows: {memory:?} KiB");
    cancel.cancel();
    for camera in cameras {
        camera.await.unwrap().unwrap();
    }
    queue.close();
    model.join().unwrap();

    let dropped = queue.dropped();
    let mut fates = std::mem::take(&mut *fates.lock().unwrap());
    let fates: Vec<Fate> = fates
        .iter_mut()
        .zip(&made)
        .map(|((id, fate), made)| {
            let mut fate = std::mem::take(fate);
            fate.made = made.load(Ordering::SeqCst);
            // No clip is queued any more.
            assert_eq!(fate.made, fate.described + dropped[id], "{id}: {fate:?}");
            assert_eq!(fate.said_dropped, dropped[id], "{id}: {fate:?}");
            fate
        })
        .collect();
    println!("{fates:#?}");
    assert_eq!(fates.len(), CAMERAS);
    let sum = |of: fn(&Fate) -> u64| fates.iter().map(of).sum::<u64>();
    assert!(sum(|f| f.made) > 3 * sum(|f| f.described), "the model is meant to be overloaded: {fates:?}");
    let (total, weights) = (sum(|f| f.share), priorities.iter().sum::<u64>());
    for (fate, priority) in fates.iter().zip(priorities) {
        let fair = (total * priority) as f64 / weights as f64;
        // A queue that served whoever came first, or one camera twice in a round, is further off; a machine
        // that is busy with other things is not.
        assert!((fate.share as f64 - fair).abs() <= 0.25 * fair, "{fair} would be fair: {fates:?}");
    }
    fates
}

#[test]
fn eight_cameras_at_four_times_what_the_model_can_do_share_it_fairly_and_every_drop_is_counted() {
    let name = "eight_cameras_at_four_times_what_the_model_can_do_share_it_fairly_and_every_drop_is_counted";
    // Resident memory is of the whole process, other tests included.
    if own_process::ran(module_path!(), name) {
        return;
    }
    let seconds = std::env::var("CAMSCRIBE_SOAK_SECONDS").ok().map_or(6, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        overload([1; CAMERAS], time).await;
        // One camera has three times the priority.
        overload([1, 1, 1, 3, 1, 1, 1, 1], time).await;
    });
}
