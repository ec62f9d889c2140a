//! Conversations as the golden cases name them, with pictures that are made by a formula.

use std::time::Duration;

use camscribe::request::{Content, ImageOptions, Message, Picture, Role, Video};
use serde::Deserialize;

use super::picture::frame;

#[derive(Deserialize)]
pub struct Options {
    longest_edge: Option<usize>,
    split: Option<bool>,
    video_edge: Option<usize>,
}

impl Options {
    pub fn images(&self) -> ImageOptions {
        let Self { longest_edge, split, video_edge } = *self;
        ImageOptions { longest_edge, split, video_edge }
    }
}

#[derive(Deserialize)]
pub struct GivenMessage {
    role: String,
    content: Vec<GivenContent>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum GivenContent {
    Text { text: String },
    Image { w: u32, h: u32, first: u32 },
    Video { w: u32, h: u32, n: u32, first: u32, fps: f64, frames_indices: Vec<u32>, duration: f64 },
}

/// Picture number `t` of the formula.
pub fn picture(w: u32, h: u32, t: u32) -> Picture {
    Picture { width: w, height: h, rgb: frame(t, w, h).into() }
}

/// The messages as a request has them.
pub fn conversation(messages: &[GivenMessage]) -> Vec<Message> {
    let content = |content: &GivenContent| match content {
        GivenContent::Text { text } => Content::Text(text.clone()),
        GivenContent::Image { w, h, first } => Content::Image(picture(*w, *h, *first)),
        GivenContent::Video { w, h, n, first, fps, frames_indices, duration } => {
            let time = |i: u32| Duration::from_secs_f64(f64::from(frames_indices[i as usize]) / fps);
            let frames = (0..*n).map(|i| (time(i), picture(*w, *h, first + i))).collect();
            Content::Video(Video { frames, duration: Duration::from_secs_f64(*duration) })
        }
    };
    let message = |message: &GivenMessage| Message {
        role: match message.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => panic!("unknown role {other}"),
        },
        content: message.content.iter().map(content).collect(),
    };
    messages.iter().map(message).collect()
}
