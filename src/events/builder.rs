//! Makes events of what the model's worker hands out. Remembers the last description and answers of each camera, which
//! its `unchanged` events repeat, its alerts, and what it lost since its last event.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::{
    answers::answers,
    rules::{self, AlertStates},
};
use crate::{
    answer::{DescribeError, Description},
    camera::CameraId,
    clip::Clip,
    describe::worker::{Answer, Outcome, QueueTiming},
    event::{ClipInfo, Dropped, Event, EventKind, FrameInfo, ModelInfo, SCHEMA, Timing, Tokens, ViewInfo},
};

/// Makes the events of one node and model.
pub struct EventBuilder {
    node: String,
    model: ModelInfo,
    /// The last event of each camera that was not of an unchanged clip.
    last: BTreeMap<CameraId, Event>,
    /// The alerts of each camera.
    alerts: BTreeMap<CameraId, AlertStates>,
    /// What each camera lost since its last event: clips that were dropped, and clips that could not be described.
    lost: BTreeMap<CameraId, Dropped>,
}

impl EventBuilder {
    /// A builder that remembers nothing yet.
    pub fn new(node: &str, model: ModelInfo) -> Self {
        Self {
            node: node.to_owned(),
            model,
            last: BTreeMap::new(),
            alerts: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    /// Goes on with the alerts of a camera as an earlier process left them.
    pub fn resume(&mut self, camera: CameraId, alerts: AlertStates) {
        self.alerts.insert(camera, alerts);
    }

    /// What is to be remembered of a camera's alerts, for [`EventBuilder::resume`].
    pub fn alerts(&self, camera: &CameraId) -> Option<&AlertStates> {
        self.alerts.get(camera)
    }

    /// Makes the event of a clip. The outcomes of a camera must come in order. Also returns the clip.
    ///
    /// # Errors
    /// Why the clip was not described. What it lost is counted in the camera's next event.
    pub fn build(
        &mut self,
        Outcome { clip, timing, answer }: Outcome,
    ) -> (Clip, Result<Event, DescribeError>) {
        let mut dropped = self.lost.remove(&clip.camera).unwrap_or_default();
        dropped.clips += timing.dropped_before;
        let mut event = answer.and_then(|answer| match answer {
            Answer::Described(description) => Ok(self.described(&clip, &timing, description, dropped)),
            Answer::Unchanged => self.unchanged(&clip, &timing, dropped),
        });
        if let Ok(event) = &mut event {
            let rules = &clip.prompt_spec.alerts;
            // What is empty is remembered once, so that nothing of before comes back with the next process.
            if rules.is_empty() && self.alerts.get(&clip.camera).is_some_and(AlertStates::is_empty) {
                self.alerts.remove(&clip.camera);
            }
            if !rules.is_empty() || self.alerts.contains_key(&clip.camera) {
                let states = self.alerts.entry(clip.camera.clone()).or_default();
                event.alerts = rules::judge(rules, states, event);
            }
        }
        match &event {
            Ok(event) if event.kind != EventKind::Unchanged => {
                self.last.insert(clip.camera.clone(), event.clone());
            }
            Ok(_) => {}
            Err(_) => {
                dropped.failed += 1;
                self.lost.insert(clip.camera.clone(), dropped);
            }
        }
        (clip, event)
    }

    fn unchanged(&self, clip: &Clip, timing: &QueueTiming, dropped: Dropped) -> Result<Event, DescribeError> {
        let Some(last) = self.last.get(&clip.camera).cloned() else {
            return Err(DescribeError::Request(
                "nothing has changed, but nothing was described before".into(),
            ));
        };
        Ok(Event {
            id: Uuid::now_v7(),
            kind: EventKind::Unchanged,
            alerts: BTreeMap::new(),
            repeats: Some(last.id),
            clip: clip_info(clip),
            view: view_info(clip),
            evidence: None,
            tokens: Tokens::default(),
            timing_ms: Timing {
                queued: millis(timing.queued),
                total: millis(timing.queued_at.elapsed()),
                ..Timing::default()
            },
            dropped,
            ..last
        })
    }

    fn described(
        &self,
        clip: &Clip,
        timing: &QueueTiming,
        Description { text, labels, finish_reason, tokens, stages }: Description,
        dropped: Dropped,
    ) -> Event {
        let spec = &clip.prompt_spec;
        let (kind, prompt) = if spec.describe {
            (EventKind::Description, spec.prompt.clone())
        } else {
            (EventKind::Answers, String::new())
        };
        Event {
            schema: SCHEMA,
            id: Uuid::now_v7(),
            kind,
            node: self.node.clone(),
            camera: clip.camera.clone(),
            description: text,
            answers: answers(&spec.questions, &labels, &self.model),
            alerts: BTreeMap::new(),
            repeats: None,
            clip: clip_info(clip),
            view: view_info(clip),
            evidence: None,
            prompt,
            finish_reason,
            model: self.model.clone(),
            tokens,
            timing_ms: Timing {
                queued: millis(timing.queued),
                preprocess: millis(stages.preprocess),
                vision: millis(stages.vision),
                prefill: millis(stages.prefill),
                decode: millis(stages.decode),
                total: millis(timing.queued_at.elapsed()),
            },
            dropped,
            published: None,
            part: None,
        }
    }
}

fn clip_info(clip: &Clip) -> ClipInfo {
    let (width, height) = clip.frames[0].source_size();
    ClipInfo {
        seq: clip.seq,
        start: clip.start,
        end: clip.end,
        clock: clip.clock,
        frames: clip
            .frames
            .iter()
            .enumerate()
            .map(|(i, f)| FrameInfo { offset_s: seconds(clip.offset(i)), pts_s: seconds(f.pts) })
            .collect(),
        width,
        height,
        gap: clip.gap,
    }
}

fn view_info(clip: &Clip) -> Option<ViewInfo> {
    clip.view.as_deref().map(ViewInfo::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds, rounded down to microseconds: as precise as a PTS needs, without the binary noise of an f64.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::{
        answer::StageTimes,
        event::FinishReason,
        frame::{Clock, Frame},
        prompt_spec::PromptSpec,
    };

    fn builder() -> EventBuilder {
        let model = ModelInfo {
            id: "small".into(),
            revision: String::new(),
            device: "cpu".into(),
            dtype: "f32".into(),
        };
        EventBuilder::new("node", model)
    }

    fn outcome(seq: u64, dropped_before: u64, answer: Result<Answer, DescribeError>) -> Outcome {
        let (start, camera) = (DateTime::UNIX_EPOCH, "porch".parse::<CameraId>().unwrap());
        let frame = Frame {
            camera: camera.clone(),
            captured_at: start,
            clock: Clock::Arrival,
            pts: Duration::ZERO,
            width: 1,
            height: 1,
            rgb: vec![128; 3].into(),
            original: None,
        };
        let clip = Clip {
            camera,
            seq,
            start,
            end: start + TimeDelta::seconds(1),
            clock: Clock::Arrival,
            start_pts: Duration::ZERO,
            duration: Duration::from_secs(1),
            frames: vec![frame],
            gap: false,
            view: None,
            prompt_spec: Arc::new(PromptSpec::new("What?", 1)),
        };
        let timing = QueueTiming { queued_at: Instant::now(), queued: Duration::ZERO, dropped_before };
        Outcome { clip, timing, answer }
    }

    fn said(text: &str) -> Result<Answer, DescribeError> {
        Ok(Answer::Described(Description {
            text: text.into(),
            labels: Vec::new(),
            finish_reason: FinishReason::Stop,
            tokens: Tokens::default(),
            stages: StageTimes::default(),
        }))
    }

    #[test]
    fn clips_dropped_before_a_clip_that_fails_are_counted_in_the_next_event() {
        let mut builder = builder();
        let failed = Err(DescribeError::Request("bad".into()));
        assert!(builder.build(outcome(0, 3, failed)).1.is_err());
        let (_, event) = builder.build(outcome(1, 1, said("one")));
        assert_eq!(event.unwrap().dropped, Dropped { clips: 4, failed: 1 });
        let (_, event) = builder.build(outcome(2, 0, said("two")));
        assert_eq!(event.unwrap().dropped, Dropped::default());
    }

    #[test]
    fn an_unchanged_event_repeats_the_last_description_and_counts_what_was_lost() {
        let mut builder = builder();
        let first = builder.build(outcome(0, 0, said("one"))).1.unwrap();
        assert!(builder.build(outcome(1, 0, Err(DescribeError::Request("bad".into())))).1.is_err());
        let second = builder.build(outcome(2, 2, Ok(Answer::Unchanged))).1.unwrap();
        assert_eq!((second.kind, second.repeats), (EventKind::Unchanged, Some(first.id)));
        assert_eq!(second.description, "one");
        assert_eq!(second.dropped, Dropped { clips: 2, failed: 1 });
        let third = builder.build(outcome(3, 0, Ok(Answer::Unchanged))).1.unwrap();
        assert_eq!((third.repeats, third.dropped), (Some(first.id), Dropped::default()));
    }
}
