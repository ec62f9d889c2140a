//! Whatever is published below our topics: a command is obeyed only if it is one, and a prompt that
//! comes through is one that the configuration takes.
#![no_main]

use std::sync::LazyLock;

use camscribe::{
    config,
    publish::{
        command::{Command, Order},
        topics::Topics,
    },
};
use libfuzzer_sys::fuzz_target;

static TOPICS: LazyLock<Topics> = LazyLock::new(|| Topics::new("camscribe", "edge1").expect("good names"));

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (topic, payload) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let Ok(Command { camera, order }) = Command::read(&TOPICS, topic, payload) else { return };
    let what = match order {
        Order::Enabled(_) => "enabled",
        Order::Prompt(prompt) => {
            assert!(prompt.is_none_or(|prompt| config::check_prompt(&prompt).is_ok()));
            "prompt"
        }
    };
    assert_eq!(TOPICS.set(&camera, what).as_bytes(), topic);
});
