//! What alert rules would have made of recorded events, so that thresholds can be chosen.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::rules::{self, AlertStates};
use crate::{
    alert::AlertRule,
    camera::CameraId,
    event::{ClipInfo, Event, millis},
};

/// The rules of each camera by their names. A camera may have none.
pub type Rules = BTreeMap<CameraId, BTreeMap<String, AlertRule>>;

/// Events of cameras with rules, and how many others there were.
#[derive(Default)]
pub struct Recording {
    /// What rules need to know of the events, in any order.
    events: Vec<Event>,
    ids: HashSet<Uuid>,
    counts: Counts,
}

/// How many events there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those that the rules judged.
    pub judged: usize,
    /// Those that were there before: QoS 1 delivers some twice.
    pub doubled: usize,
    /// Those without any answer.
    pub without_answers: usize,
    /// Those of cameras without rules.
    pub without_alerts: usize,
    /// Those of other cameras, by camera.
    pub unknown_cameras: BTreeMap<CameraId, usize>,
}

/// What rules made of a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replay {
    /// In the order of the clips.
    pub transitions: Vec<Transition>,
    /// In the order of cameras and names.
    pub alerts: Vec<Summary>,
    /// The events.
    pub events: Counts,
}

/// An alert was switched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transition {
    /// `end` of the clip that switched it, UTC.
    #[serde(serialize_with = "millis")]
    pub time: DateTime<Utc>,
    /// The alert's camera.
    pub camera: CameraId,
    /// The alert.
    pub alert: String,
    /// Whether it was switched on.
    pub on: bool,
    /// How likely the answer is that it is about: 0 to 1.
    pub probability: f64,
}

/// What became of an alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Its camera.
    pub camera: CameraId,
    /// Its name.
    pub alert: String,
    /// How often it was switched on.
    pub times_on: usize,
    /// How long it was on: seconds. One that is on at the end counts until the camera's last clip.
    pub seconds_on: f64,
    /// Whether it is on at the end.
    pub still_on: bool,
    /// The events that have an answer to its question.
    pub answered: usize,
    /// Those of them whose answer has too little confidence to count.
    pub unsure: usize,
    /// The camera's events that have no such answer.
    pub unanswered: usize,
    /// The probabilities of the answer that it is about. `None`: there are none.
    pub probability: Option<Quantiles>,
}

/// Numbers in short: between two of them the quantiles are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The smallest.
    pub min: f64,
    /// A quarter of all is below it.
    pub lower_quartile: f64,
    /// Half of all is below it.
    pub median: f64,
    /// Three quarters of all are below it.
    pub upper_quartile: f64,
    /// The largest.
    pub max: f64,
}

impl Recording {
    /// Takes an event for a replay by `rules`.
    pub fn add(&mut self, rules: &Rules, event: Event) {
        if !self.ids.insert(event.id) {
            self.counts.doubled += 1;
            return;
        }
        match rules.get(&event.camera) {
            None => *self.counts.unknown_cameras.entry(event.camera).or_default() += 1,
            Some(rules) if rules.is_empty() => self.counts.without_alerts += 1,
            Some(_) => {
                self.counts.judged += 1;
                self.counts.without_answers += usize::from(event.answers.is_empty());
                // A day of many cameras is long: words are not kept.
                let (description, prompt) = (String::new(), String::new());
                let clip = ClipInfo { frames: Vec::new(), ..event.clip };
                self.events.push(Event { description, prompt, clip, alerts: BTreeMap::new(), ..event });
            }
        }
    }

    /// A camera of which several nodes have events, with two of these: they would be judged as one.
    pub fn mixed(&self) -> Option<(&CameraId, [&str; 2])> {
        let mut nodes: BTreeMap<&CameraId, &str> = BTreeMap::new();
        self.events.iter().find_map(|event| {
            let first = *nodes.entry(&event.camera).or_insert(&event.node);
            (first != event.node).then_some((&event.camera, [first, event.node.as_str()]))
        })
    }

    /// Judges the events in the order of their clips. At first all alerts are off.
    pub fn replay(mut self, rules: &Rules) -> Replay {
        self.events.sort_by_key(|event| (event.clip.end, event.id));
        let of_camera = |(camera, rules): (&CameraId, &BTreeMap<String, AlertRule>)| {
            let tracks = rules.keys().map(|name| (name.clone(), Track::default())).collect();
            (camera.clone(), (AlertStates::new(), tracks))
        };
        let mut cameras: BTreeMap<CameraId, (AlertStates, BTreeMap<String, Track>)> =
            rules.iter().map(of_camera).collect();
        let mut transitions = Vec::new();
        for event in &self.events {
            let (Some(rules), Some((states, tracks))) =
                (rules.get(&event.camera), cameras.get_mut(&event.camera))
            else {
                continue;
            };
            let judged = rules::judge(rules, states, event);
            for (name, track) in tracks {
                track.end = Some(event.clip.end);
                let Some(info) = judged.get(name) else {
                    track.unanswered += 1;
                    continue;
                };
                let rule = &rules[name];
                let confidence = event.answers.get(&rule.question).map_or(0.0, |answer| answer.confidence());
                track.unsure += usize::from(confidence < rule.min_confidence);
                track.probabilities.push(info.probability);
                if info.changed {
                    track.switch(info.on, event.clip.end);
                    transitions.push(Transition {
                        time: event.clip.end,
                        camera: event.camera.clone(),
                        alert: name.clone(),
                        on: info.on,
                        probability: info.probability,
                    });
                }
            }
        }
        let of_camera = |(camera, (_, tracks)): (CameraId, (AlertStates, BTreeMap<String, Track>))| {
            tracks.into_iter().map(move |(name, track)| track.summary(camera.clone(), name))
        };
        Replay { transitions, alerts: cameras.into_iter().flat_map(of_camera).collect(), events: self.counts }
    }
}

/// What is known of an alert so far.
#[derive(Default)]
struct Track {
    times_on: usize,
    on_since: Option<DateTime<Utc>>,
    time_on: TimeDelta,
    /// The end of the camera's last clip.
    end: Option<DateTime<Utc>>,
    unsure: usize,
    unanswered: usize,
    probabilities: Vec<f64>,
}

impl Track {
    fn switch(&mut self, on: bool, now: DateTime<Utc>) {
        self.times_on += usize::from(on);
        self.time_on += self.on_since.take().map_or(TimeDelta::zero(), |since| now - since);
        self.on_since = on.then_some(now);
    }

    fn summary(mut self, camera: CameraId, alert: String) -> Summary {
        let running = self.on_since.zip(self.end).map_or(TimeDelta::zero(), |(since, end)| end - since);
        Summary {
            camera,
            alert,
            times_on: self.times_on,
            seconds_on: (self.time_on + running).as_seconds_f64(),
            still_on: self.on_since.is_some(),
            answered: self.probabilities.len(),
            unsure: self.unsure,
            unanswered: self.unanswered,
            probability: Quantiles::of(&mut self.probabilities),
        }
    }
}

impl Quantiles {
    /// Those of `numbers`, which it sorts. `None`: there are none.
    fn of(numbers: &mut [f64]) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let last = numbers.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self {
            min: at(0.0),
            lower_quartile: at(0.25),
            median: at(0.5),
            upper_quartile: at(0.75),
            max: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn rule() -> AlertRule {
        AlertRule {
            question: "gate".into(),
            answer: "yes".into(),
            on: 0.8,
            off: 0.5,
            of: 1,
            last: 1,
            min_confidence: 0.2,
            min_duration: Duration::ZERO,
            cool_down: Duration::ZERO,
            device_class: None,
        }
    }

    fn rules(rule: AlertRule) -> Rules {
        let camera = |name: &str| name.parse::<CameraId>().unwrap();
        BTreeMap::from([
            (camera("porch"), BTreeMap::from([("open".to_owned(), rule)])),
            (camera("plain"), BTreeMap::new()),
        ])
    }

    /// An event of the clip that ends after so many seconds. It says itself that the alert was on.
    fn event(camera: &str, second: i64, probability: Option<f64>, confidence: f64) -> Event {
        let end = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        let answer = |probability| {
            json!({"gate": {"type": "predicate", "probability": probability, "answer": "yes",
                "confidence": confidence, "calibrated": false}})
        };
        let clip = json!({"seq": 0, "start": end, "end": end, "clock": "arrival", "frames": [], "width": 1, "height": 1,
            "gap": false});
        serde_json::from_value(json!({
            "schema": 1, "id": Uuid::now_v7(), "type": "answers", "node": "n", "camera": camera, "description": "",
            "answers": probability.map_or(json!({}), answer), "clip": clip, "prompt": "", "finish_reason": "stop",
            "alerts": {"open": {"on": true, "changed": true, "since": end, "probability": 1.0}},
            "model": {"id": "", "revision": "", "device": "", "dtype": ""},
            "tokens": {"prompt": 0, "image": 0, "generated": 0},
            "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
            "dropped": {"clips": 0},
        }))
        .unwrap()
    }

    fn replay(rules: &Rules, events: impl IntoIterator<Item = Event>) -> Replay {
        let mut recording = Recording::default();
        events.into_iter().for_each(|event| recording.add(rules, event));
        recording.replay(rules)
    }

    fn switched(replay: &Replay) -> Vec<(i64, bool)> {
        replay.transitions.iter().map(|it| (it.time.timestamp(), it.on)).collect()
    }

    #[test]
    fn events_in_any_order_and_twice_are_judged_once_in_the_order_of_their_clips() {
        let rules = rules(rule());
        let events: Vec<Event> = [0.1, 0.9, 0.6, 0.2, 0.9, 0.9]
            .into_iter()
            .zip(0..)
            .map(|(probability, second)| event("porch", second, Some(probability), 1.0))
            .collect();
        let wanted = replay(&rules, events.clone());
        assert_eq!(switched(&wanted), [(1, true), (3, false), (4, true)]);
        assert_eq!(wanted.transitions[1].probability, 0.2);
        let summary = &wanted.alerts[0];
        assert_eq!((summary.times_on, summary.seconds_on, summary.still_on), (2, 3.0, true));
        let shuffled = [5, 0, 3, 3, 1, 4, 0, 2].map(|place: usize| events[place].clone());
        let again = replay(&rules, shuffled);
        assert_eq!((&again.transitions, &again.alerts), (&wanted.transitions, &wanted.alerts));
        assert_eq!((again.events.judged, again.events.doubled), (6, 2));
    }

    #[test]
    fn another_threshold_judges_anew_whatever_the_events_say_of_their_alerts() {
        let events: Vec<Event> =
            [0.6, 0.3].into_iter().zip(0..).map(|(p, second)| event("porch", second, Some(p), 1.0)).collect();
        assert_eq!(switched(&replay(&rules(rule()), events.clone())), []);
        let lower = rules(AlertRule { on: 0.6, ..rule() });
        assert_eq!(switched(&replay(&lower, events)), [(0, true), (1, false)]);
    }

    #[test]
    fn what_cannot_be_judged_is_counted() {
        let replay = replay(
            &rules(rule()),
            [
                event("porch", 0, Some(0.9), 0.1),
                event("porch", 1, None, 1.0),
                event("plain", 1, Some(0.9), 1.0),
                event("yard", 1, Some(0.9), 1.0),
                event("yard", 2, Some(0.9), 1.0),
            ],
        );
        assert_eq!(switched(&replay), []);
        let summary = &replay.alerts[0];
        assert_eq!((summary.answered, summary.unsure, summary.unanswered), (1, 1, 1));
        let unknown_cameras = BTreeMap::from([("yard".parse().unwrap(), 2)]);
        let wanted = Counts { judged: 2, doubled: 0, without_answers: 1, without_alerts: 1, unknown_cameras };
        assert_eq!(replay.events, wanted);
        assert_eq!(replay.alerts.len(), 1);
    }

    #[test]
    fn quantiles_lie_between_the_numbers() {
        assert_eq!(Quantiles::of(&mut []), None);
        let same = Quantiles { min: 0.5, lower_quartile: 0.5, median: 0.5, upper_quartile: 0.5, max: 0.5 };
        assert_eq!(Quantiles::of(&mut [0.5]), Some(same));
        let some = Quantiles::of(&mut [8.0, 2.0, 4.0, 0.0]).unwrap();
        assert_eq!((some.min, some.lower_quartile, some.median), (0.0, 1.5, 3.0));
        assert_eq!((some.upper_quartile, some.max), (5.0, 8.0));
    }
}
