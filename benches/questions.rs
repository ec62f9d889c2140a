//! What questions about a clip cost: 0, 1 or 5 of them, with and without a description, in one request and in a request
//! each.
//!
//!     cargo bench --bench questions
//!
//! One clip of 8 frames, random weights of the 256M shape, f32, on the CPU, with camscribe's own kernels. Prompts have as
//! many tokens as the reference's. A request runs what the describer runs for it: the vision tower, the scores of its
//! questions, the answer. Prints one line of JSON, which questions.py puts beside transformers.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{iter::repeat_n, time::Instant};

use camscribe::{
    bench::shapes::Shape,
    describe::smolvlm::{config::ModelConfig, network::Network},
    device::{DeviceChoice, DtypeChoice},
    nn::{
        device::choose, generate::GenerationRequest, observer::no_observer, sampler::TokenSampling,
        score::Scored, weights::RandomNumbers,
    },
};
use serde_json::json;

const FRAMES: usize = 8;
const NEW_TOKENS: usize = 64;
const QUESTIONS: usize = 5;
/// Tokens of the question "Describe this video in detail." and of "Is there a person at the door? Answer yes or no.",
/// both with "Assistant:".
const DESCRIBE: usize = 13;
const ASK: usize = 19;
const TEXT_TOKEN: u32 = 1000;

/// The tokens of a prompt about the clip. Its last `own` ones are of no other prompt.
fn prompt(config: &ModelConfig, number: usize, own: usize) -> Vec<u32> {
    let mut ids = vec![TEXT_TOKEN; 32];
    for _ in 0..FRAMES {
        ids.extend([TEXT_TOKEN; 12]);
        ids.extend(repeat_n(config.image_token_id, config.tokens_per_tile()));
        ids.push(TEXT_TOKEN);
    }
    ids.extend(repeat_n(TEXT_TOKEN + 1 + number as u32, own));
    ids
}

/// Runs one request. Returns its seconds.
fn request(network: &Network, describe: bool, questions: std::ops::Range<usize>) -> f64 {
    let start = Instant::now();
    let tiles: Vec<u8> = (0..FRAMES * network.tile_bytes()).map(|i| (i * 31 % 251) as u8).collect();
    let features = network.encode(&tiles, &mut no_observer).expect("the device works");
    let scored = |i| Scored { ids: prompt(&network.config, 1 + i, ASK), last: 1 };
    let questions: Vec<Scored> = questions.map(scored).collect();
    if !questions.is_empty() {
        let scores =
            network.score(&questions, features.as_ref(), &mut no_observer).expect("the device works");
        assert_eq!(scores.len(), questions.len());
    }
    if describe {
        let answer = GenerationRequest {
            ids: prompt(&network.config, 0, DESCRIBE),
            max_tokens: NEW_TOKENS,
            sampling: TokenSampling::GREEDY,
        };
        let mut answers = network
            .generate_group(&[answer], features.as_ref(), &mut no_observer)
            .expect("the device works")
            .completions;
        assert_eq!(answers.remove(0).expect("the scores are numbers").ids.len(), NEW_TOKENS);
    }
    start.elapsed().as_secs_f64()
}

fn main() {
    let target = choose(DeviceChoice::Cpu, DtypeChoice::F32).expect("there is a CPU");
    let network = Network::random(Shape::M256.config(), RandomNumbers { seed: 1, bf16: true }, target)
        .expect("the weights fit");
    // Threads and memory are there from now on.
    request(&network, true, 0..1);
    let rows = [(true, 0), (true, 1), (true, QUESTIONS), (false, 1), (false, QUESTIONS)];
    let together = rows.map(|(describe, questions)| request(&network, describe, 0..questions));
    let describe = request(&network, true, 0..0);
    let each: Vec<f64> = (0..QUESTIONS).map(|i| request(&network, false, i..i + 1)).collect();
    let apart = rows.map(|(described, questions)| {
        f64::from(u8::from(described)) * describe + each[..questions].iter().sum::<f64>()
    });
    let rows = rows.iter().zip(together).zip(apart).map(|(((describe, questions), together), apart)| {
        json!({ "describe": describe, "questions": questions, "together_s": together, "apart_s": apart })
    });
    let work = json!({
        "config": network.config,
        "frames": FRAMES,
        "new_tokens": NEW_TOKENS,
        "describe_tokens": prompt(&network.config, 0, DESCRIBE).len(),
        "ask_tokens": prompt(&network.config, 1, ASK).len(),
    });
    println!("{}", json!({ "work": work, "rows": rows.collect::<Vec<_>>() }));
}
