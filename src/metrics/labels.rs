//! The labels of metrics. Each is a type with fixed values, or a name or an answer that the configuration has
//! checked, so that no text from a camera or a library becomes a label.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::camera::{CameraId, CameraState};

/// Defines an enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}

label! {
    /// A stage between a clip and its description.
    Stage {
        /// Waiting for the model.
        Queued = "queued",
        /// Resizing frames and building the prompt.
        Preprocess = "preprocess",
        /// Vision tower and connector.
        Vision = "vision",
        /// The prompt through the text decoder.
        Prefill = "prefill",
        /// The answer, token by token.
        Decode = "decode",
        /// From the queue to the description.
        Total = "total",
    }
}

label! {
    /// Why a clip has no event.
    Reason {
        /// A newer clip of the same camera replaced it in the queue: the model is slower than the cameras.
        Overload = "overload",
        /// The model could not describe it.
        Undescribed = "undescribed",
        /// Its window had fewer frames than `min_frames`.
        TooFewFrames = "too_few_frames",
        /// Its camera was stopped while it waited for space in the queue.
        Stopped = "stopped",
    }
}

impl Stage {
    /// The stages that the clips of a batch go through together.
    pub const OF_BATCH: [Self; 4] = [Self::Preprocess, Self::Vision, Self::Prefill, Self::Decode];
}

impl TokenKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Prompt, Self::Image, Self::Generated];
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Overload, Self::Undescribed, Self::TooFewFrames, Self::Stopped];
}

label! {
    /// What tokens are part of.
    TokenKind {
        /// The prompts, including the tokens of images.
        Prompt = "prompt",
        /// The images in the prompts.
        Image = "image",
        /// The answers.
        Generated = "generated",
    }
}

label! {
    /// What a request over HTTP is for.
    Route {
        /// `/v1/chat/completions`.
        Chat = "chat_completions",
        /// `/v1/decisions`.
        Decisions = "decisions",
        /// `/v1/models`.
        Models = "models",
        /// Metrics and health.
        Status = "status",
        /// What there is no route for.
        Other = "other",
    }
}

label! {
    /// How a request over HTTP ended.
    StatusClass {
        /// Answered.
        Success = "2xx",
        /// Refused for what the client did.
        ClientError = "4xx",
        /// Refused for the state of camscribe.
        ServerError = "5xx",
        /// The client went away before it was answered.
        Gone = "gone",
    }
}

label! {
    /// Why a request over HTTP was refused.
    Refusal {
        /// 401.
        Unauthorised = "unauthorised",
        /// 403.
        Forbidden = "forbidden",
        /// 413.
        TooLarge = "too_large",
        /// 408.
        TooSlow = "too_slow",
        /// 429.
        Busy = "busy",
        /// 503.
        Unavailable = "unavailable",
        /// Any other 4xx.
        Invalid = "invalid",
        /// Any other 5xx.
        Failed = "failed",
    }
}

label! {
    /// How a question about what a camera shows now ended.
    AskEnd {
        /// It was answered.
        Answered = "answered",
        /// As many were being answered as may.
        Busy = "busy",
        /// The answer was not there in time.
        Expired = "expired",
        /// The camera showed nothing.
        CameraOffline = "camera_offline",
        /// The model could not answer it.
        Failed = "failed",
    }
}

label! {
    /// What became of an alert.
    Switched {
        /// It went on.
        On = "on",
        /// It went off.
        Off = "off",
    }
}

impl AskEnd {
    /// All ends.
    pub const ALL: [Self; 5] = [Self::Answered, Self::Busy, Self::Expired, Self::CameraOffline, Self::Failed];
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Decisions, Self::Models, Self::Status, Self::Other];
}

impl StatusClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Success, Self::ClientError, Self::ServerError, Self::Gone];
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Unauthorised,
        Self::Forbidden,
        Self::TooLarge,
        Self::TooSlow,
        Self::Busy,
        Self::Unavailable,
        Self::Invalid,
        Self::Failed,
    ];
}

impl EncodeLabelValue for CameraState {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

impl EncodeLabelValue for CameraId {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCamera {
    pub camera: CameraId,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfDrop {
    pub camera: CameraId,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfState {
    pub camera: CameraId,
    pub state: CameraState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfStage {
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfShare {
    pub camera: CameraId,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfTokens {
    pub camera: CameraId,
    pub kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct OfQuestion {
    pub camera: CameraId,
    pub question: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct OfAnswer {
    pub camera: CameraId,
    pub question: String,
    pub answer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct OfTransition {
    pub camera: CameraId,
    pub alert: String,
    pub state: Switched,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfAsk {
    pub camera: CameraId,
    pub end: AskEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRequest {
    pub route: Route,
    pub status: StatusClass,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRefusal {
    pub reason: Refusal,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfClientTokens {
    pub kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfDevice {
    pub device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfGpu {
    pub device: String,
    pub name: String,
    pub compute_capability: String,
    pub cuda: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfBuild {
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfModel {
    pub version: String,
    pub model: String,
    pub revision: String,
    pub device: String,
    pub dtype: String,
}
