//! Questions and alerts from the configuration to the broker, through a restart of both.

use serde_json::{Value, json};

use crate::support::{
    api::wait_ready,
    broker::{Mosquitto, Received, Subscriber},
    daemon::Daemon,
};

const EVENTS: &str = "camscribe/n/porch/description";
const ALWAYS: &str = "camscribe/n/porch/alert/always";

/// A camera that is asked two questions. One alert goes on at its second clip whatever is answered, and stays on; the
/// other one never goes on.
fn toml(port: u16, describe: bool) -> String {
    format!(
        r#"
        model.id = "shapes"
        node.id = "n"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        [questions.round]
        ask = "Is there a circle?"
        [questions.colour]
        ask = "Which colour has the circle?"
        answers = ["red", "half green", "blue"]
        [defaults]
        window = "1s"
        frames = 2
        max_tokens = 8
        change_threshold = 0
        [cameras.porch]
        uri = "test://shapes"
        describe = {describe}
        questions = ["round", "colour"]
        [cameras.porch.alerts.always]
        question = "round"
        on = 0.0
        off = 0.0
        of = "2/2"
        min_confidence = 0.0
        device_class = "motion"
        [cameras.porch.alerts.never]
        question = "colour"
        answer = "blue"
        on = 1.0
        min_confidence = 1.0
        "#
    )
}

fn near(a: &Value, b: f64) -> bool {
    (a.as_f64().unwrap() - b).abs() < 1e-6
}

fn check_answers(answers: &Value) {
    let (round, colour) = (&answers["round"], &answers["colour"]);
    let probability = round["probability"].as_f64().unwrap();
    assert_eq!((&round["type"], &round["calibrated"]), (&json!("predicate"), &json!(false)));
    assert_eq!(round["answer"], if probability >= 0.5 { "yes" } else { "no" });
    assert_eq!(colour["type"], "choice");
    let each = colour["probabilities"].as_array().unwrap();
    assert_eq!(each.iter().map(|it| &it["value"]).collect::<Vec<_>>(), ["red", "half green", "blue"]);
    assert!(near(&json!(each.iter().map(|it| it["probability"].as_f64().unwrap()).sum::<f64>()), 1.0));
    let best =
        each.iter().max_by(|a, b| a["probability"].as_f64().partial_cmp(&b["probability"].as_f64()).unwrap());
    assert_eq!(colour["choice"], best.unwrap()["value"]);
}

#[test]
fn answers_and_alerts_reach_the_broker_and_outlive_a_restart_of_both() {
    let mut broker = Mosquitto::start("");
    let all = Subscriber::to(broker.port(), "#");
    let mut daemon = Daemon::start(&toml(broker.port(), true));
    // Once the fifth is there, the first ones have left the outbox, and are not delivered again.
    let mut count = 0;
    let seen = all.until(|message| {
        count += usize::from(message.topic == EVENTS);
        count == 5
    });
    let events: Vec<Value> = seen.iter().filter(|it| it.topic == EVENTS).map(Received::json).collect();
    for event in &events {
        assert_eq!(event["type"], "description");
        assert!(!event["description"].as_str().unwrap().is_empty());
        check_answers(&event["answers"]);
        assert_eq!(
            event["alerts"]["never"],
            json!({"on": false, "changed": false, "since": null,
            "probability": event["answers"]["colour"]["probabilities"][2]["probability"]})
        );
    }
    let state = |event: &Value| {
        (event["alerts"]["always"]["on"] == true, event["alerts"]["always"]["changed"] == true)
    };
    let states: Vec<_> = events.iter().map(state).collect();
    assert_eq!(states[..3], [(false, false), (true, true), (true, false)]);
    assert!(states[3..].iter().all(|state| *state == (true, false)));

    // The switching is told once, before its event.
    let at = |topic: &str| seen.iter().position(|it| it.topic == topic).unwrap();
    let told: Vec<&Received> = seen.iter().filter(|it| it.topic == "camscribe/n/porch/alerts").collect();
    assert_eq!(told.len(), 1);
    let told = told[0].json();
    assert_eq!(
        (&told["alert"], &told["state"], &told["id"]),
        (&json!("always"), &json!("ON"), &events[1]["id"])
    );
    assert_eq!(told["since"], events[1]["clip"]["end"]);
    assert!(at("camscribe/n/porch/alerts") < seen.iter().rposition(|it| it.topic == EVENTS).unwrap());
    let discovery = seen.iter().filter(|it| it.topic.starts_with("homeassistant/"));
    let entities: Vec<&str> = discovery.filter_map(|it| it.topic.split("porch-").nth(1)).collect();
    for entity in ["answer_round/config", "answer_colour/config", "alert_always/config", "alerts/config"] {
        assert!(entities.contains(&entity), "{entity}: {entities:?}");
    }
    let class = "homeassistant/binary_sensor/camscribe-n/porch-alert_always/config";
    assert_eq!(seen[at(class)].json()["device_class"], "motion");

    // After a restart of daemon and broker the alert is on as before, and nothing is told anew.
    daemon.kill();
    drop(all);
    broker.kill();
    broker.run();
    let after = Subscriber::to(broker.port(), "camscribe/n/#");
    daemon.restart();
    let seen = after.until(|message| message.topic == EVENTS && message.json()["clip"]["seq"] == 2);
    assert!(seen.iter().all(|it| it.topic != "camscribe/n/porch/alerts"), "{seen:?}");
    let state = seen.iter().rfind(|it| it.topic == ALWAYS).unwrap().json();
    assert_eq!((&state["state"], &state["since"]), (&json!("ON"), &told["since"]));
    let answer = seen.iter().rfind(|it| it.topic == "camscribe/n/porch/answer/round").unwrap().json();
    assert!(answer["probability"].is_number() && answer["time"].is_string() && answer["id"].is_string());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn questions_alone_make_no_words_and_a_question_that_is_gone_is_forgotten() {
    let broker = Mosquitto::start("");
    let daemon = Daemon::start(&toml(broker.port(), false));
    wait_ready(&daemon);
    let all = Subscriber::to(broker.port(), "camscribe/n/porch/#");
    let event = all.next_on(EVENTS).json();
    assert_eq!((&event["type"], &event["description"]), (&json!("answers"), &json!("")));
    assert_eq!(event["tokens"]["generated"], 0);
    check_answers(&event["answers"]);
    let latest = all.next_on("camscribe/n/porch/latest").json();
    assert_eq!(latest["type"], "answers");

    let fewer = toml(broker.port(), false).replace(r#"["round", "colour"]"#, r#"["round"]"#);
    let (kept, _) = fewer.split_once("[cameras.porch.alerts.never]").unwrap();
    daemon.reload(kept);
    let mut gone = vec!["camscribe/n/porch/answer/colour", "camscribe/n/porch/alert/never"];
    while !gone.is_empty() {
        let message = all.next();
        gone.retain(|topic| message.topic != *topic || !message.payload.is_empty());
    }
    let event = all.next_on(EVENTS).json();
    assert_eq!(event["answers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["round"]);
    assert_eq!(daemon.stop().0, Some(0));
}
