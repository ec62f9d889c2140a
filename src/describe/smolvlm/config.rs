//! `config.json`, `generation_config.json` and the processor files of a SmolVLM2 checkpoint, read
//! into what the code needs, with the reference's own defaults for keys that published files leave out.

/// Shape of the SigLIP vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Side of a tile, pixels (T).
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
}

/// Shape of the Llama decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
}

/// A checkpoint's architecture and how it ends an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub vision: VisionConfig,
    pub text: TextConfig,
    /// Pixel shuffle factor of the connector.
    pub scale_factor: usize,
    pub image_token_id: u32,
    /// The tokens that end an answer, from generation_config.json.
    pub eos_token_ids: Vec<u32>,
    /// What fills the left of a shorter row in a batch.
    pub pad_token_id: u32,
}

/// How pictures and prompts are prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessorConfig {
    /// Side of a tile, pixels (T): `max_image_size.longest_edge`.
    pub tile: usize,
    /// Longest edge of a still image before it is cut into tiles (L): `size.longest_edge`.
    pub image_edge: usize,
    /// First resize edge of a video frame (E): `video_sampling.video_size.longest_edge`.
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
