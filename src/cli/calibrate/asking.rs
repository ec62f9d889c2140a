//! The model, asked about clips and about a blank picture.

use std::path::Path;

use super::super::ask::media;
use crate::{
    decision::Decision,
    describe::Describer,
    image_file,
    request::{Content, Message, Picture, Request, Role, Video, VideoSampling},
};

/// The brightness of a blank picture, of 255.
const GREY: u8 = 128;

/// What a file shows: an image, or the frames that the model takes of a whole video.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path, model: &dyn Describer) -> anyhow::Result<Content> {
    if image_file::is_still_image(path) {
        return Ok(Content::Image(media::image(path)?));
    }
    Ok(Content::Video(media::video(path, VideoSampling::default(), model)?))
}

/// The same, with nothing in it to be seen.
pub fn blank(content: &Content) -> Content {
    let grey = |picture: &Picture| Picture { rgb: vec![GREY; picture.rgb.len()].into(), ..picture.clone() };
    match content {
        Content::Image(picture) => Content::Image(grey(picture)),
        Content::Video(Video { frames, duration }) => {
            let frames = frames.iter().map(|(time, picture)| (*time, grey(picture)));
            Content::Video(Video { frames: frames.collect(), duration: *duration })
        }
        Content::Text(text) => Content::Text(text.clone()),
    }
}

/// The probabilities of the possible answers about `content`, as the model gives them.
///
/// # Errors
/// When the model fails, or cannot be asked this.
pub fn ask(content: Content, decision: &Decision, model: &mut dyn Describer) -> anyhow::Result<Vec<f64>> {
    let request = Request {
        messages: vec![Message { role: Role::User, content: vec![content] }],
        questions: decision.questions(),
        ..Request::default()
    };
    let answer = model.answer(&[request], &mut |_, _| ())?.remove(0)?;
    Ok(Decision::decide(&answer.labels).probabilities)
}
