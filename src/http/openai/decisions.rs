//! `POST /v1/decisions`: typed questions about a conversation. Nothing is generated: the answers are probabilities.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{api_error::ApiError, connections::Connection, exchange::Exchange},
    answer::Answer,
    body::{Chat, Delivery, check_length, from_json, is_low_detail},
    chat::refused,
    intake::{Api, Question},
    processor::{MediaOptions, ProcessorOptions},
};
use crate::{
    answer::{Description, Part},
    chat_format,
    decision::{self, Choice, Decided, Decision},
    event::Tokens,
    request::{self, VideoSampling},
};

/// The most questions of a request.
const MAX_QUESTIONS: usize = 64;
/// The most choices of a question, and levels of a score.
const MAX_CHOICES: usize = 64;
const MAX_LEVELS: usize = 10;
/// The text of all questions, bytes: choices count twice.
const MAX_TEXT: usize = 256 << 10;
/// The longest label, bytes.
const MAX_LABEL: usize = 256;

/// The field of the conversation.
const INPUT: &str = "input";

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    input: Option<Value>,
    #[serde(default)]
    questions: Vec<Value>,
    mm_processor_kwargs: Option<ProcessorOptions>,
    media_io_kwargs: Option<MediaOptions>,
}

#[derive(Deserialize)]
struct Asked {
    name: Option<String>,
    instructions: Instructions,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Kind {
    Predicate,
    Choice { choices: Vec<AskedChoice> },
    Score { levels: Vec<Level> },
}

#[derive(Deserialize)]
struct AskedChoice {
    value: Value,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Level {
    label: String,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Instructions {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TextPart {
    InputText { text: String },
    InputJson { data: Value },
}

/// A question, and how its answer is written.
struct Named {
    name: Option<String>,
    decision: Decision,
    /// The choices as the client wrote them: texts or truth values.
    values: Vec<Value>,
}

/// Answers typed questions.
pub async fn decide(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<Arc<Connection>>,
    Extension(exchange): Extension<Arc<Exchange>>,
    request: Request,
) -> Result<Response, ApiError> {
    let place = api.place(connection)?;
    let (Question { model, request, pixels, .. }, questions) = api.read(request, parse).await?;
    let parts = (api.source.ask)(request).map_err(refused)?;
    let mut answer = Answer::new(parts, pixels, exchange, place);
    let description = loop {
        if let Part::End(end) = answer.next().await {
            break end?;
        }
    };
    let document = document(&model.id, &questions, description);
    Ok(([(CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it.
fn parse(body: &[u8]) -> Result<(Chat, Vec<Named>), ApiError> {
    let body: Body = from_json(body)?;
    let wrong = |field| move |why: String| ApiError::wrong_field(field, why);
    let messages = match body.input {
        Some(Value::String(text)) => json!([{"role": "user", "content": text}]),
        other => other.unwrap_or_default(),
    };
    let turns = chat_format::turns(messages, INPUT)?;
    check_length(&turns).map_err(wrong(INPUT))?;
    if !(1..=MAX_QUESTIONS).contains(&body.questions.len()) {
        return Err(wrong("questions")(format!("there must be 1 to {MAX_QUESTIONS}")));
    }
    let named = |(i, question): (usize, Value)| {
        Named::read(question).map_err(|why| ApiError::wrong_field(format!("questions[{i}]"), why))
    };
    let questions = body.questions.into_iter().enumerate().map(named).collect::<Result<Vec<_>, _>>()?;
    let processor = body.mm_processor_kwargs.unwrap_or_default();
    let video = body.media_io_kwargs.unwrap_or_default().video();
    let images = processor.images(is_low_detail(&turns)).map_err(wrong("mm_processor_kwargs"))?;
    let sampling: VideoSampling = video.sampling(&processor).map_err(wrong("media_io_kwargs"))?;
    let asked: Vec<decision::Question> = questions.iter().flat_map(|it| it.decision.questions()).collect();
    if asked.iter().map(|question| question.text.len()).sum::<usize>() > MAX_TEXT {
        return Err(wrong("questions")(format!("they have more than {} KB of text", MAX_TEXT >> 10)));
    }
    let request = request::Request { questions: asked, images, ..request::Request::default() };
    let chat = Chat {
        model: body.model,
        delivery: Delivery::default(),
        turns,
        path: INPUT,
        video,
        sampling,
        request,
    };
    Ok((chat, questions))
}

impl Named {
    fn read(question: Value) -> Result<Self, String> {
        let Asked { name, instructions, kind } =
            serde_json::from_value(question).map_err(|error| error.to_string())?;
        let instructions = match instructions {
            Instructions::Text(text) => text,
            Instructions::Parts(parts) => {
                let text = parts.into_iter().map(|part| match part {
                    TextPart::InputText { text } => text,
                    TextPart::InputJson { data } => data.to_string(),
                });
                text.collect::<Vec<_>>().join("\n")
            }
        };
        let (decision, values) = match kind {
            Kind::Predicate => (Decision::Predicate { instructions }, Vec::new()),
            Kind::Choice { choices } => {
                let choice = |AskedChoice { value, description }| match &value {
                    Value::String(label) => Ok((Choice { label: label.clone(), description }, value)),
                    Value::Bool(label) => Ok((Choice { label: label.to_string(), description }, value)),
                    _ => Err("the value of a choice is a text or a truth value".to_owned()),
                };
                let choices = choices.into_iter().map(choice).collect::<Result<Vec<_>, _>>()?;
                let (options, values) = choices.into_iter().unzip();
                (Decision::Choice { instructions, options: checked(options, MAX_CHOICES)? }, values)
            }
            Kind::Score { levels } => {
                let level = |Level { label, description }| Choice { label, description };
                let levels = levels.into_iter().map(level).collect();
                (Decision::Score { instructions, levels: checked(levels, MAX_LEVELS)? }, Vec::new())
            }
        };
        Ok(Self { name, decision, values })
    }

    fn answer(&self, decided: &Decided) -> Value {
        let Decided { probabilities, winner, confidence } = decided;
        match &self.decision {
            Decision::Predicate { .. } => json!({
                "type": "predicate",
                "name": self.name,
                "probability": probabilities.first(),
                "confidence": confidence,
            }),
            Decision::Choice { .. } => {
                let each = self.values.iter().zip(probabilities);
                let each = each.map(|(value, it)| json!({"value": value, "probability": it}));
                json!({
                    "type": "choice",
                    "name": self.name,
                    "choice": self.values.get(*winner),
                    "confidence": confidence,
                    "probabilities": each.collect::<Vec<_>>(),
                })
            }
            Decision::Score { levels, .. } => {
                let each = levels.iter().zip(probabilities).enumerate().map(
                    |(value, (level, it))| json!({"label": level.label, "value": value, "probability": it}),
                );
                json!({
                    "type": "score",
                    "name": self.name,
                    "score": decided.expected(),
                    "confidence": confidence,
                    "probabilities": each.collect::<Vec<_>>(),
                })
            }
        }
    }
}

/// Checks what can be answered.
fn checked(options: Vec<Choice>, most: usize) -> Result<Vec<Choice>, String> {
    if !(2..=most).contains(&options.len()) {
        return Err(format!("there must be 2 to {most} possible answers"));
    }
    for (i, option) in options.iter().enumerate() {
        if option.label.trim().is_empty() || option.label.len() > MAX_LABEL {
            return Err(format!("a possible answer is a text of 1 to {MAX_LABEL} bytes"));
        }
        if options[..i].iter().any(|earlier| earlier.label == option.label) {
            return Err(format!("{:?} stands twice among the possible answers", option.label));
        }
    }
    Ok(options)
}

fn document(model: &str, questions: &[Named], description: Description) -> Value {
    let Description { labels, tokens: Tokens { prompt, .. }, .. } = description;
    let mut labels = &labels[..];
    let answer = |question: &Named| {
        let (own, rest) = labels.split_at(question.decision.questions().len().min(labels.len()));
        labels = rest;
        question.answer(&Decision::decide(own))
    };
    let answers: Vec<Value> = questions.iter().map(answer).collect();
    json!({
        "object": "decision",
        "model": model,
        "answers": answers,
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt,
        },
    })
}
