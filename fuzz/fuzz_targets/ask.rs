//! Arbitrary messages on the topics of questions: only a question about a camera is accepted, only with what can be asked,
//! and its answer goes only where answers may go.
#![no_main]

use std::sync::LazyLock;

use camscribe::{
    camera_ask::{CameraAsk, Refusal, reply},
    publish::topics::Topics,
};
use libfuzzer_sys::fuzz_target;

static TOPICS: LazyLock<Topics> = LazyLock::new(|| Topics::new("camscribe", "edge1").expect("good names"));

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (topic, response, payload) = (part(), part(), part());
    if let Ok(response) = str::from_utf8(response) {
        let anywhere = TOPICS.may_reply(response, &["#".to_owned()]);
        let below = TOPICS.may_reply(response, &["camscribe/reply/#".to_owned()]);
        assert!(!anywhere || !response.starts_with("camscribe/edge1/") && !response.contains(['+', '#', '$']));
        assert!(!below || anywhere && response.starts_with("camscribe/reply"));
    }
    let Some(camera) = str::from_utf8(topic).ok().and_then(|topic| TOPICS.asked(topic)) else { return };
    assert_eq!(TOPICS.ask(&camera).as_bytes(), topic);
    let request = CameraAsk::request_of(payload);
    match CameraAsk::parse(payload) {
        Ok(ask) => assert!(ask.answers.is_empty() || ask.decision().is_some()),
        Err(why) => {
            let document = reply(&camera, request.as_deref(), &Err(Refusal::Invalid(why)));
            assert_eq!(document["error"]["code"], "invalid");
        }
    }
});
