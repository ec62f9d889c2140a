//! Arbitrary messages on the command topics: only a command is accepted, and only with a value that the
//! setting takes.
#![no_main]

use std::sync::LazyLock;

use camscribe::publish::{commands::CameraCommand, topics::Topics};
use libfuzzer_sys::fuzz_target;

static TOPICS: LazyLock<Topics> = LazyLock::new(|| Topics::new("camscribe", "edge1").expect("good names"));

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (topic, payload) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let Ok(CameraCommand { camera, setting, value }) = CameraCommand::parse(&TOPICS, topic, payload) else {
        return;
    };
    assert!(value.is_none_or(|value| setting.check(&value).is_ok()));
    assert_eq!(TOPICS.set(&camera, setting.name).as_bytes(), topic);
});
