//! Generation on random weights: batches, stop rules, sampling, and sequences that finish early.

use std::ops::Range;

use camscribe::{
    describe::smolvlm::{config::ModelConfig, network::Network},
    device::{DeviceChoice, DtypeChoice},
    event::FinishReason,
    nn::{
        device::choose,
        generate::{Completion, GenerationRequest},
        observer::{ActivationPoint, no_observer},
        sampler::{Draw, TokenSampling},
    },
};
use tempfile::TempDir;

use crate::support::checkpoint;

fn network(config: ModelConfig, dtype: DtypeChoice) -> Network {
    let dir = TempDir::new().unwrap();
    checkpoint::write(&dir.path().join("model.safetensors"), &checkpoint::random(&config, 8));
    Network::load(dir.path(), config, choose(DeviceChoice::Cpu, dtype).unwrap()).unwrap()
}

/// Returns a prompt of `words` text tokens and `tiles` tiles of 4 `<image>` tokens.
fn prompt(config: &ModelConfig, words: Range<u32>, tiles: usize, max_tokens: usize) -> GenerationRequest {
    let mut ids: Vec<u32> = words.collect();
    for tile in 0..tiles {
        ids.extend([vec![80 + tile as u32], vec![config.image_token_id; 4]].concat());
    }
    ids.push(5);
    GenerationRequest { ids, max_tokens, sampling: TokenSampling::GREEDY }
}

fn tiles(network: &Network, count: usize, seed: usize) -> Vec<u8> {
    (0..count * network.tile_bytes()).map(|i| (((i + 1) * (seed + 3) * 7919) >> 5) as u8).collect()
}

fn answers(network: &Network, requests: &[GenerationRequest], tiles: &[u8]) -> Vec<Completion> {
    let features = network.encode(tiles, &mut no_observer).unwrap();
    let generated = network.generate_group(requests, features.as_ref(), &mut no_observer).unwrap();
    generated.completions.into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_batch_of_clips_of_different_length_gives_the_same_tokens_as_each_clip_alone() {
    let network = network(checkpoint::tiny(), DtypeChoice::F32);
    let config = &network.config;
    let requests = [
        prompt(config, 3..9, 2, 30),
        prompt(config, 20..23, 5, 12),
        prompt(config, 7..8, 1, 40),
        prompt(config, 30..60, 0, 25),
    ];
    let pictures = [tiles(&network, 2, 0), tiles(&network, 5, 1), tiles(&network, 1, 2), vec![]];
    let together = answers(&network, &requests, &pictures.concat());
    for (i, (request, pictures)) in requests.iter().zip(&pictures).enumerate() {
        let alone = answers(&network, std::slice::from_ref(request), pictures);
        assert_eq!(together[i], alone[0], "row {i}");
    }
    let distinct: std::collections::HashSet<_> = together.iter().map(|a| &a.ids).collect();
    assert_eq!(distinct.len(), together.len(), "rows that answer alike prove nothing");
}

#[test]
fn an_answer_ends_at_its_stop_token_at_its_longest_and_at_the_models_last_position() {
    let mut config = checkpoint::tiny();
    let request = prompt(&config, 3..9, 2, 20);
    let free = network(config.clone(), DtypeChoice::F32);
    let pictures = tiles(&free, 2, 0);
    let whole = answers(&free, std::slice::from_ref(&request), &pictures).remove(0);
    assert_eq!((whole.ids.len(), whole.finish_reason), (20, FinishReason::Length));

    let stop = whole.ids[6];
    let first = whole.ids.iter().position(|&id| id == stop).unwrap();
    config.eos_token_ids = vec![95, stop];
    let stopped =
        answers(&network(config.clone(), DtypeChoice::F32), std::slice::from_ref(&request), &pictures);
    assert_eq!(
        stopped[0],
        Completion { ids: whole.ids[..first].to_vec(), finish_reason: FinishReason::Stop }
    );

    config.eos_token_ids = vec![96];
    config.text.max_position_embeddings = request.ids.len() + 4;
    let short = answers(&network(config, DtypeChoice::F32), std::slice::from_ref(&request), &pictures);
    assert_eq!(short[0], Completion { ids: whole.ids[..4].to_vec(), finish_reason: FinishReason::Length });

    let none = GenerationRequest { max_tokens: 0, ..request };
    assert!(answers(&free, &[none], &pictures)[0].ids.is_empty());
}

#[test]
fn an_answer_longer_than_the_room_that_is_made_at_a_time_goes_on() {
    let mut config = checkpoint::tiny();
    config.eos_token_ids = vec![];
    config.text.max_position_embeddings = 700;
    let network = network(config, DtypeChoice::F32);
    let [short, long] = [40, 600].map(|tokens| prompt(&network.config, 3..9, 1, tokens));
    let pictures = tiles(&network, 1, 0);
    let together = answers(&network, &[short.clone(), long], &pictures.repeat(2));
    assert_eq!(together[1].ids.len(), 600);
    assert_eq!(together[1].ids[..40], together[0].ids);
    assert_eq!(together[0], answers(&network, &[short], &pictures)[0]);
}

#[test]
fn sampling_draws_the_same_for_the_same_seed_and_leaves_greedy_rows_alone() {
    let network = network(checkpoint::tiny(), DtypeChoice::F32);
    let greedy = prompt(&network.config, 3..9, 1, 24);
    let draw = |seed| {
        let draw = Draw { temperature: 2., top_k: 0, top_p: 0.95, seed };
        TokenSampling { draw: Some(draw), ..TokenSampling::GREEDY }
    };
    let drawn = |seed| GenerationRequest { sampling: draw(seed), ..greedy.clone() };
    let pictures = tiles(&network, 1, 0);
    let alone = answers(&network, std::slice::from_ref(&greedy), &pictures);
    let all = answers(&network, &[greedy.clone(), drawn(1), drawn(1), drawn(2)], &pictures.repeat(4));
    assert_eq!(all[0], alone[0]);
    assert_eq!(all[1], all[2]);
    assert_ne!(all[1], all[0]);
    assert_ne!(all[1], all[3]);
}

#[test]
fn image_features_and_image_tokens_must_match_in_number() {
    let network = network(checkpoint::tiny(), DtypeChoice::F32);
    let request = prompt(&network.config, 3..9, 2, 8);
    let features = network.encode(&tiles(&network, 1, 0), &mut no_observer).unwrap();
    let error =
        network.generate_group(&[request], features.as_ref(), &mut no_observer).err().unwrap().to_string();
    assert!(error.contains("8 image tokens, the images 4"), "{error}");
}

#[test]
fn half_precision_answers_like_f32_within_rounding() {
    let config = checkpoint::tiny();
    let request = prompt(&config, 3..9, 3, 1);
    let logits = |dtype| {
        let network = network(config.clone(), dtype);
        let features = network.encode(&tiles(&network, 3, 0), &mut no_observer).unwrap();
        let mut seen = vec![];
        let mut observe = |point, x: &candle_core::Tensor| {
            if point == ActivationPoint::Logits {
                seen.push(x.flatten_all()?.to_vec1::<f32>()?);
            }
            Ok(())
        };
        network.generate_group(std::slice::from_ref(&request), features.as_ref(), &mut observe).unwrap();
        seen.remove(0)
    };
    let exact = logits(DtypeChoice::F32);
    let spread = exact.iter().fold(0f32, |most, x| most.max(x.abs()));
    // Eight and eleven bits of mantissa; several rounded operations per layer.
    for (dtype, share) in [(DtypeChoice::Bf16, 0.1), (DtypeChoice::F16, 0.01)] {
        let rounded = logits(dtype);
        let most = exact.iter().zip(&rounded).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(most > 0. && most < share * spread, "{dtype:?}: {most} of {spread}");
    }
}

#[test]
fn finished_sequences_leave_the_batch() {
    let network = network(checkpoint::tiny(), DtypeChoice::F32);
    let lengths = [2, 3, 4, 9];
    let requests = lengths.map(|max_tokens| prompt(&network.config, 3..9, 0, max_tokens));
    let mut rows = vec![];
    let mut observe = |point, x: &candle_core::Tensor| {
        if point == ActivationPoint::Logits {
            rows.push(x.dims()[0]);
        }
        Ok(())
    };
    network.generate_group(&requests, None, &mut observe).unwrap();
    assert_eq!(rows, [4, 4, 3, 2, 1, 1, 1, 1, 1]);
}
