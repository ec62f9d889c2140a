//! Questions about what a camera shows now, as subscribers and clients put them, and the answers to them. Pure: whoever
//! may publish or connect can send anything, and what fails the checks here goes no further.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    camera::CameraId,
    config::{check_answers, check_prompt, units},
    decision::Decision,
    event::{FinishReason, ModelInfo, QuestionAnswer, Tokens, millis},
    json_input::{self, Whole},
};

/// The most tokens of an answer.
const MAX_TOKENS: usize = 2048;
/// The longest name that a caller may give to its question, bytes.
const MAX_REQUEST: usize = 256;

/// The longest text about what is wrong with a question, characters.
const MAX_MISTAKE: usize = 300;

/// A question about the last seconds of a camera.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CameraAsk {
    /// What is asked; none: the camera's own prompt.
    pub question: Option<String>,
    /// The possible answers, of which the most likely is the answer; empty: it is answered in words.
    pub answers: Vec<String>,
    /// How many seconds it is about; none: as long as the camera's window.
    pub last: Option<Duration>,
    /// The longest answer in words, tokens; none: as the camera's descriptions.
    pub max_tokens: Option<usize>,
    /// What the caller calls it. The answer has it, too.
    pub request: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    question: Option<String>,
    #[serde(default)]
    answers: Vec<String>,
    last: Option<String>,
    max_tokens: Option<Whole<u64>>,
    request: Option<String>,
}

impl CameraAsk {
    /// Reads a question: a JSON object, or the text of the question. What is empty asks the camera's own prompt.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        // Which may quote what was sent.
        Self::read(payload).map_err(|why| why.chars().take(MAX_MISTAKE).collect())
    }

    /// What the caller of a question calls it, even if the question is wrong.
    pub fn request_of(payload: &[u8]) -> Option<String> {
        let document: Value = serde_json::from_slice(payload).ok()?;
        document["request"].as_str().filter(|name| is_name(name)).map(Into::into)
    }

    fn read(payload: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(payload).map_err(|_| "it is not UTF-8 text")?.trim();
        let ask = if text.starts_with('{') {
            Self::of(json_input::from_slice(text.as_bytes()).map_err(|mistake| mistake.to_string())?)?
        } else {
            Self { question: Some(text.to_owned()).filter(|text| !text.is_empty()), ..Self::default() }
        };
        ask.check()?;
        Ok(ask)
    }

    fn of(document: Document) -> Result<Self, String> {
        let Document { question, answers, last, max_tokens, request } = document;
        let last = last.map(|last| units::parse_duration(&last).map_err(|why| format!("last: {why}")));
        let tokens = |Whole(tokens)| usize::try_from(tokens).unwrap_or(usize::MAX);
        let question = question.map(|it| it.trim().to_owned());
        Ok(Self { question, answers, last: last.transpose()?, max_tokens: max_tokens.map(tokens), request })
    }

    fn check(&self) -> Result<(), String> {
        if let Some(question) = &self.question {
            check_prompt(question).map_err(|why| format!("question {why}"))?;
        }
        if !self.answers.is_empty() {
            check_answers(&self.answers).map_err(|why| format!("answers {why}"))?;
            if self.question.is_none() {
                return Err("question is missing: answers belong to one".into());
            }
            if self.max_tokens.is_some() {
                return Err("max_tokens is for answers in words: leave it or answers out".into());
            }
        }
        if self.last.is_some_and(|last| last.is_zero()) {
            return Err("last is 0: write how many seconds the question is about, such as \"8s\"".into());
        }
        if self.max_tokens.is_some_and(|most| !(1..=MAX_TOKENS).contains(&most)) {
            return Err(format!("max_tokens must be from 1 to {MAX_TOKENS}"));
        }
        if !self.request.as_deref().is_none_or(is_name) {
            return Err(format!(
                "request is a text of at most {MAX_REQUEST} bytes without control characters"
            ));
        }
        Ok(())
    }

    /// The question as one with probabilities; none: it is answered in words.
    pub fn decision(&self) -> Option<Decision> {
        let instructions = self.question.clone()?;
        let mut lower: Vec<String> = self.answers.iter().map(|answer| answer.to_lowercase()).collect();
        lower.sort();
        Some(match &lower[..] {
            [] => return None,
            [no, yes] if no == "no" && yes == "yes" => Decision::Predicate { instructions },
            _ => Decision::among(instructions, &self.answers),
        })
    }
}

fn is_name(request: &str) -> bool {
    request.len() <= MAX_REQUEST && !request.contains(char::is_control)
}

/// The answer to a [`CameraAsk`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered {
    /// What was asked.
    pub question: String,
    /// The answer in words: what the model says, or the most likely of the possible answers.
    pub text: String,
    /// The possible answers with their probabilities, if such were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<QuestionAnswer>,
    /// Why the words ended.
    pub finish_reason: FinishReason,
    /// When the first of the frames was captured, UTC.
    #[serde(serialize_with = "millis")]
    pub start: DateTime<Utc>,
    /// When the last of the frames was captured, UTC.
    #[serde(serialize_with = "millis")]
    pub end: DateTime<Utc>,
    /// How many frames the model saw.
    pub frames: usize,
    /// The model.
    pub model: ModelInfo,
    /// How many tokens went in and came out.
    pub tokens: Tokens,
    /// From the question to the answer, milliseconds.
    pub total_ms: u64,
}

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many questions wait as may.
    #[error("other questions are being answered: ask again later")]
    Busy,
    /// The answer was not there in time.
    #[error("the answer was not there in time: the model is busy")]
    Expired,
    /// The camera shows nothing now; why.
    #[error("{0}")]
    CameraOffline(String),
    /// There is no such camera.
    #[error("there is no camera {0:?}")]
    NoSuchCamera(String),
    /// The question cannot be put; why.
    #[error("{0}")]
    Invalid(String),
    /// The model cannot answer now; why.
    #[error("{0}")]
    Unavailable(String),
    /// The model could not answer this; why.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// The reason in a word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::CameraOffline(_) => "camera_offline",
            Self::NoSuchCamera(_) => "no_such_camera",
            Self::Invalid(_) => "invalid",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }
}

/// An answer or a refusal as JSON. `request` is what the caller calls its question.
pub fn reply(camera: &CameraId, request: Option<&str>, outcome: &Result<Answered, Refusal>) -> Value {
    let mut document = match outcome {
        Ok(answered) => json!(answered),
        Err(refusal) => json!({ "error": { "code": refusal.code(), "message": refusal.to_string() } }),
    };
    document["camera"] = json!(camera);
    if let Some(request) = request {
        document["request"] = json!(request);
    }
    document
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(payload: &str) -> Result<CameraAsk, String> {
        CameraAsk::parse(payload.as_bytes())
    }

    #[test]
    fn a_question_is_a_text_or_an_object_and_nothing_is_the_cameras_own_prompt() {
        assert_eq!(parse(" {} "), Ok(CameraAsk::default()));
        assert_eq!(parse(""), Ok(CameraAsk::default()));
        assert_eq!(parse("Who is there?\n").unwrap().question.as_deref(), Some("Who is there?"));
        let asked =
            r#"{"question": "Is it open?", "answers": ["open", "shut"], "last": "3s", "request": "7"}"#;
        let asked = parse(asked).unwrap();
        assert_eq!(
            asked,
            CameraAsk {
                question: Some("Is it open?".into()),
                answers: vec!["open".into(), "shut".into()],
                last: Some(Duration::from_secs(3)),
                max_tokens: None,
                request: Some("7".into()),
            }
        );
        assert!(matches!(asked.decision(), Some(Decision::Choice { options, .. }) if options.len() == 2));
        let yes_or_no = parse(r#"{"question": "Is it open?", "answers": ["Yes", "no"]}"#).unwrap();
        assert_eq!(yes_or_no.decision(), Some(Decision::Predicate { instructions: "Is it open?".into() }));
        assert_eq!(parse(r#"{"max_tokens": 7.0}"#).unwrap().max_tokens, Some(7));
        assert_eq!(parse("What?").unwrap().decision(), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (payload, why) in [
            (r#"{"question": 7}"#, "question: "),
            (r#"{"question": " "}"#, "question is empty"),
            (r#"{"question": "a <image> b"}"#, "special token"),
            (r#"{"qestion": "What?"}"#, "qestion"),
            (r#"{"answers": ["a", "b"]}"#, "question is missing"),
            (r#"{"question": "What?", "answers": ["a"]}"#, "answers has 1 of 2 to 20"),
            (r#"{"question": "What?", "answers": ["a", "b"], "max_tokens": 5}"#, "leave it or answers out"),
            (r#"{"last": "soon"}"#, "last: "),
            (r#"{"last": "0s"}"#, "last is 0"),
            (r#"{"max_tokens": 0}"#, "from 1 to 2048"),
            (r#"{"max_tokens": -1}"#, "max_tokens"),
            (r#"{"max_tokens": 1e300}"#, "max_tokens"),
            (r#"{"request": "a\u0000b"}"#, "request is a text"),
            (r#"{"question": "What?""#, "EOF"),
            ("a\u{7}b", "control character"),
        ] {
            let refused = parse(payload).unwrap_err();
            assert!(refused.contains(why), "{payload}: {refused}");
        }
        assert!(CameraAsk::parse(b"\xff").unwrap_err().contains("UTF-8"));
        let long = format!(r#"{{"{}": 1, "request": "7"}}"#, "é".repeat(30_000));
        assert_eq!(parse(&long).unwrap_err().chars().count(), MAX_MISTAKE);
        assert_eq!(CameraAsk::request_of(long.as_bytes()).as_deref(), Some("7"));
        assert_eq!(CameraAsk::request_of(br#"{"request": "a\u0000b"}"#), None);
        assert!(parse(&"x".repeat(5000)).is_err());
    }

    #[test]
    fn a_reply_has_the_callers_request_and_the_reason_in_a_word() {
        let camera: CameraId = "porch".parse().unwrap();
        let refused = reply(&camera, Some("7"), &Err(Refusal::CameraOffline("porch is offline".into())));
        let expected = json!({
            "camera": "porch", "request": "7",
            "error": { "code": "camera_offline", "message": "porch is offline" },
        });
        assert_eq!(refused, expected);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_bounded_question_or_one_sentence(payload in any::<Vec<u8>>()) {
            match CameraAsk::parse(&payload) {
                Ok(ask) => prop_assert!(ask.answers.len() <= 20 && ask.question.is_none_or(|it| it.len() <= 4000)),
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }
    }
}
