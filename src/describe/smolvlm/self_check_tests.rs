//! The whole network on emulated CUDA kernels: compared with candle's operations, and with the golden cases.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{
    config::{ModelConfig, SamplingDefaults, VisionConfig},
    layout::layout,
    model::SmolVlm,
    network::Network,
    vision::VisionTower,
};
use crate::{
    describe::options::LoadOptions,
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    nn::{
        decoder::DecoderConfig,
        device::{ComputeTarget, choose},
        error::Result,
        kernels::{
            CandleKernels, Kernels, PatchSize,
            cuda::{
                emulated::{Emulated, elements},
                kernels::CudaKernels,
            },
        },
        layers::{Norm, PixelLut},
        observer::no_observer,
        self_check::{max_relative_error, max_tolerated_error},
        sequence::SequencePositions,
        weights::{RandomNumbers, Weights},
    },
};

#[path = "../../../tests/support/decisions.rs"]
mod decisions;
#[path = "../../../tests/support/given.rs"]
mod given;
#[path = "../../../tests/support/golden.rs"]
mod golden;
#[path = "../../../tests/support/picture.rs"]
mod picture;

const SEED: RandomNumbers = RandomNumbers { seed: 3, bf16: false };

use golden::Runner;

fn kernels() -> CudaKernels {
    CudaKernels::new(Box::<Emulated>::default(), true)
}

const FORMATS: [DType; 2] = [DType::F32, DType::BF16];

/// A small model with heads that every kernel takes.
fn config() -> ModelConfig {
    ModelConfig {
        vision: VisionConfig {
            hidden_size: 128,
            intermediate_size: 192,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 80,
            patch_size: 16,
            layer_norm_eps: 1e-6,
        },
        text: DecoderConfig {
            hidden_size: 96,
            // More than a kernel takes at a time.
            intermediate_size: 2152,
            num_hidden_layers: 3,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            head_dim: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.,
            vocab_size: 501,
            max_position_embeddings: 512,
        },
        scale_factor: 1,
        image_token_id: 500,
        eos_token_ids: vec![7],
        pad_token_id: 7,
        sampling: SamplingDefaults::default(),
    }
}

#[test]
fn the_vision_tower_on_kernels_equals_the_one_on_candle() {
    let config = config();
    for dtype in FORMATS {
        let tower = |dtype| {
            let weights = Weights::random(layout(&config), SEED, &Device::Cpu, dtype);
            VisionTower::load(&weights, &config.vision).unwrap()
        };
        let tiles: Vec<u8> = (0..2 * tower(dtype).tile_bytes()).map(|i| (i * 13 % 255) as u8).collect();
        let ours = tower(dtype).forward(&kernels(), &tiles, &mut no_observer).unwrap();
        let reference = tower(DType::F32).forward(&CandleKernels, &tiles, &mut no_observer).unwrap();
        let off: f32 = elements(&ours).iter().zip(elements(&reference)).map(|(a, b)| (a - b).abs()).sum();
        let mean = off / reference.elem_count() as f32;
        assert!(mean < if dtype == DType::F32 { 1e-5 } else { 2e-2 }, "{mean}");
    }
}

/// Candle's operations, but for [`Kernels::add_norm`], which forgets the addition.
struct WrongKernels;

impl Kernels for WrongKernels {
    fn matmul(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        CandleKernels.matmul(x, weight, bias)
    }

    fn matmul_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        CandleKernels.matmul_gelu(x, weight, bias)
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        CandleKernels.norm(x, norm)
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        CandleKernels.swiglu(gate_up)
    }

    fn rotate(
        &self,
        qkv: &Tensor,
        cache: &(Tensor, Tensor),
        positions: &SequencePositions,
    ) -> Result<Tensor> {
        CandleKernels.rotate(qkv, cache, positions)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor> {
        CandleKernels.attention(q, k, v, positions)
    }

    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor> {
        CandleKernels.patches(tiles, lut, size)
    }

    fn add_norm(&self, x: &Tensor, _: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        Ok((x.clone(), self.norm(x, norm)?))
    }
}

#[test]
fn the_self_check_accepts_right_kernels_and_refuses_wrong_ones() {
    for (dtype, choice) in [(DType::F32, DtypeChoice::F32), (DType::BF16, DtypeChoice::Bf16)] {
        let target = choose(DeviceChoice::Cpu, choice).unwrap();
        let target = ComputeTarget { kernels: KernelChoice::Candle, ..target };
        let network = Network::random(config(), SEED, target).unwrap();
        let error = |kernels: &dyn Kernels| max_relative_error(kernels, &|it| network.probe(it)).unwrap();
        let right = error(&kernels());
        assert!(right < max_tolerated_error(dtype) / 3., "{right}");
        let wrong = error(&WrongKernels);
        assert!(wrong > max_tolerated_error(DType::BF16), "{wrong}");
    }
}

fn golden_cases_pass_in(dtype: DtypeChoice) {
    let emulated = |network: Network| network.with_kernels(Box::new(kernels()));
    // Candle's kernels have plain weights, which the emulated ones need.
    let target = choose(DeviceChoice::Cpu, dtype).unwrap();
    let target = ComputeTarget { kernels: KernelChoice::Candle, ..target };
    let runner = Runner::new(target).changing(emulated);
    // The repository's small cases. The large ones take minutes here, so they run only if CAMSCRIBE_GOLDEN names them.
    runner.all_pass(golden::roots(Path::new(env!("CARGO_MANIFEST_DIR"))));
}

#[test]
fn golden_cases_pass_in_f32_on_emulated_kernels() {
    golden_cases_pass_in(DtypeChoice::F32);
}

#[test]
fn golden_cases_pass_in_bf16_on_emulated_kernels() {
    golden_cases_pass_in(DtypeChoice::Bf16);
}

fn labels_are_as_likely_in(dtype: DtypeChoice, most: decisions::Error) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes");
    let plain = KernelChoice::Candle;
    let options = LoadOptions { device: DeviceChoice::Cpu, dtype, kernels: plain, ..LoadOptions::default() };
    let model = SmolVlm::load(&dir, options).unwrap();
    let mut model = SmolVlm { network: model.network.with_kernels(Box::new(kernels())), ..model };
    // More pictures take minutes here.
    let small: Vec<_> = decisions::cases().into_iter().filter(|case| case.n_image_tokens < 32).collect();
    decisions::all_equal_the_reference(&mut model, &small, most);
}

#[test]
fn labels_are_as_likely_in_f32_on_emulated_kernels() {
    labels_are_as_likely_in(DtypeChoice::F32, decisions::Error::F32);
}

#[test]
fn labels_are_nearly_as_likely_in_bf16_on_emulated_kernels() {
    labels_are_as_likely_in(DtypeChoice::Bf16, decisions::Error::ROUNDED);
}
