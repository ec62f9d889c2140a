//! The order of work of `ask`: arguments, model, media, then the answer as it is made.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::Context;
use serde_json::json;

use super::{
    args::{AnswerFormat, AskArgs},
    camera, chat, media,
};
use crate::{
    answer::Piece,
    app, config,
    describe::Describer,
    logging::{self, tell},
    request::{Content, Message, Request, Role},
};

/// Asks, and prints the answer on standard output.
///
/// # Errors
/// When an argument is wrong, a file cannot be read, the model cannot be used, or the answer cannot be written.
pub fn run(args: &AskArgs) -> anyhow::Result<()> {
    if let Some(camera) = &args.camera {
        return camera::run(args, camera);
    }
    logging::init("warn", logging::Format::Auto);
    let (sampling, images) = (args.sampling()?, args.image_options());
    args.video_sampling()?;
    let mut model = app::load_model(&config::ModelSettings {
        id: args.model.clone(),
        device: args.device,
        dtype: args.dtype,
        max_batch: 1,
        linger: Duration::ZERO,
        ..config::ModelSettings::default()
    })?;
    let info = model.model();
    tell(format_args!("asking {} on {}, {}", info.id, info.device, info.dtype));
    let request = Request {
        messages: messages(args, &*model)?,
        raw: args.raw,
        max_tokens: args.max_tokens as usize,
        sampling,
        images,
        ..Request::default()
    };
    let mut out = io::stdout();
    let mut written = Ok(());
    let mut on_piece = |_, piece: Piece| {
        if args.format == AnswerFormat::Text && written.is_ok() {
            written = out.write_all(piece.text.as_bytes()).and_then(|()| out.flush());
        }
    };
    let answer = model.answer(&[request], &mut on_piece)?.remove(0)?;
    written.context("the answer cannot be written")?;
    match args.format {
        AnswerFormat::Text => writeln!(out)?,
        AnswerFormat::Json => {
            let tokens = answer.tokens;
            let document = json!({
                "answer": answer.text,
                "finish_reason": answer.finish_reason,
                "tokens": { "prompt": tokens.prompt, "image": tokens.image, "generated": tokens.generated },
                "model": info,
            });
            writeln!(out, "{document}")?;
        }
    }
    Ok(())
}

/// The conversation: what came before the question, the media, and the question.
fn messages(args: &AskArgs, model: &dyn Describer) -> anyhow::Result<Vec<Message>> {
    let sampling = args.video_sampling()?;
    if let Some(file) = &args.chat {
        return chat::read(file, sampling, model);
    }
    let system = args
        .system
        .iter()
        .map(|text| Message { role: Role::System, content: vec![Content::Text(text.clone())] });
    let mut content = Vec::new();
    for path in &args.images {
        content.push(Content::Image(media::image(path)?));
    }
    for path in &args.videos {
        content.push(Content::Video(media::video(path, sampling, model)?));
    }
    content.push(Content::Text(args.question.clone().unwrap_or_default()));
    let question = Message { role: Role::User, content };
    Ok(system.chain([question]).collect())
}
