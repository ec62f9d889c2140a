//! A look at a file before it is played: nothing is decoded. It tells what a player has to know at the first frame
//! and the file may tell later, or never.

use std::{
    cmp::Reverse,
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{
    autoplug,
    error::CaptureError,
    file_patch::FilePatch,
    inspect::lock,
    matroska,
    mp4::{self, Trimmed},
};
use crate::config::{Origin, Source};

/// What is known of a source before it is played.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Stream ids of the video tracks that are not described.
    pub unwanted: Vec<String>,
    /// How long a file plays, unless it states that itself.
    pub length: Option<Duration>,
    /// When the recording began, as the file states it.
    pub recorded: Option<DateTime<Utc>>,
    /// Byte from which on nothing of a file can be read.
    pub broken_at: Option<u64>,
    /// What GStreamer has to read in place of what the file has.
    pub patch: Option<FilePatch>,
    /// There are several frames, but none says when it is to be shown.
    lacks_times: bool,
}

/// The demuxers of containers that state no length: GStreamer guesses it from parts of the file.
const STATE_NO_LENGTH: [&str; 2] = ["mpegpsdemux", "tsdemux"];

/// A track with one frame is a still picture, if another has so many.
const MANY: u64 = 100;

/// How long a survey may take. A file whose length is not known by then has the length that GStreamer guesses.
const LIMIT: Duration = Duration::from_secs(10);

/// How often to look whether everything is known.
const CHECK_INTERVAL: gst::ClockTime = gst::ClockTime::from_mseconds(2);

impl Survey {
    /// Looks at a source that is about to be played, until `is_cancelled`. Nothing is known of what is not a regular
    /// file, nor of a file that cannot be played.
    ///
    /// # Errors
    /// If the frames of a file have no times.
    pub fn of(source: &Source, is_cancelled: impl Fn() -> bool) -> Result<Self, CaptureError> {
        let Origin::File(path) = source.origin() else { return Ok(Self::default()) };
        if !path.is_file() {
            return Ok(Self::default());
        }
        match look_at(path, is_cancelled) {
            Some(survey) if survey.lacks_times => Err(CaptureError::NoTimes(source.to_string())),
            survey => Ok(survey.unwrap_or_default()),
        }
    }
}

fn look_at(path: &Path, is_cancelled: impl Fn() -> bool) -> Option<Survey> {
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("filesrc").property("location", path.to_str()?).build().ok()?;
    let parser = gst::ElementFactory::make("parsebin").build().ok()?;
    pipeline.add_many([&source, &parser]).ok()?;
    source.link(&parser).ok()?;
    autoplug::restrict(&pipeline, &[]);
    let tracks = Tracks::watch(&parser, &pipeline);
    let survey = play(&pipeline, path, &tracks, is_cancelled);
    let _ = pipeline.set_state(gst::State::Null);
    survey
}

/// Plays until all is known, or there is no more to learn.
fn play(
    pipeline: &gst::Pipeline,
    path: &Path,
    tracks: &Arc<Mutex<Tracks>>,
    is_cancelled: impl Fn() -> bool,
) -> Option<Survey> {
    let bus = pipeline.bus()?;
    pipeline.set_state(gst::State::Playing).ok()?;
    let started = Instant::now();
    let mut states_length = None;
    let over = loop {
        if bus.timed_pop_filtered(CHECK_INTERVAL, &[gst::MessageType::Eos, gst::MessageType::Error]).is_some()
        {
            break true;
        }
        let (complete, is_choice_clear) = {
            let tracks = lock(tracks);
            (tracks.complete, tracks.is_choice_clear())
        };
        if complete {
            let states_length =
                *states_length.get_or_insert_with(|| states_its_length(pipeline, path, tracks));
            if states_length && is_choice_clear {
                break true;
            }
        }
        if is_cancelled() || started.elapsed() > LIMIT {
            break false;
        }
    };
    let states_length = states_length.unwrap_or_else(|| states_its_length(pipeline, path, tracks));
    let guess = if over { None } else { length_by_gstreamer(tracks) };
    let mp4 = demuxer(pipeline).filter(|it| it == "qtdemux").and_then(|_| File::open(path).ok());
    let trimmed = mp4.as_ref().and_then(|file| mp4::trimmed(file).ok()?);
    let tracks = lock(tracks);
    let (length, patch) = match trimmed {
        Some(Trimmed { length, patch }) => (Some(length), Some(patch)),
        None => (if states_length { None } else { tracks.played().max(guess) }, None),
    };
    Some(Survey {
        unwanted: tracks.unwanted(),
        length,
        recorded: tracks.recorded(),
        broken_at: mp4.and_then(|file| mp4::broken_at(&file).ok()?),
        patch,
        lacks_times: over && !states_length && tracks.lack_times(),
    })
}

/// The name of the demuxer in a pipeline.
fn demuxer(pipeline: &gst::Pipeline) -> Option<gst::glib::GString> {
    let factories = pipeline.iterate_recurse().into_iter().flatten().filter_map(|it| it.factory());
    factories.filter(|it| it.klass().contains("Demuxer")).map(|it| it.name()).next()
}

/// Whether a file itself states how long it plays.
fn states_its_length(pipeline: &gst::Pipeline, path: &Path, tracks: &Mutex<Tracks>) -> bool {
    let states = |demuxer: &str| {
        let file = File::open(path)?;
        match demuxer {
            "matroskademux" => matroska::states_duration(file),
            "qtdemux" => Ok(!mp4::is_fragmented(&file)?),
            other => Ok(!STATE_NO_LENGTH.contains(&other)),
        }
    };
    demuxer(pipeline).is_some_and(|it| states(&it).unwrap_or_default())
        && length_by_gstreamer(tracks).is_some()
}

/// The length that GStreamer reads or guesses.
fn length_by_gstreamer(tracks: &Mutex<Tracks>) -> Option<Duration> {
    // An element that is asked may wait for a thread that has come to a probe.
    let pads: Vec<gst::Pad> = lock(tracks).tracks.iter().map(|track| track.pad.clone()).collect();
    let lengths = pads.iter().filter_map(|pad| pad.query_duration::<gst::ClockTime>());
    lengths.max().filter(|length| !length.is_zero()).map(Duration::from)
}

/// What has come of a file so far.
#[derive(Default)]
struct Tracks {
    tracks: Vec<Track>,
    /// There are no more.
    complete: bool,
}

/// One stream of a file.
struct Track {
    /// The pad that it leaves the parser by.
    pad: gst::Pad,
    frames: u64,
    /// When its last frame ends.
    end: Duration,
}

impl Tracks {
    /// Notes what leaves the parser.
    fn watch(parser: &gst::Element, pipeline: &gst::Pipeline) -> Arc<Mutex<Self>> {
        let tracks = Arc::new(Mutex::new(Self::default()));
        let (noted, weak) = (tracks.clone(), pipeline.downgrade());
        parser.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            let index = {
                let mut noted = lock(&noted);
                noted.tracks.push(Track { pad: pad.clone(), frames: 0, end: Duration::ZERO });
                noted.tracks.len() - 1
            };
            let noted = noted.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(buffer) = info.buffer() {
                    let track = &mut lock(&noted).tracks[index];
                    track.frames += 1;
                    track.end = track.end.max(end(pad, buffer).unwrap_or_default());
                }
                gst::PadProbeReturn::Ok
            });
            let _ = discard(&pipeline, pad);
        });
        let noted = tracks.clone();
        parser.connect_no_more_pads(move |_| lock(&noted).complete = true);
        tracks
    }

    fn videos(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.is_video())
    }

    /// Whether it is known which track is to be described.
    fn is_choice_clear(&self) -> bool {
        let most = self.videos().map(|track| track.frames).max().unwrap_or_default();
        match self.videos().count() {
            0 => true,
            1 => most > 0,
            _ => most >= MANY || self.videos().all(|track| track.frames > 1),
        }
    }

    /// The video tracks but for the one that is to be described: one that moves before a still picture, such as a
    /// cover; then the default one; then the largest; then the first.
    fn unwanted(&self) -> Vec<String> {
        let videos: Vec<&Track> = self.videos().collect();
        let rank = |track: &Track| (track.frames > 1, track.preference(), track.area());
        let chosen = (0..videos.len()).max_by_key(|i| (rank(videos[*i]), Reverse(*i)));
        let others = videos.iter().enumerate().filter(|(i, _)| Some(*i) != chosen);
        others.filter_map(|(_, track)| track.pad.stream_id()).map(Into::into).collect()
    }

    /// When the last frame of all ends.
    fn played(&self) -> Option<Duration> {
        self.tracks.iter().map(|track| track.end).max().filter(|end| !end.is_zero())
    }

    /// Whether there are several frames, but none says when it is to be shown.
    fn lack_times(&self) -> bool {
        self.played().is_none() && self.videos().any(|track| track.frames > 1)
    }

    /// When the recording began, as the file states it.
    fn recorded(&self) -> Option<DateTime<Utc>> {
        self.tracks.iter().find_map(|track| recorded(&track.pad))
    }
}

impl Track {
    fn is_video(&self) -> bool {
        let caps = self.pad.current_caps();
        caps.and_then(|caps| {
            caps.structure(0).map(|s| s.name().starts_with("video/") || s.name().starts_with("image/"))
        })
        .unwrap_or_default()
    }

    /// More than 0: the file recommends the track; less: it recommends against it.
    fn preference(&self) -> i32 {
        let Some(event) = self.pad.sticky_event::<gst::event::StreamStart>(0) else { return 0 };
        let flags = event.stream_flags();
        i32::from(flags.contains(gst::StreamFlags::SELECT))
            - i32::from(flags.contains(gst::StreamFlags::UNSELECT))
    }

    /// Pixels of a frame.
    fn area(&self) -> i64 {
        let caps = self.pad.current_caps();
        let side = |name: &str| caps.as_ref()?.structure(0)?.get::<i32>(name).ok().map(i64::from);
        side("width").zip(side("height")).map_or(0, |(width, height)| width * height)
    }
}

/// Connects a pad to an element that discards everything.
fn discard(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Option<()> {
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .property("async", false)
        .build()
        .ok()?;
    pipeline.add(&sink).ok()?;
    sink.sync_state_with_parent().ok()?;
    pad.link(&sink.static_pad("sink")?).ok()?;
    Some(())
}

/// The running time at which a frame ends.
fn end(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Duration> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    let end = buffer.dts_or_pts().max(buffer.pts())?.saturating_add(buffer.duration().unwrap_or_default());
    segment.to_running_time(end.min(segment.stop().unwrap_or(end))).map(Duration::from)
}

/// The date of the recording in the tags of a stream.
fn recorded(pad: &gst::Pad) -> Option<DateTime<Utc>> {
    let tags = (0..).map_while(|i| pad.sticky_event::<gst::event::Tag>(i));
    let dates = tags.filter_map(|event| Some(event.tag().get::<gst::tags::DateTime>()?.get()));
    let mut dates = dates.filter_map(|date| date.to_utc().ok()?.to_g_date_time().ok());
    DateTime::from_timestamp(dates.next()?.to_unix(), 0)
}
