//! Conversations in a file. Their images and videos are files of this machine, or data URLs; nothing is fetched.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::media;
use crate::{
    chat_format::{self, DataUrl, Part, Turn},
    describe::Describer,
    image_file,
    json_input::{self, Mistake},
    request::{Content, Message, VideoSampling},
};

/// The longest document, bytes: images may stand in it.
const MAX_BYTES: u64 = 512 << 20;

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
    let part = |part: Part| {
        Ok(match part {
            Part::Text(text) => Content::Text(text),
            Part::Image { url, .. } => image(&url, folder)?,
            Part::Video { url } => video(&url, folder, sampling, model)?,
        })
    };
    let message = |Turn { role, parts }: Turn| {
        Ok(Message { role, content: parts.into_iter().map(&part).collect::<anyhow::Result<_>>()? })
    };
    messages.into_iter().map(message).collect()
}

/// The messages of a document: a list, or an object that holds one.
///
/// # Errors
/// What is wrong with it, and where.
fn messages(text: &str) -> Result<Vec<Turn>, Mistake> {
    let document: Value = json_input::from_slice(text.as_bytes())?;
    let list = match document {
        Value::Object(mut object) => object.remove("messages").unwrap_or_default(),
        list => list,
    };
    chat_format::turns(list, "messages")
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
    if let Some(data) = DataUrl::parse(url) {
        return Ok(Place::Data(data.and_then(|data| data.decode()).map_err(anyhow::Error::msg)?));
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
