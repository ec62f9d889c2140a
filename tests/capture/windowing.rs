//! The windowing rules on frame times alone: named examples and properties.

use std::{sync::Arc, time::Duration};

use camscribe::{
    clip::{BadWindow, Clip, TimeRange, WindowConfig, Windower},
    frame::{Clock, Frame, Original},
    prompt_spec::PromptSpec,
};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(window: u64, stride: u64, frames: usize, min_frames: usize) -> WindowConfig {
    WindowConfig { window: ms(window), stride: ms(stride), frames, min_frames }
}

fn windower(config: &WindowConfig) -> Windower {
    let prompt_spec = Arc::new(PromptSpec::new("What happens?", 8));
    Windower::new(config.clone(), prompt_spec).unwrap()
}

fn epoch() -> DateTime<Utc> {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn frame(pts: Duration) -> Frame {
    Frame {
        camera: "porch".parse().unwrap(),
        captured_at: epoch() + pts,
        clock: Clock::Arrival,
        pts,
        width: 1,
        height: 1,
        rgb: [0; 3].into(),
        original: None,
    }
}

fn push_all(w: &mut Windower, times: impl IntoIterator<Item = u64>) -> Vec<Clip> {
    times.into_iter().flat_map(|t| w.push(frame(ms(t)))).collect()
}

/// Pushes only the frames that the windower wants, as capture does. Returns the clips, and the times of those
/// frames.
fn push_wanted(w: &mut Windower, times: impl IntoIterator<Item = u64>) -> (Vec<Clip>, Vec<u64>) {
    let (mut clips, mut wanted) = (Vec::new(), Vec::new());
    for t in times {
        if w.offer(ms(t)) {
            clips.extend(w.push(frame(ms(t))));
            wanted.push(t);
        }
    }
    (clips, wanted)
}

fn offsets(clip: &Clip) -> Vec<u64> {
    (0..clip.frames.len()).map(|i| clip.offset(i).as_millis() as u64).collect()
}

#[test]
fn a_clip_takes_the_first_frame_at_or_after_each_wanted_time() {
    let mut w = windower(&config(8000, 8000, 8, 2));
    let clips = push_all(&mut w, (0..8000).step_by(40).map(|t| 3000 + t));
    assert_eq!(clips.len(), 1);
    assert_eq!(offsets(&clips[0]), [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    assert_eq!((clips[0].start_pts, clips[0].duration, clips[0].gap), (ms(3000), ms(8000), false));
    assert_eq!((clips[0].start, clips[0].end), (epoch() + ms(3000), epoch() + ms(11_000)));
}

#[test]
fn frames_that_are_a_moment_early_for_their_slots_leave_no_hole() {
    // A keyframe a second, whose times the network has shifted by 40 ms after the second.
    let keyframes = || [0, 1000].into_iter().chain((2..24).map(|k| k * 1000 - 40));
    let mut w = windower(&config(8000, 8000, 8, 8));
    w.set_early(true);
    let (clips, wanted) = push_wanted(&mut w, keyframes());
    assert_eq!(wanted, keyframes().collect::<Vec<_>>());
    assert_eq!(clips.len(), 3);
    assert_eq!(offsets(&clips[0]), [0, 1000, 1960, 2960, 3960, 4960, 5960, 6960]);
    assert_eq!(offsets(&clips[1]), [0, 960, 1960, 2960, 3960, 4960, 5960, 6960]);
    assert_eq!((clips[1].start, clips[1].end), (epoch() + ms(8000), epoch() + ms(16_000)));
    assert!(clips.iter().all(|clip| !clip.gap));
}

#[test]
fn a_clip_is_complete_with_the_frame_of_its_last_slot() {
    let mut w = windower(&config(4000, 4000, 4, 1));
    assert!(push_all(&mut w, [0, 1000, 2000, 2900]).is_empty());
    assert_eq!(push_all(&mut w, [3000]).len(), 1);
    assert!(push_all(&mut w, [3040, 3080]).is_empty());
}

#[test]
fn a_slot_without_a_frame_stays_empty() {
    let mut w = windower(&config(4000, 4000, 4, 1));
    let clips = push_all(&mut w, [0, 2500, 3900]);
    assert_eq!(clips.iter().map(offsets).collect::<Vec<_>>(), [[0, 2500, 3900]]);
}

#[test]
fn a_window_whose_last_slot_stays_empty_ends_with_the_first_frame_beyond_it() {
    let mut w = windower(&config(4000, 60_000, 4, 1));
    assert!(push_all(&mut w, [0, 1000, 2000]).is_empty());
    assert!(w.offer(ms(4001)), "the frame that ends a window is wanted though no slot is open for it");
    let clips = push_all(&mut w, [4001]);
    assert_eq!(clips.iter().map(offsets).collect::<Vec<_>>(), [[0, 1000, 2000]]);
    assert_eq!(clips[0].duration, ms(4000));
}

#[test]
fn a_stride_shorter_than_the_window_makes_clips_overlap() {
    let mut w = windower(&config(4000, 2000, 4, 1));
    let clips = push_all(&mut w, (0..9000).step_by(500));
    assert_eq!(clips.iter().map(|c| c.start_pts.as_millis()).collect::<Vec<_>>(), [0, 2000, 4000]);
    assert!(clips.iter().all(|c| offsets(c) == [0, 1000, 2000, 3000]));
}

#[test]
fn a_stride_longer_than_the_window_leaves_gaps_that_are_not_reported() {
    let mut w = windower(&config(2000, 60_000, 2, 1));
    let (clips, wanted) = push_wanted(&mut w, (0..130_000).step_by(40));
    assert_eq!(wanted, [0, 1000, 60_000, 61_000, 120_000, 121_000]);
    assert!(clips.len() == 3 && clips.iter().all(|c| !c.gap));
}

#[test]
fn a_lost_connection_ends_the_open_window_and_marks_a_gap() {
    let mut w = windower(&config(8000, 8000, 8, 2));
    push_all(&mut w, [0, 1000, 2000]);
    let clips = w.discontinuity();
    assert_eq!(clips.iter().map(offsets).collect::<Vec<_>>(), [[0, 1000, 2000]]);
    assert!(clips[0].gap);
    assert_eq!((clips[0].duration, clips[0].end), (ms(2000), epoch() + ms(2000)));
    let after = push_all(&mut w, (0..8).map(|i| 700 + 1000 * i));
    assert_eq!((after[0].start_pts, after[0].gap, after[0].seq), (ms(700), false, 1));
}

#[test]
fn a_time_that_runs_backwards_is_a_discontinuity() {
    let mut w = windower(&config(8000, 8000, 8, 2));
    let clips = push_all(&mut w, [5000, 6000, 7000, 0]);
    assert_eq!(clips.iter().map(|c| (c.start_pts, c.gap)).collect::<Vec<_>>(), [(ms(5000), true)]);
    assert_eq!(w.next_wanted(), ms(1000), "the next window starts with the frame that ran backwards");
}

#[test]
fn a_time_that_jumps_by_more_than_a_window_is_a_discontinuity() {
    let mut w = windower(&config(4000, 4000, 4, 2));
    let (clips, _) = push_wanted(&mut w, [0, 1000, 9000, 10_000, 11_000, 12_000]);
    let brief: Vec<_> = clips.iter().map(|c| (c.start_pts, c.gap, c.duration)).collect();
    assert_eq!(brief, [(ms(0), true, ms(1000)), (ms(9000), false, ms(4000))]);
}

#[test]
fn the_last_partial_window_of_a_file_is_described_with_its_true_length() {
    let mut w = windower(&config(8000, 8000, 8, 2));
    let (mut clips, _) = push_wanted(&mut w, (0..14_000).step_by(40));
    clips.extend(w.finish());
    assert_eq!(clips.len(), 2);
    assert_eq!(offsets(&clips[1]), [0, 1000, 2000, 3000, 4000, 5000]);
    assert_eq!(clips[1].duration, ms(6000), "the last frame is at 5.96 s: six seconds, not five");
    assert_eq!((clips[1].end, clips[1].gap), (epoch() + ms(13_960), false));
}

#[test]
fn only_the_wanted_part_of_a_stream_is_cut_into_clips() {
    let range = |from, to| TimeRange { from: ms(from), to: ms(to) };
    let cut = |range: TimeRange| {
        let mut w = windower(&config(4000, 4000, 4, 2)).within(range);
        let (mut clips, wanted) = push_wanted(&mut w, (0..30_000).step_by(40));
        let over = w.is_over();
        clips.extend(w.finish());
        let brief: Vec<_> = clips.iter().map(|c| (c.start_pts, c.duration)).collect();
        assert!(clips.iter().all(|c| !c.gap && c.end == epoch() + c.start_pts + c.duration), "{brief:?}");
        (brief, wanted, over)
    };
    let (brief, wanted, over) = cut(range(5000, 15_000));
    assert_eq!(brief, [(ms(5000), ms(4000)), (ms(9000), ms(4000)), (ms(13_000), ms(2000))]);
    // The first frame of the stream, those of the clips, and the one that ends them.
    assert_eq!(wanted, [0, 5000, 6000, 7000, 8000, 9000, 10_000, 11_000, 12_000, 13_000, 14_000, 15_000]);
    assert!(over);
    // All slots of the window are filled before it is cut.
    assert_eq!(cut(range(0, 3500)).0, [(ms(0), ms(3500))]);
    let (brief, _, over) = cut(range(26_000, 60_000));
    assert_eq!((brief, over), (vec![(ms(26_000), ms(4000))], false));
    assert_eq!(cut(range(40_000, 60_000)).0, []);
}

#[test]
fn a_window_with_too_few_frames_is_dropped_and_counted() {
    let mut w = windower(&config(8000, 8000, 8, 3));
    push_all(&mut w, [0, 1000]);
    assert!(w.finish().is_empty());
    assert_eq!(w.too_few(), 1);
}

#[test]
fn lost_frames_are_distinguished_from_a_slow_camera() {
    let lossy = |times: Vec<u64>| {
        let mut w = windower(&config(4000, 4000, 4, 1));
        let (clips, _) = push_wanted(&mut w, times);
        clips.iter().map(|c| (offsets(c).len(), c.gap)).collect::<Vec<_>>()
    };
    let steady = |from: u64, to: u64, step: usize| (from..to).step_by(step);
    // Two slots of the first window are lost.
    let loss = steady(0, 900, 40).chain(steady(3000, 8000, 40)).collect();
    assert_eq!(lossy(loss), [(2, true), (4, false)]);
    // The end of a window is lost, and the frame that ends it belongs to the next one.
    let loss = steady(0, 1900, 40).chain(steady(4200, 8000, 40)).collect();
    assert_eq!(lossy(loss), [(2, true), (4, false)]);
    // The loss leaves no slot empty.
    let loss = steady(0, 1040, 40).chain(steady(1600, 4000, 40)).collect();
    assert_eq!(lossy(loss), [(4, false)]);
    // The camera gives a frame every two seconds.
    assert_eq!(lossy(steady(0, 20_000, 2000).collect()), [(2, false); 4]);
    // It slows down: the first pause looks like a loss, then it is the new interval.
    let slower = lossy(steady(0, 4000, 40).chain(steady(4000, 24_000, 2000)).collect());
    assert!(slower[2..].iter().all(|(frames, gap)| (*frames, *gap) == (2, false)), "{slower:?}");
}

#[test]
fn a_clock_set_back_by_an_hour_is_detected_and_one_set_forward_is_followed() {
    for (step, gap) in [(-3600, true), (3600, false)] {
        let mut w = windower(&config(2000, 2000, 4, 2));
        let stepped = |t: u64| Frame {
            captured_at: frame(ms(t)).captured_at + TimeDelta::seconds(if t < 5000 { 0 } else { step }),
            ..frame(ms(t))
        };
        let clips: Vec<Clip> = (0..12_000).step_by(100).flat_map(|t| w.push(stepped(t))).collect();
        assert_eq!(clips.iter().map(|c| c.gap).collect::<Vec<_>>(), [false, false, false, gap, false, false]);
        assert_eq!(clips[2].end, epoch() + ms(6000), "a clip's times rest on its first frame");
        assert_eq!(clips[3].start, epoch() + ms(6000) + TimeDelta::seconds(step));
        assert!(clips.iter().all(|c| c.end - c.start == TimeDelta::seconds(2)));
    }
}

#[test]
fn invalid_windows_are_refused() {
    let cases = [
        (config(0, 1000, 1, 1), BadWindow::Window),
        (config(90_000_000, 1000, 1, 1), BadWindow::Window),
        (config(1000, 0, 1, 1), BadWindow::Stride),
        (config(65_000, 1000, 1, 1), BadWindow::Overlap),
        (config(1000, 1000, 0, 0), BadWindow::Frames),
        (config(1000, 1000, 65, 1), BadWindow::Frames),
        (config(1000, 1000, 4, 0), BadWindow::MinFrames),
        (config(1000, 1000, 4, 5), BadWindow::MinFrames),
        (WindowConfig { window: Duration::from_nanos(3), ..config(1000, 1000, 4, 1) }, BadWindow::Spread),
    ];
    for (config, why) in cases {
        assert_eq!(config.validate(), Err(why), "{config:?}");
    }
}

prop_compose! {
    fn any_config()(window in 100u64..10_000, stride in 100u64..20_000, frames in 1usize..12)
                   (window in Just(window), stride in Just(stride.max(window.div_ceil(64))), frames in Just(frames),
                    min_frames in 1..=frames) -> WindowConfig {
        config(window, stride, frames, min_frames)
    }
}

/// Frame times of a camera with occasional long pauses.
fn any_times() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![20 => 1u64..400, 1 => 400u64..30_000];
    prop::collection::vec(step, 1..300).prop_map(|steps| summed(&steps))
}

/// Frame times of a camera that never pauses for as long as the shortest window.
fn steady_times() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1u64..90, 1..400).prop_map(|steps| summed(&steps))
}

fn summed(steps: &[u64]) -> Vec<u64> {
    steps
        .iter()
        .scan(0, |t, s| {
            *t += s;
            Some(*t)
        })
        .collect()
}

proptest! {
    #[test]
    fn frames_of_a_clip_are_sorted_distinct_within_the_window_and_one_a_slot(c in any_config(), times in any_times()) {
        let mut w = windower(&c);
        let mut clips = push_all(&mut w, times);
        clips.extend(w.finish());
        for clip in &clips {
            prop_assert!((c.min_frames..=c.frames).contains(&clip.frames.len()));
            let mut slots = Vec::new();
            for i in 0..clip.frames.len() {
                prop_assert!(clip.frames[i].pts >= clip.start_pts && clip.offset(i) < c.window);
                slots.push((0..c.frames).rfind(|s| c.window * *s as u32 / c.frames as u32 <= clip.offset(i)));
            }
            prop_assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
            prop_assert!(clip.duration <= c.window && clip.end >= clip.start);
        }
        prop_assert!(clips.iter().enumerate().all(|(i, clip)| clip.seq == i as u64));
    }

    #[test]
    fn the_end_of_a_whole_clip_is_at_most_a_slot_after_the_frame_that_completes_it(
        c in any_config(), times in any_times(),
    ) {
        let mut w = windower(&c);
        for time in times {
            for clip in w.push(frame(ms(time))).iter().filter(|clip| !clip.gap) {
                prop_assert_eq!(clip.end - clip.start, TimeDelta::from_std(c.window).unwrap());
                // Slots start at whole nanoseconds.
                let slot = c.window / c.frames as u32 + Duration::from_nanos(1);
                prop_assert!(clip.end <= epoch() + ms(time) + slot, "{} {time}", clip.end);
            }
        }
    }

    #[test]
    fn every_slot_gets_the_first_frame_that_fell_into_it(c in any_config(), times in steady_times()) {
        let mut w = windower(&c);
        let mut clips = push_all(&mut w, times.iter().copied());
        clips.extend(w.finish());
        let mut expected = Vec::new();
        let mut start = ms(times[0]);
        while start <= ms(*times.last().unwrap()) {
            let bound = |s: usize| start + c.window * s as u32 / c.frames as u32;
            let slot = |s: usize| times.iter().copied().find(|t| ms(*t) >= bound(s) && ms(*t) < bound(s + 1));
            let frames: Vec<u64> = (0..c.frames).filter_map(slot).collect();
            if frames.len() >= c.min_frames {
                expected.push((start, frames));
            }
            start += c.stride;
        }
        let times = |clip: &Clip| clip.frames.iter().map(|f| f.pts.as_millis() as u64).collect::<Vec<_>>();
        prop_assert_eq!(clips.iter().map(|clip| (clip.start_pts, times(clip))).collect::<Vec<_>>(), expected);
        prop_assert!(clips.iter().all(|clip| !clip.gap));
    }

    #[test]
    fn pushing_only_what_is_wanted_makes_the_same_clips(c in any_config(), times in any_times()) {
        let (mut all, mut some) = (windower(&c), windower(&c));
        let mut expected = push_all(&mut all, times.iter().copied());
        expected.extend(all.finish());
        let (mut got, _) = push_wanted(&mut some, times);
        got.extend(some.finish());
        let brief = |clips: &[Clip]| clips.iter().map(|c| (c.start_pts, offsets(c), c.gap, c.duration)).collect::<Vec<_>>();
        prop_assert_eq!(brief(&got), brief(&expected));
    }

    #[test]
    fn a_loss_marks_the_clips_that_miss_frames_by_it_and_no_others(
        c in any_config(), interval in 20u64..60, at in 1000u64..20_000, length in 1u64..8000,
    ) {
        // No slot is shorter than the interval: without a loss none stays empty.
        prop_assume!(c.interval() >= ms(interval));
        let times = (0..40_000).step_by(interval as usize).filter(|t| !(at..at + length).contains(t));
        let mut w = windower(&c);
        let (mut clips, _) = push_wanted(&mut w, times);
        clips.extend(w.finish());
        let last = clips.last().map_or(ms(0), |clip| clip.start_pts);
        // The end of the stream truncates the last ones, which is no loss.
        for clip in clips.iter().filter(|clip| clip.start_pts + c.window < last) {
            prop_assert_eq!(clip.gap, clip.frames.len() < c.frames, "{:?} of {:?}", offsets(clip), c);
        }
    }

    #[test]
    fn no_clip_starts_before_the_one_before_without_saying_so(
        c in any_config(), times in any_times(), steps in prop::collection::vec(-8000i64..8000, 300),
    ) {
        let mut w = windower(&c);
        let mut off = 0;
        let mut clips = Vec::new();
        for (t, step) in times.into_iter().zip(steps) {
            // The clock is set occasionally.
            off += if step % 7 == 0 { step } else { 0 };
            let captured_at = epoch() + ms(t) + TimeDelta::milliseconds(off);
            clips.extend(w.push(Frame { captured_at, ..frame(ms(t)) }));
        }
        clips.extend(w.finish());
        prop_assert!(clips.iter().all(|clip| clip.start <= clip.end));
        prop_assert!(clips.windows(2).all(|pair| pair[0].start <= pair[1].start || pair[1].gap));
    }

    #[test]
    fn no_more_windows_are_open_than_overlap(c in any_config(), times in any_times()) {
        let mut w = windower(&c);
        let bound = c.window.as_nanos().div_ceil(c.stride.as_nanos()) as usize;
        for t in times {
            w.push(frame(ms(t)));
            prop_assert!(w.open_windows() <= bound, "{} > {bound}", w.open_windows());
        }
    }

    #[test]
    fn no_clip_spans_a_restart_and_the_one_it_cuts_says_so(
        c in any_config(), before in any_times(), after in any_times(),
    ) {
        let mut w = windower(&c);
        let mut clips = push_all(&mut w, before);
        let cut = w.discontinuity();
        prop_assert!(cut.iter().all(|clip| clip.gap));
        let (earlier, first) = (clips.len() + cut.len(), ms(after[0]));
        clips.extend(cut);
        clips.extend(push_all(&mut w, after));
        clips.extend(w.finish());
        prop_assert!(clips[earlier..].iter().all(|clip| clip.start_pts >= first));
        prop_assert!(clips.iter().enumerate().all(|(i, clip)| clip.seq == i as u64));
    }
}

#[test]
fn the_middle_frame_of_a_clip_keeps_its_original() {
    let with_original = |t: u64| Frame {
        original: Some(Original { width: 2, height: 2, rgb: Some([0; 12].into()) }),
        ..frame(ms(t))
    };
    // A frame in every slot; one missing in the middle; none before the middle; overlapping windows.
    for (stride, times, middles) in [
        (4000, &[0, 1000, 2000, 3000][..], &[2][..]),
        (4000, &[0, 1000, 3000], &[1]),
        (4000, &[0, 3000], &[0]),
        (1000, &[0, 1000, 2000, 3000, 4000, 5000, 6000], &[2, 2, 2, 2]),
    ] {
        let mut w = windower(&config(4000, stride, 4, 1));
        let mut clips: Vec<Clip> = times.iter().flat_map(|t| w.push(with_original(*t))).collect();
        clips.truncate(middles.len());
        let kept = clips.iter().map(|clip| {
            let kept: Vec<_> = (0..clip.frames.len()).filter(|i| clip.frames[*i].has_original()).collect();
            assert!(clip.frames.iter().all(|frame| frame.source_size() == (2, 2)));
            assert_eq!(kept.len(), 1, "{times:?}");
            kept[0]
        });
        assert_eq!(kept.collect::<Vec<_>>(), middles, "{times:?}");
    }
}
