//! `camscribe bench` as a program of its own that does not link GStreamer, so that it can be copied to a machine with
//! a GPU. It has the options of `camscribe bench`.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use camscribe::{
    bench::{Settings, run},
    logging,
};

const USAGE: &str = "bench [--shapes 256M,500M,2.2B] [--batches 1,2,…] [--frames N] [--new-tokens N] \
[--repeat N] [--periods N] [--seed N] [--device auto|cpu|cuda|cuda:N] [--dtype auto|f32|bf16|f16|q8] \
[--kernels candle|own|graphs] [--json FILE]";

fn main() -> Result<()> {
    logging::init("warn", logging::Format::Auto);
    let mut settings = Settings::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value: {USAGE}"))?;
        set(&mut settings, &name, &value).with_context(|| format!("{name} {value}"))?;
    }
    run(&settings)
}

fn set(settings: &mut Settings, name: &str, value: &str) -> Result<()> {
    match name {
        "--shapes" => settings.shapes = list(value)?,
        "--batches" => settings.batches = list(value)?,
        "--frames" => settings.frames = value.parse()?,
        "--new-tokens" => settings.new_tokens = value.parse()?,
        "--repeat" => settings.repeat = value.parse()?,
        "--periods" => settings.periods = value.parse()?,
        "--seed" => settings.seed = value.parse()?,
        "--device" => settings.device = value.parse()?,
        "--dtype" => settings.dtype = value.parse()?,
        "--kernels" => settings.kernels = value.parse()?,
        "--json" => settings.json = Some(value.into()),
        _ => bail!("there is no such option: {USAGE}"),
    }
    Ok(())
}

fn list<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<Vec<T>> {
    text.split(',').map(|item| Ok(item.parse()?)).collect()
}
