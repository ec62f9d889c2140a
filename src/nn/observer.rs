//! Activation hooks: a callback sees named tensors while a forward pass computes them. The golden tests compare
//! them with the reference's; the model's thread counts them as heartbeats.

use candle_core::Tensor;

use super::error::Result;

/// A named tensor of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationPoint {
    /// Patch and position embeddings of the vision tower: `(tiles, patches, width)`.
    VisionEmbeddings,
    /// Output of this layer of the vision tower: `(tiles, patches, width)`.
    VisionLayer(usize),
    /// Output of the vision tower, after its last norm: `(tiles, patches, width)`.
    VisionOut,
    /// Output of the connector: `(tiles, tokens, text width)`.
    ConnectorOut,
    /// Output of this layer of the text decoder: `(sequences, tokens, width)`.
    TextLayer(usize),
    /// The last token after the decoder's final norm: `(sequences, 1, width)`.
    TextNorm,
    /// Scores of the token that follows the last one: `(sequences, vocabulary)`, f32.
    Logits,
}

/// Called with every activation. The tensor is only valid during the call: a later step may overwrite it.
/// An error ends the forward pass.
pub type ActivationObserver<'a> = &'a mut (dyn FnMut(ActivationPoint, &Tensor) -> Result<()> + Send);

/// An observer that does nothing.
pub fn no_observer(_: ActivationPoint, _: &Tensor) -> Result<()> {
    Ok(())
}
