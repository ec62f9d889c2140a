//! The sizes of the three published SmolVLM2 models.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{
    describe::smolvlm::config::{ModelConfig, ProcessorConfig, SamplingDefaults, VisionConfig},
    nn::decoder::DecoderConfig,
};

/// The size of a published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// SmolVLM2-256M-Video-Instruct
    M256,
    /// SmolVLM2-500M-Video-Instruct
    M500,
    /// SmolVLM2-2.2B-Instruct
    B2,
}

impl Shape {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 3] = [Self::M256, Self::M500, Self::B2];

    /// The name as the options take it, such as `256M`.
    pub fn name(self) -> &'static str {
        match self {
            Self::M256 => "256M",
            Self::M500 => "500M",
            Self::B2 => "2.2B",
        }
    }

    /// Its architecture. It has no end token, so that all answers are equally long.
    pub fn config(self) -> ModelConfig {
        let (vision, text, scale_factor) = match self {
            Self::M256 => (small_vision(), small_text(576, 1536, 30, 9, 3), 4),
            Self::M500 => (small_vision(), small_text(960, 2560, 32, 15, 5), 4),
            Self::B2 => {
                let text = DecoderConfig { rope_theta: 130_000., ..small_text(2048, 8192, 24, 32, 32) };
                (large_vision(), text, 3)
            }
        };
        ModelConfig {
            vision,
            text,
            scale_factor,
            image_token_id: 49_190,
            eos_token_ids: vec![],
            pad_token_id: 2,
            sampling: SamplingDefaults::default(),
        }
    }

    /// The preprocessing of its images.
    pub fn processor(self) -> ProcessorConfig {
        let config = self.config();
        let tile = config.vision.image_size;
        ProcessorConfig {
            tile,
            image_edge: 4 * tile,
            video_edge: tile,
            image_seq_len: config.tokens_per_tile(),
            do_image_splitting: true,
            video_fps: 1.,
            video_max_frames: 64,
        }
    }
}

fn small_vision() -> VisionConfig {
    VisionConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        image_size: 512,
        patch_size: 16,
        layer_norm_eps: 1e-6,
    }
}

fn large_vision() -> VisionConfig {
    VisionConfig {
        hidden_size: 1152,
        intermediate_size: 4304,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        image_size: 384,
        patch_size: 14,
        layer_norm_eps: 1e-6,
    }
}

fn small_text(width: usize, mlp: usize, layers: usize, heads: usize, key_heads: usize) -> DecoderConfig {
    DecoderConfig {
        hidden_size: width,
        intermediate_size: mlp,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: key_heads,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 100_000.,
        vocab_size: 49_280,
        max_position_embeddings: 8192,
    }
}

/// A text that is not the name of a shape.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a shape: write 256M, 500M or 2.2B")]
pub struct UnknownShape(String);

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(text: &str) -> Result<Self, UnknownShape> {
        let found = Self::ALL.into_iter().find(|shape| shape.name() == text);
        found.ok_or_else(|| UnknownShape(text.into()))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::smolvlm::layout::layout;

    #[test]
    fn shapes_have_as_many_tensors_and_parameters_as_the_published_models() {
        let published = [
            (Shape::M256, 471, 256_484_928),
            (Shape::M500, 489, 507_482_304),
            (Shape::B2, 657, 2_246_784_880),
        ];
        for (shape, tensors, parameters) in published {
            let sizes: Vec<usize> =
                layout(&shape.config()).map(|(_, shape)| shape.into_iter().product()).collect();
            assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (tensors, parameters), "{shape}");
            assert_eq!(shape.name().parse::<Shape>().unwrap(), shape);
        }
        assert!("3B".parse::<Shape>().is_err());
    }
}
