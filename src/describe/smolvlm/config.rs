//! Reads `config.json`, `generation_config.json` and the processor files of a SmolVLM2 checkpoint. Keys that published
//! files leave out have the reference's defaults (transformers 5.23.0, `configuration_smolvlm.py`,
//! `configuration_llama.py`). Values that this program cannot run are refused here, before anything large is read.

use std::path::Path;

use serde::Serialize;

use crate::nn::{decoder::DecoderConfig, error::LoadError, generate::SpecialTokens, json_config::JsonConfig};

/// Sizes of the SigLIP vision tower, named as in `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Width of a patch's vector.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Side of a tile, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Epsilon of the LayerNorms.
    pub layer_norm_eps: f64,
}

impl VisionConfig {
    /// Whole patches along a side of a tile. Pixels beyond them are not used.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// A checkpoint's sizes and special tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text decoder.
    pub text: DecoderConfig,
    /// Pixel shuffle factor of the connector: so many by so many patches become one token.
    pub scale_factor: usize,
    /// The token `<image>`.
    pub image_token_id: u32,
    /// The tokens that end an answer, from `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// The token that fills the left of shorter prompts in a batch.
    pub pad_token_id: u32,
    /// How tokens are chosen where a request does not say, from `generation_config.json`.
    pub sampling: SamplingDefaults,
}

/// How tokens are chosen where a request does not say (transformers 5.23.0, `GenerationConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SamplingDefaults {
    /// Whether tokens are drawn.
    pub do_sample: bool,
    /// Above 0.
    pub temperature: f64,
    /// 0 to 1.
    pub top_p: f64,
    /// 0: all.
    pub top_k: usize,
    /// 1: none.
    pub repetition_penalty: f64,
}

impl Default for SamplingDefaults {
    /// Those of the reference.
    fn default() -> Self {
        Self { do_sample: false, temperature: 1.0, top_p: 1.0, top_k: 50, repetition_penalty: 1.0 }
    }
}

/// How images and prompts are prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessorConfig {
    /// Side of a tile, in pixels: `max_image_size.longest_edge`.
    pub tile: usize,
    /// Longer side of a still image before it is cut into tiles, in pixels: `size.longest_edge`.
    pub image_edge: usize,
    /// Longer side of a video frame after the first of its two resizes, in pixels: `video_sampling.video_size.longest_edge`.
    pub video_edge: usize,
    /// `<image>` tokens per tile.
    pub image_seq_len: usize,
    /// Whether still images are cut into tiles.
    pub do_image_splitting: bool,
    /// Whole files: sampling rate, frames per second.
    pub video_fps: f64,
    /// Whole files: most frames.
    pub video_max_frames: usize,
}

// Upper bounds: far above every published model (2.2B: width 8192, 27 layers, 49280 tokens), and low enough that no
// product of them overflows and that absurd sizes are refused before anything is allocated.
const MAX_WIDTH: usize = 1 << 17;
const MAX_LAYERS: usize = 1 << 10;
const MAX_VOCAB: usize = 1 << 22;
const MAX_POSITIONS: usize = 1 << 20;
/// Positions times head size, which is the size of the rotary table. Published models have 2^19.
const MAX_ROTARY: usize = 1 << 26;
/// Longest side that the reference resizes anything to: its `MAX_IMAGE_SIZE`.
const MAX_EDGE: usize = 4096;

impl ModelConfig {
    /// Reads `config.json` and `generation_config.json`. The caller has checked `model_type`.
    ///
    /// # Errors
    /// When a file cannot be read, or a value cannot be used.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let c = JsonConfig::read(dir, "config.json")?;
        c.must_be("text_config.model_type", "llama", "llama")?;
        c.must_be("text_config.hidden_act", "silu", "silu")?;
        c.must_be("vision_config.hidden_act", "gelu_pytorch_tanh", "gelu_pytorch_tanh")?;
        for key in [
            "tie_word_embeddings",
            "text_config.tie_word_embeddings",
            "text_config.attention_bias",
            "text_config.mlp_bias",
        ] {
            if c.flag(key, false)? {
                return Err(c.wrong(key, "is true: this program only runs models with false"));
            }
        }
        let vision = VisionConfig::from_json(&c)?;
        let text = decoder_config(&c)?;
        let scale_factor = c.size("scale_factor", 2, MAX_EDGE)?;
        if !vision.grid().is_multiple_of(scale_factor) {
            let problem =
                format!("is {scale_factor}: {0} x {0} patches cannot be merged by it", vision.grid());
            return Err(c.wrong("scale_factor", problem));
        }
        let image_token_id = c.token("image_token_id", 128_257, text.vocab_size)?;

        let g = JsonConfig::read(dir, "generation_config.json")?;
        let eos_token_ids = g.tokens("eos_token_id", text.vocab_size)?;
        // Padding is masked, so any token but `<image>` will do.
        let pad_token_id = g.token("pad_token_id", eos_token_ids[0], text.vocab_size)?;
        if pad_token_id == image_token_id {
            return Err(g.wrong("pad_token_id", format!("is {pad_token_id}: that is image_token_id")));
        }
        let usual = SamplingDefaults::default();
        let sampling = SamplingDefaults {
            do_sample: g.flag("do_sample", usual.do_sample)?,
            temperature: g.number("temperature", usual.temperature)?,
            top_p: g.number("top_p", usual.top_p)?,
            top_k: g.number("top_k", usual.top_k as f64)? as usize,
            repetition_penalty: g.positive("repetition_penalty", usual.repetition_penalty)?,
        };
        Ok(Self { vision, text, scale_factor, image_token_id, eos_token_ids, pad_token_id, sampling })
    }

    /// The tokens that generating an answer needs to know.
    pub fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens { image: self.image_token_id, pad: self.pad_token_id, stop: self.eos_token_ids.clone() }
    }

    /// `<image>` tokens per tile.
    pub fn tokens_per_tile(&self) -> usize {
        (self.vision.grid() / self.scale_factor).pow(2)
    }
}

impl VisionConfig {
    fn from_json(c: &JsonConfig) -> Result<Self, LoadError> {
        let v = Self {
            hidden_size: c.size("vision_config.hidden_size", 1152, MAX_WIDTH)?,
            intermediate_size: c.size("vision_config.intermediate_size", 3072, MAX_WIDTH)?,
            num_hidden_layers: c.size("vision_config.num_hidden_layers", 12, MAX_LAYERS)?,
            num_attention_heads: c.size("vision_config.num_attention_heads", 16, MAX_WIDTH)?,
            image_size: c.size("vision_config.image_size", 224, MAX_EDGE)?,
            patch_size: c.size("vision_config.patch_size", 32, MAX_EDGE)?,
            layer_norm_eps: c.positive("vision_config.layer_norm_eps", 1e-6)?,
        };
        c.divides("vision_config.hidden_size", v.hidden_size, "num_attention_heads", v.num_attention_heads)?;
        if v.patch_size > v.image_size {
            let problem = format!("is {}: larger than image_size {}", v.patch_size, v.image_size);
            return Err(c.wrong("vision_config.patch_size", problem));
        }
        if c.size("vision_config.num_channels", 3, MAX_WIDTH)? != 3 {
            return Err(c.wrong("vision_config.num_channels", "must be 3: images are RGB"));
        }
        Ok(v)
    }
}

/// Reads the sizes of the text decoder.
fn decoder_config(c: &JsonConfig) -> Result<DecoderConfig, LoadError> {
    let hidden_size = c.size("text_config.hidden_size", 4096, MAX_WIDTH)?;
    let heads = c.size("text_config.num_attention_heads", 32, MAX_WIDTH)?;
    c.divides("text_config.hidden_size", hidden_size, "num_attention_heads", heads)?;
    let t = DecoderConfig {
        hidden_size,
        intermediate_size: c.size("text_config.intermediate_size", 11008, MAX_WIDTH)?,
        num_hidden_layers: c.size("text_config.num_hidden_layers", 32, MAX_LAYERS)?,
        num_attention_heads: heads,
        num_key_value_heads: c.size("text_config.num_key_value_heads", heads, MAX_WIDTH)?,
        head_dim: c.size("text_config.head_dim", hidden_size / heads, MAX_WIDTH)?,
        rms_norm_eps: c.positive("text_config.rms_norm_eps", 1e-6)?,
        rope_theta: rope_theta(c)?,
        vocab_size: c.size("text_config.vocab_size", 32000, MAX_VOCAB)?,
        max_position_embeddings: c.size("text_config.max_position_embeddings", 2048, MAX_POSITIONS)?,
    };
    c.divides("text_config.num_attention_heads", heads, "num_key_value_heads", t.num_key_value_heads)?;
    if !t.head_dim.is_multiple_of(2) {
        let problem = format!("is {}: the rotary embedding needs an even number", t.head_dim);
        return Err(c.wrong("text_config.head_dim", problem));
    }
    if t.max_position_embeddings * t.head_dim > MAX_ROTARY {
        let problem = format!("is {}: too much with heads of {}", t.max_position_embeddings, t.head_dim);
        return Err(c.wrong("text_config.max_position_embeddings", problem));
    }
    Ok(t)
}

/// The base of the rotary embedding. Transformers before 5 writes `rope_theta` and `rope_scaling`, later releases
/// `rope_parameters`.
fn rope_theta(c: &JsonConfig) -> Result<f64, LoadError> {
    for key in ["text_config.rope_scaling", "text_config.rope_parameters"] {
        if c.get(key)?.is_some() {
            c.must_be(&format!("{key}.rope_type"), "default", "default")?;
            c.must_be(&format!("{key}.type"), "default", "default")?;
        }
    }
    let older = c.positive("text_config.rope_theta", 10_000.0)?;
    c.positive("text_config.rope_parameters.rope_theta", older)
}

impl ProcessorConfig {
    /// Reads `preprocessor_config.json` and `processor_config.json`.
    ///
    /// # Errors
    /// When a file cannot be read, a value cannot be used, or they do not belong to `model`.
    pub fn load(dir: &Path, model: &ModelConfig) -> Result<Self, LoadError> {
        let p = JsonConfig::read(dir, "preprocessor_config.json")?;
        for key in ["do_resize", "do_rescale", "do_normalize"] {
            if !p.flag(key, true)? {
                return Err(p.wrong(key, "is false: this program only runs models with true"));
            }
        }
        // `normalise` computes (byte / 255 - 0.5) / 0.5.
        p.must_be_about("rescale_factor", 1.0 / 255.0)?;
        for key in ["image_mean", "image_std"] {
            for channel in 0..3 {
                p.must_be_about(&format!("{key}.{channel}"), 0.5)?;
            }
        }
        if p.number("resample", 1.0)? != 1.0 {
            return Err(p.wrong("resample", "must be 1 (LANCZOS): this program has no other filter"));
        }
        let tile = p.size("max_image_size.longest_edge", 364, MAX_EDGE)?;
        if tile != model.vision.image_size {
            let problem = format!("is {tile}, but image_size in config.json is {}", model.vision.image_size);
            return Err(p.wrong("max_image_size.longest_edge", problem));
        }
        let q = JsonConfig::read(dir, "processor_config.json")?;
        let image_seq_len = q.size("image_seq_len", 169, MAX_POSITIONS)?;
        if image_seq_len != model.tokens_per_tile() {
            let wanted = model.tokens_per_tile();
            let problem =
                format!("is {image_seq_len}, but image, patch and scale sizes in config.json make {wanted}");
            return Err(q.wrong("image_seq_len", problem));
        }
        Ok(Self {
            tile,
            image_edge: p.size("size.longest_edge", 4 * 364, MAX_EDGE)?,
            video_edge: p.size("video_sampling.video_size.longest_edge", tile, MAX_EDGE)?,
            image_seq_len,
            do_image_splitting: p.flag("do_image_splitting", true)?,
            video_fps: p.positive("video_sampling.fps", 1.0)?,
            video_max_frames: p.size("video_sampling.max_frames", 64, MAX_POSITIONS)?,
        })
    }
}
