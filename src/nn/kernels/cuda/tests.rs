//! Compares every kernel, on an emulated GPU, with candle's operations on the same input. On a real GPU, `self_check`
//! compares a whole model when it is loaded, and the golden cases compare answers.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};

use candle_core::{DType, Device, Result, Tensor};

use super::{
    super::{
        super::{
            decoder::{Decoder, DecoderConfig, DecoderNames},
            forward::{decode_loop, forward},
            generate::{
                Completion, GenerationRequest, Group, NotFinite, OneGroup, Sequences, SpecialTokens, Then,
                generate,
            },
            layers::{Norm, PixelLut},
            observer::no_observer,
            sampler::{Choice, Draw, TokenSampling},
            sequence::{SequencePositions, indices},
            weights::{RandomNumbers, Weights},
        },
        CandleKernels, Kernels, PatchSize,
        cpu::{CpuKernels, product::Numbers},
    },
    emulated::{Emulated, elements},
    kernels::CudaKernels,
    launch::{Argmax, DECODE_BLOCKS, DecodeAttention, Epilogue, GEMV_MAX_ROWS, Gemv, NORM_WIDTH},
    tensors::pointer,
};

fn kernels() -> CudaKernels {
    CudaKernels::new(Box::<Emulated>::default(), true)
}

/// Reproducible random values around 0.
fn random(shape: &[usize], dtype: DType) -> Tensor {
    let mut state = 12345u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.
    };
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| next() + next() + next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Asserts that `ours` equals `truth` up to the rounding of a number format, for values of about 1.
#[track_caller]
fn assert_near(ours: &Tensor, truth: &Tensor, dtype: DType) {
    assert_eq!(ours.dims(), truth.dims());
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 2e-2 };
    for (i, (ours, truth)) in elements(ours).into_iter().zip(elements(truth)).enumerate() {
        let error = (ours - truth).abs();
        assert!(error <= tolerance * truth.abs().max(1.), "element {i} is {ours}, not {truth}");
    }
}

fn to_f32(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

const FORMATS: [DType; 2] = [DType::F32, DType::BF16];

#[test]
fn norms_equal_candles_with_and_without_an_addition() {
    for dtype in FORMATS {
        for (rows, width) in [(3, 24), (5, 576), (2, 1152), (1, 4096)] {
            let (x, y) = (random(&[1, rows, width], dtype), random(&[rows, width], dtype));
            let y = y.reshape((1, rows, width)).unwrap().affine(0.5, 1.).unwrap();
            let weight = random(&[width], DType::F32);
            for shift in [None, Some(weight.affine(0.3, 0.1).unwrap())] {
                let norm = Norm { weight: weight.clone(), shift, eps: 1e-5 };
                assert_near(
                    &kernels().norm(&x, &norm).unwrap(),
                    &to_f32(&CandleKernels.norm(&to_f32(&x), &norm).unwrap()),
                    dtype,
                );
                let (sum, normed) = kernels().add_norm(&x, &y, &norm).unwrap();
                let (reference_sum, reference) = CandleKernels.add_norm(&x, &y, &norm).unwrap();
                assert_eq!(elements(&sum), elements(&reference_sum));
                assert_near(&normed, &reference, dtype);
            }
        }
    }
}

#[test]
fn swiglu_equals_candles() {
    for dtype in FORMATS {
        // Less and more than one iteration of a block.
        for width in [136, 1544] {
            let gate_up = random(&[2, 3, 2 * width], dtype);
            assert_near(
                &kernels().swiglu(&gate_up).unwrap(),
                &CandleKernels.swiglu(&to_f32(&gate_up)).unwrap(),
                dtype,
            );
        }
    }
}

#[test]
fn patches_equal_candles_and_leave_out_incomplete_ones() {
    for (dtype, side, patch) in [(DType::F32, 64, 16), (DType::BF16, 50, 14)] {
        let values = (0..256).map(|byte| byte as f32 / 127.5 - 1.).collect();
        let lut = PixelLut { values, device: Device::Cpu, dtype };
        let size = PatchSize { side, patch };
        let tiles: Vec<u8> = (0..2 * 3 * side * side).map(|i| (i * 7 % 251) as u8).collect();
        let ours = kernels().patches(&tiles, &lut, size).unwrap();
        let reference = CandleKernels.patches(&tiles, &lut, size).unwrap();
        assert_eq!(ours.dims(), reference.dims());
        assert_eq!(elements(&ours), elements(&reference));
    }
}

/// Cosines and sines as in the decoder's rotary table.
fn rotary_table(capacity: usize, half: usize, dtype: DType) -> (Tensor, Tensor) {
    let angles = |f: fn(f32) -> f32| {
        let angle = |i: usize| f((i / half) as f32 * 0.7f32.powi((i % half) as i32));
        let values: Vec<f32> = (0..capacity * half).map(angle).collect();
        Tensor::from_vec(values, (capacity, half), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    (angles(f32::cos), angles(f32::sin))
}

#[test]
fn rotated_queries_and_stored_keys_and_values_equal_candles() {
    for dtype in FORMATS {
        let (sequences, tokens, heads, key_heads, size, capacity) = (2, 5, 6, 2, 32, 12);
        let table = rotary_table(capacity, size / 2, dtype);
        let positions = SequencePositions::new(&[0, 4], 3, tokens, &table);
        let qkv = random(&[sequences, tokens, heads + 2 * key_heads, size], dtype);
        let cache = || {
            let zeros =
                || Tensor::zeros((sequences, key_heads, capacity, size), dtype, &Device::Cpu).unwrap();
            (zeros(), zeros())
        };
        let (ours, reference) = (cache(), cache());
        let q = kernels().rotate(&qkv, &ours, &positions).unwrap();
        assert_near(&q, &CandleKernels.rotate(&qkv, &reference, &positions).unwrap(), dtype);
        assert_near(&ours.0, &reference.0, dtype);
        assert_eq!(elements(&ours.1), elements(&reference.1));
    }
}

#[test]
fn attention_to_all_keys_equals_candles() {
    // Parts of a fused projection, as in the vision tower, with an incomplete last tile of keys.
    for (size, patches) in [(64, 200), (72, 130), (64, 17)] {
        let qkv = random(&[2, patches, 3, 2, size], DType::BF16);
        let part = |i: usize| qkv.narrow(2, i, 1).unwrap().squeeze(2).unwrap().transpose(1, 2).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let ours = kernels().attention(&q, &k, &v, None).unwrap();
        assert_near(
            &ours,
            &CandleKernels.attention(&to_f32(&q), &to_f32(&k), &to_f32(&v), None).unwrap(),
            DType::BF16,
        );
    }
}

#[test]
fn attention_in_a_left_padded_batch_equals_candles() {
    let (sequences, heads, key_heads, size, capacity) = (3, 6, 2, 64, 320);
    for (first, tokens) in [(0, 300), (0, 64), (70, 130)] {
        let starts = [0, 100, 65].map(|start| if start < first + tokens { start } else { 0 });
        let table = rotary_table(capacity, size / 2, DType::BF16);
        let positions = SequencePositions::new(&starts, first, tokens, &table);
        let q = random(&[sequences, tokens, heads, size], DType::BF16).transpose(1, 2).unwrap();
        let cache = random(&[sequences, key_heads, capacity, size], DType::BF16);
        let k = cache.narrow(2, 0, first + tokens).unwrap();
        let v = k.affine(-0.7, 0.1).unwrap();
        let ours = kernels().attention(&q, &k, &v, Some(&positions)).unwrap();
        let reference =
            CandleKernels.attention(&to_f32(&q), &to_f32(&k), &to_f32(&v), Some(&positions)).unwrap();
        for (row, &start) in starts.iter().enumerate() {
            // Results of padding are not compared.
            let from = start.saturating_sub(first);
            let real = |x: &Tensor| x.get(row).unwrap().narrow(0, from, tokens - from).unwrap();
            assert_near(&real(&ours), &real(&reference), DType::BF16);
        }
    }
}

#[test]
fn decode_attention_equals_candles_for_any_number_of_splits() {
    let (sequences, key_heads, capacity) = (2, 2, 300);
    // Keys of the first sequence. The second has half as many.
    let lens = [1, 3, 4, 5, 7, 33, 64, 65, 130, 300];
    for (i, len) in lens.into_iter().enumerate() {
        let (size, group) = (DecodeAttention::SIZES[i / 4 % 2], i % DecodeAttention::MAX_GROUP + 1);
        for (dtype, splits) in FORMATS.into_iter().flat_map(|dtype| [1, 5, 41].map(|splits| (dtype, splits)))
        {
            let q = random(&[sequences, key_heads * group, 1, size], dtype);
            let k = random(&[sequences, key_heads, capacity, size], dtype);
            let v = k.affine(-0.7, 0.1).unwrap();
            let starts = [0, len / 2];
            let tensor = |values: &[usize]| indices(values, &Device::Cpu).unwrap();
            let (starts_tensor, len_tensor) = (tensor(&starts), tensor(&[len - 1]));
            let partials =
                Tensor::full(f32::NAN, (sequences, key_heads * group, splits, size + 2), &Device::Cpu)
                    .unwrap();
            let finished = Tensor::zeros((sequences, key_heads), DType::U32, &Device::Cpu).unwrap();
            let out = Tensor::zeros((sequences, 1, key_heads * group * size), dtype, &Device::Cpu).unwrap();
            let at = |x: &Tensor| pointer(x).unwrap();
            let args = DecodeAttention {
                q: at(&q),
                keys: at(&k),
                values: at(&v),
                out: at(&out),
                starts: at(&starts_tensor),
                len: at(&len_tensor),
                partials: at(&partials),
                finished: at(&finished),
                key_heads: key_heads as i32,
                capacity: capacity as i32,
                splits: splits as i32,
                scale: 1. / (size as f32).sqrt(),
            };
            args.launch(&Emulated::default(), dtype, sequences, (size, group)).unwrap();
            let table = rotary_table(capacity, size / 2, DType::F32);
            let positions = SequencePositions::new(&starts, len - 1, 1, &table);
            let visible = |x: &Tensor| to_f32(&x.narrow(2, 0, len).unwrap());
            assert_near(
                &out,
                &CandleKernels.attention(&to_f32(&q), &visible(&k), &visible(&v), Some(&positions)).unwrap(),
                dtype,
            );
            assert!(elements(&finished).iter().all(|blocks| *blocks == 0.));
        }
    }
}

#[test]
fn a_linear_layer_of_a_small_batch_equals_candles() {
    let (eps, outputs) = (1e-5, 9);
    // Less than one load of a warp, less than one iteration, one iteration, more than one, and several.
    for inputs in [8, 264, 2048, 2056, 4168] {
        for (dtype, rows) in
            FORMATS.into_iter().flat_map(|dtype| (1..=GEMV_MAX_ROWS).map(move |rows| (dtype, rows)))
        {
            for epilogue in [Epilogue::Keep, Epilogue::Add, Epilogue::Swiglu, Epilogue::Logits] {
                let gates = if matches!(epilogue, Epilogue::Swiglu) { 2 } else { 1 };
                let x = random(&[rows, inputs], dtype);
                let small = (inputs as f64).sqrt().recip();
                let weight = random(&[gates * outputs, inputs], dtype).affine(small, 0.).unwrap();
                let norm = Norm { weight: random(&[inputs], DType::F32), shift: None, eps };
                let normed = !matches!(epilogue, Epilogue::Add);
                let of = if matches!(epilogue, Epilogue::Logits) { DType::F32 } else { dtype };
                let before = random(&[rows, outputs], of);
                let out = before.copy().unwrap();
                let args = Gemv {
                    x: pointer(&x).unwrap(),
                    norm: if normed { pointer(&norm.weight).unwrap() } else { 0 },
                    weight: pointer(&weight).unwrap(),
                    out: pointer(&out).unwrap(),
                    inputs: inputs as i32,
                    outputs: outputs as i32,
                    eps,
                };
                args.launch(&Emulated::default(), dtype, rows, epilogue).unwrap();
                let x = if normed { CandleKernels.norm(&x, &norm).unwrap() } else { x };
                let y = CandleKernels.matmul(&to_f32(&x), &to_f32(&weight), None).unwrap();
                let reference = match epilogue {
                    Epilogue::Keep | Epilogue::Logits => y,
                    Epilogue::Add => (to_f32(&before) + y).unwrap(),
                    Epilogue::Swiglu => CandleKernels.swiglu(&y).unwrap(),
                };
                assert_near(&out, &reference, dtype);
            }
        }
    }
}

/// A small decoder that all kernels support.
fn config() -> DecoderConfig {
    DecoderConfig {
        hidden_size: 96,
        // More than one iteration of a kernel.
        intermediate_size: 2152,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.,
        vocab_size: 501,
        max_position_embeddings: 512,
    }
}

const NAMES: DecoderNames = DecoderNames { prefix: "model.text_model", head: "lm_head" };

fn special() -> SpecialTokens {
    SpecialTokens { image: 500, pad: 7, stop: vec![7] }
}

/// A decoder with random weights.
fn decoder(config: &DecoderConfig, dtype: DType) -> Decoder {
    let weights =
        Weights::random(NAMES.layout(config), RandomNumbers { seed: 3, bf16: false }, &Device::Cpu, dtype);
    Decoder::load(&weights, NAMES, config).unwrap()
}

/// The logits after prompts of these lengths and after each of `steps` decode steps, with made-up tokens.
fn all_logits(kernels: &dyn Kernels, dtype: DType, prompts: &[usize], steps: usize) -> Vec<Vec<f32>> {
    let decoder = decoder(&config(), dtype);
    let slots = prompts.iter().copied().max().unwrap();
    let starts = prompts.iter().map(|tokens| slots - tokens).collect();
    let mut cache = decoder.cache(starts, slots + steps).unwrap();
    let sequences = prompts.len();
    let ids: Vec<u32> = (0..sequences * slots).map(|i| (i * 37 % 499) as u32).collect();
    let vectors = decoder.embed(&ids).unwrap().reshape((sequences, slots, ())).unwrap();
    let mut all = vec![elements(&forward(kernels, &decoder, vectors, &mut cache, &mut no_observer).unwrap())];
    let mut decode = decode_loop(kernels, &decoder, &cache).unwrap();
    for step in 0..steps {
        let ids: Vec<u32> = (0..sequences).map(|row| ((step * 61 + row * 17) % 499) as u32).collect();
        let next = decode.step(&ids, &mut cache, &mut no_observer).unwrap();
        assert_eq!(next.argmax, next.logits.argmax(1).unwrap().to_vec1::<u32>().unwrap());
        all.push(elements(&next.logits));
    }
    all
}

/// Decode steps. The first is launched kernel by kernel, the others are replayed.
const STEPS: usize = 10;

#[test]
fn decode_steps_give_the_logits_that_forward_passes_give() {
    // One sequence, a small batch (our own products), a large batch (the library's). Shorter prompts are left-padded.
    for prompts in [&[9][..], &[70, 3, 130], &[5, 66, 20, 1, 64, 30]] {
        for dtype in FORMATS {
            let ours = all_logits(&kernels(), dtype, prompts, STEPS);
            let reference = all_logits(&CandleKernels, DType::F32, prompts, STEPS);
            // The error of the number format itself.
            let rounded = all_logits(&CandleKernels, dtype, prompts, STEPS);
            for (step, ((ours, rounded), reference)) in ours.iter().zip(&rounded).zip(&reference).enumerate()
            {
                let (error, limit) =
                    (mean_error(ours, reference), 1e-5 + 1.5 * mean_error(rounded, reference));
                assert!(
                    error < limit,
                    "{} sequences in {dtype:?}, step {step}: {error}, not {limit}",
                    prompts.len()
                );
            }
        }
    }
}

/// The mean absolute difference.
fn mean_error(ours: &[f32], reference: &[f32]) -> f32 {
    ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).sum::<f32>() / reference.len() as f32
}

#[test]
fn constants_of_kernels_equal_those_of_their_launches() {
    let kernels = include_str!("kernels.cu");
    for (name, value) in [("NORM_WIDTH", NORM_WIDTH), ("DECODE_SPLITS", DECODE_BLOCKS)] {
        assert!(kernels.contains(&format!("constexpr int {name} = {value};")), "{name} is not {value}");
    }
}

#[test]
fn a_finished_sequence_may_stay_in_the_batch_beyond_the_last_position() {
    let mut config = config();
    config.max_position_embeddings = 40;
    let decoder = decoder(&config, DType::F32);
    // The first ends at the last position, and stays in the batch because too few others have finished.
    let requests: Vec<GenerationRequest> = [38, 5, 7, 4, 6]
        .map(|tokens| GenerationRequest {
            ids: (0..tokens).map(|t| t * 31 % 499).collect(),
            max_tokens: 12,
            sampling: TokenSampling::GREEDY,
        })
        .into();
    let answers = |kernels: &dyn Kernels| {
        let mut group = OneGroup::new(Group { requests: requests.clone(), features: None });
        generate(kernels, (&decoder, &special()), &mut group, &mut no_observer).unwrap();
        group.generated().completions
    };
    let ours = answers(&kernels());
    assert_eq!(ours[0].as_ref().unwrap().ids.len(), 2);
    assert_eq!(ours, answers(&CandleKernels));
    assert_eq!(ours, answers(&CpuKernels { numbers: Numbers::Exact }));
}

#[test]
fn answers_of_different_lengths_equal_those_of_candles_kernels() {
    let decoder = decoder(&config(), DType::F32);
    let request = |i: usize, sampling| GenerationRequest {
        ids: (0..10 + 7 * i).map(|t| ((t * 31 + i) % 499) as u32).collect(),
        max_tokens: [1, 9, 3, 6, 2, 12, 4][i],
        sampling,
    };
    let sampled = TokenSampling {
        repetition_penalty: 1.,
        draw: Some(Draw { temperature: 1., top_k: 0, top_p: 0.9, seed: 5 }),
        logprobs: None,
    };
    let requests: Vec<GenerationRequest> =
        (0..7).map(|i| request(i, if i == 5 { sampled } else { TokenSampling::GREEDY })).collect();
    let answers = |kernels: &dyn Kernels| {
        let mut group = OneGroup::new(Group { requests: requests.clone(), features: None });
        generate(kernels, (&decoder, &special()), &mut group, &mut no_observer).unwrap();
        group.generated().completions
    };
    assert_eq!(answers(&kernels()), answers(&CandleKernels));
}

/// Sequences that come one by one, a few steps after each other.
struct OneByOne {
    waiting: VecDeque<GenerationRequest>,
    pause: usize,
    completions: BTreeMap<usize, Completion>,
    together: usize,
}

impl Sequences for OneByOne {
    fn join(&mut self, running: usize) -> Result<Group> {
        self.together = self.together.max(running);
        self.pause = if running == 0 || self.pause == 0 { 2 } else { self.pause - 1 };
        let next = if self.pause == 2 { self.waiting.pop_front() } else { None };
        Ok(Group { requests: next.into_iter().collect(), features: None })
    }

    fn is_cancelled(&self, _: usize) -> bool {
        false
    }

    fn token(&mut self, _: usize, _: &Choice) -> Then {
        Then::Continue
    }

    fn ended(&mut self, number: usize, completion: std::result::Result<Completion, NotFinite>) {
        self.completions.insert(number, completion.unwrap());
    }

    fn prefilled(&mut self, _: Range<usize>, _: Duration) {}

    fn stepped(&mut self, _: &[usize], _: Duration) {}
}

#[test]
fn sequences_that_join_others_are_completed_as_alone() {
    let decoder = decoder(&config(), DType::F32);
    let request = |i: usize| GenerationRequest {
        ids: (0..8 + 13 * (i % 4)).map(|t| ((t * 31 + i) % 499) as u32).collect(),
        max_tokens: [9, 14, 3, 12, 6, 1, 8][i],
        sampling: TokenSampling::GREEDY,
    };
    let requests: Vec<GenerationRequest> = (0..7).map(request).collect();
    let alone = |request: &GenerationRequest| {
        let mut group = OneGroup::new(Group { requests: vec![request.clone()], features: None });
        generate(&CandleKernels, (&decoder, &special()), &mut group, &mut no_observer).unwrap();
        group.generated().completions.remove(0).unwrap()
    };
    let alone: Vec<Completion> = requests.iter().map(alone).collect();
    let all: [(&str, &dyn Kernels); 3] = [
        ("emulated", &kernels()),
        ("candle", &CandleKernels),
        ("CPU", &CpuKernels { numbers: Numbers::Exact }),
    ];
    for (name, kernels) in all {
        let waiting = requests.iter().cloned().collect();
        let mut work = OneByOne { waiting, pause: 0, completions: BTreeMap::new(), together: 0 };
        generate(kernels, (&decoder, &special()), &mut work, &mut no_observer).unwrap();
        assert!(work.together >= 3, "{name}: {} were completed together", work.together);
        assert_eq!(work.completions.into_values().collect::<Vec<_>>(), alone, "{name}");
    }
}

#[test]
fn argmax_takes_the_first_of_equal_scores() {
    let vocab = 9000;
    // Equal scores within a thread, across lanes, across warps; a single one.
    let equal: [&[usize]; 4] = [&[5000, 5000 + 1024], &[7, 8, 300], &[4000, 40], &[8999]];
    let mut scores = vec![-1f32; equal.len() * vocab];
    for (row, at) in equal.iter().enumerate() {
        at.iter().for_each(|at| scores[row * vocab + at] = 3.);
    }
    let scores = Tensor::from_vec(scores, (equal.len(), vocab), &Device::Cpu).unwrap();
    let ids = Tensor::zeros(equal.len(), DType::U32, &Device::Cpu).unwrap();
    let len = Tensor::new(&[41u32], &Device::Cpu).unwrap();
    let [scores, ids_at, len_at] = [&scores, &ids, &len].map(|x| pointer(x).unwrap());
    let argmax = Argmax { scores, ids: ids_at, len: len_at, vocab: vocab as i32 };
    argmax.launch(&Emulated::default(), equal.len()).unwrap();
    assert_eq!(ids.to_vec1::<u32>().unwrap(), [5000, 7, 40, 8999]);
    assert_eq!(len.to_vec1::<u32>().unwrap(), [42]);
}
