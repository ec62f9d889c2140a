//! Questions and alerts in the configuration, as `camscribe check` reads and prints them.

use std::fs;

use serde_json::{Value, json};

use crate::support::check::{Check, PORCH};

const PARCEL: &str = "[questions.parcel]\nask = \"Is there a parcel?\"\n";
const GATE: &str =
    "[questions.gate-1]\nask = \"Is the gate open?\"\nanswers = [\"open\", \"half \\\"open\\\"\"]\n";
const ASKS: &str = "questions = [\"parcel\", \"gate-1\"]\n";
const ALERT: &str = "[cameras.porch.alerts.at-door]\nquestion = \"parcel\"\n";

#[test]
fn what_check_prints_of_questions_and_alerts_is_a_configuration_with_the_same_output() {
    let first = Check::of(&format!("{PARCEL}{GATE}{PORCH}describe = false\n{ASKS}{ALERT}")).run();
    let toml = first.toml();
    assert_eq!(toml["questions"]["parcel"]["answers"], toml::Value::Array(Vec::new()));
    assert_eq!(toml["questions"]["gate-1"]["answers"][1].as_str(), Some("half \"open\""));
    let porch = &toml["cameras"]["porch"];
    assert_eq!((porch["describe"].as_bool(), porch["questions"][1].as_str()), (Some(false), Some("gate-1")));
    let alert = &porch["alerts"]["at-door"];
    assert_eq!((alert["on"].as_float(), alert["of"].as_str()), (Some(0.8), Some("2/3")));
    let second = Check::of(&first.out).run();
    assert_eq!((second.code, &second.out), (Some(0), &first.out));
}

#[test]
fn the_environment_overrides_questions_and_alerts_and_can_declare_them() {
    let file = format!("{PARCEL}{GATE}{PORCH}{ASKS}{ALERT}[cameras.front-door]\nuri = \"/a.mp4\"\n");
    let toml = Check::of(&file)
        .env("CAMSCRIBE__QUESTIONS__GATE_1__ANSWERS", "open, half open,closed")
        .env("CAMSCRIBE__QUESTIONS__DOG__ASK", "Is there a dog?")
        .env("CAMSCRIBE__CAMERAS__PORCH__QUESTIONS", "dog,parcel")
        .env("CAMSCRIBE__CAMERAS__PORCH__ALERTS__AT_DOOR__ON", "0.9")
        .env("CAMSCRIBE__CAMERAS__PORCH__ALERTS__DOG__ANSWER", "no")
        .env("CAMSCRIBE__CAMERAS__PORCH__ALERTS__DOG__QUESTION", "dog")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__QUESTIONS", "gate-1")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__ALERTS__GATE__QUESTION", "gate-1")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__ALERTS__GATE__ANSWER", "closed")
        .env("CAMSCRIBE__CAMERAS__YARD__URI", "test://smpte")
        .env("CAMSCRIBE__CAMERAS__YARD__QUESTIONS", "")
        .run()
        .toml();
    let answers: Vec<_> = toml["questions"]["gate-1"]["answers"].as_array().unwrap().iter().collect();
    assert_eq!(answers, ["open", "half open", "closed"].map(toml::Value::from).iter().collect::<Vec<_>>());
    assert_eq!(toml["questions"]["dog"]["ask"].as_str(), Some("Is there a dog?"));
    let cameras = &toml["cameras"];
    let alerts = &cameras["porch"]["alerts"];
    assert_eq!(alerts["at-door"]["on"].as_float(), Some(0.9));
    assert_eq!(alerts["at-door"]["question"].as_str(), Some("parcel"));
    assert_eq!(
        (alerts["dog"]["question"].as_str(), alerts["dog"]["answer"].as_str()),
        (Some("dog"), Some("no"))
    );
    assert_eq!(cameras["front-door"]["alerts"]["gate"]["answer"].as_str(), Some("closed"));
    assert_eq!(cameras["yard"]["questions"], toml::Value::Array(Vec::new()));
    assert!(cameras.get("front_door").is_none());
}

#[test]
fn errors_in_the_environment_name_the_variable() {
    let file = format!("{PARCEL}{GATE}{PORCH}{ASKS}{ALERT}");
    for (variable, value, text) in [
        ("CAMSCRIBE__QUESTIONS__PARCEL", "x", "CAMSCRIBE__QUESTIONS__PARCEL__ASK"),
        ("CAMSCRIBE__QUESTIONS__PARCLE__ANSWERS", "a,b", "there is no question parcle; did you mean parcel?"),
        ("CAMSCRIBE__QUESTIONS__PARCEL__ASKS", "x", "did you mean ask?"),
        ("CAMSCRIBE__QUESTIONS__PARCEL__ANSWERS", "a", "has 1 of 2 to 20 answers"),
        ("CAMSCRIBE__QUESTIONS__PÄRCEL__ASK", "x", "cannot name a question"),
        ("CAMSCRIBE__CAMERAS__PORCH__QUESTIONS", "parcel,,gate-1", "there is no question \"\""),
        (
            "CAMSCRIBE__CAMERAS__PORCH__ALERTS__DOG",
            "x",
            "name alert and key, joined by two underscores: CAMSCRIBE__CAMERAS__PORCH__ALERTS__PARCEL__QUESTION",
        ),
        (
            "CAMSCRIBE__CAMERAS__PORCH__ALERTS__AT_DOR__ON",
            "1",
            "there is no alert at_dor; did you mean at-door?",
        ),
        ("CAMSCRIBE__CAMERAS__PROCH__ALERTS__DOG__QUESTION", "parcel", "there is no camera proch"),
        ("CAMSCRIBE__CAMERAS__PORCH__ALERTS__AT_DOOR__OFF", "0.9", "off = 0.9 is more than on = 0.8"),
        ("CAMSCRIBE__CAMERAS__PORCH__ALERTS__AT_DOOR__COOLDOWN", "1s", "did you mean cool_down?"),
    ] {
        let answer = Check::of(&file).env(variable, value).run();
        assert_eq!(answer.code, Some(78), "{variable}: {answer:?}");
        let location = format!("environment variable {variable}: ");
        assert!(answer.err.contains(&location) && answer.err.contains(text), "{}", answer.err);
    }
}

#[test]
fn a_fragment_overrides_a_list_as_a_whole_and_may_add_questions_and_alerts() {
    let check = Check::of(&format!("{PARCEL}{GATE}{PORCH}{ASKS}"));
    fs::create_dir(check.path("conf.d")).unwrap();
    let box_s = format!(
        "[questions.dog]\nask = \"Is there a dog?\"\n[questions.parcel]\nanswers = [\"yes\", \"perhaps\"]\n\
         [cameras.porch]\nquestions = [\"dog\", \"parcel\"]\n{ALERT}"
    );
    let answer = check.file("conf.d/10-box.toml", &box_s, 0o644).run();
    let toml = answer.toml();
    let porch = &toml["cameras"]["porch"];
    assert_eq!(porch["questions"], toml::Value::from(vec!["dog", "parcel"]));
    assert_eq!(porch["alerts"]["at-door"]["answer"].as_str(), Some("yes"));
    assert_eq!(toml["questions"]["parcel"]["ask"].as_str(), Some("Is there a parcel?"));
    assert!(answer.err.contains("questions.gate-1.ask: no camera asks it"), "{}", answer.err);
}

/// A calibration of the question `parcel`, as `camscribe calibrate` writes it.
fn calibration() -> Value {
    json!({
        "schema": 1, "question": "parcel", "ask": "Is there a parcel?", "answers": ["yes", "no"],
        "model": {"id": "small", "revision": "", "dtype": "f32"},
        "correction": {"platt": {"slope": 0.5, "intercept": 0.25}},
        "quality": {"samples": 12, "auroc": 0.75, "accuracy": [0.5, 0.75], "calibration_error": [0.25, 0.125],
                    "blank_yes": null},
    })
}

#[test]
fn a_calibration_is_read_with_its_question_and_one_that_does_not_fit_is_named_with_its_line() {
    let toml = format!("{PARCEL}calibration_file = \"parcel.json\"\n{PORCH}questions = [\"parcel\"]\n");
    let with = |text: &str| Check::of(&toml).file("parcel.json", text, 0o644);
    let right = with(&calibration().to_string()).run();
    assert_eq!(right.toml()["questions"]["parcel"]["calibration_file"].as_str(), Some("parcel.json"));
    let changed = |key: &str, value: Value| {
        let mut other = calibration();
        other[key] = value;
        other.to_string()
    };
    for (text, why) in [
        ("{", "parcel.json is no calibration: EOF"),
        (&*"x".repeat(300_000), "parcel.json cannot be read: it is longer than"),
        (&*changed("schema", json!(2)), "parcel.json is of format 2, and this camscribe reads 1"),
        (&*changed("ask", json!("Is there a box?")), "parcel.json is for the question \"Is there a box?\""),
        (&*changed("answers", json!(["open", "closed"])), "parcel.json is for the answers open, closed"),
        (
            &*changed("correction", json!({"temperature": 2.0})),
            "parcel.json corrects another kind of question",
        ),
        (
            &*changed("correction", json!({"platt": {"slope": 0.0, "intercept": 0.0}})),
            "parcel.json cannot be applied",
        ),
    ] {
        let answer = with(text).run();
        assert_eq!(answer.code, Some(78), "{answer:?}");
        let place = "c.toml:3: questions.parcel.calibration_file: ";
        assert!(answer.err.contains(place) && answer.err.contains(why), "{why}: {}", answer.err);
        assert!(
            answer.err.contains("make it with `camscribe calibrate`, or remove the key"),
            "{}",
            answer.err
        );
    }
    let missing = Check::of(&format!("{PARCEL}{PORCH}questions = [\"parcel\"]\n"))
        .env("CAMSCRIBE__QUESTIONS__PARCEL__CALIBRATION_FILE", "none.json")
        .run();
    assert_eq!(missing.code, Some(78));
    let place = "environment variable CAMSCRIBE__QUESTIONS__PARCEL__CALIBRATION_FILE: ";
    assert!(
        missing.err.contains(place) && missing.err.contains("none.json cannot be read"),
        "{}",
        missing.err
    );
}
