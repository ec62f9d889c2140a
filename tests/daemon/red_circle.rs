//! A red circle comes and goes before an RTSP camera: the alert about it goes on and off at the right clips, once each,
//! through a restart of daemon and broker.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::support::{
    broker::{Mosquitto, Received, Subscriber},
    daemon::Daemon,
    rtsp::RtspServer,
    test_source::{frame, live},
};

const EVENTS: &str = "camscribe/n/yard/description";
const TOLD: &str = "camscribe/n/yard/alerts";
const STATE: &str = "camscribe/n/yard/alert/red";
const WITHOUT: &str = "object=blue-square-still";
const WITH: &str = "object=blue-square-still&object=red-circle-still";
/// Longer than a picture takes from the camera to its frame.
const LATE: TimeDelta = TimeDelta::seconds(3);
/// The camera may paint a frame later than its time says, if it has to wait for a processor.
const EARLY: TimeDelta = TimeDelta::seconds(2);

fn toml(camera: &RtspServer, broker: &Mosquitto) -> String {
    format!(
        r#"
        model.id = "shapes"
        node.id = "n"
        mqtt.url = "mqtt://127.0.0.1:{}"
        [questions.circle]
        ask = "Is there a red circle?"
        [cameras.yard]
        uri = "{}"
        window = "1s"
        frames = 2
        max_tokens = 8
        change_threshold = 0
        questions = ["circle"]
        [cameras.yard.alerts.red]
        question = "circle"
        of = "1/1"
        "#,
        broker.port(),
        camera.uri()
    )
}

/// What the camera has shown since when.
struct Film<'a> {
    camera: &'a RtspServer,
    shown: Vec<(DateTime<Utc>, bool)>,
}

impl Film<'_> {
    fn show(&mut self, circle: bool) {
        self.camera.show(frame(if circle { WITH } else { WITHOUT }));
        self.shown.push((Utc::now(), circle));
    }

    /// Whether the circle was there in a clip. `None` where it came or went meanwhile, or just before.
    fn truth(&self, event: &Value) -> Option<bool> {
        let time = |name: &str| event["clip"][name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let at = |time: DateTime<Utc>| self.shown.iter().rfind(|(since, _)| *since <= time).map(|it| it.1);
        let (start, end) = (time("start") - LATE, time("end") + EARLY);
        at(start).filter(|_| self.shown.iter().all(|(shown, _)| *shown <= start || *shown > end))
    }
}

/// The events among these messages, each once.
fn of(topic: &str, messages: &[Received]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for event in messages.iter().filter(|it| it.topic == topic && !it.retained).map(Received::json) {
        if all.iter().all(|it| it["id"] != event["id"]) {
            all.push(event);
        }
    }
    all
}

#[test]
fn an_alert_goes_on_and_off_with_what_it_is_about() {
    let mut broker = Mosquitto::start("");
    let camera = RtspServer::start(&live());
    let mut film = Film { camera: &camera, shown: Vec::new() };
    film.show(false);
    let mut seen = Vec::new();
    let mut all = Subscriber::to(broker.port(), "camscribe/n/yard/#");
    let mut daemon = Daemon::start(&toml(&camera, &broker));
    // Clips of which it is certain what they show, some of them also when the next picture is shown.
    let settled = |film: &Film<'_>, circle: bool, all: &Subscriber| {
        let mut count = 0;
        all.until(|message| {
            count += usize::from(message.topic == EVENTS && film.truth(&message.json()) == Some(circle));
            count == 4
        })
    };
    seen.extend(settled(&film, false, &all));
    for circle in [true, false, true] {
        film.show(circle);
        seen.extend(settled(&film, circle, &all));
    }
    daemon.kill();
    drop(all);
    broker.kill();
    broker.run();
    all = Subscriber::to(broker.port(), "camscribe/n/yard/#");
    daemon.restart();
    seen.extend(settled(&film, true, &all));
    for circle in [false, true, false] {
        film.show(circle);
        seen.extend(settled(&film, circle, &all));
    }
    assert_eq!(daemon.stop().0, Some(0));

    let events = of(EVENTS, &seen);
    let (mut on, mut switched) = (false, Vec::new());
    for event in &events {
        let alert = &event["alerts"]["red"];
        let is_on = alert["on"] == true;
        if let Some(circle) = film.truth(event) {
            assert_eq!(is_on, circle, "{event}");
        }
        assert_eq!(alert["changed"] == true, is_on != on, "{event}");
        if is_on != on {
            switched.push((event["id"].clone(), if is_on { "ON" } else { "OFF" }));
        }
        on = is_on;
    }
    let states = ["ON", "OFF", "ON", "OFF", "ON", "OFF"];
    assert_eq!(switched.iter().map(|it| it.1).collect::<Vec<_>>(), states);
    // Each is told once, with the event that switched it, and is what the retained state says at last.
    let told = of(TOLD, &seen);
    let told: Vec<_> = told.iter().map(|it| (it["id"].clone(), it["state"].as_str().unwrap())).collect();
    assert_eq!(told, switched);
    let state = seen.iter().rfind(|it| it.topic == STATE).unwrap().json();
    assert_eq!(state["state"], "OFF");
}
