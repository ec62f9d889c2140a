//! A view laid out for pictures of one size: most pictures of a camera have the same.

use std::{ops::Range, sync::Arc};

use super::{
    settings::View,
    spans::{in_pixels, touched},
};

/// Bytes of a pixel.
const RGB: usize = 3;

/// Why a view cannot be applied to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotApply {
    /// Nothing is left of it.
    #[error("its pictures of {width}x{height} are too small for its crop")]
    TooSmall {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Masks hide all that its crop leaves of it.
    #[error("masks hide all of its pictures of {width}x{height}")]
    AllBlack {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// It has other bytes than its size demands.
    #[error("a picture of {width}x{height} has {bytes} bytes")]
    WrongLength {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// What it has.
        bytes: usize,
    },
}

/// A view for pictures of one size.
#[derive(Clone, Debug)]
pub struct SizedView {
    /// Width and height of the pictures, pixels.
    size: (u32, u32),
    /// What the crop leaves, pixels; not empty.
    columns: Range<usize>,
    /// As `columns`.
    rows: Range<usize>,
    /// The pixels of the crop that masks touch, numbered row by row through the picture.
    black: Vec<Range<usize>>,
}

impl SizedView {
    /// The view of pictures of `width` x `height` pixels.
    ///
    /// # Errors
    /// When crop and masks leave no pixel of them.
    pub fn new(view: &View, width: u32, height: u32) -> Result<Self, CannotApply> {
        let (w, h) = (width as usize, height as usize);
        let (columns, rows) = view.crop.map_or((0..w, 0..h), |crop| crop.pixels(w, h));
        if columns.is_empty() || rows.is_empty() {
            return Err(CannotApply::TooSmall { width, height });
        }
        let polygons: Vec<_> = view.masks.values().map(|mask| in_pixels(mask, w, h)).collect();
        let of_row = |row: usize| {
            let spans = touched(&polygons, row, &columns);
            spans.into_iter().map(move |span| row * w + span.start..row * w + span.end)
        };
        let black: Vec<Range<usize>> = rows.clone().flat_map(of_row).collect();
        if black.iter().map(ExactSizeIterator::len).sum::<usize>() == columns.len() * rows.len() {
            return Err(CannotApply::AllBlack { width, height });
        }
        Ok(Self { size: (width, height), columns, rows, black })
    }

    /// Width and height of the pictures that it is for, pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// What is seen of a picture, in rows of RGB triples without padding, and its width and height in pixels.
    ///
    /// # Errors
    /// When `rgb` is no picture of this size.
    pub fn apply(&self, mut rgb: Arc<[u8]>) -> Result<(Arc<[u8]>, u32, u32), CannotApply> {
        let (width, height) = self.size;
        let row = width as usize * RGB;
        if rgb.len() != row * height as usize {
            return Err(CannotApply::WrongLength { width, height, bytes: rgb.len() });
        }
        let pixels = Arc::make_mut(&mut rgb);
        for span in &self.black {
            pixels[span.start * RGB..span.end * RGB].fill(0);
        }
        if self.columns.len() * self.rows.len() * RGB == pixels.len() {
            return Ok((rgb, width, height));
        }
        let cropped_row = self.columns.len() * RGB;
        let mut cropped: Arc<[u8]> = std::iter::repeat_n(0, cropped_row * self.rows.len()).collect();
        let to = Arc::make_mut(&mut cropped).chunks_exact_mut(cropped_row);
        for (to, from) in to.zip(rgb[self.rows.start * row..].chunks_exact(row)) {
            to.copy_from_slice(&from[self.columns.start * RGB..self.columns.end * RGB]);
        }
        // Both are at most the sides of the picture.
        Ok((cropped, self.columns.len() as u32, self.rows.len() as u32))
    }
}
