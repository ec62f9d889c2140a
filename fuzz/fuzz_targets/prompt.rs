//! Conversations of any text and images: the prompt holds as many image tokens as the images take,
//! whatever the text says.
#![no_main]

use std::{path::Path, sync::LazyLock, time::Duration};

use camscribe::describe::smolvlm::{
    config::{ModelConfig, ProcessorConfig},
    prompt::{Message, Part, Prompter, Role},
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

#[derive(Arbitrary, Debug)]
enum Piece {
    Text(String),
    Video(Vec<u32>, u32),
    Image(u8, u8),
}

#[derive(Arbitrary, Debug)]
struct Turn {
    speaker: u8,
    pieces: Vec<Piece>,
}

static MODEL: LazyLock<(ModelConfig, Prompter)> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes");
    let model = ModelConfig::load(&dir).expect("a model");
    let processor = ProcessorConfig::load(&dir, &model).expect("a processor");
    let prompter = Prompter::load(&dir, &model, &processor).expect("a tokenizer");
    (model, prompter)
});

fuzz_target!(|turns: Vec<Turn>| {
    let (model, prompter) = &*MODEL;
    let mut tiles = 0;
    let mut part = |piece: Piece| match piece {
        Piece::Text(text) => Part::Text(text),
        Piece::Video(times, length) => {
            tiles += times.len();
            let times = times.into_iter().map(|t| Duration::from_millis(t.into())).collect();
            Part::Video { times, duration: Duration::from_millis(length.into()) }
        }
        Piece::Image(rows, cols) => {
            let (rows, cols) = (usize::from(rows % 9), usize::from(cols % 9));
            tiles += rows * cols + 1;
            Part::Image { rows, cols }
        }
    };
    let message = |Turn { speaker, pieces }: Turn| Message {
        role: [Role::System, Role::User, Role::Assistant][usize::from(speaker % 3)],
        parts: pieces.into_iter().map(&mut part).collect(),
    };
    let messages: Vec<_> = turns.into_iter().map(message).collect();
    // Too many tiles for the tokenizer's names are an error.
    if let Ok(prompt) = prompter.build(&messages) {
        assert_eq!(prompt.image_tokens, tiles * model.tokens_per_tile());
        let image = prompt.ids.iter().filter(|&&id| id == model.image_token_id).count();
        assert_eq!(image, prompt.image_tokens, "{:?}", prompt.text);
        prompter.decode(&prompt.ids).expect("text");
    }
});
