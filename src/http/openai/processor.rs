//! How images and videos are prepared, in the fields that vLLM adds to OpenAI's format: `mm_processor_kwargs` (what
//! transformers' processor takes) and `media_io_kwargs` (how videos are read).

use std::time::Duration;

use serde::Deserialize;

use crate::{
    json_input::Whole,
    request::{ImageOptions, VideoSampling},
};

/// The most frames of a video file that are taken.
const MAX_FRAMES: u64 = 128;
/// The longest video, and the latest time of a frame, in seconds: 30 days.
const MAX_SECONDS: f64 = 30.0 * 86_400.0;

/// `mm_processor_kwargs`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProcessorOptions {
    size: Option<Size>,
    do_image_splitting: Option<bool>,
    fps: Option<f64>,
    num_frames: Option<Whole<u64>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Size {
    longest_edge: Option<Whole<usize>>,
}

/// `media_io_kwargs`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct MediaOptions {
    video: Option<VideoOptions>,
}

/// How videos are read. For one that is sent as frames it says what they were taken from.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VideoOptions {
    /// Most frames that are taken; -1: all.
    num_frames: Option<Whole<i64>>,
    /// Of a file, frames that are taken a second; else frames a second of what the frames were taken from.
    fps: Option<f64>,
    frames_indices: Option<Vec<Whole<u64>>>,
    total_num_frames: Option<Whole<u64>>,
    duration: Option<f64>,
}

impl ProcessorOptions {
    /// How images are prepared. `low_detail`: images are to be looked at as wholes.
    ///
    /// # Errors
    /// What is out of its range.
    pub fn images(&self, low_detail: bool) -> Result<ImageOptions, String> {
        let longest_edge = self.size.as_ref().and_then(|size| size.longest_edge).map(|it| it.0);
        if longest_edge.is_some_and(|edge| !(1..=ImageOptions::MAX_EDGE).contains(&edge)) {
            return Err(format!("size.longest_edge must be from 1 to {}", ImageOptions::MAX_EDGE));
        }
        let split = self.do_image_splitting.or(low_detail.then_some(false));
        Ok(ImageOptions { longest_edge, split, video_edge: None })
    }
}

impl MediaOptions {
    /// How videos are read.
    pub fn video(self) -> VideoOptions {
        self.video.unwrap_or_default()
    }
}

impl VideoOptions {
    /// Which frames of a video file are taken. What `processor` says goes before.
    ///
    /// # Errors
    /// What is out of its range.
    pub fn sampling(&self, processor: &ProcessorOptions) -> Result<VideoSampling, String> {
        let fps = processor.fps.or(self.fps);
        if fps.is_some_and(|fps| !(fps > 0.0 && fps <= 1000.0)) {
            return Err("fps must be above 0 and at most 1000".into());
        }
        let stated = self.num_frames.and_then(|number| u64::try_from(number.0).ok());
        let most = processor.num_frames.map(|it| it.0).or(stated);
        if most.is_some_and(|most| !(1..=MAX_FRAMES).contains(&most)) {
            return Err(format!("num_frames must be from 1 to {MAX_FRAMES}"));
        }
        Ok(VideoSampling { fps, max_frames: most.map(|most| most as usize) })
    }

    /// How many of `sent` frames are taken: the first ones.
    pub fn frames_taken(&self, sent: usize) -> usize {
        let most = self.num_frames.and_then(|number| usize::try_from(number.0).ok()).filter(|most| *most > 0);
        sent.min(most.unwrap_or(sent))
    }

    /// The time of each of `count` frames, and the length of the video that they were taken from.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn times(&self, count: usize) -> Result<(Vec<Duration>, Duration), String> {
        let fps = self.fps.unwrap_or(1.0);
        if !(fps > 0.0 && fps <= 1000.0) {
            return Err("fps must be above 0 and at most 1000".into());
        }
        let seconds = |seconds: f64| {
            let usable = (0.0..=MAX_SECONDS).contains(&seconds);
            usable.then(|| Duration::from_secs_f64(seconds)).ok_or("a time of a video is beyond 30 days")
        };
        let time = |index: u64| seconds(index as f64 / fps);
        let indices: Vec<u64> = match &self.frames_indices {
            Some(indices) if indices.len() != count => {
                return Err(format!("frames_indices names {} frames, and {count} were sent", indices.len()));
            }
            Some(indices) if !indices.is_sorted_by_key(|it| it.0) => {
                return Err("frames_indices must ascend".into());
            }
            Some(indices) => indices.iter().map(|it| it.0).collect(),
            None => (0..count as u64).collect(),
        };
        let frames = self.total_num_frames.map_or(count as u64, |it| it.0);
        if frames < count as u64 {
            return Err(format!("total_num_frames is {frames}, and {count} were sent"));
        }
        let duration = self.duration.map_or_else(|| time(frames), seconds)?;
        Ok((indices.into_iter().map(time).collect::<Result<_, _>>()?, duration))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn video(options: Value) -> VideoOptions {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn frames_have_the_times_of_what_they_were_taken_from() {
        let millis = |options: Value, count| {
            let (times, duration) = video(options).times(count)?;
            Ok::<_, String>((times.iter().map(Duration::as_millis).collect::<Vec<_>>(), duration.as_millis()))
        };
        assert_eq!(millis(json!({}), 3), Ok((vec![0, 1000, 2000], 3000)));
        assert_eq!(millis(json!({"fps": 2, "num_frames": -1}), 2), Ok((vec![0, 500], 1000)));
        let taken = json!({"fps": 25.0, "frames_indices": [0, 50], "total_num_frames": 100});
        assert_eq!(millis(taken, 2), Ok((vec![0, 2000], 4000)));
        let stated = json!({"fps": 25.0, "frames_indices": [25, 50], "duration": 8.5});
        assert_eq!(millis(stated, 2), Ok((vec![1000, 2000], 8500)));
        for (options, words) in [
            (json!({"frames_indices": [0]}), "names 1 frames, and 2"),
            (json!({"frames_indices": [1, 0]}), "ascend"),
            (json!({"fps": 0}), "fps"),
            (json!({"total_num_frames": 1}), "total_num_frames"),
            (json!({"duration": -1}), "30 days"),
            (json!({"frames_indices": [0, u64::MAX]}), "30 days"),
        ] {
            assert!(millis(options, 2).unwrap_err().contains(words), "{words}");
        }
        assert_eq!(
            (video(json!({"num_frames": 4})).frames_taken(9), video(json!({})).frames_taken(9)),
            (4, 9)
        );
    }

    #[test]
    fn the_processor_and_the_reader_say_how_a_file_is_sampled() {
        let processor = |options: Value| serde_json::from_value::<ProcessorOptions>(options).unwrap();
        let sampling = |of_reader: Value, of_processor: Value| {
            video(of_reader).sampling(&processor(of_processor)).map(|it| (it.fps, it.max_frames))
        };
        assert_eq!(sampling(json!({}), json!({"do_sample_frames": true})), Ok((None, None)));
        assert_eq!(sampling(json!({"fps": 2, "num_frames": 8}), json!({})), Ok((Some(2.0), Some(8))));
        assert_eq!(sampling(json!({"fps": 2, "num_frames": -1}), json!({"fps": 1})), Ok((Some(1.0), None)));
        assert!(sampling(json!({"num_frames": 500}), json!({})).is_err());
        assert!(sampling(json!({"fps": -1}), json!({})).is_err());
        let images = processor(json!({"size": {"longest_edge": 1024}})).images(true).unwrap();
        assert_eq!((images.longest_edge, images.split), (Some(1024), Some(false)));
        assert!(processor(json!({"do_image_splitting": true})).images(true).unwrap().split.unwrap());
        assert!(processor(json!({"size": {"longest_edge": 0}})).images(false).is_err());
    }
}
