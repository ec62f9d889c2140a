//! The describer as the worker uses it: clips in, one answer each out. The weights are random, so that
//! only the form of the answers is checked.

use std::{fs, path::Path, sync::Arc, time::Duration};

use camscribe::{
    answer::DescribeError,
    clip::Clip,
    describe::{self, Answers, Describer, LoadOptions},
    device::DeviceChoice,
    event::ModelInfo,
    frame::{Clock, Frame},
    prompt_spec::PromptSpec,
    request::Request,
};
use chrono::{TimeDelta, Utc};

use crate::support::checkpoint;

fn load(dir: &Path) -> Box<dyn Describer> {
    let options = LoadOptions { device: DeviceChoice::Cpu, id: "test".into(), ..LoadOptions::default() };
    describe::load(dir, options).unwrap()
}

fn describe(model: &mut dyn Describer, clips: &[Clip]) -> Answers {
    let requests: Vec<_> = clips.iter().map(Request::from).collect();
    model.answer(&requests, &mut |_, _| ()).unwrap()
}

#[test]
fn describing_beats_the_heartbeat() {
    let dir = checkpoint::random_shapes(5);
    let mut model = load(dir.path());
    let heartbeat = model.heartbeat();
    heartbeat.idle();
    describe(&mut *model, &[clip(2, 64, 64)]);
    std::thread::sleep(Duration::from_millis(5));
    assert!(heartbeat.silence() > Duration::ZERO);
}

fn clip(frames: u64, width: u32, height: u32) -> Clip {
    let camera: camscribe::camera::CameraId = "porch".parse().unwrap();
    let start = Utc::now();
    let frame = |i: u64| Frame {
        camera: camera.clone(),
        captured_at: start + TimeDelta::seconds(i as i64),
        clock: Clock::Arrival,
        pts: Duration::from_secs(100 + i),
        width,
        height,
        rgb: (0..width * height * 3).map(|b| (b as u64 * (i + 2) / 7) as u8).collect(),
        original: None,
    };
    Clip {
        camera: camera.clone(),
        seq: 0,
        start,
        end: start + TimeDelta::seconds(frames as i64),
        clock: Clock::Arrival,
        start_pts: Duration::from_secs(100),
        duration: Duration::from_secs(frames),
        frames: (0..frames).map(frame).collect(),
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec::new("What moves?", 12)),
    }
}

#[test]
fn a_clip_that_cannot_be_described_does_not_harm_the_others_of_its_batch() {
    let dir = checkpoint::random_shapes(5);
    let mut model = load(dir.path());
    let good = [clip(3, 64, 48), clip(5, 31, 77)];
    let mut torn = clip(2, 16, 16);
    torn.frames[1].rgb = vec![0; 10].into();
    let batch = [good[0].clone(), clip(0, 8, 8), torn, clip(2000, 1, 1), good[1].clone()];
    let results = describe(&mut *model, &batch);
    for (i, word) in [(1, "no frames"), (2, "10 bytes"), (3, "use fewer frames")] {
        match &results[i] {
            Err(DescribeError::Request(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("clip {i}: {other:?}"),
        }
    }
    for (i, clip) in [(0, &good[0]), (4, &good[1])] {
        let alone = describe(&mut *model, std::slice::from_ref(clip)).remove(0).unwrap();
        let together = results[i].as_ref().unwrap();
        assert_eq!((&together.text, together.tokens), (&alone.text, alone.tokens));
        assert_eq!(together.tokens.image % clip.frames.len(), 0);
        assert!(together.tokens.prompt > together.tokens.image && together.tokens.image > 0);
        assert!(together.tokens.generated <= 12);
        assert!(together.stages.vision > Duration::ZERO && together.stages.prefill > Duration::ZERO);
    }
}

#[test]
fn a_batch_without_a_clip_that_can_be_described_is_answered_too() {
    let dir = checkpoint::random_shapes(5);
    let mut model = load(dir.path());
    assert!(describe(&mut *model, &[]).is_empty());
    assert!(matches!(describe(&mut *model, &[clip(0, 8, 8)])[..], [Err(DescribeError::Request(_))]));
}

#[test]
fn events_carry_the_model_info() {
    let dir = checkpoint::random_shapes(5);
    let expected =
        ModelInfo { id: "test".into(), revision: String::new(), device: "cpu".into(), dtype: "f32".into() };
    assert_eq!(load(dir.path()).model(), expected);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_missing_device_is_reported_before_the_weights_are_read() {
    let dir = checkpoint::random_shapes(5);
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let error =
        describe::load(dir.path(), LoadOptions { device: DeviceChoice::Cuda(0), ..LoadOptions::default() });
    let error = error.err().unwrap().to_string();
    assert!(error.contains("built without CUDA"), "{error}");
}
