//! Conversations as JSON: `messages` in the format of OpenAI's chat completions, or in that of transformers' chat
//! templates. Images and videos are files of this machine, or data URLs; nothing is fetched.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use super::media;
use crate::{
    describe::Describer,
    image_file,
    request::{Content, Message, Role, VideoSampling},
};

/// The longest document, bytes: images may stand in it.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Deserialize)]
struct ChatMessage {
    role: ChatRole,
    content: Value,
}

/// A message whose parts were read.
struct Turn {
    role: ChatRole,
    parts: Vec<ChatPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart {
    Text {
        text: String,
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
#[serde(untagged)]
enum Address {
    Text(String),
    Object { url: String },
}

impl Address {
    fn into_url(self) -> String {
        match self {
            Self::Text(url) | Self::Object { url } => url,
        }
    }
}

/// Reads a conversation from `file`; `-` is standard input. Relative paths in it are taken from its folder.
///
/// # Errors
/// When it cannot be read, is no such JSON, or names media that cannot be used.
pub fn read(file: &Path, sampling: VideoSampling, model: &dyn Describer) -> anyhow::Result<Vec<Message>> {
    let is_stdin = file.as_os_str() == "-";
    let mut text = String::new();
    let input: Box<dyn Read> = if is_stdin {
        Box::new(io::stdin())
    } else {
        Box::new(fs::File::open(file).with_context(|| named(file))?)
    };
    input.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(|| named(file))?;
    if text.len() as u64 > MAX_BYTES {
        bail!("{} is longer than {} MB", named(file), MAX_BYTES >> 20);
    }
    let messages = messages(&text).map_err(|why| {
        anyhow::anyhow!(
            "{} holds no conversation: {why}; write a list of messages, each with role and content",
            named(file)
        )
    })?;
    let folder = if is_stdin { Path::new("") } else { file.parent().unwrap_or(Path::new("")) };
    let part = |part: ChatPart| {
        Ok(match part {
            ChatPart::Text { text } => Content::Text(text),
            ChatPart::ImageUrl { image_url } => image(&image_url.into_url(), folder)?,
            ChatPart::Image { url } => image(&url, folder)?,
            ChatPart::VideoUrl { video_url } => video(&video_url.into_url(), folder, sampling, model)?,
            ChatPart::Video { url } => video(&url, folder, sampling, model)?,
        })
    };
    let message = |message: Turn| {
        let role = match message.role {
            ChatRole::System | ChatRole::Developer => Role::System,
            ChatRole::User => Role::User,
            ChatRole::Assistant => Role::Assistant,
        };
        Ok(Message { role, content: message.parts.into_iter().map(&part).collect::<anyhow::Result<_>>()? })
    };
    messages.into_iter().map(message).collect()
}

/// The messages of a document: a list, or an object that holds one.
///
/// # Errors
/// What is wrong with it, and where.
fn messages(text: &str) -> Result<Vec<Turn>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = match document {
        Value::Object(mut object) => object.remove("messages").unwrap_or_default(),
        list => list,
    };
    let Value::Array(list) = list else { return Err("it has no list of messages".into()) };
    if list.is_empty() {
        return Err("its list of messages is empty".into());
    }
    let turn = |(i, message): (usize, Value)| {
        let at = |why: &dyn std::fmt::Display| format!("message {}: {why}", i + 1);
        let ChatMessage { role, content } = serde_json::from_value(message).map_err(|error| at(&error))?;
        let parts = match content {
            Value::String(text) => vec![ChatPart::Text { text }],
            Value::Array(parts) => {
                let parts = parts.into_iter().map(serde_json::from_value);
                parts.collect::<Result<_, _>>().map_err(|error: serde_json::Error| at(&error))?
            }
            _ => return Err(at(&"content is neither text nor a list of parts")),
        };
        Ok(Turn { role, parts })
    };
    list.into_iter().enumerate().map(turn).collect()
}

fn named(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string() }
}

/// Where a medium is.
enum Place {
    File(PathBuf),
    Data(Vec<u8>),
}

fn place(url: &str, folder: &Path) -> anyhow::Result<Place> {
    if let Some(data) = url.strip_prefix("data:") {
        let (kind, data) = data.split_once(',').context("a data URL has no comma before its data")?;
        if !kind.ends_with(";base64") {
            bail!("a data URL is not base64: write data:image/jpeg;base64,…");
        }
        return Ok(Place::Data(BASE64_STANDARD.decode(data).context("a data URL is not valid base64")?));
    }
    match url.split_once("://") {
        Some(("file", path)) => Ok(Place::File(percent_decode_str(path).decode_utf8()?.into_owned().into())),
        Some((scheme, _)) => {
            bail!("{scheme}:// is not fetched: save it on this machine, and write its path")
        }
        None => Ok(Place::File(folder.join(url))),
    }
}

fn image(url: &str, folder: &Path) -> anyhow::Result<Content> {
    let picture = match place(url, folder)? {
        Place::File(path) => media::image(&path)?,
        Place::Data(bytes) => image_file::decode(&bytes).context("the image of a data URL")?,
    };
    Ok(Content::Image(picture))
}

fn video(
    url: &str,
    folder: &Path,
    sampling: VideoSampling,
    model: &dyn Describer,
) -> anyhow::Result<Content> {
    match place(url, folder)? {
        Place::File(path) => Ok(Content::Video(media::video(&path, sampling, model)?)),
        Place::Data(_) => bail!("a video as a data URL is not possible here: write the path of a file"),
    }
}
