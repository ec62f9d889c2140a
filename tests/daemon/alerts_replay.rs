//! `alerts --replay`: what the alerts of a configuration would have made of recorded events.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{daemon::camscribe, test_source};

const CONFIG: &str = r#"
    mqtt.url = "mqtt://127.0.0.1"
    [questions.parcel]
    ask = "Is there a parcel?"
    [cameras.porch]
    uri = "test://shapes"
    questions = ["parcel"]
    [cameras.porch.alerts.parcel]
    question = "parcel"
    of = "1/1"
    [cameras.yard]
    uri = "test://shapes"
    questions = ["parcel"]
    [cameras.yard.alerts.none]
    question = "parcel"
    answer = "no"
    of = "2/2"
"#;

/// An event of the clip that ends after so many seconds. It says itself that the alert was on.
fn event(camera: &str, second: u32, probability: f64) -> Value {
    let time = |second: u32| format!("2026-03-01T08:00:{second:02}.000Z");
    json!({
        "schema": 1, "id": format!("00000000-0000-7000-8000-{:012}", u32::from(camera == "yard") * 100 + second),
        "type": "description", "node": "n", "camera": camera, "description": "A parcel.", "prompt": "What?",
        "answers": {"parcel": {"type": "predicate", "probability": probability, "confidence": 0.9,
            "answer": if probability < 0.5 { "no" } else { "yes" }, "calibrated": false}},
        "alerts": {"parcel": {"on": true, "changed": true, "since": time(second), "probability": 1.0}},
        "clip": {"seq": second, "start": time(second - 1), "end": time(second), "clock": "camera", "frames": [],
            "width": 640, "height": 360, "gap": false},
        "finish_reason": "stop", "model": {"id": "m", "revision": "", "device": "cpu", "dtype": "f32"},
        "tokens": {"prompt": 1, "image": 1, "generated": 1},
        "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
        "dropped": {"clips": 0, "failed": 0}, "published": time(second), "a_later_field": true,
    })
}

/// A home directory with a configuration, and a file of these lines.
fn home(lines: &[String]) -> TempDir {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("c.toml"), CONFIG).unwrap();
    fs::write(home.path().join("events.jsonl"), lines.join("\n")).unwrap();
    home
}

/// Runs the command with these bytes on its standard input.
fn run(home: &Path, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = camscribe(home);
    command.current_dir(home).args(["alerts", "--config", "c.toml", "--replay"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Ten events: the porch has a parcel from the second to the fourth second, the yard never has one.
fn lines() -> Vec<String> {
    let porch = [0.1, 0.9, 0.7, 0.2, 0.3].into_iter().zip(1..).map(|(p, second)| event("porch", second, p));
    let yard = [0.4, 0.1, 0.1].into_iter().zip(1..).map(|(p, second)| event("yard", second, p));
    porch.chain(yard).map(|event| event.to_string()).collect()
}

#[test]
fn each_switching_and_what_became_of_each_alert_is_told() {
    let mut lines = lines();
    // Out of order, twice, and a topic that was cleared.
    lines.reverse();
    lines.extend([lines[2].clone(), String::new()]);
    let home = home(&lines);
    let wanted = "2026-03-01T08:00:02.000Z porch parcel ON 0.90\n\
        2026-03-01T08:00:03.000Z yard none ON 0.90\n\
        2026-03-01T08:00:04.000Z porch parcel OFF 0.20\n\
        porch parcel: on 1 time, 2s in all; probability min 0.10, 25 % 0.20, median 0.30, 75 % 0.70, max 0.90; 5 answers, \
        no answer in 0 events\n\
        yard none: on 1 time, 0s in all, still on at the end; probability min 0.60, 25 % 0.75, median 0.90, 75 % 0.90, \
        max 0.90; 3 answers, no answer in 0 events\n";
    let (code, out, told) = run(home.path(), &["events.jsonl"], b"");
    assert_eq!((code, out.as_str()), (Some(0), wanted), "{told}");
    assert_eq!(told, "judged: 8 events\n1 event: left out, because they were there before\n");
    let input = fs::read(home.path().join("events.jsonl")).unwrap();
    assert_eq!(run(home.path(), &["-"], &input), (Some(0), wanted.into(), told));
}

#[test]
fn other_thresholds_are_tried_on_one_camera_and_told_as_json() {
    let home = home(&lines());
    let replay = |arguments: &[&str]| {
        let arguments = [&["events.jsonl", "--camera", "porch", "--format", "json"][..], arguments].concat();
        let (code, out, told) = run(home.path(), &arguments, b"");
        assert_eq!((code, told.as_str()), (Some(0), "judged: 5 events\n"));
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let switched = |replay: &Value| -> Vec<(String, bool)> {
        let transitions = replay["transitions"].as_array().unwrap();
        transitions
            .iter()
            .map(|it| (it["time"].as_str().unwrap()[17..19].to_owned(), it["on"] == true))
            .collect()
    };
    let plain = replay(&[]);
    assert_eq!(switched(&plain), [("02".to_owned(), true), ("04".to_owned(), false)]);
    let alert = &plain["alerts"][0];
    assert_eq!(plain["alerts"].as_array().unwrap().len(), 1);
    assert_eq!((&alert["camera"], &alert["alert"]), (&json!("porch"), &json!("parcel")));
    assert_eq!((&alert["times_on"], &alert["seconds_on"]), (&json!(1), &json!(2.0)));
    assert_eq!(alert["probability"]["median"], 0.3);
    assert_eq!(plain["events"]["judged"], 5);
    assert_eq!(switched(&replay(&["--on", "0.95"])), []);
    assert_eq!(switched(&replay(&["--off", "0.15"])), [("02".to_owned(), true)]);
    let two = replay(&["--on", "0.7", "--of", "2/2"]);
    assert_eq!(switched(&two), [("03".to_owned(), true), ("05".to_owned(), false)]);
    let quick = replay(&["--on", "0.3", "--off", "0.3"]);
    let (on, off) = (|second: &str| (second.to_owned(), true), |second: &str| (second.to_owned(), false));
    assert_eq!(switched(&quick), [on("02"), off("04"), on("05")]);
    let slow = replay(&["--on", "0.3", "--off", "0.3", "--cool-down", "10s"]);
    assert_eq!(switched(&slow), [on("02"), off("04")]);
}

#[test]
fn what_is_no_event_or_cannot_be_judged_is_told() {
    let mut silent = event("porch", 6, 0.9);
    silent["answers"] = json!({});
    let mut newer = event("porch", 7, 0.9);
    newer["schema"] = json!(2);
    let mut unknown = event("porch", 8, 0.9);
    unknown["camera"] = json!("garden");
    let more =
        ["online".to_owned(), silent.to_string(), newer.to_string(), unknown.to_string(), "{}".to_owned()];
    let home = home(&[lines(), more.to_vec()].concat());
    let (code, out, told) = run(home.path(), &["events.jsonl"], b"");
    assert_eq!(code, Some(1), "{told}");
    for text in [
        "line 9 is no event: ",
        "line 11 is no event: schema is 2",
        "line 13 is no event: missing field",
        "judged: 9 events\n",
        "1 event: without any answer\n",
        "cameras: garden\n",
        "error: left out of events.jsonl, because they are no events: 3 lines\n",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    // All others are judged all the same.
    assert!(
        out.contains("porch parcel: on 1 time") && out.contains("5 answers, no answer in 1 event\n"),
        "{out}"
    );
}

#[test]
fn wrong_options_files_and_configurations_have_their_exit_codes() {
    let home = home(&lines());
    fs::write(home.path().join("plain.toml"), CONFIG.split("[cameras.porch.alerts").next().unwrap()).unwrap();
    for (arguments, code, text) in [
        (&["events.jsonl", "--camera", "garden"][..], 2, "no camera garden; it has porch, yard"),
        (
            &["events.jsonl", "--on", "0.4"],
            2,
            "alert parcel of camera porch: off = 0.5 is more than on = 0.4",
        ),
        (&["events.jsonl", "--on", "80"], 2, "--on"),
        (&["events.jsonl", "--of", "3/2"], 2, "--of"),
        (&["events.jsonl", "--cool-down", "5"], 2, "--cool-down"),
        (&["nothing.jsonl"], 1, "the events in nothing.jsonl cannot be read"),
    ] {
        let (found, out, told) = run(home.path(), arguments, b"");
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {told}");
        assert!(told.contains(text), "{arguments:?}: {told}");
    }
    let alone = |config: &str| {
        let output = camscribe(home.path())
            .current_dir(home.path())
            .args(["alerts", "--replay", "events.jsonl", "--config", config])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = alone("plain.toml");
    assert!(code == Some(2) && told.contains("[cameras.<camera>.alerts.<name>]"), "{told}");
    assert_eq!(alone("nothing.toml").0, Some(78));
}

#[test]
fn events_of_describe_are_judged_too() {
    let home = home(&[]);
    let film = test_source::h264(home.path(), "object=red-circle-left", 4);
    fs::rename(film, home.path().join("porch.mp4")).unwrap();
    let config = r#"
        mqtt.url = "mqtt://127.0.0.1"
        [questions.question]
        ask = "Is there a red circle?"
        [cameras.porch]
        uri = "test://shapes"
        questions = ["question"]
        [cameras.porch.alerts.round]
        question = "question"
        on = 0.5
        off = 0.5
        of = "2/2"
        min_confidence = 0.0
    "#;
    fs::write(home.path().join("c.toml"), config).unwrap();
    let described = camscribe(home.path())
        .current_dir(home.path())
        .args(["describe", "--model", "shapes", "--window", "2s", "--format", "jsonl", "--no-description"])
        .args(["--question", "Is there a red circle?", "porch.mp4"])
        .output()
        .unwrap();
    let (code, out, told) = run(home.path(), &["-"], &described.stdout);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(out.matches(" porch round ON ").count(), 1, "{out}");
    assert!(out.contains("porch round: on 1 time, 0s in all, still on at the end"), "{out}");
}
