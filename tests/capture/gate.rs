//! The change gate on drawn scenes: camera noise and shake leave a still scene unchanged, and movement is a
//! change.

use std::{sync::Arc, time::Duration};

use camscribe::{
    clip::Clip,
    frame::{Clock, Frame},
    gate::Fingerprint,
    prompt_spec::{GateConfig, PromptSpec},
    view::View,
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

const WIDTH: usize = 320;
const HEIGHT: usize = 180;
const CLIP: i64 = 8;

/// Pseudo-random numbers, the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next()
    }

    /// Close to a normal distribution of this standard deviation.
    fn normal(&mut self, deviation: f32) -> f32 {
        ((0..12).map(|_| self.next()).sum::<f32>() - 6.0) * deviation
    }
}

/// An image of brightness values, row by row.
type LumaImage = Vec<f32>;

/// A scene: a gradient of light, and boxes in it.
fn scene(seed: u64) -> LumaImage {
    let mut chance = Chance(seed);
    let (light, across, down) =
        (chance.between(60.0, 150.0), chance.between(-50.0, 50.0), chance.between(-50.0, 50.0));
    let mut image: LumaImage = (0..WIDTH * HEIGHT)
        .map(|i| {
            let (x, y) = (i % WIDTH, i / WIDTH);
            light + across * (x as f32 / WIDTH as f32 - 0.5) + down * (y as f32 / HEIGHT as f32 - 0.5)
        })
        .collect();
    for _ in 0..12 {
        let (x, y) = (chance.between(0.0, 280.0) as usize, chance.between(0.0, 150.0) as usize);
        let (w, h) = (chance.between(10.0, 120.0) as usize, chance.between(10.0, 80.0) as usize);
        let shade = chance.between(-50.0, 50.0);
        paint(&mut image, (x, y, w, h), |old| (old + shade).clamp(20.0, 235.0));
    }
    image
}

fn paint(image: &mut LumaImage, (x, y, w, h): (usize, usize, usize, usize), with: impl Fn(f32) -> f32) {
    for row in y..(y + h).min(HEIGHT) {
        for column in x..(x + w).min(WIDTH) {
            let at = row * WIDTH + column;
            image[at] = with(image[at]);
        }
    }
}

/// A person: a box that differs by `contrast` from what it covers.
fn with_someone(image: &LumaImage, x: usize, y: usize, size: (usize, usize), contrast: f32) -> LumaImage {
    let mut image = image.clone();
    paint(
        &mut image,
        (x, y, size.0, size.1),
        |old| if old < 128.0 { old + contrast } else { old - contrast },
    );
    image
}

/// How a camera changes an image.
#[derive(Clone, Copy, Debug)]
struct Camera {
    noise: f32,
    gain: f32,
    offset: f32,
    /// How far compression moves the 8x8 blocks, and what it adds within them.
    shimmer: f32,
}

const STEADY: Camera = Camera { noise: 0.0, gain: 1.0, offset: 0.0, shimmer: 0.0 };

impl Camera {
    fn capture(self, image: &LumaImage, chance: &mut Chance) -> Frame {
        let blocks: Vec<(f32, f32)> = (0..(WIDTH / 8 + 1) * (HEIGHT / 8 + 1))
            .map(|_| {
                (chance.between(-self.shimmer, self.shimmer), chance.between(-self.shimmer, self.shimmer))
            })
            .collect();
        let rgb = image.iter().enumerate().flat_map(|(i, light)| {
            let (x, y) = (i % WIDTH, i / WIDTH);
            let (level, wave) = blocks[y / 8 * (WIDTH / 8 + 1) + x / 8];
            let ripple = wave * if (x / 2 + y / 2) % 2 == 0 { 1.0 } else { -1.0 };
            let value = self.gain * light + self.offset + level + ripple + chance.normal(self.noise);
            [value.round().clamp(0.0, 255.0) as u8; 3]
        });
        frame(WIDTH, HEIGHT, rgb.collect())
    }

    fn record(self, images: &[LumaImage], chance: &mut Chance) -> Vec<Frame> {
        images.iter().map(|image| self.capture(image, chance)).collect()
    }
}

fn frame(width: usize, height: usize, rgb: Vec<u8>) -> Frame {
    Frame {
        camera: "porch".parse().unwrap(),
        captured_at: DateTime::UNIX_EPOCH,
        clock: Clock::Camera,
        pts: Duration::ZERO,
        width: width as u32,
        height: height as u32,
        rgb: rgb.into(),
        original: None,
    }
}

fn gate(threshold: u8) -> Option<GateConfig> {
    Some(GateConfig { threshold, heartbeat: Duration::from_secs(600) })
}

fn clip(start: DateTime<Utc>, frames: Vec<Frame>, gate: Option<GateConfig>) -> Clip {
    Clip {
        camera: "porch".parse().unwrap(),
        seq: 0,
        start,
        end: start + TimeDelta::seconds(CLIP),
        clock: Clock::Camera,
        start_pts: Duration::ZERO,
        duration: Duration::from_secs(8),
        frames,
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec { gate, ..PromptSpec::new("What happens?", 8) }),
    }
}

/// Returns whether `after` shows nothing new after `before`, by the default threshold.
fn still(before: Vec<Frame>, after: Vec<Frame>) -> bool {
    let fingerprint = |seconds, frames| {
        Fingerprint::of(&clip(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds), frames, gate(10))).unwrap()
    };
    fingerprint(CLIP, after).repeats(&fingerprint(0, before).keep_last_frame())
}

prop_compose! {
    /// The same camera at another moment: night noise, an exposure step, compression.
    fn any_camera()(noise in 0f32..12.0, gain in 0.9f32..1.12, offset in -10f32..10.0, shimmer in 0f32..4.0) -> Camera {
        Camera { noise, gain, offset, shimmer }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_still_scene_is_still_through_noise_exposure_and_compression(
        seed: u64, before in any_camera(), steps in prop::collection::vec(any_camera(), 2..5),
    ) {
        let (scene, mut chance) = (scene(seed), Chance(seed ^ 1));
        // What was clipped at black or white is lost.
        let dark = Camera { gain: before.gain.min(1.0), ..before };
        let first = dark.record(&[scene.clone(), scene.clone()], &mut chance);
        let then = steps.iter().map(|camera| camera.capture(&scene, &mut chance)).collect();
        prop_assert!(still(first, then));
    }

    #[test]
    fn someone_is_seen_in_any_one_frame_through_noise_exposure_and_compression(
        seed: u64, camera in any_camera(), when in 0usize..4,
        x in 0usize..290, y in 0usize..150, size in (16usize..60, 20usize..80), contrast in 45f32..100.0,
    ) {
        let (empty, mut chance) = (scene(seed), Chance(seed ^ 2));
        let mut images = vec![empty.clone(); 4];
        images[when] = with_someone(&empty, x, y, size, contrast);
        let before = camera.record(&[empty.clone(), empty.clone()], &mut chance);
        prop_assert!(!still(before, camera.record(&images, &mut chance)));
    }

    #[test]
    fn someone_who_leaves_while_the_last_description_was_made_is_missed(
        seed: u64, camera in any_camera(), x in 0usize..290, y in 0usize..150, size in (16usize..60, 20usize..80),
    ) {
        let (empty, mut chance) = (scene(seed), Chance(seed ^ 3));
        let there = with_someone(&empty, x, y, size, 60.0);
        let before = camera.record(&[empty.clone(), there], &mut chance);
        prop_assert!(!still(before, camera.record(&[empty.clone(), empty], &mut chance)));
    }
}

#[test]
fn slow_movement_is_a_change_once_it_has_gone_far_enough() {
    let empty = scene(7);
    let at = |x| STEADY.record(&[with_someone(&empty, x, 60, (40, 60), 60.0)], &mut Chance(7));
    let moved = |by| !still(at(100), at(100 + by));
    assert!(!moved(0));
    let first = (0usize..40).find(|by| moved(*by)).expect("it is seen");
    assert!(first <= 3, "a block is five pixels wide: {first}");
}

#[test]
fn a_light_that_is_switched_on_is_a_change() {
    let (dark, mut chance) = (scene(3).iter().map(|l| l * 0.2).collect::<LumaImage>(), Chance(3));
    let bright = scene(3);
    assert!(!still(STEADY.record(&[dark], &mut chance), STEADY.record(&[bright], &mut chance)));
}

#[test]
fn another_scene_is_a_change() {
    for seed in 0..20 {
        let (one, other, mut chance) = (scene(seed), scene(seed + 100), Chance(seed));
        assert!(!still(STEADY.record(&[one], &mut chance), STEADY.record(&[other], &mut chance)), "{seed}");
    }
}

#[test]
fn a_higher_threshold_detects_less() {
    let empty = scene(5);
    let faint = with_someone(&empty, 100, 60, (40, 60), 25.0);
    let seen = |threshold| {
        let fingerprint = |seconds, image: &LumaImage| {
            let start = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
            let frames = STEADY.record(std::slice::from_ref(image), &mut Chance(5));
            Fingerprint::of(&clip(start, frames, gate(threshold))).unwrap()
        };
        !fingerprint(CLIP, &faint).repeats(&fingerprint(0, &empty))
    };
    assert_eq!([seen(1), seen(10), seen(24), seen(40), seen(255)], [true, true, true, false, false]);
}

#[test]
fn a_still_scene_is_described_again_after_the_heartbeat_and_when_the_prompt_changes() {
    let frames = STEADY.record(&[scene(1)], &mut Chance(1));
    let fingerprint = |seconds, prompt_spec: PromptSpec| {
        let start = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        Fingerprint::of(&Clip { prompt_spec: Arc::new(prompt_spec), ..clip(start, frames.clone(), None) })
            .unwrap()
    };
    let prompt_spec = PromptSpec { gate: gate(10), ..PromptSpec::new("What happens?", 8) };
    let described = fingerprint(1000, prompt_spec.clone());
    assert!(fingerprint(1599, prompt_spec.clone()).repeats(&described));
    assert!(!fingerprint(1600, prompt_spec.clone()).repeats(&described));
    assert!(!fingerprint(999, prompt_spec.clone()).repeats(&described), "nobody knows how long ago that was");
    let other = PromptSpec { prompt: "Is it raining?".into(), ..prompt_spec };
    assert!(!fingerprint(1010, other).repeats(&described));
}

#[test]
fn a_scene_is_described_again_when_another_part_of_it_is_seen() {
    let frames = STEADY.record(&[scene(1)], &mut Chance(1));
    let fingerprint = |seconds, crop: Option<&str>| {
        let start = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let view = crop.map(|crop| Arc::new(View { crop: crop.parse().ok(), ..View::default() }));
        Fingerprint::of(&Clip { view, ..clip(start, frames.clone(), gate(10)) }).unwrap()
    };
    let described = fingerprint(0, Some("0,0 1,0.5"));
    assert!(fingerprint(8, Some("0,0 1,0.5")).repeats(&described));
    assert!(!fingerprint(8, Some("0,0 1,0.6")).repeats(&described));
    assert!(!fingerprint(8, None).repeats(&described) && !described.repeats(&fingerprint(0, None)));
}

#[test]
fn frames_of_any_size_are_compared_and_damaged_ones_go_to_the_model() {
    let sizes = [(1, 1), (63, 35), (65, 37), (1920, 3), (2, 2000), (641, 361)];
    for (width, height) in sizes {
        let grey = |value: u8| vec![frame(width, height, vec![value; width * height * 3])];
        assert!(still(grey(100), grey(100)), "{width}x{height}");
        assert!(!still(grey(20), grey(200)), "{width}x{height}");
    }
    let torn = vec![frame(64, 36, vec![0; 10])];
    assert!(Fingerprint::of(&clip(DateTime::UNIX_EPOCH, torn, gate(10))).is_none());
    assert!(Fingerprint::of(&clip(DateTime::UNIX_EPOCH, Vec::new(), gate(10))).is_none());
}

#[test]
fn clips_of_a_camera_without_a_gate_get_no_fingerprint() {
    let frames = STEADY.record(&[scene(1)], &mut Chance(1));
    assert!(Fingerprint::of(&clip(DateTime::UNIX_EPOCH, frames, None)).is_none());
}
