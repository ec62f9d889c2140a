//! Every kernel is compared with candle's operations on the same numbers. A GPU runs the same
//! comparison on a whole model when one is loaded (`self_check`), and the golden cases.

use candle_core::{DType, Device, Tensor};

use super::{
    super::{
        super::{
            decoder::{Decoder, DecoderConfig, DecoderNames},
            forward::{decode_loop, forward},
            generate::{Request, SpecialTokens, TokenSampling, generate},
            layers::{Norm, PixelLut},
            observer::no_observer,
            sequence::{SequencePositions, indices},
            weights::Weights,
        },
        CandleKernels, Kernels, PatchSize,
        cpu::CpuKernels,
    },
    emulated::{Emulated, numbers},
    kernels::CudaKernels,
    launch::{Argmax, DECODE_BLOCKS, DecodeAttention, Epilogue, GEMV_ROWS, Gemv, NORM_WIDTH},
    tensors::pointer,
};

fn kernels() -> CudaKernels {
    CudaKernels::new(Box::<Emulated>::default(), true)
}

/// Reproducible numbers around 0.
fn random(shape: &[usize], dtype: DType) -> Tensor {
    let mut state = 12345u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.
    };
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|_| next() + next() + next()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Ours is as near to `truth` as numbers of this format are, where values are about 1.
#[track_caller]
fn near(ours: &Tensor, truth: &Tensor, dtype: DType) {
    assert_eq!(ours.dims(), truth.dims());
    let off = if dtype == DType::F32 { 2e-5 } else { 2e-2 };
    for (i, (ours, truth)) in numbers(ours).into_iter().zip(numbers(truth)).enumerate() {
        let apart = (ours - truth).abs();
        assert!(apart <= off * truth.abs().max(1.), "number {i} is {ours}, not {truth}");
    }
}

fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

const FORMATS: [DType; 2] = [DType::F32, DType::BF16];

#[test]
fn norms_equal_the_plain_ones_alone_and_after_an_addition() {
    for dtype in FORMATS {
        for (rows, width) in [(3, 24), (5, 576), (2, 1152), (1, 4096)] {
            let (x, y) = (random(&[1, rows, width], dtype), random(&[rows, width], dtype));
            let y = y.reshape((1, rows, width)).unwrap().affine(0.5, 1.).unwrap();
            let weight = random(&[width], DType::F32);
            for shift in [None, Some(weight.affine(0.3, 0.1).unwrap())] {
                let norm = Norm { weight: weight.clone(), shift, eps: 1e-5 };
                near(
                    &kernels().norm(&x, &norm).unwrap(),
                    &wide(&CandleKernels.norm(&wide(&x), &norm).unwrap()),
                    dtype,
                );
                let (sum, normed) = kernels().add_norm(&x, &y, &norm).unwrap();
                let (plain_sum, plain) = CandleKernels.add_norm(&x, &y, &norm).unwrap();
                assert_eq!(numbers(&sum), numbers(&plain_sum));
                near(&normed, &plain, dtype);
            }
        }
    }
}

#[test]
fn swiglu_equals_the_plain_one() {
    for dtype in FORMATS {
        // Less than a block takes at a time, and more.
        for width in [136, 1544] {
            let gate_up = random(&[2, 3, 2 * width], dtype);
            near(
                &kernels().swiglu(&gate_up).unwrap(),
                &CandleKernels.swiglu(&wide(&gate_up)).unwrap(),
                dtype,
            );
        }
    }
}

#[test]
fn patches_equal_the_plain_ones_and_leave_out_what_fills_none() {
    for (dtype, side, patch) in [(DType::F32, 64, 16), (DType::BF16, 50, 14)] {
        let values = (0..256).map(|byte| byte as f32 / 127.5 - 1.).collect();
        let lut = PixelLut { values, device: Device::Cpu, dtype };
        let size = PatchSize { side, patch };
        let tiles: Vec<u8> = (0..2 * 3 * side * side).map(|i| (i * 7 % 251) as u8).collect();
        let ours = kernels().patches(&tiles, &lut, size).unwrap();
        let plain = CandleKernels.patches(&tiles, &lut, size).unwrap();
        assert_eq!(ours.dims(), plain.dims());
        assert_eq!(numbers(&ours), numbers(&plain));
    }
}

/// Cosines and sines as the decoder's cache has them.
fn table(capacity: usize, half: usize, dtype: DType) -> (Tensor, Tensor) {
    let angles = |f: fn(f32) -> f32| {
        let angle = |i: usize| f((i / half) as f32 * 0.7f32.powi((i % half) as i32));
        let values: Vec<f32> = (0..capacity * half).map(angle).collect();
        Tensor::from_vec(values, (capacity, half), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    (angles(f32::cos), angles(f32::sin))
}

#[test]
fn queries_and_keys_are_turned_and_keys_and_values_stored_like_the_plain_ones() {
    for dtype in FORMATS {
        let (rows, tokens, heads, key_heads, size, capacity) = (2, 5, 6, 2, 32, 12);
        let table = table(capacity, size / 2, dtype);
        let positions = SequencePositions::new(&[0, 4], 3, tokens, &table);
        let qkv = random(&[rows, tokens, heads + 2 * key_heads, size], dtype);
        let cache = || {
            let zeros = || Tensor::zeros((rows, key_heads, capacity, size), dtype, &Device::Cpu).unwrap();
            (zeros(), zeros())
        };
        let (ours, plain) = (cache(), cache());
        let q = kernels().rotate(&qkv, &ours, &positions).unwrap();
        near(&q, &CandleKernels.rotate(&qkv, &plain, &positions).unwrap(), dtype);
        near(&ours.0, &plain.0, dtype);
        assert_eq!(numbers(&ours.1), numbers(&plain.1));
    }
}

#[test]
fn attention_of_all_on_all_equals_the_plain_one() {
    // Parts of a fused projection, as the vision tower has them; a last tile of keys that is not full.
    for (size, patches) in [(64, 200), (72, 130), (64, 17)] {
        let qkv = random(&[2, patches, 3, 2, size], DType::BF16);
        let part = |i: usize| qkv.narrow(2, i, 1).unwrap().squeeze(2).unwrap().transpose(1, 2).unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let ours = kernels().attention(&q, &k, &v, None).unwrap();
        near(&ours, &CandleKernels.attention(&wide(&q), &wide(&k), &wide(&v), None).unwrap(), DType::BF16);
    }
}

#[test]
fn attention_in_a_left_padded_batch_equals_the_plain_one() {
    let (rows, heads, key_heads, size, capacity) = (3, 6, 2, 64, 320);
    for (first, tokens) in [(0, 300), (0, 64), (70, 130)] {
        let starts = [0, 100, 65].map(|start| if start < first + tokens { start } else { 0 });
        let table = table(capacity, size / 2, DType::BF16);
        let positions = SequencePositions::new(&starts, first, tokens, &table);
        let q = random(&[rows, tokens, heads, size], DType::BF16).transpose(1, 2).unwrap();
        let cache = random(&[rows, key_heads, capacity, size], DType::BF16);
        let k = cache.narrow(2, 0, first + tokens).unwrap();
        let v = k.affine(-0.7, 0.1).unwrap();
        let ours = kernels().attention(&q, &k, &v, Some(&positions)).unwrap();
        let plain = CandleKernels.attention(&wide(&q), &wide(&k), &wide(&v), Some(&positions)).unwrap();
        for (row, &start) in starts.iter().enumerate() {
            // What padding sees means nothing.
            let from = start.saturating_sub(first);
            let real = |x: &Tensor| x.get(row).unwrap().narrow(0, from, tokens - from).unwrap();
            near(&real(&ours), &real(&plain), DType::BF16);
        }
    }
}

#[test]
fn attention_of_one_query_a_row_equals_the_plain_one_however_its_keys_are_split() {
    let (rows, key_heads, capacity) = (2, 2, 300);
    // How many keys the first row has; the second has half of them.
    let lens = [1, 3, 4, 5, 7, 33, 64, 65, 130, 300];
    for (i, len) in lens.into_iter().enumerate() {
        let (size, group) = (DecodeAttention::SIZES[i / 4 % 2], i % DecodeAttention::MOST_HEADS + 1);
        for (dtype, splits) in FORMATS.into_iter().flat_map(|dtype| [1, 5, 41].map(|splits| (dtype, splits)))
        {
            let q = random(&[rows, key_heads * group, 1, size], dtype);
            let k = random(&[rows, key_heads, capacity, size], dtype);
            let v = k.affine(-0.7, 0.1).unwrap();
            let starts = [0, len / 2];
            let there = |numbers: &[usize]| indices(numbers, &Device::Cpu).unwrap();
            let (starts_there, len_there) = (there(&starts), there(&[len - 1]));
            let parts =
                Tensor::full(f32::NAN, (rows, key_heads * group, splits, size + 2), &Device::Cpu).unwrap();
            let done = Tensor::zeros((rows, key_heads), DType::U32, &Device::Cpu).unwrap();
            let out = Tensor::zeros((rows, 1, key_heads * group * size), dtype, &Device::Cpu).unwrap();
            let at = |x: &Tensor| pointer(x).unwrap();
            let args = DecodeAttention {
                q: at(&q),
                keys: at(&k),
                values: at(&v),
                out: at(&out),
                starts: at(&starts_there),
                len: at(&len_there),
                parts: at(&parts),
                done: at(&done),
                key_heads: key_heads as i32,
                capacity: capacity as i32,
                splits: splits as i32,
                scale: 1. / (size as f32).sqrt(),
            };
            args.launch(&Emulated::default(), dtype, rows, (size, group)).unwrap();
            let table = table(capacity, size / 2, DType::F32);
            let positions = SequencePositions::new(&starts, len - 1, 1, &table);
            let seen = |x: &Tensor| wide(&x.narrow(2, 0, len).unwrap());
            near(
                &out,
                &CandleKernels.attention(&wide(&q), &seen(&k), &seen(&v), Some(&positions)).unwrap(),
                dtype,
            );
            assert!(numbers(&done).iter().all(|done| *done == 0.));
        }
    }
}

#[test]
fn few_rows_through_a_layer_become_what_the_plain_operations_make_of_them() {
    let (eps, outputs) = (1e-5, 9);
    // Less than a warp reads, less than it reads at a time, as much, more, and several times as much.
    for inputs in [8, 264, 2048, 2056, 4168] {
        for (dtype, rows) in
            FORMATS.into_iter().flat_map(|dtype| (1..=GEMV_ROWS).map(move |rows| (dtype, rows)))
        {
            for then in [Epilogue::Keep, Epilogue::Add, Epilogue::Swiglu, Epilogue::Scores] {
                let gates = if matches!(then, Epilogue::Swiglu) { 2 } else { 1 };
                let x = random(&[rows, inputs], dtype);
                let small = (inputs as f64).sqrt().recip();
                let weight = random(&[gates * outputs, inputs], dtype).affine(small, 0.).unwrap();
                let norm = Norm { weight: random(&[inputs], DType::F32), shift: None, eps };
                let normed = !matches!(then, Epilogue::Add);
                let of = if matches!(then, Epilogue::Scores) { DType::F32 } else { dtype };
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
                args.launch(&Emulated::default(), dtype, rows, then).unwrap();
                let x = if normed { CandleKernels.norm(&x, &norm).unwrap() } else { x };
                let y = CandleKernels.matmul(&wide(&x), &wide(&weight), None).unwrap();
                let plain = match then {
                    Epilogue::Keep | Epilogue::Scores => y,
                    Epilogue::Add => (wide(&before) + y).unwrap(),
                    Epilogue::Swiglu => CandleKernels.swiglu(&y).unwrap(),
                };
                near(&out, &plain, dtype);
            }
        }
    }
}

/// A small decoder with heads that every kernel takes.
fn config() -> DecoderConfig {
    DecoderConfig {
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
    }
}

const NAMES: DecoderNames = DecoderNames { prefix: "model.text_model", head: "lm_head" };

fn special() -> SpecialTokens {
    SpecialTokens { image: 500, pad: 7, stop: vec![7] }
}

/// Random weights.
fn decoder(config: &DecoderConfig, dtype: DType) -> Decoder {
    let weights = Weights::random(NAMES.layout(config), 3, &Device::Cpu, dtype);
    Decoder::load(&weights, NAMES, config, false).unwrap()
}

/// Scores of every step for rows of these prompts, with these words given one after the other.
fn scores(kernels: &dyn Kernels, dtype: DType, prompts: &[usize], steps: usize) -> Vec<Vec<f32>> {
    let decoder = decoder(&config(), dtype);
    let slots = prompts.iter().copied().max().unwrap();
    let starts = prompts.iter().map(|tokens| slots - tokens).collect();
    let mut cache = decoder.cache(starts, slots + steps).unwrap();
    let rows = prompts.len();
    let ids: Vec<u32> = (0..rows * slots).map(|i| (i * 37 % 499) as u32).collect();
    let vectors = decoder.embed(&ids).unwrap().reshape((rows, slots, ())).unwrap();
    let mut all = vec![numbers(&forward(kernels, &decoder, vectors, &mut cache, &mut no_observer).unwrap())];
    let mut decode = decode_loop(kernels, &decoder, &cache).unwrap();
    for step in 0..steps {
        let ids: Vec<u32> = (0..rows).map(|row| ((step * 61 + row * 17) % 499) as u32).collect();
        let next = decode.step(&ids, &mut cache, &mut no_observer).unwrap();
        assert_eq!(next.argmax, next.logits.argmax(1).unwrap().to_vec1::<u32>().unwrap());
        all.push(numbers(&next.logits));
    }
    all
}

/// The first is launched kernel by kernel, the others are replayed.
const STEPS: usize = 10;

#[test]
fn steps_give_the_scores_that_passes_give() {
    // One row, few rows (our own products), many rows (the library's), all left-padded but the longest.
    for prompts in [&[9][..], &[70, 3, 130], &[5, 66, 20, 1, 64, 30]] {
        for dtype in FORMATS {
            let ours = scores(&kernels(), dtype, prompts, STEPS);
            let plain = scores(&CandleKernels, DType::F32, prompts, STEPS);
            // What the number format itself costs.
            let rounded = scores(&CandleKernels, dtype, prompts, STEPS);
            for (step, ((ours, rounded), plain)) in ours.iter().zip(&rounded).zip(&plain).enumerate() {
                let (off, most) = (apart(ours, plain), 1e-5 + 1.5 * apart(rounded, plain));
                assert!(off < most, "{} rows in {dtype:?}, step {step}: {off}, not {most}", prompts.len());
            }
        }
    }
}

/// The mean difference.
fn apart(ours: &[f32], plain: &[f32]) -> f32 {
    ours.iter().zip(plain).map(|(a, b)| (a - b).abs()).sum::<f32>() / plain.len() as f32
}

#[test]
fn numbers_that_kernels_and_their_callers_share_are_the_same() {
    let kernels = include_str!("kernels.cu");
    for (name, number) in [("NORM_WIDTH", NORM_WIDTH), ("DECODE_SPLITS", DECODE_BLOCKS)] {
        assert!(kernels.contains(&format!("constexpr int {name} = {number};")), "{name} is not {number}");
    }
}

#[test]
fn a_row_that_is_done_may_stay_beyond_the_last_position() {
    let mut config = config();
    config.max_position_embeddings = 40;
    let decoder = decoder(&config, DType::F32);
    // The first ends at the last position, and too few are done for it to leave.
    let requests: Vec<Request> = [38, 5, 7, 4, 6]
        .map(|tokens| Request {
            ids: (0..tokens).map(|t| t * 31 % 499).collect(),
            max_tokens: 12,
            sampling: TokenSampling::Greedy,
        })
        .into();
    let answers = |kernels: &dyn Kernels| {
        generate(kernels, (&decoder, &special()), &requests, None, &mut no_observer).unwrap().answers
    };
    let ours = answers(&kernels());
    assert_eq!(ours[0].as_ref().unwrap().ids.len(), 2);
    assert_eq!(ours, answers(&CandleKernels));
    assert_eq!(ours, answers(&CpuKernels));
}

#[test]
fn answers_that_end_at_different_times_are_those_of_the_plain_path() {
    let decoder = decoder(&config(), DType::F32);
    let request = |i: usize, sampling| Request {
        ids: (0..10 + 7 * i).map(|t| ((t * 31 + i) % 499) as u32).collect(),
        max_tokens: [1, 9, 3, 6, 2, 12, 4][i],
        sampling,
    };
    let drawn = TokenSampling::TopP { temperature: 1., top_p: 0.9, seed: 5 };
    let requests: Vec<Request> =
        (0..7).map(|i| request(i, if i == 5 { drawn } else { TokenSampling::Greedy })).collect();
    let answers = |kernels: &dyn Kernels| {
        generate(kernels, (&decoder, &special()), &requests, None, &mut no_observer).unwrap().answers
    };
    assert_eq!(answers(&kernels()), answers(&CandleKernels));
}

#[test]
fn of_equally_likely_tokens_the_first_is_chosen() {
    let words = 9000;
    // Of one thread, of lanes, of warps.
    let equal: [&[usize]; 4] = [&[5000, 5000 + 1024], &[7, 8, 300], &[4000, 40], &[8999]];
    let mut scores = vec![-1f32; equal.len() * words];
    for (row, at) in equal.iter().enumerate() {
        at.iter().for_each(|at| scores[row * words + at] = 3.);
    }
    let scores = Tensor::from_vec(scores, (equal.len(), words), &Device::Cpu).unwrap();
    let ids = Tensor::zeros(equal.len(), DType::U32, &Device::Cpu).unwrap();
    let len = Tensor::new(&[41u32], &Device::Cpu).unwrap();
    let [scores, ids_at, len_at] = [&scores, &ids, &len].map(|x| pointer(x).unwrap());
    let argmax = Argmax { scores, ids: ids_at, len: len_at, words: words as i32 };
    argmax.launch(&Emulated::default(), equal.len()).unwrap();
    assert_eq!(ids.to_vec1::<u32>().unwrap(), [5000, 7, 40, 8999]);
    assert_eq!(len.to_vec1::<u32>().unwrap(), [42]);
}
