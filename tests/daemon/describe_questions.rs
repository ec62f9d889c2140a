//! `describe --question`: answers with their probabilities, beside the description or in place of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{daemon::camscribe, test_source};

const CIRCLE: &str = "Is there a red circle?";
const COLOUR: &str = "Which colour has the circle?";
const WORDS: &str = "A red circle moves to the left.";

/// A home directory with a film of four seconds, `scene.mp4`.
fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let film = test_source::h264(home.path(), "object=red-circle-left", 4);
    (home, film)
}

fn describe(home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = camscribe(home);
    command.current_dir(home).args(["describe", "--model", "shapes", "--window", "2s"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The events of a run.
fn events(home: &Path, arguments: &[&str]) -> Vec<Value> {
    let (code, out, told) = describe(home, &[arguments, &["--format", "jsonl"]].concat());
    assert_eq!(code, Some(0), "{told}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `yes (0.97)` as its words and its number.
fn answer(text: &str) -> (&str, f64) {
    let (words, number) = text.strip_suffix(')').unwrap().split_once(" (").unwrap();
    (words, number.parse().unwrap())
}

#[test]
fn questions_are_answered_beside_the_description() {
    let (home, _film) = home();
    let asked = ["--question", CIRCLE, "--question", COLOUR, "--answers", "red, dark green", "scene.mp4"];
    let events = events(home.path(), &asked);
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!((&event["type"], &event["description"]), (&json!("description"), &json!(WORDS)));
        let (circle, colour) = (&event["answers"]["question_1"], &event["answers"]["question_2"]);
        assert_eq!((&circle["type"], &circle["answer"]), (&json!("predicate"), &json!("yes")));
        assert!(circle["probability"].as_f64().unwrap() >= 0.5, "{circle}");
        let values: Vec<_> =
            colour["probabilities"].as_array().unwrap().iter().map(|it| &it["value"]).collect();
        assert_eq!(values, ["red", "dark green"]);
        assert_eq!(event["answers"].as_object().unwrap().len(), 2);
    }

    // The same for people.
    let (code, out, told) = describe(home.path(), &asked);
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert_eq!(lines[0], format!("00:00:00.000 - 00:00:02.000  {WORDS}"));
    let (said, probability) = answer(lines[1].trim_start().strip_prefix(CIRCLE).unwrap().trim_start());
    assert_eq!(said, "yes");
    let exact = events[0]["answers"]["question_1"]["probability"].as_f64().unwrap();
    assert!((probability - exact).abs() < 0.0051, "{probability} {exact}");
    let (said, probability) = answer(lines[2].trim_start().strip_prefix(COLOUR).unwrap().trim_start());
    assert_eq!(events[0]["answers"]["question_2"]["choice"], said);
    assert!((0.5..=1.0).contains(&probability), "{probability}");

    // A table has columns for them.
    let (_, out, _) = describe(home.path(), &[&asked[..], &["--format", "csv"]].concat());
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(
        rows[0][6..],
        ["question_1", "question_1_probability", "question_2", "question_2_probability"]
    );
    assert_eq!((rows.len(), rows[1].len(), rows[1][6]), (3, 10, "yes"));
    assert_eq!(rows[1][7].parse::<f64>().unwrap(), exact);
}

#[test]
fn questions_alone_make_no_words_and_subtitles_hold_no_numbers() {
    let (home, _film) = home();
    let asked = ["--no-description", "--question", CIRCLE, "scene.mp4"];
    for event in events(home.path(), &asked) {
        assert_eq!((&event["type"], &event["description"]), (&json!("answers"), &json!("")));
        assert_eq!(event["tokens"]["generated"], 0);
        assert_eq!(event["answers"]["question"]["answer"], "yes");
    }
    let (_, out, _) = describe(home.path(), &asked);
    let (said, _) = answer(out.lines().next().unwrap().split_once(CIRCLE).unwrap().1.trim());
    assert_eq!((said, out.lines().count()), ("yes", 2), "{out}");
    let (_, out, _) = describe(home.path(), &[&asked[..], &["--format", "vtt"]].concat());
    let cue = |from: &str, to: &str| format!("{from} --> {to}\n{CIRCLE} yes\n\n");
    let wanted = [cue("00:00:00.000", "00:00:02.000"), cue("00:00:02.000", "00:00:04.000")].concat();
    assert_eq!(out, format!("WEBVTT\n\n{wanted}"));
    let (_, out, _) = describe(home.path(), &["--question", CIRCLE, "--format", "srt", "scene.mp4"]);
    assert!(
        out.starts_with(&format!("1\n00:00:00,000 --> 00:00:02,000\n{WORDS}\n{CIRCLE} yes\n\n")),
        "{out}"
    );
}

#[test]
fn an_image_is_asked_as_a_film_is() {
    let home = TempDir::new().unwrap();
    let red = image::RgbImage::from_fn(96, 64, |x, y| {
        let inside = (f64::from(x) - 48.0).hypot(f64::from(y) - 32.0) < 20.0;
        image::Rgb(if inside { [200, 0, 0] } else { [240; 3] })
    });
    red.save(home.path().join("red.png")).unwrap();
    let event = &events(home.path(), &["--question", CIRCLE, "red.png"])[0];
    assert!(!event["description"].as_str().unwrap().is_empty());
    assert!(event["answers"]["question"]["probability"].is_number(), "{event}");
    let plain = &events(home.path(), &["red.png"])[0];
    assert_eq!((&plain["description"], &plain["prompt"]), (&event["description"], &event["prompt"]));
    assert_eq!(plain["answers"], Value::Null);
    let alone = &events(home.path(), &["--no-description", "--question", CIRCLE, "red.png"])[0];
    assert_eq!((&alone["type"], &alone["tokens"]["generated"]), (&json!("answers"), &json!(0)));
    assert_eq!(alone["answers"], event["answers"]);
}

#[test]
fn a_file_is_made_again_when_another_question_is_asked() {
    let (home, _film) = home();
    let run = |more: &[&str]| {
        let arguments =
            [&["--output-dir", "out", "--resume", "scene.mp4", "--no-description"][..], more].concat();
        let (code, _, told) = describe(home.path(), &arguments);
        assert_eq!(code, Some(0), "{told}");
        (fs::read_to_string(home.path().join("out/scene.mp4.txt")).unwrap(), told)
    };
    let (first, _) = run(&["--question", CIRCLE]);
    let (same, told) = run(&["--question", CIRCLE]);
    assert!(same == first && told.contains("already whole"), "{told}");
    let (other, told) = run(&["--question", CIRCLE, "--answers", "surely,hardly"]);
    assert!(other != first && told.contains("made again"), "{told}");
}

#[test]
fn what_cannot_be_asked_is_a_usage_error() {
    let home = TempDir::new().unwrap();
    let many: Vec<&str> = ["--question", CIRCLE].repeat(33);
    for (arguments, text) in [
        (&["--no-description"][..], "--question"),
        (&["--answers", "a,b"], "--question"),
        (&["--answers", "a,b", "--question", CIRCLE], "behind the --question"),
        (&["--question", CIRCLE, "--answers", "a"], "has 1 of 2 to 20 answers"),
        (&["--question", CIRCLE, "--answers", "a,b,A"], "differs in case only"),
        (&["--question", ""], "--question is empty"),
        (&["--question", "<image>"], "special token"),
        (&["--question", CIRCLE, "--no-description", "--prompt", "What?"], "cannot be used with"),
        (&many, "there are 33 questions; 32 are allowed"),
    ] {
        let (code, out, told) = describe(home.path(), &[arguments, &["scene.mp4"]].concat());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {told}");
        assert!(told.contains(text), "{arguments:?}: {told}");
    }
}
