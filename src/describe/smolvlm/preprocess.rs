//! Frames and images to tiles. A video frame becomes one square tile; a still image becomes one, or is cut into many. RGB
//! images of any size come in; bytes in the order tile, channel, row, column go out, equal to the reference's
//! (transformers 5.23.0, `video_processing_smolvlm.py`, `image_processing_smolvlm.py`).

use rayon::prelude::*;

use super::config::ProcessorConfig;
use crate::resize::{FrameScaling, LANCZOS3, Resizer, RgbImage, keep_aspect};

/// Turns frames and images into tiles.
pub struct Preprocessor {
    tile: usize,
    image_edge: usize,
    video_edge: usize,
    resizer: Resizer,
}

/// An image or a frame, and how it becomes tiles.
#[derive(Clone)]
pub enum Medium<'a> {
    /// A frame of a video: one tile, by way of a longer side of `edge` pixels.
    Frame {
        /// Its pixels.
        image: RgbImage<'a>,
        /// The longer side after the first resize.
        edge: usize,
    },
    /// A still image.
    Image {
        /// Its pixels.
        image: RgbImage<'a>,
        /// The longer side before it is cut, in pixels.
        edge: usize,
        /// Whether it is cut.
        split: bool,
    },
}

/// An image or a frame as tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Rows of tiles; 0 if the image was not cut.
    pub rows: usize,
    /// Columns of tiles; 0 if the image was not cut.
    pub cols: usize,
    /// `rows * cols` tiles row by row, then the whole image as one tile; each 3 x tile x tile bytes.
    pub bytes: Vec<u8>,
}

impl Preprocessor {
    /// A preprocessor for a checkpoint.
    pub fn new(config: &ProcessorConfig) -> Self {
        Self {
            tile: config.tile,
            image_edge: config.image_edge,
            video_edge: config.video_edge,
            resizer: Resizer::new(LANCZOS3),
        }
    }

    /// The first of the two steps in which a video frame becomes a tile.
    pub fn frame_scaling(&self) -> FrameScaling {
        FrameScaling { edge: self.video_edge, interpolation: LANCZOS3 }
    }

    /// Images and frames as tiles, spread over the cores.
    pub fn tiles(&self, media: &[Medium<'_>]) -> Vec<Tiles> {
        let tiles = |medium: &Medium<'_>| match medium.clone() {
            Medium::Image { image, edge, split } => self.image_tiles_of_edge(image, edge, split),
            Medium::Frame { image, edge } => {
                let mut bytes = vec![0; self.tile_bytes()];
                self.video_tile_into(image, edge, &mut bytes);
                Tiles { rows: 0, cols: 0, bytes }
            }
        };
        media.par_iter().map(tiles).collect()
    }

    /// A video frame as one tile: 3 x tile x tile bytes.
    pub fn video_tile(&self, frame: RgbImage<'_>) -> Vec<u8> {
        let mut tile = vec![0; self.tile_bytes()];
        self.video_tile_into(frame, self.video_edge, &mut tile);
        tile
    }

    /// Frames as one tile each: frames x 3 x tile x tile bytes. Frames are spread over the cores.
    pub fn video_tiles(&self, frames: &[RgbImage<'_>]) -> Vec<u8> {
        let mut tiles = vec![0; frames.len() * self.tile_bytes()];
        let each = tiles.par_chunks_exact_mut(self.tile_bytes()).zip(frames);
        each.for_each(|(tile, frame)| self.video_tile_into(frame.clone(), self.video_edge, tile));
        tiles
    }

    fn video_tile_into(&self, frame: RgbImage<'_>, edge: usize, tile: &mut [u8]) {
        let (width, height) = keep_aspect(frame.width(), frame.height(), edge);
        let first = frame.resize(width, height, &self.resizer);
        planes(&first.resize(self.tile, self.tile, &self.resizer), 0, 0, self.tile, tile);
    }

    /// A still image as tiles, cut into several if `split`.
    pub fn image_tiles(&self, image: RgbImage<'_>, split: bool) -> Tiles {
        self.image_tiles_of_edge(image, self.image_edge, split)
    }

    fn image_tiles_of_edge(&self, image: RgbImage<'_>, edge: usize, split: bool) -> Tiles {
        let tile = self.tile;
        let (width, height) = keep_aspect(image.width(), image.height(), edge);
        let mut image = image.resize(width, height, &self.resizer);
        let (mut rows, mut cols) = (0, 0);
        if split {
            let (width, height) = whole_tiles(image.width(), image.height(), tile);
            image = image.resize(width, height, &self.resizer);
            if width > tile || height > tile {
                (rows, cols) = (height / tile, width / tile);
            }
        }
        let mut bytes = vec![0; (rows * cols + 1) * self.tile_bytes()];
        let mut tiles = bytes.chunks_exact_mut(self.tile_bytes());
        for row in 0..rows {
            for (col, out) in (0..cols).zip(&mut tiles) {
                planes(&image, col * tile, row * tile, tile, out);
            }
        }
        let whole = image.resize(tile, tile, &self.resizer);
        tiles.for_each(|out| planes(&whole, 0, 0, tile, out));
        Tiles { rows, cols, bytes }
    }

    fn tile_bytes(&self) -> usize {
        3 * self.tile * self.tile
    }
}

/// Pixel bytes as numbers from -1 to 1.
pub fn normalise(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&b| (f32::from(b) - 127.5) / 127.5).collect()
}

/// Width and height rounded up to whole tiles, with about the same aspect ratio.
fn whole_tiles(width: usize, height: usize, tile: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let up = |side: usize| side.max(1).next_multiple_of(tile);
    if width >= height {
        let width = up(width);
        (width, up((width as f64 / aspect) as usize))
    } else {
        let height = up(height);
        (up((height as f64 * aspect) as usize), height)
    }
}

/// Copies the square of side `tile` at (`left`, `top`) as its red, green and blue planes.
fn planes(image: &RgbImage<'_>, left: usize, top: usize, tile: usize, out: &mut [u8]) {
    let rows = image.rgb().chunks_exact(image.width() * 3).skip(top);
    let (red, rest) = out.split_at_mut(tile * tile);
    let (green, blue) = rest.split_at_mut(tile * tile);
    let channels =
        red.chunks_exact_mut(tile).zip(green.chunks_exact_mut(tile)).zip(blue.chunks_exact_mut(tile));
    for (row, ((red, green), blue)) in rows.zip(channels) {
        let pixels = row[left * 3..].chunks_exact(3);
        for (((pixel, r), g), b) in pixels.zip(red).zip(green).zip(blue) {
            (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocessor(tile: usize, video_edge: usize) -> Preprocessor {
        Preprocessor { tile, image_edge: 4 * tile, video_edge, resizer: Resizer::new(LANCZOS3) }
    }

    #[test]
    fn a_frame_of_any_size_and_shape_becomes_one_tile() {
        for (w, h) in [
            (1, 1),
            (1, 2),
            (2, 1),
            (3, 5),
            (1, 4320),
            (7680, 1),
            (7680, 3),
            (1919, 1079),
            (1079, 1919),
            (7680, 4320),
        ] {
            let rgb = [200, 100, 50].repeat((w * h) as usize);
            for edge in [64, 256] {
                let tile = preprocessor(64, edge).video_tile(RgbImage::new(&rgb, w, h).unwrap());
                let wanted = [[200; 64 * 64], [100; 64 * 64], [50; 64 * 64]].concat();
                assert!(tile == wanted, "{w}x{h} by way of {edge}");
            }
        }
    }

    #[test]
    fn a_still_image_of_any_shape_is_cut_into_tiles_and_one_of_the_whole() {
        for (w, h, rows, cols) in
            [(1, 1, 4, 4), (300, 200, 3, 4), (1, 900, 4, 1), (900, 1, 1, 4), (33, 65, 4, 2)]
        {
            let rgb = [9, 8, 7].repeat((w * h) as usize);
            let image = RgbImage::new(&rgb, w, h).unwrap();
            let cut = preprocessor(32, 32).image_tiles(image.clone(), true);
            assert_eq!((cut.rows, cut.cols), (rows, cols), "{w}x{h}");
            assert_eq!(cut.bytes.len(), (rows * cols + 1) * 3 * 32 * 32, "{w}x{h}");
            let whole = preprocessor(32, 32).image_tiles(image, false);
            assert_eq!((whole.rows, whole.cols, whole.bytes.len()), (0, 0, 3 * 32 * 32));
        }
    }

    #[test]
    fn frames_in_parallel_give_the_same_tiles_as_one_by_one() {
        let p = preprocessor(32, 32);
        let frames: Vec<Vec<u8>> =
            (0..5_u32).map(|t| (0..40 * 30 * 3).map(|i| (i * 7 + t * 31) as u8).collect()).collect();
        let images: Vec<_> = frames.iter().map(|f| RgbImage::new(f, 40, 30).unwrap()).collect();
        let alone: Vec<u8> = images.iter().flat_map(|f| p.video_tile(f.clone())).collect();
        assert!(p.video_tiles(&images) == alone);
        assert!(p.video_tiles(&[]).is_empty());
    }

    #[test]
    fn bytes_become_numbers_from_minus_one_to_one() {
        assert_eq!(normalise(&[0, 255]), [-1.0, 1.0]);
        assert_eq!(normalise(&[128]), [0.5 / 127.5]);
    }
}
