//! What is written: an event, its words to search for, and what the model saw.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use chrono::{DateTime, Utc};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    layout::UNCHANGED,
    picture::{KeptPicture, PictureError},
};
use crate::{
    clip::Clip,
    decision::Question,
    event::{Event, EventKind},
    frame::Frame,
    request::{Content, Message, Picture, Request, Role, Video},
    view::View,
};

/// The longest event as JSON, bytes: as much as a hostile file can make reading it cost.
const MAX_EVENT: u64 = 16 << 20;

/// An event for the history.
pub struct Record {
    /// The event.
    pub event: Event,
    /// What the model saw, if that is to be kept.
    pub evidence: Option<Evidence>,
}

/// What the model saw.
pub struct Evidence {
    /// The frames, without their originals.
    pub frames: Vec<Frame>,
    /// What of the camera's picture they show: see [`View::lines`].
    pub view: String,
    /// Whether every pixel is kept as it is.
    pub is_lossless: bool,
    /// What it takes to describe them again.
    pub replay: Replay,
}

/// What was asked about frames, and what the model found: enough to ask it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// The prompt.
    pub prompt: String,
    /// The longest answer, tokens; 0: nothing but the questions was asked.
    pub max_tokens: usize,
    /// The questions that are answered by probabilities: text and labels.
    pub questions: Vec<(String, Vec<String>)>,
    /// The length of the clip, nanoseconds.
    pub duration_ns: u64,
    /// When each frame was, since the start of the clip, nanoseconds.
    pub offsets_ns: Vec<u64>,
    /// The logarithms of the labels' probabilities, by question.
    pub labels: Vec<Vec<f32>>,
}

impl Evidence {
    /// What the model saw of a clip, and found: `labels` are the logarithms of its labels' probabilities.
    pub fn new(clip: &Clip, labels: Vec<Vec<f32>>, is_lossless: bool) -> Self {
        let request = Request::from(clip);
        let questions = request.questions.into_iter().map(|asked| (asked.text, asked.labels)).collect();
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut frames = clip.frames.clone();
        frames.iter_mut().for_each(Frame::drop_original);
        Self {
            view: clip.view.as_deref().map(View::lines).unwrap_or_default(),
            is_lossless,
            replay: Replay {
                prompt: clip.prompt_spec.prompt.clone(),
                max_tokens: request.max_tokens,
                questions,
                duration_ns: nanos(clip.duration),
                offsets_ns: (0..frames.len()).map(|i| nanos(clip.offset(i))).collect(),
                labels,
            },
            frames,
        }
    }

    /// The bytes of its pixels.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.rgb.len()).sum()
    }
}

impl Replay {
    /// The same question about these frames.
    pub fn request(&self, pictures: Vec<Picture>) -> Request {
        let offsets = self.offsets_ns.iter().map(|nanos| Duration::from_nanos(*nanos));
        let frames = offsets.zip(pictures).collect();
        let video = Video { frames, duration: Duration::from_nanos(self.duration_ns) };
        let question =
            |(text, labels): &(String, Vec<String>)| Question { text: text.clone(), labels: labels.clone() };
        Request {
            messages: vec![Message { role: Role::User, content: vec![Content::Video(video)] }],
            prompt: Some(self.prompt.clone()),
            questions: self.questions.iter().map(question).collect(),
            max_tokens: self.max_tokens,
            ..Request::default()
        }
    }
}

/// A [`Record`] as the tables hold it.
pub(super) struct Row {
    pub id: Uuid,
    pub camera: String,
    pub at: i64,
    pub made: i64,
    pub kind: i64,
    pub words: String,
    pub event: Vec<u8>,
    /// Each alert that the event has switched, and whether it is on.
    pub transitions: Vec<(String, bool)>,
    pub evidence: Option<EvidenceRow>,
}

/// [`Evidence`] as the tables hold it.
pub(super) struct EvidenceRow {
    pub view: String,
    pub is_lossless: bool,
    pub replay: String,
    pub pictures: Vec<KeptPicture>,
}

impl Row {
    /// The row of a record. Frames that cannot be encoded are left out, all of them.
    pub fn new(Record { event, evidence }: Record) -> Self {
        let transitions = event.alerts.iter().filter(|(_, info)| info.changed);
        Self {
            id: event.id,
            camera: event.camera.to_string(),
            at: event.clip.end.timestamp_millis(),
            made: made(event.id).unwrap_or(event.clip.end).timestamp_millis(),
            kind: match event.kind {
                EventKind::Description => 0,
                EventKind::Answers => 1,
                EventKind::Unchanged => UNCHANGED,
            },
            words: words(&event),
            transitions: transitions.map(|(alert, info)| (alert.clone(), info.on)).collect(),
            event: compress(&event),
            evidence: evidence.and_then(|evidence| {
                let camera = &event.camera;
                EvidenceRow::new(&evidence)
                    .inspect_err(|error| tracing::warn!(%camera, "frames are not kept: {error}"))
                    .ok()
            }),
        }
    }
}

impl EvidenceRow {
    fn new(evidence: &Evidence) -> Result<Self, PictureError> {
        let picture = |(frame, nanos): (&Frame, &u64)| {
            KeptPicture::new(frame, Duration::from_nanos(*nanos), evidence.is_lossless)
        };
        let pictures = evidence.frames.iter().zip(&evidence.replay.offsets_ns).map(picture);
        Ok(Self {
            view: evidence.view.clone(),
            is_lossless: evidence.is_lossless,
            // Text and numbers only: it can always be written.
            replay: serde_json::to_string(&evidence.replay).unwrap_or_default(),
            pictures: pictures.collect::<Result<_, _>>()?,
        })
    }
}

/// When an event was made: its id is a UUIDv7.
pub(super) fn made(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(seconds.try_into().ok()?, nanoseconds)
}

/// What is searched: the description, each answer, each alert that was switched.
fn words(event: &Event) -> String {
    if event.kind == EventKind::Unchanged {
        return String::new();
    }
    let description = Some(event.description.clone()).filter(|text| !text.is_empty());
    let answers = event.answers.iter().map(|(name, answer)| format!("{name}: {}", answer.answer()));
    let switched = event.alerts.iter().filter(|(_, info)| info.changed);
    let switched =
        switched.map(|(name, info)| format!("alert {name} {}", if info.on { "on" } else { "off" }));
    // SQLite's functions end a text at a zero.
    description.into_iter().chain(answers).chain(switched).collect::<Vec<_>>().join("\n").replace('\0', " ")
}

fn compress(event: &Event) -> Vec<u8> {
    // An event is text and numbers, and memory takes all that is written.
    let json = serde_json::to_vec(event).unwrap_or_default();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&json).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// The event in a row.
///
/// # Errors
/// When it is damaged.
pub(super) fn decompress(event: &[u8]) -> io::Result<Event> {
    let mut json = Vec::new();
    ZlibDecoder::new(event).take(MAX_EVENT).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
