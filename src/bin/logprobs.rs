//! Writes how likely every token is after each token of some texts, to compare number formats with a reference:
//! tests/text-weights/accuracy.py does.
//!
//! `logprobs MODEL TOKENS OUT DTYPE`, on the CPU. TOKENS is a JSON file with a list of token numbers for each text. OUT
//! receives the natural logarithms in f32, little-endian: `(tokens of all texts, vocabulary)`.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use camscribe::{
    describe::smolvlm::{config::ModelConfig, network::Network},
    device::DeviceChoice,
    nn::{device::choose, observer::no_observer, score::Scored},
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokens, out, dtype] = &arguments[..] else { bail!("logprobs MODEL TOKENS OUT DTYPE") };
    let target = choose(DeviceChoice::Cpu, dtype.parse()?)?;
    let network = Network::load(Path::new(model), ModelConfig::load(Path::new(model))?, target)?;
    let texts: Vec<Vec<u32>> =
        serde_json::from_reader(File::open(tokens).context(tokens.clone())?).context(tokens.clone())?;
    let mut out = BufWriter::new(File::create(out).context(out.clone())?);
    for ids in texts {
        let last = ids.len();
        for row in network.score(&[Scored { ids, last }], None, &mut no_observer)?.concat() {
            for number in row {
                out.write_all(&number.to_le_bytes())?;
            }
        }
    }
    Ok(out.flush()?)
}
