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

    /// A frame of a video, with the checkpoint's own longer side.
    pub fn frame<'a>(&self, image: RgbImage<'a>) -> Medium<'a> {
        Medium::Frame { image, edge: self.video_edge }
    }

    /// A still image, with the checkpoint's own longer side.
    pub fn still<'a>(&self, image: RgbImage<'a>, split: bool) -> Medium<'a> {
        Medium::Image { image, edge: self.image_edge, split }
    }

    /// Images and frames as tiles, spread over the cores.
    pub fn tiles(&self, media: &[Medium<'_>]) -> Vec<Tiles> {
        let tiles = |medium: &Medium<'_>| match medium.clone() {
            Medium::Image { image, edge, split } => self.image_tiles(image, edge, split),
            Medium::Frame { image, edge } => Tiles { rows: 0, cols: 0, bytes: self.video_tile(&image, edge) },
        };
        media.par_iter().map(tiles).collect()
    }

    fn video_tile(&self, frame: &RgbImage<'_>, edge: usize) -> Vec<u8> {
        let mut tile = vec![0; self.tile_bytes()];
        let (width, height) = keep_aspect(frame.width(), frame.height(), edge);
        let first = frame.clone().resize(width, height, &self.resizer);
        planes(&first.resize(self.tile, self.tile, &self.resizer), 0, 0, self.tile, &mut tile);
        tile
    }

    /// Rows and columns that a medium is cut into; 0 x 0 if it is not cut.
    pub fn cuts(&self, medium: &Medium<'_>) -> (usize, usize) {
        let Medium::Image { image, edge, split: true } = medium else { return (0, 0) };
        let (width, height) = keep_aspect(image.width(), image.height(), *edge);
        let (width, height) = whole_tiles(width, height, self.tile);
        if width > self.tile || height > self.tile { (height / self.tile, width / self.tile) } else { (0, 0) }
    }

    fn image_tiles(&self, image: RgbImage<'_>, edge: usize, split: bool) -> Tiles {
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
                let p = preprocessor(64, edge);
                let tile = p.tiles(&[p.frame(RgbImage::new(&rgb, w, h).unwrap())]).remove(0).bytes;
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
            let p = preprocessor(32, 32);
            let cut = p.tiles(&[p.still(image.clone(), true)]).remove(0);
            assert_eq!((cut.rows, cut.cols), p.cuts(&p.still(image.clone(), true)), "{w}x{h}");
            assert_eq!((cut.rows, cut.cols), (rows, cols), "{w}x{h}");
            assert_eq!(cut.bytes.len(), (rows * cols + 1) * 3 * 32 * 32, "{w}x{h}");
            let whole = p.tiles(&[p.still(image, false)]).remove(0);
            assert_eq!((whole.rows, whole.cols, whole.bytes.len()), (0, 0, 3 * 32 * 32));
        }
    }

    #[test]
    fn frames_in_parallel_give_the_same_tiles_as_one_by_one() {
        let p = preprocessor(32, 32);
        let frames: Vec<Vec<u8>> =
            (0..5_u32).map(|t| (0..40 * 30 * 3).map(|i| (i * 7 + t * 31) as u8).collect()).collect();
        let images: Vec<_> = frames.iter().map(|f| RgbImage::new(f, 40, 30).unwrap()).collect();
        let media: Vec<_> = images.iter().map(|f| p.frame(f.clone())).collect();
        let alone: Vec<_> = media.iter().flat_map(|it| p.tiles(std::slice::from_ref(it))).collect();
        assert_eq!(p.tiles(&media), alone);
        assert!(p.tiles(&[]).is_empty());
    }

    #[test]
    fn bytes_become_numbers_from_minus_one_to_one() {
        assert_eq!(normalise(&[0, 255]), [-1.0, 1.0]);
        assert_eq!(normalise(&[128]), [0.5 / 127.5]);
    }
}
