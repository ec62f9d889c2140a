//! Tokens to vectors: those of text from the decoder's table, those of images from the features of their tiles.

use candle_core::Tensor;

use super::{decoder::Decoder, error::Result, sequence::indices};

/// The vectors of these tokens, `(tokens, width)`. Each token `image` is replaced by a row of `features`, `(rows, width)`:
/// by those with the numbers `rows`, in order.
///
/// # Errors
/// When the device fails, or there are fewer rows than image tokens.
pub fn embed(
    decoder: &Decoder,
    image: u32,
    ids: &[u32],
    features: Option<&Tensor>,
    rows: impl IntoIterator<Item = usize>,
) -> Result<Tensor> {
    let text: Vec<u32> = ids.iter().copied().filter(|id| *id != image).collect();
    let Some(features) = features.filter(|_| text.len() < ids.len()) else {
        if text.len() < ids.len() {
            candle_core::bail!("there are image tokens and no images");
        }
        return decoder.embed(&text);
    };
    // The features follow the text's embeddings in one table; every token looks up its own row.
    let (mut next_text, mut next_image) = (0.., rows.into_iter().map(|row| text.len() + row));
    let row = |id: &u32| if *id == image { next_image.next() } else { next_text.next() };
    let rows: Vec<usize> = ids.iter().filter_map(row).collect();
    if rows.len() < ids.len() {
        candle_core::bail!("there are more image tokens than features");
    }
    let rows = indices(&rows, features.device())?;
    if text.is_empty() {
        return features.index_select(&rows, 0);
    }
    Tensor::cat(&[&decoder.embed(&text)?, features], 0)?.index_select(&rows, 0)
}
