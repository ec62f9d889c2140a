//! The JSON of answers.

use chrono::Utc;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    answer::{Description, Token, TokenScore},
    event::{FinishReason, Tokens},
};

/// What is told in place of a logarithm that JSON has no number for.
const LEAST_LOGPROB: f32 = -9999.0;

/// What every document of an answer tells.
pub struct Head {
    id: String,
    created: i64,
    model: String,
}

impl Head {
    /// The head of a new answer of `model`.
    pub fn new(model: String) -> Self {
        Self { id: format!("chatcmpl-{}", Uuid::now_v7().simple()), created: Utc::now().timestamp(), model }
    }

    fn document(&self, object: &str) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }

    /// A whole answer. `scores`: of its tokens, if they were asked for.
    pub fn completion(&self, answer: &Description, scores: Option<&[TokenScore]>) -> Value {
        let mut document = self.document("chat.completion");
        document["choices"] = json!([{
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": null},
            "logprobs": scores.map(logprobs),
            "finish_reason": finish_reason(answer.finish_reason),
        }]);
        document["usage"] = usage(answer.tokens);
        document
    }

    /// A piece of an answer that is sent as it is made. `with_usage`: the stream ends with the number of tokens.
    pub fn chunk(&self, choice: Value, with_usage: bool) -> Value {
        let mut document = self.document("chat.completion.chunk");
        document["choices"] = json!([choice]);
        if with_usage {
            document["usage"] = Value::Null;
        }
        document
    }

    /// The last piece: the number of tokens.
    pub fn usage_chunk(&self, tokens: Tokens) -> Value {
        let mut document = self.document("chat.completion.chunk");
        document["choices"] = json!([]);
        document["usage"] = usage(tokens);
        document
    }
}

/// What a piece adds to an answer.
pub fn delta(delta: Value, scores: Option<&[TokenScore]>, finish: Option<FinishReason>) -> Value {
    json!({
        "index": 0,
        "delta": delta,
        "logprobs": scores.map(logprobs),
        "finish_reason": finish.map(finish_reason),
    })
}

fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(tokens: Tokens) -> Value {
    let Tokens { prompt, generated, .. } = tokens;
    json!({"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated})
}

fn logprobs(scores: &[TokenScore]) -> Value {
    let token = |token: &Token, logprob: f32| {
        let logprob = if logprob.is_finite() { logprob } else { LEAST_LOGPROB };
        json!({"token": token.text, "logprob": logprob, "bytes": token.bytes})
    };
    let score = |score: &TokenScore| {
        let mut document = token(&score.token, score.logprob);
        document["top_logprobs"] = score.top.iter().map(|(top, logprob)| token(top, *logprob)).collect();
        document
    };
    json!({"content": scores.iter().map(score).collect::<Vec<_>>(), "refusal": null})
}
