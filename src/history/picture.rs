//! Frames as pictures: JPEG, or PNG where every pixel is to stay as it is.

use std::{io::Cursor, time::Duration};

use image::{
    ExtendedColorType, ImageEncoder, ImageError, ImageFormat,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};

use crate::{
    frame::Frame,
    image_file::{self, ImageFileError},
    request::Picture,
};

/// Why a frame cannot be kept or shown.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// A frame has other pixels than its size demands.
    #[error("a frame does not have the pixels that its size demands")]
    Size,
    /// A frame cannot be encoded.
    #[error("a frame cannot be encoded")]
    Encode(#[from] ImageError),
    /// A kept frame cannot be decoded.
    #[error("a kept frame is damaged")]
    Decode(#[from] ImageFileError),
}

/// A frame as it is kept.
pub(super) struct KeptPicture {
    pub offset: Duration,
    pub width: u32,
    pub height: u32,
    pub bytes: Vec<u8>,
}

impl KeptPicture {
    /// A frame, `offset` after the start of its clip.
    pub fn new(frame: &Frame, offset: Duration, is_lossless: bool) -> Result<Self, PictureError> {
        // An encoder would panic.
        if frame.rgb.len() as u64 != u64::from(frame.width) * u64::from(frame.height) * 3 {
            return Err(PictureError::Size);
        }
        let bytes = if is_lossless { png(frame)? } else { image_file::jpeg(frame)? };
        Ok(Self { offset, width: frame.width, height: frame.height, bytes })
    }
}

fn png(frame: &Frame) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
    encoder.write_image(&frame.rgb, frame.width, frame.height, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// A kept picture as JPEG.
///
/// # Errors
/// When it is damaged.
pub(super) fn to_jpeg(bytes: Vec<u8>) -> Result<Vec<u8>, PictureError> {
    if image::guess_format(&bytes).is_ok_and(|format| format == ImageFormat::Jpeg) {
        return Ok(bytes);
    }
    let picture = read_lossless(&bytes)?;
    let mut jpeg = Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, image_file::JPEG_QUALITY);
    encoder.write_image(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8)?;
    Ok(jpeg.into_inner())
}

/// The pixels of a kept picture.
///
/// # Errors
/// When it is damaged.
pub fn read_lossless(bytes: &[u8]) -> Result<Picture, PictureError> {
    Ok(image_file::decode(bytes)?)
}
