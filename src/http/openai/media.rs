//! Images and videos of a request: data URLs in, pixels out. Nothing is fetched, and no file is opened.

use std::{fmt::Display, time::Duration};

use super::{
    super::api_error::ApiError,
    body::Chat,
    processor::VideoOptions,
    source::{Film, FilmReader},
};
use crate::{
    chat_format::{DataUrl, Part, Turn},
    image_file::{self, ImageFileError},
    request::{Content, Message, Picture, Request, Role, Video, VideoSampling},
    resize::{FrameScaler, FrameScaling, RgbImage},
};

/// The most images and frames of a request.
const MAX_PICTURES: usize = 256;
/// The pixels of a request, bytes.
const MAX_PIXEL_BYTES: u64 = 512 << 20;
/// The media type of a video that is sent as frames.
const FRAMES: &str = "video/jpeg";
/// The most that the frames of a video file may have, bytes. They are scaled down: 128 of 512 x 512 pixels have 96 MB.
const FILM_BYTES: u64 = 128 << 20;

/// A conversation whose images and videos are still encoded.
pub struct Encoded {
    turns: Vec<(Role, Vec<EncodedPart>)>,
    /// The field of the body that it stands in.
    path: &'static str,
    /// How the model scales frames down first.
    scaling: Option<FrameScaling>,
}

enum EncodedPart {
    Text(String),
    Image(Vec<u8>),
    Frames { jpegs: Vec<Vec<u8>>, times: Vec<Duration>, duration: Duration },
    Film(Vec<u8>),
}

/// Reads a request without its limits on memory: its body in, what is asked out.
///
/// # Errors
/// What is wrong with it.
pub fn read_request(body: &[u8], film: &FilmReader) -> Result<Request, ApiError> {
    let mut chat = Chat::parse(body)?;
    let encoded = Encoded::read(&mut chat, None)?;
    encoded.pixel_bytes()?;
    Ok(Request { messages: encoded.decode(chat.sampling, film, &|| false)?, ..chat.request })
}

impl Encoded {
    /// Takes the conversation out of `chat`, and its media out of their data URLs. `scaling`: how the model scales
    /// frames down first.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn read(chat: &mut Chat, scaling: Option<FrameScaling>) -> Result<Self, ApiError> {
        let (turns, video, path) = (std::mem::take(&mut chat.turns), &chat.video, chat.path);
        let mut pictures = 0;
        let mut read = |(i, turn): (usize, Turn)| {
            let mut part = |(k, part): (usize, Part)| {
                let part = encoded(part, video).map_err(|why| wrong(path, i, k, why))?;
                pictures += part.pictures();
                if pictures > MAX_PICTURES {
                    let why = format_args!("there are more than {MAX_PICTURES} images and frames");
                    return Err(wrong(path, i, k, why));
                }
                Ok(part)
            };
            let parts = turn.parts.into_iter().enumerate().map(&mut part).collect::<Result<_, _>>()?;
            Ok::<_, ApiError>((turn.role, parts))
        };
        let turns = turns.into_iter().enumerate().map(&mut read).collect::<Result<_, _>>()?;
        Ok(Self { turns, path, scaling })
    }

    /// Whether a video file is among them.
    pub fn has_film(&self) -> bool {
        self.parts().any(|(.., part)| matches!(part, EncodedPart::Film(_)))
    }

    /// How many bytes the pixels take when they are decoded.
    ///
    /// # Errors
    /// Which part is no image, or that they are too many.
    pub fn pixel_bytes(&self) -> Result<u64, ApiError> {
        let bytes = |(i, k, part): (usize, usize, &EncodedPart)| {
            let bytes = match part {
                EncodedPart::Text(_) => Ok(0),
                EncodedPart::Film(_) => Ok(FILM_BYTES),
                EncodedPart::Image(bytes) => image_file::size(bytes).map(rgb_bytes),
                EncodedPart::Frames { jpegs, .. } => self.frame_bytes(jpegs),
            };
            bytes.map_err(|why| wrong(self.path, i, k, why))
        };
        let sum = self.parts().map(bytes).sum::<Result<u64, ApiError>>()?;
        if sum > MAX_PIXEL_BYTES {
            let why = format!("the images have more than {} MB of pixels", MAX_PIXEL_BYTES >> 20);
            return Err(ApiError::wrong_field(self.path, why));
        }
        Ok(sum)
    }

    /// The frames as they are kept, and the largest one before it is scaled down.
    fn frame_bytes(&self, jpegs: &[Vec<u8>]) -> Result<u64, ImageFileError> {
        let (mut kept, mut largest) = (0, 0);
        for jpeg in jpegs {
            let (width, height) = image_file::size(jpeg)?;
            let early = self.scaling.and_then(|it| it.early_size(width as usize, height as usize));
            let full = rgb_bytes((width, height));
            kept += early.map_or(full, |(width, height)| (width * height * 3) as u64);
            largest = largest.max(full);
        }
        Ok(kept + largest)
    }

    /// Decodes them, or gives that up when it `is_over`. Blocks.
    ///
    /// # Errors
    /// Which part cannot be decoded.
    pub fn decode(
        self,
        sampling: VideoSampling,
        film: &FilmReader,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<Message>, ApiError> {
        let scaler = self.scaling.map(FrameScaler::new);
        let content = |part: EncodedPart| {
            Ok(match part {
                EncodedPart::Text(text) => Content::Text(text),
                EncodedPart::Image(bytes) => Content::Image(picture(&bytes)?),
                EncodedPart::Frames { jpegs, times, duration } => {
                    let frame = |jpeg: Vec<u8>| Ok(scaled(picture(&jpeg)?, scaler.as_ref()));
                    let frames = jpegs.into_iter().map(frame).collect::<Result<Vec<_>, String>>()?;
                    Content::Video(Video { frames: times.into_iter().zip(frames).collect(), duration })
                }
                EncodedPart::Film(bytes) => {
                    let most_bytes = FILM_BYTES as usize;
                    Content::Video(film(Film { bytes: &bytes, sampling, most_bytes, is_over })?)
                }
            })
        };
        let message = |(i, (role, parts)): (usize, (Role, Vec<EncodedPart>))| {
            let part = |(k, part)| content(part).map_err(|why: String| wrong(self.path, i, k, why));
            let content = parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
            Ok(Message { role, content })
        };
        self.turns.into_iter().enumerate().map(message).collect()
    }

    /// All parts, with the numbers of their message and their own.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, &EncodedPart)> {
        self.turns.iter().enumerate().flat_map(|(i, (_, parts))| {
            let numbered = move |(k, part)| (i, k, part);
            parts.iter().enumerate().map(numbered)
        })
    }
}

impl EncodedPart {
    fn pictures(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Image(_) | Self::Film(_) => 1,
            Self::Frames { jpegs, .. } => jpegs.len(),
        }
    }
}

/// What is wrong with a part of a message of the list at `path`.
fn wrong(path: &str, message: usize, part: usize, why: impl Display) -> ApiError {
    ApiError::wrong_field(format!("{path}[{message}].content[{part}]"), why)
}

fn encoded(part: Part, video: &VideoOptions) -> Result<EncodedPart, String> {
    Ok(match part {
        Part::Text(text) => EncodedPart::Text(text),
        Part::Image { url, .. } => EncodedPart::Image(data_of(&url, "image/jpeg")?.decode()?),
        Part::Video { url } => {
            let data = data_of(&url, "video/mp4")?;
            if !data.media_type.eq_ignore_ascii_case(FRAMES) {
                return Ok(EncodedPart::Film(data.decode()?));
            }
            let count = video.frames_taken(data.count());
            if count > MAX_PICTURES {
                return Err(format!("there are more than {MAX_PICTURES} frames"));
            }
            let (times, duration) = video.times(count)?;
            let jpegs = data.decode_each().take(count).collect::<Result<_, _>>()?;
            EncodedPart::Frames { jpegs, times, duration }
        }
    })
}

/// The data URL `url`; `example` is a media type that it could have.
fn data_of<'a>(url: &'a str, example: &str) -> Result<DataUrl<'a>, String> {
    DataUrl::parse(url).unwrap_or_else(|| {
        Err(format!("nothing is fetched, and no file is read: send a data URL, data:{example};base64,…"))
    })
}

fn picture(bytes: &[u8]) -> Result<Picture, String> {
    image_file::decode(bytes).map_err(|error| error.to_string())
}

/// The frame as small as the model makes it first.
fn scaled(frame: Picture, scaler: Option<&FrameScaler>) -> Picture {
    let small = scaler.and_then(|it| it.scale(RgbImage::new(&frame.rgb, frame.width, frame.height).ok()?));
    match small {
        Some(small) => {
            Picture { width: small.width() as u32, height: small.height() as u32, rgb: small.rgb().into() }
        }
        None => frame,
    }
}

fn rgb_bytes((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height) * 3
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use base64::{Engine, prelude::BASE64_STANDARD};
    use image::{DynamicImage, ImageFormat, RgbImage as Pixels};
    use serde_json::{Value, json};

    use super::*;
    use crate::resize::LANCZOS3;

    fn jpeg(width: u32, height: u32) -> String {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(Pixels::new(width, height)).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        BASE64_STANDARD.encode(bytes.into_inner())
    }

    fn no_film(_: Film<'_>) -> Result<Video, String> {
        Err("no film".into())
    }

    fn read(content: Value, fields: Value) -> Result<Request, String> {
        let mut body = json!({"messages": [{"role": "user", "content": content}]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let message = |error: ApiError| error.document()["error"]["message"].as_str().unwrap().to_owned();
        read_request(body.to_string().as_bytes(), &no_film).map_err(message)
    }

    fn image(url: &str) -> Value {
        json!([{"type": "image_url", "image_url": {"url": url}}])
    }

    fn video(url: &str) -> Value {
        json!([{"type": "video_url", "video_url": {"url": url}}])
    }

    #[test]
    fn images_and_frames_are_decoded_from_data_urls() {
        let request = read(image(&format!("data:image/jpeg;base64,{}", jpeg(6, 4))), json!({})).unwrap();
        let [Content::Image(picture)] = &request.messages[0].content[..] else { panic!("{request:?}") };
        assert_eq!((picture.width, picture.height, picture.rgb.len()), (6, 4, 72));
        let frames = format!("data:video/jpeg;base64,{0},{0},{0}", jpeg(6, 4));
        let options = json!({"media_io_kwargs": {"video": {"fps": 2.0, "num_frames": 2}}});
        let request = read(video(&frames), options).unwrap();
        let [Content::Video(video)] = &request.messages[0].content[..] else { panic!("{request:?}") };
        let times: Vec<_> = video.frames.iter().map(|(time, _)| time.as_millis()).collect();
        assert_eq!((times, video.duration), (vec![0, 500], Duration::from_secs(1)));
    }

    #[test]
    fn hostile_media_get_one_sentence_each() {
        let data = |kind: &str, bytes: &[u8]| format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes));
        for (content, words) in [
            (image("https://example.org/a.png"), "messages[0].content[0]: nothing is fetched"),
            (image("file:///etc/passwd"), "nothing is fetched, and no file is read"),
            (image("/etc/passwd"), "nothing is fetched"),
            (image("data:image/png;base64,!"), "not valid base64"),
            (image("data:image/png,hi"), "not base64"),
            (image(&data("text/html", b"<html>hi</html>")), "this is no JPEG, PNG"),
            (image(&data("image/png", b"\x89PNG\r\n\x1a\n")), "damaged"),
            (video("http://example.org/a.m3u8"), "nothing is fetched"),
            (video(&data("video/mp4", b"#EXTM3U")), "no film"),
            (video(&format!("data:video/jpeg;base64,{}", ",".repeat(300))), "more than 256 frames"),
            (video("data:video/jpeg;base64,"), "this is no JPEG, PNG"),
            (
                json!(vec![image(&data("image/gif", b"")).as_array().unwrap()[0].clone(); 300]),
                "more than 256 images",
            ),
        ] {
            let why = read(content, json!({})).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
            assert!(!why.contains("passwd") && !why.contains("example.org"), "{why}");
        }
    }

    #[test]
    fn the_memory_that_pixels_take_is_known_before_they_are_decoded() {
        let frames = format!("data:video/jpeg;base64,{0},{0}", jpeg(64, 32));
        let content = [image(&format!("data:;base64,{}", jpeg(10, 10))), video(&frames)];
        let parts: Vec<_> = content.iter().flat_map(|list| list.as_array().unwrap()).collect();
        let body = json!({"messages": [{"role": "user", "content": parts}]}).to_string();
        let mut chat = Chat::parse(body.as_bytes()).unwrap();
        let scaling = FrameScaling { edge: 16, interpolation: LANCZOS3 };
        let encoded = Encoded::read(&mut chat, Some(scaling)).unwrap();
        assert!(!encoded.has_film());
        assert_eq!(encoded.pixel_bytes().unwrap(), 300 + 2 * 16 * 8 * 3 + 64 * 32 * 3);
        let messages = encoded.decode(VideoSampling::default(), &no_film, &|| false).unwrap();
        let Content::Video(video) = &messages[0].content[1] else { panic!("{messages:?}") };
        assert!(video.frames.iter().all(|(_, frame)| (frame.width, frame.height) == (16, 8)));
    }
}
