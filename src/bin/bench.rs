//! Times the model stage by stage on one clip and prints one line of JSON; `benches/compare_cpu.py`
//! sets it beside the reference implementation.
//!
//! `bench --model DIR [--device D] [--dtype D] [--frames 8] [--side 512] [--edge PIXELS]
//! [--new-tokens 64] [--batch 1] [--repeat 2]`; `--edge` is the first resize edge, by default the
//! checkpoint's own.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use camscribe::describe::smolvlm::{
    config::{ModelConfig, ProcessorConfig},
    device::choose,
    generate::{Request, Sampling},
    network::Network,
    preprocess::{Picture, Preprocessor},
    prompt::{Message, Part, Prompter, Role},
    unwatched,
};

const OPTIONS: [&str; 9] =
    ["--model", "--device", "--dtype", "--frames", "--side", "--edge", "--new-tokens", "--batch", "--repeat"];

/// The options that were given.
struct Given(HashMap<String, String>);

impl Given {
    fn read() -> Result<Self> {
        let mut given = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            if !OPTIONS.contains(&name.as_str()) {
                bail!("{name:?} is not one of {}", OPTIONS.join(" "));
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            given.insert(name, value);
        }
        Ok(Self(given))
    }

    fn get<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
        default: &str,
    ) -> Result<T> {
        let value = self.0.get(name).map_or(default, String::as_str);
        value.parse().with_context(|| format!("{name} {value}"))
    }
}

fn main() -> Result<()> {
    let given = Given::read()?;
    let model: String = given.get("--model", "")?;
    let (frames, side): (usize, u32) = (given.get("--frames", "8")?, given.get("--side", "512")?);
    let (batch, repeat): (usize, usize) = (given.get("--batch", "1")?, given.get("--repeat", "2")?);
    let new_tokens: usize = given.get("--new-tokens", "64")?;
    let dir = Path::new(&model);

    let mut config = ModelConfig::load(dir)?;
    // Every answer is to be as long as the others.
    config.eos_token_ids.clear();
    let mut processor = ProcessorConfig::load(dir, &config)?;
    processor.video_edge = given.get("--edge", &processor.video_edge.to_string())?;
    let prompter = Prompter::load(dir, &config, &processor)?;
    let preprocessor = Preprocessor::new(&processor);
    let chosen = choose(given.get("--device", "auto")?, given.get("--dtype", "auto")?)?;
    let start = Instant::now();
    let network = Network::load(dir, config, chosen)?;
    let load = start.elapsed();

    // Smooth, so that nothing in the network saturates; what it shows does not change its time.
    let picture = |t: u32| -> Vec<u8> {
        (0..side * side).flat_map(|i| [(i % side + t) as u8, (i / side) as u8, (t * 29) as u8]).collect()
    };
    let clip: Vec<Vec<u8>> = (0..frames as u32).map(picture).collect();
    let pictures = clip.iter().cycle().take(frames * batch).map(|rgb| Picture::new(rgb, side, side));
    let pictures: Vec<Picture<'_>> = pictures.collect::<Result<_, _>>()?;
    let times = (0..frames as u64).map(Duration::from_secs).collect();
    let video = Part::Video { times, duration: Duration::from_secs(frames as u64) };
    let question = Part::Text("Describe this video in detail.".into());
    let messages = [Message { role: Role::User, parts: vec![video, question] }];

    let mut runs = vec![];
    let mut prompt_tokens = 0;
    for _ in 0..repeat {
        let clock = Clock::start()?;
        let prompt = prompter.build(&messages)?;
        let tiles = preprocessor.video_tiles(&pictures);
        let preprocess = clock.stop()?;
        let clock = Clock::start()?;
        let features = network.encode(&tiles, &mut unwatched)?;
        let vision = clock.stop()?;
        prompt_tokens = prompt.ids.len();
        let generate = |max_tokens| -> Result<Spent> {
            let request = Request { ids: prompt.ids.clone(), max_tokens, sampling: Sampling::Greedy };
            let clock = Clock::start()?;
            let made = network.generate(&vec![request; batch], features.as_ref(), &mut unwatched)?;
            let spent = clock.stop()?;
            for answer in made.answers {
                answer?;
            }
            Ok(spent)
        };
        // The first token comes out of the prefill.
        let prefill = generate(1)?;
        let whole = generate(new_tokens)?;
        let per_token = 1000. / (new_tokens - 1) as f64;
        runs.push(serde_json::json!({
            "preprocess_s": preprocess.wall,
            "preprocess_cpu_s": preprocess.cpu,
            "vision_s": vision.wall,
            "vision_cpu_s": vision.cpu,
            "prefill_s": prefill.wall,
            "prefill_cpu_s": prefill.cpu,
            "decode_ms_per_token": (whole.wall - prefill.wall) * per_token,
            "decode_cpu_ms_per_token": (whole.cpu - prefill.cpu) * per_token,
        }));
    }
    let line = serde_json::json!({
        "dtype": network.chosen.dtype_name(),
        "device": network.chosen.device_name(),
        "prompt_tokens": prompt_tokens,
        "load_s": load.as_secs_f64(),
        "runs": runs,
        "peak_rss_mb": peak_rss_mb()?,
    });
    println!("{line}");
    Ok(())
}

/// Measures wall time and the time that all threads spent on the CPU.
struct Clock {
    wall: Instant,
    cpu: f64,
}

/// Seconds.
struct Spent {
    wall: f64,
    cpu: f64,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self { cpu: cpu_seconds()?, wall: Instant::now() })
    }

    fn stop(&self) -> Result<Spent> {
        Ok(Spent { wall: self.wall.elapsed().as_secs_f64(), cpu: cpu_seconds()? - self.cpu })
    }
}

/// Time that this process's threads have spent on the CPU (`schedstat`: nanoseconds come first).
/// No thread ends while the model works.
fn cpu_seconds() -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The most memory that this process has held (`VmHWM`).
fn peak_rss_mb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
}
