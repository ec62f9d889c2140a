//! Conversations as JSON: `messages` in the format of OpenAI's chat completions, or in that of transformers' chat
//! templates. What media are, and where, is for the caller to say: nothing is read or fetched here.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    json_input::{self, Mistake},
    request::Role,
};

/// A message whose parts were read.
#[derive(Debug, PartialEq)]
pub struct Turn {
    /// Its author.
    pub role: Role,
    /// What it holds, in order.
    pub parts: Vec<Part>,
}

/// A part of a message.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A still image.
    Image {
        /// Where it is: an address, a path, or a data URL.
        url: String,
        /// Whether it is to be looked at as a whole only (`"detail": "low"`).
        low_detail: bool,
    },
    /// A video.
    Video {
        /// Where it is: an address, a path, or a data URL.
        url: String,
    },
}

#[derive(Deserialize)]
struct RawMessage {
    role: RawRole,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// A part by its type, which is taken out of its fields first: so the path of a mistake goes into it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawPart {
    #[serde(alias = "input_text", alias = "output_text")]
    Text {
        text: String,
    },
    // As OpenAI's Decisions API has them.
    InputImage {
        image_url: String,
        detail: Option<String>,
    },
    InputJson {
        data: Value,
    },
    ImageUrl {
        image_url: Address,
    },
    VideoUrl {
        video_url: Address,
    },
    // As transformers' chat templates have them.
    Image {
        #[serde(alias = "path", alias = "image")]
        url: String,
    },
    Video {
        #[serde(alias = "path", alias = "video")]
        url: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an address, or an object with it as its url")]
enum Address {
    Text(String),
    Object { url: String, detail: Option<String> },
}

impl Address {
    fn into_parts(self) -> (String, bool) {
        match self {
            Self::Text(url) => (url, false),
            Self::Object { url, detail } => (url, detail.as_deref() == Some("low")),
        }
    }
}

impl From<RawPart> for Part {
    fn from(part: RawPart) -> Self {
        match part {
            RawPart::Text { text } => Self::Text(text),
            RawPart::InputImage { image_url, detail } => {
                Self::Image { url: image_url, low_detail: detail.as_deref() == Some("low") }
            }
            RawPart::InputJson { data } => Self::Text(data.to_string()),
            RawPart::ImageUrl { image_url } => {
                let (url, low_detail) = image_url.into_parts();
                Self::Image { url, low_detail }
            }
            RawPart::Image { url } => Self::Image { url, low_detail: false },
            RawPart::VideoUrl { video_url } => Self::Video { url: video_url.into_parts().0 },
            RawPart::Video { url } => Self::Video { url },
        }
    }
}

/// Reads a list of messages that stands at `path`.
///
/// # Errors
/// What is wrong with it, and where.
pub fn turns(messages: Value, path: &str) -> Result<Vec<Turn>, Mistake> {
    let Value::Array(list) = messages else {
        return Err(Mistake::new(path, "there is no list of messages"));
    };
    if list.is_empty() {
        return Err(Mistake::new(path, "the list of messages is empty"));
    }
    let turn = |(i, message): (usize, Value)| {
        let path = format!("{path}[{i}]");
        let RawMessage { role, content } = json_input::from_value(message, &path)?;
        let role = match role {
            RawRole::System | RawRole::Developer => Role::System,
            RawRole::User => Role::User,
            RawRole::Assistant => Role::Assistant,
            RawRole::Tool | RawRole::Function => {
                let why = "the model cannot call tools, so none has an answer: leave such messages out";
                return Err(Mistake::new(format!("{path}.role"), why));
            }
        };
        let part = |(k, part): (usize, Value)| read_part(part, &format!("{path}.content[{k}]"));
        let parts = match content {
            Value::String(text) => vec![Part::Text(text)],
            // What called a tool and said nothing.
            Value::Null if role == Role::Assistant => Vec::new(),
            Value::Array(parts) => parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?,
            _ => {
                let why = "it is neither text nor a list of parts";
                return Err(Mistake::new(format!("{path}.content"), why));
            }
        };
        Ok(Turn { role, parts })
    };
    list.into_iter().enumerate().map(turn).collect()
}

/// Reads the part of a message that stands at `path`.
fn read_part(part: Value, path: &str) -> Result<Part, Mistake> {
    let Value::Object(mut fields) = part else {
        return Err(Mistake::new(path, "a part is an object with a type"));
    };
    let Some(Value::String(kind)) = fields.remove("type") else {
        return Err(Mistake::new(path, "a part has a type, such as \"type\": \"text\""));
    };
    let tagged = Value::Object([(kind.clone(), Value::Object(fields))].into_iter().collect());
    json_input::from_value::<RawPart>(tagged, "").map(Part::from).map_err(|Mistake { path: within, why }| {
        // Within is `image_url`, the type, or `image_url.detail`, a field.
        let field = within.strip_prefix(&kind).unwrap_or_default();
        Mistake::new(format!("{path}{field}"), why)
    })
}

/// A data URL: what it says of its data, and the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataUrl<'a> {
    /// The media type, such as `image/jpeg`; empty if none is stated.
    pub media_type: &'a str,
    data: &'a str,
}

impl<'a> DataUrl<'a> {
    /// Takes a data URL apart. `None`: this is another address.
    ///
    /// # Errors
    /// When its data are not base64.
    pub fn parse(url: &'a str) -> Option<Result<Self, String>> {
        const SCHEME: &str = "data:";
        let (scheme, rest) = url.split_at_checked(SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        Some(Self::of_rest(rest))
    }

    fn of_rest(rest: &'a str) -> Result<Self, String> {
        let (kind, data) = rest.split_once(',').ok_or("a data URL has no comma before its data")?;
        let kind = kind.strip_suffix(";base64");
        let kind = kind.ok_or("a data URL is not base64: write data:image/jpeg;base64,…")?;
        Ok(Self { media_type: kind.split(';').next().unwrap_or_default(), data })
    }

    /// The data.
    ///
    /// # Errors
    /// When they are not valid base64.
    pub fn decode(&self) -> Result<Vec<u8>, String> {
        decode(self.data)
    }

    /// How many lists of data stand in it, separated by commas.
    pub fn count(&self) -> usize {
        self.data.split(',').count()
    }

    /// Each of several data that are separated by commas.
    pub fn decode_each(&self) -> impl Iterator<Item = Result<Vec<u8>, String>> {
        self.data.split(',').map(decode)
    }
}

/// Takes base64 with padding and without.
fn decode(data: &str) -> Result<Vec<u8>, String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let invalid = |error| format!("a data URL is not valid base64: {error}");
    // Some encoders break lines.
    if data.contains(|c: char| c.is_ascii_whitespace()) {
        let joined: String = data.split_ascii_whitespace().collect();
        return LENIENT.decode(joined).map_err(invalid);
    }
    LENIENT.decode(data).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_either_format_are_read() {
        let image = |url: &str, low_detail| Part::Image { url: url.into(), low_detail };
        let read = turns(
            json!([
                {"role": "developer", "content": "Be brief.", "name": "x"},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "a", "detail": "low"}},
                    {"type": "image_url", "image_url": "b"},
                    {"type": "image", "path": "c"},
                    {"type": "video_url", "video_url": {"url": "d"}},
                    {"type": "video", "video": "e"},
                ]},
                {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            ]),
            "messages",
        );
        let video = |url: &str| Part::Video { url: url.into() };
        let user = vec![image("a", true), image("b", false), image("c", false), video("d"), video("e")];
        let turn = |role, parts| Turn { role, parts };
        let wanted = vec![
            turn(Role::System, vec![Part::Text("Be brief.".into())]),
            turn(Role::User, user),
            turn(Role::Assistant, vec![Part::Text("Yes.".into())]),
        ];
        assert_eq!(read, Ok(wanted));
    }

    #[test]
    fn what_is_no_message_is_told_with_its_place() {
        for (messages, words) in [
            (json!("Hi"), "messages: there is no list of messages"),
            (json!([]), "messages: the list of messages is empty"),
            (json!([{"role": "user"}]), "messages[0].content: it is neither text nor a list"),
            (json!([{"content": "a"}]), "messages[0]: missing field `role`"),
            (json!(["Hi"]), "messages[0]: invalid type: string \"Hi\""),
            (json!([{"role": "bot", "content": "b"}]), "messages[0].role: unknown variant `bot`"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]),
                "messages[1].role: the model cannot call tools",
            ),
            (json!([{"role": "function"}]), "messages[0].role: the model cannot call tools"),
            (json!([{"role": "user", "content": null}]), "messages[0].content: it is neither"),
        ] {
            let why = turns(messages, "messages").unwrap_err().to_string();
            assert!(why.starts_with(words), "{why}");
        }
        for (part, words) in [
            (json!({"type": "input_audio"}), ": unknown variant `input_audio`"),
            (json!({"text": "a"}), ": a part has a type"),
            (json!("a"), ": a part is an object"),
            (json!({"type": "text"}), ": missing field `text`"),
            (json!({"type": "text", "text": 1}), ".text: invalid type: integer `1`"),
            (json!({"type": "image_url", "image_url": 1}), ".image_url: expected an address"),
        ] {
            let content = [json!({"type": "text", "text": ""}), part];
            let why = turns(json!([{"role": "user", "content": content}]), "input").unwrap_err().to_string();
            let why = why.strip_prefix("input[0].content[1]").unwrap_or_else(|| panic!("{why}"));
            assert!(why.starts_with(words), "{why}");
        }
    }

    #[test]
    fn a_data_url_is_taken_apart() {
        let parsed = DataUrl::parse("DATA:image/png;charset=x;base64,aGk=").unwrap().unwrap();
        assert_eq!((parsed.media_type, parsed.decode()), ("image/png", Ok(b"hi".to_vec())));
        let broken = DataUrl::parse("data:;base64,a G\nk").unwrap().unwrap();
        assert_eq!((broken.media_type, broken.decode()), ("", Ok(b"hi".to_vec())));
        let frames = DataUrl::parse("data:video/jpeg;base64,aGk=,aGE").unwrap().unwrap();
        let each: Result<Vec<_>, _> = frames.decode_each().collect();
        assert_eq!((frames.count(), each), (2, Ok(vec![b"hi".to_vec(), b"ha".to_vec()])));
        assert!(DataUrl::parse("https://example.org/a.png").is_none() && DataUrl::parse("ä.pn").is_none());
        for url in ["data:image/png;base64", "data:image/png,hi"] {
            assert!(DataUrl::parse(url).unwrap().is_err(), "{url}");
        }
        assert!(DataUrl::parse("data:;base64,!!").unwrap().unwrap().decode().is_err());
    }
}
