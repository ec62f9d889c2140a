//! `camscribe calibrate`, from clips and from events to a daemon whose answers are calibrated.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{Daemon, camscribe},
    test_source,
};

const EVENTS: &str = "camscribe/n/porch/description";
const RED: &str = "[questions.red]\nask = \"Is there a red circle?\"\n";

fn calibrate<S: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = camscribe(home);
    command.current_dir(home).args(["calibrate", "--config", "c.toml"]).args(arguments);
    command
}

/// The exit code, what was printed, and what was told.
fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn write_lines(file: &Path, lines: impl IntoIterator<Item = Value>) {
    fs::write(file, lines.into_iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// An event whose answer to `red` is yes with this probability.
fn event(number: usize, probability: f64) -> Value {
    json!({
        "schema": 1, "id": format!("018f0000-0000-7000-8000-{number:012}"), "type": "answers", "node": "n",
        "camera": "porch", "description": "",
        "answers": {"red": {"type": "predicate", "probability": probability,
                            "answer": if probability >= 0.5 { "yes" } else { "no" },
                            "confidence": 0.9, "calibrated": false}},
        "clip": {"seq": number, "start": "2026-01-02T03:04:05.000Z", "end": "2026-01-02T03:04:13.000Z",
                 "clock": "arrival", "frames": [], "width": 64, "height": 64, "gap": false},
        "prompt": "", "finish_reason": "stop",
        "model": {"id": "nobody/none", "revision": "0123", "device": "cpu", "dtype": "f32"},
        "tokens": {"prompt": 9, "image": 4, "generated": 0},
        "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
        "dropped": {"clips": 0, "failed": 0},
    })
}

#[test]
fn events_of_a_model_that_is_too_sure_make_a_calibration_without_the_model() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    // A calibration that is to be made does not have to be there.
    let toml = format!("model.id = \"nobody/none\"\n{RED}calibration_file = \"red.calibration.json\"\n");
    fs::write(path("c.toml"), &toml).unwrap();
    // It says 0.97 and 0.03, and is right in three of four.
    let line = |i: usize| {
        let (said, right) = (i.is_multiple_of(2), i % 8 < 6);
        let probability = if said { 0.97 } else { 0.03 } + 1e-3 * (i as f64 / 40.0 - 0.5);
        json!({"event": event(i, probability), "answer": if said == right { "yes" } else { "no" }})
    };
    write_lines(&path("labels.jsonl"), (0..40).map(line));
    let arguments = ["--question", "red", "labels.jsonl", "--plot", "red.svg"];
    let (code, out, told) = outcome(&mut calibrate(home.path(), arguments));
    assert_eq!(code, Some(0), "{told}");
    assert!(
        out.contains("model              nobody/none@0123 in f32\nsamples            40: 20 yes, 20 no\n"),
        "{out}"
    );
    assert!(told.contains("[questions.red]\ncalibration_file = \"") && !told.contains("warning"), "{told}");
    let file = json(&path("red.calibration.json"));
    let [before, after] = [0, 1].map(|i| file["quality"]["calibration_error"][i].as_f64().unwrap());
    assert!((before - 0.22).abs() < 0.01 && after < before / 2.0, "{file}");
    assert!(out.contains(&format!("calibration error  {before:>8.3}{after:>8.3}\n")), "{out}");
    assert!(file["correction"]["platt"]["slope"].as_f64().unwrap() < 0.5, "{file}");
    assert_eq!(
        (&file["ask"], &file["quality"]["blank_yes"]),
        (&json!("Is there a red circle?"), &Value::Null)
    );
    let svg = fs::read_to_string(path("red.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("<title>Is there a red circle?</title>"), "{svg}");
    assert!(fs::read_dir(home.path()).unwrap().all(|it| !it.unwrap().path().ends_with(".part")));

    write_lines(&path("few.jsonl"), (0..3).map(line));
    let turned = |i: usize| {
        let (probability, answer) = if i.is_multiple_of(2) { (0.9, "no") } else { (0.1, "yes") };
        json!({"event": event(i, probability), "answer": answer})
    };
    write_lines(&path("turned.jsonl"), (0..12).map(turned));
    for (question, labels, code, words) in [
        ("blue", "labels.jsonl", 2, "there is no question \"blue\" in the configuration; there are red"),
        ("red", "few.jsonl", 1, "few.jsonl: it has 3 of at least 10 lines"),
        ("red", "none.jsonl", 1, "none.jsonl"),
        ("red", "turned.jsonl", 1, "yes is not likelier where it is true (AUROC 0.000)"),
    ] {
        let arguments = ["--question", question, labels, "-o", "other.json"];
        let (got, out, told) = outcome(&mut calibrate(home.path(), arguments));
        assert_eq!((got, out.as_str()), (Some(code), ""), "{told}");
        assert!(told.contains(words), "{told}");
        assert!(!path("other.json").exists());
    }
    fs::write(path("c.toml"), "questions = 1").unwrap();
    assert_eq!(outcome(&mut calibrate(home.path(), ["--question", "red", "labels.jsonl"])).0, Some(78));
}

#[test]
fn clips_make_a_calibration_that_the_daemon_applies_for_its_model_only() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    fs::write(path("c.toml"), format!("model.id = \"shapes\"\n{RED}")).unwrap();
    let film = |(i, object): (usize, &str)| {
        let name = format!("{i}.mp4");
        fs::rename(test_source::h264(home.path(), &format!("object={object}"), 1), path(&name)).unwrap();
        json!({"clip": name, "answer": if object.starts_with("red-circle") { "yes" } else { "no" }})
    };
    let objects = [
        "red-circle-left",
        "blue-square-left",
        "red-circle-right",
        "green-triangle-right",
        "red-circle-up",
        "blue-circle-up",
        "red-circle-down",
        "green-square-down",
        "red-circle-left",
        "yellow-triangle-left",
        "red-circle-up",
        "blue-triangle-up",
    ];
    write_lines(&path("labels.jsonl"), objects.into_iter().enumerate().map(film).collect::<Vec<_>>());
    let (code, out, told) =
        outcome(&mut calibrate(home.path(), ["--question", "red", "labels.jsonl", "-o", "red.json"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(
        out.contains("samples            12: 6 yes, 6 no\n") && out.contains("blank picture      yes with "),
        "{out}"
    );
    assert!(told.starts_with("asking shapes in f32 on cpu about 12 clips\n"), "{told}");
    let file = json(&path("red.json"));
    assert_eq!((&file["model"]["id"], &file["quality"]["samples"]), (&json!("shapes"), &json!(12)));
    assert!(file["quality"]["auroc"].as_f64().unwrap() > 0.5, "{file}");

    let broker = Mosquitto::start("");
    let all = Subscriber::to(broker.port(), EVENTS);
    let toml = format!(
        "model.id = \"shapes\"\nnode.id = \"n\"\nmqtt.url = \"mqtt://127.0.0.1:{}\"\n\
         {RED}calibration_file = \"red.json\"\n\
         [questions.raw]\nask = \"Is there a red circle?\"\n\
         [questions.other]\nask = \"Is there a red circle?\"\ncalibration_file = \"other.json\"\n\
         [cameras.porch]\nuri = \"test://shapes\"\nwindow = \"1s\"\nframes = 2\nchange_threshold = 0\n\
         describe = false\nquestions = [\"red\", \"raw\", \"other\"]\n\
         [cameras.porch.alerts.red]\nquestion = \"red\"\n",
        broker.port()
    );
    let daemon = Daemon::with(&toml, |home, _| {
        fs::write(home.join("red.json"), file.to_string()).unwrap();
        let mut other = file.clone();
        other["model"]["dtype"] = json!("bf16");
        fs::write(home.join("other.json"), other.to_string()).unwrap();
    });
    let event = all.next_on(EVENTS).json();
    let answers = &event["answers"];
    let calibrated = ["red", "raw", "other"].map(|name| &answers[name]["calibrated"]);
    assert_eq!(calibrated, [&json!(true), &json!(false), &json!(false)], "{answers}");
    let probability = |name: &str| answers[name]["probability"].as_f64().unwrap();
    assert!((probability("raw") - probability("other")).abs() < 1e-4, "{answers}");
    let platt = |key: &str| file["correction"]["platt"][key].as_f64().unwrap();
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let wanted = platt("slope") * logit(probability("raw")) + platt("intercept");
    assert!((logit(probability("red")) - wanted).abs() < 1e-2 * (1.0 + wanted.abs()), "{answers} {wanted}");
    assert_eq!(event["alerts"]["red"]["probability"], answers["red"]["probability"]);
    daemon.logged(
        "the answers to other are not calibrated: the calibration is for the model shapes in bf16, and the model is shapes in \
         f32; run `camscribe calibrate` again",
    );
    assert!(!daemon.log().contains("the answers to red"), "{}", daemon.log());
    assert_eq!(daemon.stop().0, Some(0));
}
