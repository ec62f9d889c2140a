//! Messages in, a prompt's text and token ids out, equal to the reference's (transformers 5.23.0,
//! `processing_smolvlm.py`). Text of a message never becomes a control token or an image token, whatever it spells.
//!
//! The layout is the reference's built-in template. The reference uses it for every conversation with a video, whatever
//! `chat_template` the checkpoint stores; the published checkpoints store the same layout for text and images.

use std::{collections::HashMap, panic, path::Path, time::Duration};

use serde::de::IgnoredAny;
use tokenizers::Tokenizer;

use super::{
    config::{ModelConfig, ProcessorConfig},
    token_bytes::token_bytes,
};
pub use crate::request::Role;
use crate::{
    answer::Token,
    nn::{error::LoadError, json_config::read_text},
    request::ImageOptions,
};

const START: &str = "<|im_start|>";
const END: &str = "<end_of_utterance>";
const FAKE: &str = "<fake_token_around_image>";
const GLOBAL: &str = "<global-img>";
const IMAGE: &str = "<image>";

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// Frames, each one tile.
    Video {
        /// Time of each frame since the clip's start.
        times: Vec<Duration>,
        /// Length of the clip. The prompt names it in whole seconds.
        duration: Duration,
    },
    /// A still image of `rows` x `cols` tiles and one of the whole; 0 x 0 if it was not cut.
    Image {
        /// Rows of tiles.
        rows: usize,
        /// Columns of tiles.
        cols: usize,
    },
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// Its content, in order.
    pub parts: Vec<Part>,
}

/// A prompt, ready for the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The text, control tokens included.
    pub text: String,
    /// The tokens.
    pub ids: Vec<u32>,
    /// How many of them are `<image>`.
    pub image_tokens: usize,
}

/// Why a prompt cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// More tiles than the tokenizer has names for.
    #[error("an image of {rows} x {cols} tiles is too large for this model")]
    TooManyTiles {
        /// Rows of tiles.
        rows: usize,
        /// Columns of tiles.
        cols: usize,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed on the prompt")]
    Tokenizer(#[source] tokenizers::Error),
}

/// Parses a tokenizer. The library panics on some broken files (`expect` in the `Deserialize` of its decoders and
/// normalizers). So invalid JSON is refused first, and panics are caught.
fn parse(text: &str) -> Result<Tokenizer, tokenizers::Error> {
    serde_json::from_str::<IgnoredAny>(text)?;
    panic::catch_unwind(|| text.parse()).unwrap_or_else(|_| Err("its parts do not fit together".into()))
}

/// Builds prompts for one checkpoint and decodes its answers.
pub struct Prompter {
    tokenizer: Tokenizer,
    /// Ids of the control tokens that prompts are made of.
    control: HashMap<String, u32>,
    image_seq_len: usize,
}

impl Prompter {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// When it cannot be read, or does not belong to the model.
    pub fn load(dir: &Path, model: &ModelConfig, processor: &ProcessorConfig) -> Result<Self, LoadError> {
        let (path, text) = read_text(dir, "tokenizer.json")?;
        let mut tokenizer =
            parse(&text).map_err(|source| LoadError::NotATokenizer { path: path.clone(), source })?;
        let wrong = |problem| Err(LoadError::WrongTokenizer { path: path.clone(), problem });
        // The reference does not apply the file's padding and truncation either.
        tokenizer.with_padding(None);
        let untruncated = tokenizer.with_truncation(None).map(|_| ());
        untruncated.map_err(|source| LoadError::NotATokenizer { path: path.clone(), source })?;
        // Control tokens are inserted by id. In text they are tokenized like any other characters.
        tokenizer.set_encode_special_tokens(true);

        let vocab_size = model.text.vocab_size;
        if let Some((token, id)) =
            tokenizer.get_vocab(true).into_iter().find(|(_, id)| *id as usize >= vocab_size)
        {
            return wrong(format!("{token:?} has id {id}, and vocab_size in config.json is {vocab_size}"));
        }
        let mut control = HashMap::new();
        let names =
            |tiles: usize| (1..=tiles).flat_map(move |row| (1..=tiles).map(move |col| tile_name(row, col)));
        let needed =
            if processor.do_image_splitting { processor.image_edge.div_ceil(processor.tile) } else { 0 };
        let special = tokenizer.get_added_tokens_decoder();
        for token in [START, END, FAKE, GLOBAL, IMAGE].into_iter().map(String::from).chain(names(needed)) {
            match tokenizer.token_to_id(&token) {
                Some(id) if special.get(&id).is_some_and(|t| t.special) => control.insert(token, id),
                Some(_) => return wrong(format!("{token:?} is not marked as a special token")),
                None => return wrong(format!("it has no token {token:?}")),
            };
        }
        // A request may ask for more tiles than the checkpoint's own options make.
        for token in names(ImageOptions::MAX_EDGE.div_ceil(processor.tile)) {
            let id = tokenizer.token_to_id(&token);
            if let Some(id) = id.filter(|id| special.get(id).is_some_and(|token| token.special)) {
                control.insert(token, id);
            }
        }
        if control[IMAGE] != model.image_token_id {
            let (here, there) = (control[IMAGE], model.image_token_id);
            return wrong(format!("{IMAGE:?} has id {here}, and image_token_id in config.json is {there}"));
        }
        Ok(Self { tokenizer, control, image_seq_len: processor.image_seq_len })
    }

    /// The parts one after another, without the template of a conversation.
    ///
    /// # Errors
    /// As [`Prompter::build`].
    pub fn build_raw(&self, messages: &[Message]) -> Result<Prompt, PromptError> {
        let mut draft = Draft { prompter: self, prompt: Prompt::default(), run: String::new() };
        messages.iter().flat_map(|message| &message.parts).try_for_each(|part| draft.part(part))?;
        draft.end_run()?;
        Ok(draft.prompt)
    }

    /// The prompt for a conversation, up to where the model answers.
    ///
    /// # Errors
    /// When an image has too many tiles, or the tokenizer fails.
    pub fn build(&self, messages: &[Message]) -> Result<Prompt, PromptError> {
        let mut draft = Draft { prompter: self, prompt: Prompt::default(), run: String::new() };
        draft.control(START)?;
        for message in messages {
            draft.plain(match message.role {
                Role::System => "System:",
                Role::User => "User:",
                Role::Assistant => "Assistant:",
            });
            if !matches!(message.parts.first(), Some(Part::Image { .. })) {
                draft.plain(" ");
            }
            message.parts.iter().try_for_each(|part| draft.part(part))?;
            draft.control(END)?;
            draft.plain("\n");
        }
        draft.plain("Assistant:");
        draft.end_run()?;
        Ok(draft.prompt)
    }

    /// The text of an answer as it grows.
    pub fn text_stream(&self) -> TextStream<'_> {
        TextStream { prompter: self, pending: Vec::new(), blanks: String::new(), begun: false }
    }

    /// The tokens of an answer that begins with this text. The model's answers begin with a space, because nothing follows
    /// the colon of the prompt.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let encoding = self.tokenizer.encode(format!(" {text}"), false).map_err(PromptError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A token as text and bytes; a control token as it is written.
    pub fn token(&self, id: u32) -> Token {
        let bytes = token_bytes(&self.tokenizer.id_to_token(id).unwrap_or_default());
        Token { text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    /// The bytes of each token by its id; those of a control token begin with a byte that no text has, 0xff.
    pub fn vocabulary(&self) -> Vec<Vec<u8>> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut vocabulary = vec![Vec::new(); self.tokenizer.get_vocab_size(true)];
        for (token, id) in self.tokenizer.get_vocab(true) {
            let id = id as usize;
            if vocabulary.len() <= id {
                vocabulary.resize(id + 1, Vec::new());
            }
            vocabulary[id] = token_bytes(&token);
        }
        for (id, _) in added.iter().filter(|(_, token)| token.special) {
            if let Some(bytes) = vocabulary.get_mut(*id as usize) {
                bytes.insert(0, 0xff);
            }
        }
        vocabulary
    }

    /// The text of an answer, trimmed and without control tokens.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, PromptError> {
        let text = self.tokenizer.decode(ids, true).map_err(PromptError::Tokenizer)?;
        Ok(text.trim().into())
    }
}

/// The text of an answer as it grows: all of it together is what [`Prompter::decode`] gives.
pub struct TextStream<'a> {
    prompter: &'a Prompter,
    /// The last tokens: they end within a letter.
    pending: Vec<u32>,
    /// White space that is a part of the answer only if more follows.
    blanks: String,
    /// Some text was given out.
    begun: bool,
}

impl TextStream<'_> {
    /// What the text is continued by with one more token; empty while that is not known.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, PromptError> {
        self.pending.push(id);
        let text = self.decode_pending()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.pending.clear();
        Ok(self.give(&text))
    }

    /// What is left of the text, when no token follows.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn finish(&mut self) -> Result<String, PromptError> {
        let text = self.decode_pending()?;
        Ok(self.give(&text))
    }

    fn decode_pending(&self) -> Result<String, PromptError> {
        self.prompter.tokenizer.decode(&self.pending, true).map_err(PromptError::Tokenizer)
    }

    fn give(&mut self, text: &str) -> String {
        let text = std::mem::take(&mut self.blanks) + text;
        let text = if self.begun { &text } else { text.trim_start() };
        let given = text.trim_end();
        self.blanks = text[given.len()..].to_owned();
        self.begun |= !given.is_empty();
        given.to_owned()
    }
}

/// A prompt under construction.
///
/// The tokenizer splits text at control tokens first and never looks across one. So each run of text between two of them
/// is tokenized on its own, and the result equals the whole prompt tokenized at once.
struct Draft<'a> {
    prompter: &'a Prompter,
    prompt: Prompt,
    /// Text since the last control token.
    run: String,
}

impl Draft<'_> {
    fn part(&mut self, part: &Part) -> Result<(), PromptError> {
        match part {
            Part::Text(text) => self.plain(text),
            Part::Video { times, duration } => self.video(times, *duration)?,
            Part::Image { rows: 0, cols: 0 } => self.whole()?,
            Part::Image { rows, cols } => self.cut_image(*rows, *cols)?,
        }
        Ok(())
    }

    fn plain(&mut self, text: &str) {
        self.run.push_str(text);
    }

    fn end_run(&mut self) -> Result<(), PromptError> {
        if !self.run.is_empty() {
            let run = self.prompter.tokenizer.encode_fast(self.run.as_str(), false);
            self.prompt.ids.extend_from_slice(run.map_err(PromptError::Tokenizer)?.get_ids());
            self.prompt.text.push_str(&self.run);
            self.run.clear();
        }
        Ok(())
    }

    /// Appends a control token. All control tokens were looked up when the tokenizer was loaded.
    fn control(&mut self, token: &str) -> Result<(), PromptError> {
        self.end_run()?;
        self.prompt.ids.push(self.prompter.control[token]);
        self.prompt.text.push_str(token);
        Ok(())
    }

    /// Appends one tile with its name.
    fn tile(&mut self, name: &str) -> Result<(), PromptError> {
        self.control(FAKE)?;
        self.control(name)?;
        for _ in 0..self.prompter.image_seq_len {
            self.control(IMAGE)?;
        }
        self.prompt.image_tokens += self.prompter.image_seq_len;
        Ok(())
    }

    fn whole(&mut self) -> Result<(), PromptError> {
        self.tile(GLOBAL)?;
        self.control(FAKE)
    }

    fn cut_image(&mut self, rows: usize, cols: usize) -> Result<(), PromptError> {
        let mut names = (1..=rows).flat_map(|row| (1..=cols).map(move |col| tile_name(row, col)));
        if !names.all(|name| self.prompter.control.contains_key(&name)) {
            return Err(PromptError::TooManyTiles { rows, cols });
        }
        for row in 1..=rows {
            for col in 1..=cols {
                self.tile(&tile_name(row, col))?;
            }
            self.plain("\n");
        }
        self.plain("\n");
        self.whole()
    }

    fn video(&mut self, times: &[Duration], duration: Duration) -> Result<(), PromptError> {
        let (count, length) = (spelled(times.len()), hours(duration));
        self.plain(&format!(
            "You are provided the following series of {count} frames from a {length} [H:MM:SS] video.\n"
        ));
        for time in times {
            let seconds = time.as_secs();
            self.plain(&format!("\nFrame from {:02}:{:02}:", seconds / 60, seconds % 60));
            self.whole()?;
        }
        self.plain("\n\n");
        Ok(())
    }
}

fn tile_name(row: usize, col: usize) -> String {
    format!("<row_{row}_col_{col}>")
}

/// A duration in whole seconds, formatted like Python's `timedelta`.
fn hours(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let clock = format!("{}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match seconds / 86_400 {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// A number in English words, spelled like num2words.
fn spelled(n: usize) -> String {
    const ONES: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] =
        ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match (n, n % 10, n % 100, n % 1000) {
        (0..20, ..) => ONES[n].into(),
        (20..100, 0, ..) => TENS[n / 10].into(),
        (20..100, one, ..) => format!("{}-{}", TENS[n / 10], ONES[one]),
        (100..1000, _, 0, _) => format!("{} hundred", ONES[n / 100]),
        (100..1000, _, rest, _) => format!("{} hundred and {}", ONES[n / 100], spelled(rest)),
        (_, _, _, 0) => format!("{} thousand", spelled(n / 1000)),
        (_, _, _, rest @ 1..100) => format!("{} thousand and {}", spelled(n / 1000), spelled(rest)),
        (_, _, _, rest) => format!("{} thousand, {}", spelled(n / 1000), spelled(rest)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes() -> (Prompter, Tokenizer) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes");
        let model = ModelConfig::load(&dir).unwrap();
        let processor = ProcessorConfig::load(&dir, &model).unwrap();
        let prompter = Prompter::load(&dir, &model, &processor).unwrap();
        (prompter, Tokenizer::from_file(dir.join("tokenizer.json")).unwrap())
    }

    fn ask(prompter: &Prompter, frames: usize, question: &str) -> Prompt {
        let times = (0..frames as u64).map(Duration::from_secs).collect();
        let video = Part::Video { times, duration: Duration::from_secs(frames as u64) };
        let parts = vec![video, Part::Text(question.into())];
        prompter.build(&[Message { role: Role::User, parts }]).unwrap()
    }

    #[test]
    fn whatever_the_text_only_images_become_image_tokens() {
        let (prompter, _) = shapes();
        let image = prompter.control[IMAGE];
        let hostile = prop::sample::select(vec![
            IMAGE,
            FAKE,
            GLOBAL,
            START,
            END,
            "<video>",
            "<row_1_col_1>",
            "<|im_end|>",
            "\n",
            " ",
            "é",
            "What?",
        ]);
        let text =
            prop_oneof![prop::collection::vec(hostile, 0..6).prop_map(|v| v.concat()), any::<String>()];
        proptest!(ProptestConfig::with_cases(150), |(frames in 0_usize..5, text in text)| {
            let prompt = ask(&prompter, frames, &text);
            let count = |id| prompt.ids.iter().filter(|&&i| i == id).count();
            prop_assert_eq!(count(image), frames * prompter.image_seq_len);
            prop_assert_eq!(count(image), prompt.image_tokens);
            prop_assert_eq!(count(prompter.control[FAKE]), frames * 2);
            prop_assert_eq!(count(prompter.control[START]), 1);
            prop_assert_eq!(count(prompter.control[END]), 1);
        });
    }

    #[test]
    fn tokens_of_plain_text_are_those_of_the_whole_prompt_at_once() {
        let (prompter, whole) = shapes();
        proptest!(ProptestConfig::with_cases(150), |(frames in 0_usize..4, text in "[ a-zA-Z0-9.,?!\n\t'é😀]{0,60}")| {
            let prompt = ask(&prompter, frames, &text);
            let encoding = whole.encode(prompt.text.as_str(), false).unwrap();
            prop_assert_eq!(&prompt.ids[..], encoding.get_ids());
        });
    }

    #[test]
    fn an_image_of_more_tiles_than_the_model_can_name_is_refused() {
        let (prompter, _) = shapes();
        let parts = vec![Part::Image { rows: 4, cols: 7 }];
        let error = prompter.build(&[Message { role: Role::User, parts }]).unwrap_err();
        assert!(matches!(error, PromptError::TooManyTiles { rows: 4, cols: 7 }), "{error}");
    }

    #[test]
    fn a_raw_prompt_is_its_parts_alone() {
        let (prompter, whole) = shapes();
        let parts = vec![Part::Image { rows: 0, cols: 0 }, Part::Text("It is <image> a".into())];
        let prompt = prompter.build_raw(&[Message { role: Role::User, parts }]).unwrap();
        let images = "<image>".repeat(prompt.image_tokens);
        let around = "<fake_token_around_image>";
        assert_eq!(prompt.text, format!("{around}<global-img>{images}{around}It is <image> a"));
        // What the text spells is text.
        let text = whole.encode("It is <image> a", false).unwrap();
        assert!(prompt.ids.ends_with(text.get_ids()) || text.get_ids().contains(&prompter.control[IMAGE]));
        assert_eq!(
            prompt.ids.iter().filter(|id| **id == prompter.control[IMAGE]).count(),
            prompt.image_tokens
        );
    }

    #[test]
    fn large_numbers_are_spelled_like_num2words() {
        // Made with num2words 0.5.14.
        for (n, text) in [
            (0, "zero"),
            (999, "nine hundred and ninety-nine"),
            (1000, "one thousand"),
            (1001, "one thousand and one"),
            (1100, "one thousand, one hundred"),
            (12345, "twelve thousand, three hundred and forty-five"),
        ] {
            assert_eq!(spelled(n), text);
        }
    }

    #[test]
    fn an_answer_is_decoded_without_control_tokens_and_white_space() {
        let (prompter, whole) = shapes();
        let ids = whole.encode(" A red circle.\n<end_of_utterance>", false).unwrap();
        assert_eq!(prompter.decode(ids.get_ids()).unwrap(), "A red circle.");
    }
}
