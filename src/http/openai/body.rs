//! The body of a chat request: JSON in, a checked request without its media out. What a client sends beside the fields
//! that are known here is ignored, as other servers of this format do; what would change the answer and cannot be done
//! is refused.

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    super::api_error::ApiError,
    processor::{MediaOptions, ProcessorOptions, VideoOptions},
};
use crate::{
    chat_format::{self, Part, Turn},
    json_input::{self, Whole},
    request::{AnswerFormat, Request, Sampling, VideoSampling},
};

/// The longest answer where the request does not say, in tokens.
const DEFAULT_MAX_TOKENS: u64 = 512;
/// The longest answer that may be asked for, in tokens. That of the model may be shorter.
const MAX_MAX_TOKENS: u64 = 1 << 20;
/// The most texts that end an answer, and their length in bytes.
const MAX_STOP: usize = 4;
const MAX_STOP_BYTES: usize = 256;
/// The most tokens that are told beside the chosen one.
const MAX_TOP_LOGPROBS: u64 = 20;
/// The most messages, the most parts of all of them together, and their text in bytes. It is far above what any model
/// here can read, and below what takes long to cut into tokens.
const MAX_MESSAGES: usize = 1024;
const MAX_PARTS: usize = 1024;
const MAX_TEXT: usize = 256 << 10;
/// The most values of a body. Each takes many times its length in memory.
const MAX_VALUES: usize = 500_000;
/// The longest JSON schema in bytes, and the most references in it: it is compiled on one stack.
const MAX_SCHEMA: usize = 64 << 10;
const MAX_REFERENCES: usize = 64;

/// The field of the conversation.
const MESSAGES: &str = "messages";

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<Whole<u64>>,
    max_completion_tokens: Option<Whole<u64>>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Whole<i64>>,
    min_p: Option<f64>,
    seed: Option<Whole<i64>>,
    repetition_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    stop: Option<Stop>,
    n: Option<Whole<u64>>,
    logprobs: Option<bool>,
    top_logprobs: Option<Whole<u64>>,
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    modalities: Option<Vec<String>>,
    audio: Option<Value>,
    mm_processor_kwargs: Option<ProcessorOptions>,
    media_io_kwargs: Option<MediaOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

#[derive(Deserialize)]
struct NamedSchema {
    schema: Option<Value>,
}

/// A chat request whose media are still encoded.
pub struct Chat {
    /// The model that is asked for.
    pub model: Option<String>,
    /// How the answer is sent.
    pub delivery: Delivery,
    /// The conversation.
    pub turns: Vec<Turn>,
    /// The field of the body that it stands in.
    pub path: &'static str,
    /// What frames are told of, and which frames of video files are taken.
    pub video: VideoOptions,
    /// Which frames of video files are taken.
    pub sampling: VideoSampling,
    /// Everything else. Its messages are empty.
    pub request: Request,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Word by word.
    pub stream: bool,
    /// With the number of tokens at the end of the stream.
    pub include_usage: bool,
}

impl Chat {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body: Body = from_json(body)?;
        body.refuse_unsupported()?;
        let wrong = |field| move |why: String| ApiError::wrong_field(field, why);
        let (sampling, stop, logprobs) = (body.sampling()?, body.stop()?, body.logprobs()?);
        let max_tokens = body.max_tokens()?;
        let format = match body.response_format {
            None | Some(ResponseFormat::Text) => AnswerFormat::Text,
            Some(ResponseFormat::JsonObject) => AnswerFormat::Json,
            Some(ResponseFormat::JsonSchema { json_schema: NamedSchema { schema: Some(schema) } }) => {
                check_schema(&schema).map_err(wrong("response_format"))?;
                AnswerFormat::Schema(Arc::new(schema))
            }
            Some(ResponseFormat::JsonSchema { .. }) => {
                return Err(wrong("response_format")("json_schema has no schema".into()));
            }
        };
        let turns = chat_format::turns(body.messages.unwrap_or_default(), MESSAGES)?;
        check_length(&turns).map_err(wrong(MESSAGES))?;
        let processor = body.mm_processor_kwargs.unwrap_or_default();
        let video = body.media_io_kwargs.unwrap_or_default().video();
        let images = processor.images(is_low_detail(&turns)).map_err(wrong("mm_processor_kwargs"))?;
        let of_files = video.sampling(&processor).map_err(wrong("media_io_kwargs"))?;
        let include_usage = body.stream_options.and_then(|options| options.include_usage);
        Ok(Self {
            model: body.model,
            delivery: Delivery {
                stream: body.stream.unwrap_or(false),
                include_usage: include_usage.unwrap_or(false),
            },
            turns,
            path: MESSAGES,
            video,
            sampling: of_files,
            request: Request { max_tokens, sampling, images, stop, logprobs, format, ..Request::default() },
        })
    }
}

impl Body {
    /// Refuses what would change the answer and cannot be done.
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let has_tools = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let may_call = self.tool_choice.as_ref().is_none_or(|choice| choice != "none");
        let is_set = |number: Option<f64>| number.is_some_and(|number| number != 0.0);
        let other_than_text =
            |list: &Vec<String>| list.iter().any(|modality| !modality.eq_ignore_ascii_case("text"));
        let refusals = [
            (self.n.is_some_and(|n| n != Whole(1)), "n", "only one answer a request is possible"),
            (
                may_call && (has_tools(&self.tools) || has_tools(&self.functions)),
                "tools",
                "the model cannot call tools: leave them out, or set tool_choice to \"none\"",
            ),
            (
                is_set(self.frequency_penalty),
                "frequency_penalty",
                "only 0 is possible: use repetition_penalty",
            ),
            (is_set(self.presence_penalty), "presence_penalty", "only 0 is possible: use repetition_penalty"),
            (is_set(self.min_p), "min_p", "only 0 is possible: use top_p or top_k"),
            (
                self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()),
                "logit_bias",
                "it is not possible: leave it out",
            ),
            (
                self.audio.is_some() || self.modalities.as_ref().is_some_and(other_than_text),
                "modalities",
                "the model answers with text only",
            ),
        ];
        match refusals.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            Some((_, field, why)) => Err(ApiError::wrong_field(field, why)),
            None => Ok(()),
        }
    }

    fn max_tokens(&self) -> Result<usize, ApiError> {
        let asked = self.max_completion_tokens.or(self.max_tokens).map_or(DEFAULT_MAX_TOKENS, |it| it.0);
        if asked == 0 {
            return Err(ApiError::wrong_field("max_tokens", "it must be at least 1"));
        }
        Ok(asked.min(MAX_MAX_TOKENS) as usize)
    }

    fn sampling(&self) -> Result<Sampling, ApiError> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            // As vLLM has it, -1 is all, too.
            top_k: self.top_k.map(|k| usize::try_from(k.0).unwrap_or(0)),
            repetition_penalty: self.repetition_penalty,
            // Only to be the same again.
            seed: self.seed.map_or(0, |seed| seed.0).cast_unsigned(),
        };
        sampling.check().map_err(ApiError::bad_request)?;
        Ok(sampling)
    }

    fn stop(&self) -> Result<Vec<String>, ApiError> {
        let stop = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text.clone()],
            Some(Stop::Several(texts)) => texts.clone(),
        };
        let is_usable = |text: &String| (1..=MAX_STOP_BYTES).contains(&text.len());
        if stop.len() > MAX_STOP || !stop.iter().all(is_usable) {
            let why = format!("it must be up to {MAX_STOP} texts of 1 to {MAX_STOP_BYTES} bytes");
            return Err(ApiError::wrong_field("stop", why));
        }
        Ok(stop)
    }

    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let wrong = |why: &str| ApiError::wrong_field("top_logprobs", why);
        let top = self.top_logprobs.map_or(0, |top| top.0);
        match self.logprobs.unwrap_or(false) {
            false if top > 0 => Err(wrong("it needs logprobs = true beside it")),
            false => Ok(None),
            true if top > MAX_TOP_LOGPROBS => Err(wrong(&format!("it must be from 0 to {MAX_TOP_LOGPROBS}"))),
            true => Ok(Some(top as usize)),
        }
    }
}

/// Reads JSON of a bounded number of values.
///
/// # Errors
/// What is wrong with it.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Commas in texts count, too: texts are short.
    let values = body.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(ApiError::bad_request(format!("the body holds more than {MAX_VALUES} values")));
    }
    Ok(json_input::from_slice(body)?)
}

/// Checks how long a conversation is.
///
/// # Errors
/// What there is too much of.
pub fn check_length(turns: &[Turn]) -> Result<(), String> {
    let parts = || turns.iter().flat_map(|turn| &turn.parts);
    let text = |part: &Part| if let Part::Text(text) = part { text.len() } else { 0 };
    if turns.len() > MAX_MESSAGES {
        return Err(format!("there are more than {MAX_MESSAGES} messages"));
    }
    if parts().count() > MAX_PARTS {
        return Err(format!("there are more than {MAX_PARTS} parts"));
    }
    if parts().map(text).sum::<usize>() > MAX_TEXT {
        return Err(format!("there are more than {} KB of text", MAX_TEXT >> 10));
    }
    Ok(())
}

/// Checks that a schema takes little to compile.
fn check_schema(schema: &Value) -> Result<(), String> {
    fn references(value: &Value) -> usize {
        match value {
            Value::Object(fields) => {
                let own = fields.keys().filter(|key| key.ends_with("Ref") || key.ends_with("ref")).count();
                own + fields.values().map(references).sum::<usize>()
            }
            Value::Array(values) => values.iter().map(references).sum(),
            _ => 0,
        }
    }
    if schema.to_string().len() > MAX_SCHEMA {
        return Err(format!("the schema is longer than {} KB", MAX_SCHEMA >> 10));
    }
    if references(schema) > MAX_REFERENCES {
        return Err(format!("the schema has more than {MAX_REFERENCES} references"));
    }
    Ok(())
}

/// Whether all images are to be looked at as wholes only.
pub fn is_low_detail(turns: &[Turn]) -> bool {
    let mut images = turns.iter().flat_map(|turn| &turn.parts).filter_map(|part| match part {
        Part::Image { low_detail, .. } => Some(*low_detail),
        Part::Text(_) | Part::Video { .. } => None,
    });
    images.next().is_some_and(|first| first && images.all(|low| low))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(fields: Value) -> Result<Chat, String> {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let message = |error: ApiError| error.document()["error"]["message"].as_str().unwrap().to_owned();
        Chat::parse(body.to_string().as_bytes()).map_err(message)
    }

    #[test]
    fn known_fields_are_taken_and_others_ignored() {
        let chat = parse(json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 5,
            "temperature": 0.5, "top_p": 0.9, "top_k": -1, "seed": -1, "repetition_penalty": 1.1, "stop": "END",
            "n": 1, "logprobs": true, "top_logprobs": 3, "frequency_penalty": 0, "presence_penalty": 0.0,
            "logit_bias": {}, "tools": [], "user": "x", "reasoning_effort": "low", "audio": null,
            "response_format": {"type": "json_object"}, "modalities": ["text"],
        }))
        .unwrap();
        assert_eq!(chat.model.as_deref(), Some("m"));
        assert_eq!(chat.delivery, Delivery { stream: true, include_usage: true });
        let Request { max_tokens, sampling, stop, logprobs, format, .. } = chat.request;
        assert_eq!(
            (max_tokens, stop, logprobs, format),
            (5, vec!["END".into()], Some(3), AnswerFormat::Json)
        );
        assert_eq!((sampling.top_k, sampling.seed, sampling.temperature), (Some(0), u64::MAX, Some(0.5)));
        let plain = parse(json!({"max_completion_tokens": 7, "max_tokens": 5})).unwrap();
        assert_eq!((plain.request.max_tokens, plain.delivery), (7, Delivery::default()));
        assert_eq!(parse(json!({})).unwrap().request.max_tokens, 512);
        let schema = json!({"type": "object"});
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
        let format = parse(json!({"response_format": format})).unwrap().request.format;
        assert_eq!(format, AnswerFormat::Schema(Arc::new(schema)));
        assert!(parse(json!({"tools": [{"type": "function"}], "tool_choice": "none"})).is_ok());
    }

    #[test]
    fn whole_numbers_may_be_written_as_fractions() {
        let chat = parse(json!({
            "max_tokens": 100.0, "n": 1.0, "top_k": 40.0, "seed": 7.0, "logprobs": true, "top_logprobs": 2.0,
            "mm_processor_kwargs": {"size": {"longest_edge": 512.0}, "num_frames": 8.0},
            "media_io_kwargs": {"video": {"num_frames": -1.0, "frames_indices": [0.0], "total_num_frames": 9.0}},
        }))
        .unwrap();
        let Request { max_tokens, sampling, logprobs, images, .. } = chat.request;
        assert_eq!((max_tokens, sampling.top_k, sampling.seed, logprobs), (100, Some(40), 7, Some(2)));
        assert_eq!((images.longest_edge, chat.sampling.max_frames), (Some(512), Some(8)));
        assert!(parse(json!({"n": 2.0})).err().unwrap().contains("n: only one answer"));
    }

    #[test]
    fn what_has_the_wrong_type_is_told_with_its_path() {
        let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"link": "a"}}]});
        for (fields, path) in [
            (json!({"max_tokens": 1.5}), "max_tokens"),
            (json!({"temperature": "x".repeat(100_000)}), "temperature"),
            (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
            (json!({"stop": 1}), "stop"),
            (
                json!({"mm_processor_kwargs": {"size": {"longest_edge": -1}}}),
                "mm_processor_kwargs.size.longest_edge",
            ),
            (
                json!({"media_io_kwargs": {"video": {"frames_indices": [0, "x"]}}}),
                "media_io_kwargs.video.frames_indices[1]",
            ),
            (json!({"messages": [image]}), "messages[0].content[0].image_url"),
            (json!({"messages": [{"role": "tool", "content": "a"}]}), "messages[0].role"),
        ] {
            let error = Chat::parse(fields.to_string().as_bytes()).err().unwrap();
            assert_eq!(error.document()["error"]["param"], path);
            assert!(error.message().starts_with(&format!("{path}: ")), "{}", error.message());
            assert!(error.message().chars().count() <= 501, "{}", error.message());
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_field() {
        for (fields, words) in [
            (json!({"n": 2}), "n: only one answer"),
            (json!({"tools": [{"type": "function"}]}), "tools: the model cannot call tools"),
            (json!({"functions": [{}], "tool_choice": "auto"}), "tools: "),
            (json!({"frequency_penalty": 0.5}), "frequency_penalty: only 0"),
            (json!({"presence_penalty": -1}), "presence_penalty: only 0"),
            (json!({"min_p": 0.1}), "min_p: "),
            (json!({"logit_bias": {"1": 2}}), "logit_bias: "),
            (json!({"modalities": ["text", "audio"]}), "text only"),
            (json!({"audio": {"voice": "x"}}), "text only"),
            (json!({"max_tokens": 0}), "at least 1"),
            (json!({"max_tokens": -1}), "max_tokens: invalid value: integer `-1`, expected u64"),
            (json!({"temperature": -1}), "temperature is -1"),
            (json!({"top_p": 2}), "top_p is 2"),
            (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop: it must be"),
            (json!({"stop": ""}), "stop: it must be"),
            (json!({"top_logprobs": 2}), "needs logprobs"),
            (json!({"logprobs": true, "top_logprobs": 21}), "from 0 to 20"),
            (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "has no schema"),
            (
                json!({"response_format": {"type": "grammar"}}),
                "response_format.type: unknown variant `grammar`",
            ),
            (json!({"messages": []}), "messages: the list of messages is empty"),
            (
                json!({"messages": [{"role": "user", "content": vec![json!({"type": "text", "text": ""}); 1025]}]}),
                "more than 1024 parts",
            ),
            (
                json!({"messages": [{"role": "user", "content": "x".repeat(300_000)}]}),
                "more than 256 KB of text",
            ),
            (json!({"tools": vec![0; 600_000]}), "more than 500000 values"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"schema": {"enum": vec!["x".repeat(100); 1000]}}}}),
                "longer than 64 KB",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"schema": {"allOf": vec![json!({"$ref": "#"}); 65]}}}}),
                "more than 64 references",
            ),
            (json!({"mm_processor_kwargs": {"size": {"longest_edge": 9999}}}), "from 1 to 4096"),
            (json!({"media_io_kwargs": {"video": {"fps": -1}}}), "fps must be above 0"),
        ] {
            let why = parse(fields.clone()).err().unwrap_or_default();
            assert!(why.contains(words), "{fields}: {why}");
        }
        for body in ["", "{", "[]", "NaN", "{\"temperature\": 1e999}", &"[".repeat(100_000)] {
            assert!(Chat::parse(body.as_bytes()).is_err(), "{body:.20}");
        }
    }

    #[test]
    fn images_are_whole_if_all_of_them_are_of_low_detail() {
        let split = |details: &[Option<&str>]| {
            let part =
                |detail| json!({"type": "image_url", "image_url": {"url": "data:,", "detail": detail}});
            let parts: Vec<_> = details.iter().map(part).collect();
            parse(json!({"messages": [{"role": "user", "content": parts}]})).unwrap().request.images.split
        };
        assert_eq!(split(&[Some("low"), Some("low")]), Some(false));
        for details in [&[][..], &[None], &[Some("high")], &[Some("low"), Some("auto")]] {
            assert_eq!(split(details), None, "{details:?}");
        }
    }
}
