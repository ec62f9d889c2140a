//! What the model answers: the text as it is made, then the whole answer or why there is none.

use std::time::Duration;

use crate::event::{FinishReason, Tokens};

/// The model's answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The answer, trimmed and without special tokens.
    pub text: String,
    /// For each question of the request, in order: the logarithms of its labels' probabilities, among all that the model
    /// could say.
    pub labels: Vec<Vec<f32>>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub tokens: Tokens,
    /// Where the time went.
    pub stages: StageTimes,
}

/// Time spent in each stage. Requests that begin together share the stages before the decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Resizing and normalising frames, building prompts.
    pub preprocess: Duration,
    /// Vision tower and connector.
    pub vision: Duration,
    /// The prompts' forward pass through the text decoder.
    pub prefill: Duration,
    /// From the first token of the answer to the last.
    pub decode: Duration,
}

/// Why a request could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// This request cannot be answered; others can.
    #[error("{0}")]
    Request(String),
    /// The device has too little memory for so many requests at once. Fewer may fit.
    #[error("the device has too little memory: {0}")]
    OutOfMemory(String),
    /// This request alone is too large for the device's memory.
    #[error("this request is too large for the device's memory: {0}")]
    TooLarge(String),
    /// Nothing can be described now, but probably can after `retry_after`.
    #[error("the model is not available: {reason}; try again after {} s", retry_after.as_secs())]
    Unavailable {
        /// What is missing.
        reason: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The device failed, and nothing more can be described.
    #[error("the device failed: {0}")]
    Device(String),
}

/// What continues an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// The text; together the pieces of an answer are its text. Empty while a character or a stop text is incomplete.
    pub text: String,
    /// The tokens that were made since the last piece, if the request asks for their probabilities.
    pub scores: Vec<TokenScore>,
}

/// A token of an answer, and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub token: Token,
    /// The logarithm of its probability among all tokens, before temperature and penalties.
    pub logprob: f32,
    /// The most likely tokens at its place with theirs, the most likely first.
    pub top: Vec<(Token, f32)>,
}

/// A token as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The text. Bytes that make no whole character are replaced.
    pub text: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What somebody who asked gets: any number of pieces, then the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// What continues the answer.
    Piece(Piece),
    /// The whole answer, or why there is none.
    End(Result<Description, DescribeError>),
}
