//! Still images: files and bytes in, RGB pixels out, turned as their metadata says; frames in, JPEG out. What is behind an
//! alpha channel is shown as it is, as the reference does (Pillow's `convert("RGB")`).

use std::{
    fs,
    io::{self, Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits,
    codecs::jpeg::JpegEncoder,
};

use crate::{
    frame::{Frame, Original},
    request::Picture,
};

/// The longest side, pixels.
const MAX_SIDE: u32 = 32_768;
/// The most pixels.
const MAX_PIXELS: u64 = 100_000_000;
/// The most memory that a decoder may allocate, as far as it tells, bytes.
const MAX_MEMORY: u64 = 1 << 30;
/// The largest file, bytes.
const MAX_BYTES: u64 = 256 << 20;

/// JPEG quality of frames: artefacts are invisible, and files are half as large as at 95.
pub const JPEG_QUALITY: u8 = 85;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is larger than any sensible image.
    #[error("the file is larger than {} MB", MAX_BYTES >> 20)]
    TooLong,
    /// It is of no kind that can be read.
    #[error("this is no JPEG, PNG, WebP, GIF, BMP or TIFF image")]
    NotAnImage,
    /// It has more pixels than are decoded.
    #[error("the image is too large: {} megapixels are possible, {MAX_SIDE} pixels a side", MAX_PIXELS / 1_000_000)]
    TooLarge,
    /// It is damaged, or uses something rare of its format.
    #[error("the image is damaged, or of a rare kind: {0}")]
    Damaged(String),
}

/// What begins a second image in a file of JPEG images without a container (motion JPEG).
const NEXT_JPEG: [u8; 4] = [0xff, 0xd9, 0xff, 0xd8];
/// What a photo says that holds further images, such as a depth map (CIPA DC-007).
const MULTI_PICTURE: [u8; 4] = *b"MPF\0";

/// Whether a file holds a still image, by its content. GIF counts as a film, as do WebP and JPEG with several images.
pub fn is_still_image(path: &Path) -> bool {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    let holds = |mark: &[u8]| bytes.windows(mark.len()).any(|it| it == mark);
    match file.ok().and_then(|_| image::guess_format(&bytes).ok()) {
        Some(ImageFormat::Jpeg) => !holds(&NEXT_JPEG) || holds(&MULTI_PICTURE),
        Some(ImageFormat::WebP) => !bytes.get(..64).unwrap_or(&bytes).windows(4).any(|it| it == b"ANIM"),
        Some(ImageFormat::Png | ImageFormat::Bmp | ImageFormat::Tiff) => true,
        _ => false,
    }
}

/// Reads an image file.
///
/// # Errors
/// When it cannot be read, or is no image that can be used.
pub fn read(path: &Path) -> Result<Picture, ImageFileError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    file.map_err(ImageFileError::Unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ImageFileError::TooLong);
    }
    decode(&bytes)
}

/// Width and height of an image before it is decoded and turned.
///
/// # Errors
/// When it is no image that can be used, as far as its beginning tells.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), ImageFileError> {
    open(bytes).map(|decoder| decoder.dimensions())
}

/// Begins to decode an image that is not too large.
fn open(bytes: &[u8]) -> Result<impl ImageDecoder, ImageFileError> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(ImageFileError::Unreadable)?;
    if reader.format().is_none() {
        return Err(ImageFileError::NotAnImage);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(classify)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS || decoder.total_bytes() > MAX_MEMORY {
        return Err(ImageFileError::TooLarge);
    }
    Ok(decoder)
}

/// Decodes an image: the first one, of a file with several.
///
/// # Errors
/// When it is no image that can be used.
pub fn decode(bytes: &[u8]) -> Result<Picture, ImageFileError> {
    let mut decoder = open(bytes)?;
    let orientation = decoder.orientation().map_err(classify)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(classify)?;
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageFileError::Damaged("it has no pixels".into()));
    }
    Ok(Picture { width, height, rgb: image.into_raw().into() })
}

/// Encodes a frame as JPEG, in its original size where that is kept.
///
/// # Errors
/// When it does not have the pixels that its size demands.
pub fn jpeg(frame: &Frame) -> ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    let (rgb, width, height) = match &frame.original {
        Some(Original { width, height, rgb: Some(rgb) }) => (rgb, *width, *height),
        _ => (&frame.rgb, frame.width, frame.height),
    };
    let mut encoder = JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY);
    encoder.encode(rgb, width, height, ExtendedColorType::Rgb8)?;
    Ok(out)
}

/// A JPEG that holds a comment, which viewers show and nothing else reads: at most 65 533 bytes of it.
pub fn with_comment(jpeg: &[u8], comment: &str) -> Vec<u8> {
    let comment = &comment.as_bytes()[..comment.len().min(usize::from(u16::MAX) - 2)];
    let length = (comment.len() as u16 + 2).to_be_bytes();
    // After the mark that begins the file: a comment segment (ITU-T T.81, B.2.4.5).
    let (start, rest) = jpeg.split_at(2.min(jpeg.len()));
    [start, &[0xff, 0xfe], &length, comment, rest].concat()
}

fn classify(error: ImageError) -> ImageFileError {
    match error {
        ImageError::Limits(_) => ImageFileError::TooLarge,
        other => ImageFileError::Damaged(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    /// A red dot on green, mostly transparent.
    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut image = RgbaImage::from_pixel(6, 4, Rgba([0, 200, 0, 9]));
        image.put_pixel(0, 0, Rgba([250, 0, 0, 9]));
        let image = match format {
            ImageFormat::Png | ImageFormat::WebP | ImageFormat::Tiff => DynamicImage::ImageRgba8(image),
            _ => DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(image).to_rgb8()),
        };
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn an_image_of_every_format_is_read_and_its_alpha_left_out() {
        for format in
            [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
        {
            let picture = decode(&encoded(format)).unwrap();
            assert_eq!((picture.width, picture.height), (6, 4), "{format:?}");
            assert_eq!(picture.rgb[..6], [250, 0, 0, 0, 200, 0], "{format:?}");
        }
        let jpeg = decode(&encoded(ImageFormat::Jpeg)).unwrap();
        assert_eq!(jpeg.rgb.len(), 6 * 4 * 3);
    }

    #[test]
    fn a_comment_changes_nothing_of_what_is_shown() {
        let jpeg = encoded(ImageFormat::Jpeg);
        let told = with_comment(&jpeg, "event 1");
        assert!(told.windows(7).any(|it| it == b"event 1"));
        assert_eq!(decode(&told).unwrap().rgb, decode(&jpeg).unwrap().rgb);
        assert_eq!(with_comment(&jpeg, &"a".repeat(70_000)).len(), jpeg.len() + 2 + usize::from(u16::MAX));
    }

    #[test]
    fn a_still_image_is_told_from_a_film() {
        let folder = tempfile::tempdir().unwrap();
        let is_still = |bytes: &[u8]| {
            let path = folder.path().join("file");
            fs::write(&path, bytes).unwrap();
            is_still_image(&path)
        };
        let jpeg = encoded(ImageFormat::Jpeg);
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
            assert!(is_still(&encoded(format)), "{format:?}");
        }
        assert!(is_still(&jpeg) && !is_still(&jpeg.repeat(2)));
        assert!(is_still(&[&jpeg[..], &jpeg, b"MPF\0"].concat()));
        assert!(
            !is_still(&encoded(ImageFormat::Gif)) && !is_still(b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x02ANIM")
        );
        assert!(!is_still(b"") && !is_still(b"no image") && !is_still_image(Path::new("/none")));
    }

    #[test]
    fn an_image_is_turned_as_its_metadata_says() {
        let jpeg = encoded(ImageFormat::Jpeg);
        // An Exif segment whose only entry is the orientation: 6, to be turned to the right.
        let exif = [
            &[0xff, 0xe1, 0, 34][..],
            b"Exif\0\0MM\0*\0\0\0\x08",
            &[0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
        let picture = decode(&turned).unwrap();
        assert_eq!((picture.width, picture.height), (4, 6));
    }

    #[test]
    fn what_is_no_image_or_a_broken_or_a_huge_one_gets_one_sentence() {
        assert!(matches!(decode(b"").unwrap_err(), ImageFileError::NotAnImage));
        assert!(matches!(decode(b"<html>no image</html>").unwrap_err(), ImageFileError::NotAnImage));
        let png = encoded(ImageFormat::Png);
        assert!(matches!(decode(&png[..png.len() / 2]).unwrap_err(), ImageFileError::Damaged(_)));
        // A header that claims a million pixels a side.
        let mut huge = encoded(ImageFormat::Bmp);
        huge[18..26].copy_from_slice(&[0x40, 0x42, 0x0f, 0, 0x40, 0x42, 0x0f, 0]);
        assert!(matches!(decode(&huge).unwrap_err(), ImageFileError::TooLarge | ImageFileError::Damaged(_)));
    }
}
