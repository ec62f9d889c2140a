//! Prompts: the default, and what a prompt may hold.

use crate::hub;

/// The prompt where none is configured.
pub const DEFAULT_PROMPT: &str = "Describe what happens in this video in one or two sentences.";

/// The prompt for a still image where none is given.
const IMAGE_PROMPT: &str = "Describe this image in one or two sentences.";

/// The longest prompt, in bytes: more would leave too little of a small model's context for images.
const MAX_PROMPT_BYTES: usize = 4000;

/// The marks that the chat template and the processor use. Within a prompt they would be sent as plain
/// text, which no model was trained on.
const SPECIAL: [&str; 10] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<end_of_utterance>",
    "<image>",
    "<video>",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_",
    "<|reserved_special_token",
];

/// The prompt where none is configured for a camera: the one that the card of `model` names, else [`DEFAULT_PROMPT`].
pub fn default_prompt(model: &str) -> String {
    hub::card_prompt(model).unwrap_or_else(|| DEFAULT_PROMPT.into())
}

/// The prompt for a still image where none is given: the one that the card of `model` names, else one that speaks of an
/// image.
pub fn default_image_prompt(model: &str) -> String {
    hub::card_prompt(model).unwrap_or_else(|| IMAGE_PROMPT.into())
}

/// Checks that `prompt` can be put to a model.
///
/// # Errors
/// What is wrong with the prompt: the rest of a sentence that begins with its name.
pub fn check_prompt(prompt: &str) -> Result<(), String> {
    if prompt.trim().is_empty() {
        return Err("is empty: write what to ask about each clip".into());
    }
    if prompt.len() > MAX_PROMPT_BYTES {
        return Err(format!("is {} bytes long; {MAX_PROMPT_BYTES} are allowed", prompt.len()));
    }
    if prompt.contains(|c: char| c.is_control() && c != '\n') {
        return Err("holds a control character: only line ends are allowed".into());
    }
    check_special_tokens(prompt)
}

/// Checks that `text` holds none of [`SPECIAL`].
///
/// # Errors
/// As [`check_prompt`].
pub(super) fn check_special_tokens(text: &str) -> Result<(), String> {
    match SPECIAL.iter().find(|token| text.contains(**token)) {
        Some(token) => Err(format!("holds {token:?}, which is a special token of the model: remove it")),
        None => Ok(()),
    }
}
