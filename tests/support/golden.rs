//! Compares this program's model with the results of the reference implementation. Reads a root folder with
//! `golden/<set>/<case>.{json,safetensors}` and `ckpt/<shape>/`, and gives one [`Outcome`] a case.
//! The golden tests and the program `golden` share this file.

use std::{
    collections::HashMap,
    fs, iter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use camscribe::{
    describe::smolvlm::{
        config::{ModelConfig, ProcessorConfig},
        network::Network,
        preprocess::Preprocessor,
        prompt::{Message, Part, Prompt, Prompter, Role},
    },
    nn::{
        device::ComputeTarget, generate::GenerationRequest, observer::ActivationPoint,
        sampler::TokenSampling, weights::RandomNumbers,
    },
    resize::RgbImage,
};
use candle_core::{D, DType, Device, IndexOp, Tensor};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::picture::frame;

/// In a batch the reference words every clip's number of frames after the longest clip. This case
/// pins that quirk, which we do not share: only the longest clip's prompt is compared.
const QUIRK: &str = "batch_2_and_5";

/// What became of a case.
#[derive(Debug)]
pub enum Outcome {
    /// Everything compared is equal or within tolerance; the figures are the largest errors.
    Passed(String),
    Failed(String),
    /// Its weights are not there.
    NotRun(String),
}

/// One case of one set.
#[derive(Clone)]
pub struct Case {
    /// `<set>/<case>`.
    pub name: String,
    /// The folder below `ckpt` whose weights it needs.
    pub checkpoint: String,
    /// The seed of its weights, where they are not stored.
    random_seed: Option<u64>,
    root: PathBuf,
    json: PathBuf,
}

impl Case {
    /// Returns whether the weights that it needs are there.
    pub fn has_weights(&self) -> bool {
        let dir = self.weights();
        self.random_seed.is_some()
            || dir.join("model.safetensors").exists()
            || dir.join("model.safetensors.index.json").exists()
    }

    fn weights(&self) -> PathBuf {
        self.root.join("ckpt").join(&self.checkpoint)
    }
}

/// All cases below a root, sorted by name.
pub fn cases(root: &Path) -> Result<Vec<Case>> {
    let golden = root.join("golden");
    let mut found = vec![];
    for set in fs::read_dir(&golden).with_context(|| format!("{} cannot be read", golden.display()))? {
        let set = set?.path();
        for file in fs::read_dir(&set).with_context(|| format!("{} cannot be read", set.display()))? {
            let json = file?.path();
            // The model-free tables beside the sets have no tensors.
            if json.extension().is_some_and(|e| e == "json") && json.with_extension("safetensors").exists() {
                let name = json.with_extension("");
                let name = name.strip_prefix(&golden)?.display().to_string();
                let Checkpoint { shape, random_seed, .. } = expected(&json)?.checkpoint;
                found.push(Case { name, checkpoint: shape, random_seed, root: root.into(), json });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn expected(json: &Path) -> Result<Expected> {
    serde_json::from_str(&fs::read_to_string(json)?)
        .with_context(|| format!("{} is not understood", json.display()))
}

/// The roots that exist: the project's own data, and the folder that `CAMSCRIBE_GOLDEN` names.
pub fn roots(repository: &Path) -> Vec<PathBuf> {
    let own = repository.join("tests/golden-data");
    let named = std::env::var_os("CAMSCRIBE_GOLDEN").map(PathBuf::from);
    iter::once(own).filter(|root| root.join("golden").is_dir()).chain(named).collect()
}

#[derive(Deserialize)]
struct Expected {
    messages: Vec<Vec<GivenMessage>>,
    media: Vec<Medium>,
    splitting: Option<bool>,
    longest_edge: Option<usize>,
    prompt_text: Vec<String>,
    #[serde(default)]
    pixel_u8_sha256: Vec<Vec<String>>,
    n_image_tokens: Vec<usize>,
    greedy_ids: Vec<Vec<u32>>,
    video_edge: usize,
    checkpoint: Checkpoint,
}

#[derive(Deserialize)]
struct Checkpoint {
    shape: String,
    parameters: u64,
    random_seed: Option<u64>,
}

#[derive(Deserialize)]
struct GivenMessage {
    role: String,
    content: Vec<Content>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Content {
    Text { text: String },
    Image,
    Video,
}

#[derive(Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Medium {
    Image { h: u32, w: u32, first: u32 },
    Video { n: u32, h: u32, w: u32, fps: f64, frames_indices: Vec<u32>, duration: f64, first: u32 },
}

/// The largest value in the vision tower of the random checkpoints on which the tolerances were
/// measured. Trained weights reach more, and rounding grows with what is rounded.
const USUAL: f32 = 7.5;

/// How far a result may be from the reference's f32 result (oracle README, "Tolerances").
struct Tolerance {
    vision: f32,
    logits: f32,
    /// Of the logits, on average.
    mean: f32,
    /// Nothing is claimed about a token that the reference prefers by less than this.
    margin: f32,
}

impl Tolerance {
    fn of(target: &ComputeTarget, parameters: u64) -> Self {
        let rounded = Self { vision: f32::INFINITY, logits: 1., mean: 0.2, margin: 1. };
        match target.dtype {
            DType::F32 if !target.quantised && parameters < 50_000_000 => {
                Self { vision: 3e-5, logits: 2e-4, mean: 2e-4, margin: 0. }
            }
            DType::F32 if !target.quantised => Self { vision: 1e-4, logits: 1e-3, mean: 1e-3, margin: 0. },
            _ => rounded,
        }
    }
}

/// Runs cases on one device, keeping the checkpoint of the last one.
pub struct Runner {
    target: ComputeTarget,
    change: fn(Network) -> Network,
    network: Option<(PathBuf, Network)>,
}

impl Runner {
    pub fn new(target: ComputeTarget) -> Self {
        Self { target, change: |network| network, network: None }
    }

    /// With networks that are changed after they were loaded.
    #[allow(dead_code, reason = "not every program that has this file needs it")]
    pub fn changing(self, change: fn(Network) -> Network) -> Self {
        Self { change, ..self }
    }

    /// Runs every case of these roots, and says what became of each.
    ///
    /// # Panics
    /// When one fails, or none could be run.
    #[allow(dead_code, reason = "not every program that has this file needs it")]
    pub fn all_pass(mut self, roots: impl IntoIterator<Item = PathBuf>) {
        let (mut passed, mut failed) = (0, vec![]);
        for case in roots.into_iter().flat_map(|root| cases(&root).unwrap()) {
            match self.run(&case) {
                Outcome::Passed(figures) => {
                    passed += 1;
                    println!("ok      {:32} {figures}", case.name);
                }
                Outcome::Failed(why) => failed.push(format!("{}: {why}", case.name)),
                Outcome::NotRun(why) => println!("not run {:32} {why}", case.name),
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        assert!(passed > 0, "no golden case was run");
    }

    /// Runs a case. What goes wrong on the way is a failure of the case.
    pub fn run(&mut self, case: &Case) -> Outcome {
        match self.compare(case) {
            Ok(outcome) => outcome,
            Err(e) => Outcome::Failed(format!("{e:#}")),
        }
    }

    fn compare(&mut self, case: &Case) -> Result<Outcome> {
        if !case.has_weights() {
            return Ok(Outcome::NotRun(format!("the weights of {:?} are not there", case.checkpoint)));
        }
        let (expected, dir) = (expected(&case.json)?, case.weights());
        let config = ModelConfig::load(&dir)?;
        let mut processor = ProcessorConfig::load(&dir, &config)?;
        processor.video_edge = expected.video_edge;
        processor.image_edge = expected.longest_edge.unwrap_or(processor.image_edge);
        let prompter = Prompter::load(&dir, &config, &processor)?;
        if self.network.as_ref().is_none_or(|(loaded, _)| *loaded != dir) {
            self.network = None;
            let target = self.target.clone();
            let network = match case.random_seed {
                Some(seed) => Network::random(config, RandomNumbers { seed, bf16: false }, target),
                None => Network::load(&dir, config, target),
            };
            self.network = Some((dir.clone(), (self.change)(network?)));
        }
        let Some((_, network)) = &self.network else { bail!("no network") };
        if let Some(why) = &network.refused {
            bail!("not what was asked for computes, but {}: {why}", network.target.kernels.as_str());
        }
        let stored = candle_core::safetensors::load(case.json.with_extension("safetensors"), &Device::Cpu)?;

        let ids = prompt_ids(&stored)?;
        let (prompts, tiles) =
            prepare(&expected, &prompter, &Preprocessor::new(&processor), network.tile_bytes())?;
        let most = expected.n_image_tokens.iter().max();
        for (i, prompt) in prompts.iter().enumerate() {
            if case.name.ends_with(QUIRK) && Some(&expected.n_image_tokens[i]) != most {
                continue;
            }
            ensure!(
                prompt.text == expected.prompt_text[i],
                "prompt {i} is {:?}, the reference's is {:?}",
                prompt.text,
                expected.prompt_text[i]
            );
            ensure!(
                prompt.ids == ids[i],
                "token ids of prompt {i} are {:?}, the reference's are {:?}",
                prompt.ids,
                ids[i]
            );
            ensure!(prompt.image_tokens == expected.n_image_tokens[i], "image tokens of prompt {i}");
        }
        compare_tiles(&expected, &tiles, &stored, network)?;
        self.compare_network(network, &expected, &ids, &tiles, &stored)
    }

    fn compare_network(
        &self,
        network: &Network,
        expected: &Expected,
        ids: &[Vec<u32>],
        tiles: &[u8],
        stored: &HashMap<String, Tensor>,
    ) -> Result<Outcome> {
        let mut observed: HashMap<ActivationPoint, Vec<Tensor>> = HashMap::new();
        let mut observe = |point: ActivationPoint, x: &Tensor| {
            let keep = match point {
                ActivationPoint::TextLayer(_) | ActivationPoint::TextNorm => x.i((.., x.dim(1)? - 1))?,
                _ => x.clone(),
            };
            // A copy: the next step may be computed in the same place.
            let keep = keep.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.copy()?;
            observed.entry(point).or_default().push(keep);
            Ok(())
        };
        let requests: Vec<GenerationRequest> = ids
            .iter()
            .zip(&expected.greedy_ids)
            .map(|(ids, greedy)| GenerationRequest {
                ids: ids.clone(),
                max_tokens: greedy.len(),
                sampling: TokenSampling::GREEDY,
            })
            .collect();
        let features = network.encode(tiles, &mut observe)?;
        let answers = network.generate_group(&requests, features.as_ref(), &mut observe)?.completions;
        let answers: Vec<Vec<u32>> = answers
            .into_iter()
            .enumerate()
            .map(|(i, answer)| Ok(answer.map_err(|e| anyhow::anyhow!("sequence {i}: {e}"))?.ids))
            .collect::<Result<_>>()?;

        let tolerance = Tolerance::of(&self.target, expected.checkpoint.parameters);
        let exact = self.target.dtype == DType::F32 && !self.target.quantised;
        let comparison = Comparison { expected, stored, tolerance, exact, observed, answers };
        let (mut figures, mean_of_logits) = comparison.activations()?;
        let same = comparison.greedy_tokens(&network.config.eos_token_ids)?;
        figures.extend(comparison.later_logits()?);
        let figure = |wanted: &str| {
            let most = figures.iter().filter(|f| f.key.starts_with(wanted)).map(|f| f.most).reduce(f32::max);
            most.map(|most| format!("{} {most:.1e}, ", wanted.trim_end_matches('_')))
        };
        let names = ["vision_out", "connector_", "text_norm", "logits_", "later logits"];
        let figures: String = names.into_iter().filter_map(figure).collect();
        let total: usize = expected.greedy_ids.iter().map(Vec::len).sum();
        Ok(Outcome::Passed(format!("{figures}logits on average {mean_of_logits:.1e}, greedy {same}/{total}")))
    }
}

/// The largest difference of a part of the network from the reference.
struct Figure {
    /// The name of the part's tensor in the case.
    key: String,
    most: f32,
    within_tolerance: bool,
}

/// What was computed for a case, and what the reference computed.
struct Comparison<'a> {
    expected: &'a Expected,
    stored: &'a HashMap<String, Tensor>,
    tolerance: Tolerance,
    /// Whether the answers must be equal, too.
    exact: bool,
    observed: HashMap<ActivationPoint, Vec<Tensor>>,
    /// Token ids of the answers, without stop tokens.
    answers: Vec<Vec<u32>>,
}

impl Comparison<'_> {
    /// Compares every part of the network. Returns the figures, and the mean difference of the logits.
    fn activations(&self) -> Result<(Vec<Figure>, f32)> {
        let (mut figures, mut mean_of_logits) = (vec![], 0.);
        for (key, reference) in self.stored {
            let Some((point, stride)) = point_of(key) else { continue };
            let all = self.observed.get(&point).with_context(|| format!("{key} was not computed"))?;
            let text = matches!(
                point,
                ActivationPoint::TextLayer(_) | ActivationPoint::TextNorm | ActivationPoint::Logits
            );
            let ours = if text { all[0].clone() } else { Tensor::cat(all, 0)? };
            let ours = match stride {
                Some((rows, columns)) => every(&every(&ours, 1, rows)?, 2, columns)?,
                None => ours,
            };
            let (most, mean) =
                difference(&ours, reference).with_context(|| format!("{key} differs in shape"))?;
            let allowed = match text {
                true => self.tolerance.logits,
                false => self.tolerance.vision * (magnitude(reference)? / USUAL).max(1.),
            };
            let mut within_tolerance = most <= allowed;
            if point == ActivationPoint::Logits {
                mean_of_logits = mean;
                within_tolerance &= mean <= self.tolerance.mean;
            }
            figures.push(Figure { key: key.clone(), most, within_tolerance });
        }
        figures.sort_by(|a, b| a.key.cmp(&b.key));
        if !self.exact {
            // Of the decoder, their tolerances speak of the logits alone.
            figures.retain(|f| f.key == "logits_last" || !f.key.starts_with("text_"));
        }
        let bad: Vec<String> = figures
            .iter()
            .filter(|f| !f.within_tolerance)
            .map(|f| format!("{} is off by {:.1e}", f.key, f.most))
            .collect();
        ensure!(bad.is_empty(), "{}", bad.join(", "));
        Ok((figures, mean_of_logits))
    }

    /// Compares the answers. Returns how many tokens are equal up to the first that differs.
    fn greedy_tokens(&self, stop: &[u32]) -> Result<usize> {
        let margins =
            self.stored.get("greedy_margin").context("greedy_margin is missing")?.to_vec2::<f32>()?;
        let first = self.observed[&ActivationPoint::Logits][0].argmax(D::Minus1)?.to_vec1::<u32>()?;
        let mut same = 0;
        for (i, answer) in self.answers.iter().enumerate() {
            let greedy = &self.expected.greedy_ids[i];
            if margins[i][0] > self.tolerance.margin {
                ensure!(
                    first[i] == greedy[0],
                    "sequence {i} begins with {}, the reference with {}",
                    first[i],
                    greedy[0]
                );
            }
            let greedy: Vec<u32> = greedy.iter().take_while(|id| !stop.contains(id)).copied().collect();
            if self.exact {
                ensure!(*answer == greedy, "sequence {i} answers {answer:?}, the reference {greedy:?}");
            }
            same += answer.iter().zip(&greedy).take_while(|(a, b)| a == b).count();
        }
        Ok(same)
    }

    /// Compares the logits of every step, where the case has them and the answers are equal.
    fn later_logits(&self) -> Result<Option<Figure>> {
        let (true, Some(reference)) = (self.exact, self.stored.get("greedy_logits")) else { return Ok(None) };
        // The stop token's step is the last that means something.
        let steps: Vec<usize> =
            self.answers.iter().map(|answer| (answer.len() + 1).min(reference.dims()[1])).collect();
        let mut most = 0f32;
        let mut batch: Vec<usize> = (0..steps.len()).collect();
        for (step, ours) in self.observed[&ActivationPoint::Logits].iter().enumerate() {
            // Finished sequences may leave the batch.
            if ours.dims()[0] < batch.len() {
                batch.retain(|sequence| steps[*sequence] > step);
                ensure!(ours.dims()[0] == batch.len(), "step {step}: {batch:?} should be left");
            }
            for (i, sequence) in batch.iter().enumerate().filter(|(_, sequence)| steps[**sequence] > step) {
                let wanted = reference.narrow(0, *sequence, 1)?.narrow(1, step, 1)?.squeeze(1)?;
                most = most.max(difference(&ours.narrow(0, i, 1)?, &wanted)?.0);
            }
        }
        ensure!(most <= self.tolerance.logits, "logits of later tokens are off by {most:.1e}");
        Ok(Some(Figure { key: "later logits".into(), most, within_tolerance: true }))
    }
}

/// The reference's token ids without padding.
fn prompt_ids(stored: &HashMap<String, Tensor>) -> Result<Vec<Vec<u32>>> {
    let get = |key: &str| -> Result<_> {
        Ok(stored.get(key).with_context(|| format!("{key} is missing"))?.to_vec2::<i64>()?)
    };
    let real = |(ids, mask): (Vec<i64>, Vec<i64>)| {
        iter::zip(ids, mask).filter(|(_, mask)| *mask == 1).map(|(id, _)| Ok(u32::try_from(id)?)).collect()
    };
    iter::zip(get("input_ids")?, get("attention_mask")?).map(real).collect()
}

/// Our prompts, and the tiles of all of them.
fn prepare(
    expected: &Expected,
    prompter: &Prompter,
    preprocessor: &Preprocessor,
    tile_bytes: usize,
) -> Result<(Vec<Prompt>, Vec<u8>)> {
    let mut media = expected.media.iter();
    let (mut prompts, mut tiles) = (vec![], vec![]);
    for conversation in &expected.messages {
        let mut messages = vec![];
        for message in conversation {
            let mut parts = vec![];
            for content in &message.content {
                parts.push(match content {
                    Content::Text { text } => Part::Text(text.clone()),
                    Content::Video | Content::Image => {
                        let medium = media.next().context("a medium is missing")?;
                        let (part, bytes) = tile(medium, preprocessor, expected.splitting.unwrap_or(true))?;
                        ensure!(bytes.len() % tile_bytes == 0, "tiles of another size than the network's");
                        tiles.extend(bytes);
                        part
                    }
                });
            }
            let role = match message.role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => bail!("unknown role {other:?}"),
            };
            messages.push(Message { role, parts });
        }
        prompts.push(prompter.build(&messages)?);
    }
    Ok((prompts, tiles))
}

/// A medium as a part of a prompt, and its tiles.
fn tile(medium: &Medium, preprocessor: &Preprocessor, split: bool) -> Result<(Part, Vec<u8>)> {
    match medium {
        Medium::Image { h, w, first } => {
            let rgb = frame(*first, *w, *h);
            let medium = preprocessor.still(RgbImage::new(&rgb, *w, *h)?, split);
            let tiles = preprocessor.tiles(&[medium]).remove(0);
            Ok((Part::Image { rows: tiles.rows, cols: tiles.cols }, tiles.bytes))
        }
        Medium::Video { n, h, w, fps, frames_indices, duration, first } => {
            let frames: Vec<_> = (0..*n).map(|i| frame(first + i, *w, *h)).collect();
            let frames = frames.iter().map(|f| Ok(preprocessor.frame(RgbImage::new(f, *w, *h)?)));
            let frames: Vec<_> = frames.collect::<Result<_>>()?;
            let times = frames_indices.iter().map(|&i| Duration::from_secs_f64(f64::from(i) / fps)).collect();
            let part = Part::Video { times, duration: Duration::from_secs_f64(*duration) };
            Ok((part, preprocessor.tiles(&frames).into_iter().flat_map(|it| it.bytes).collect()))
        }
    }
}

/// Our tiles, byte for byte.
fn compare_tiles(
    expected: &Expected,
    tiles: &[u8],
    stored: &HashMap<String, Tensor>,
    network: &Network,
) -> Result<()> {
    let ours = tiles.chunks_exact(network.tile_bytes()).map(|tile| format!("{:x}", Sha256::digest(tile)));
    let ours: Vec<String> = ours.collect();
    let reference: Vec<&String> = expected.pixel_u8_sha256.iter().flatten().collect();
    ensure!(ours.len() == reference.len(), "{} tiles, the reference has {}", ours.len(), reference.len());
    let different: Vec<usize> = (0..ours.len()).filter(|&i| ours[i] != *reference[i]).collect();
    if different.is_empty() {
        return Ok(());
    }
    // Say by how much, where the reference's bytes are stored whole.
    let bytes = stored.get("pixel_u8").context("pixel_u8 is missing")?.flatten_all()?.to_vec1::<u8>()?;
    let most = (bytes.len() == tiles.len())
        .then(|| iter::zip(&bytes, tiles).map(|(a, b)| a.abs_diff(*b)).max())
        .flatten();
    bail!("tiles {different:?} are not the reference's, largest difference {most:?}")
}

/// Which place in the network a stored tensor is from, and of which rows and columns it keeps
/// every how many-th.
fn point_of(key: &str) -> Option<(ActivationPoint, Option<(usize, usize)>)> {
    let layer = |prefix: &str, suffix: &str| {
        key.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)).and_then(|n| n.parse().ok())
    };
    match key {
        "vision_embeddings" => Some((ActivationPoint::VisionEmbeddings, None)),
        "vision_embeddings_slice" => Some((ActivationPoint::VisionEmbeddings, Some((93, 16)))),
        "vision_out" => Some((ActivationPoint::VisionOut, None)),
        "vision_out_slice" => Some((ActivationPoint::VisionOut, Some((93, 16)))),
        "connector_out" => Some((ActivationPoint::ConnectorOut, None)),
        "connector_out_slice" => Some((ActivationPoint::ConnectorOut, Some((7, 1)))),
        "text_norm_last" => Some((ActivationPoint::TextNorm, None)),
        "logits_last" => Some((ActivationPoint::Logits, None)),
        _ => layer("vision_layer", "")
            .map(|i| (ActivationPoint::VisionLayer(i), None))
            .or_else(|| layer("text_layer", "_last").map(|i| (ActivationPoint::TextLayer(i), None))),
    }
}

/// Every `step`-th index of a dimension.
fn every(x: &Tensor, dim: usize, step: usize) -> Result<Tensor> {
    let indices: Vec<u32> = (0..x.dim(dim)? as u32).step_by(step).collect();
    Ok(x.index_select(&Tensor::new(indices, x.device())?, dim)?)
}

/// The largest value.
fn magnitude(x: &Tensor) -> Result<f32> {
    Ok(x.to_dtype(DType::F32)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// Largest and mean absolute difference; not-a-numbers count as infinitely far.
fn difference(ours: &Tensor, reference: &Tensor) -> Result<(f32, f32)> {
    let far = |x: f32| if x.is_nan() { f32::INFINITY } else { x };
    let apart = (ours - reference.to_dtype(DType::F32)?)?.abs()?.flatten_all()?.to_vec1::<f32>()?;
    let most = apart.iter().copied().map(far).fold(0., f32::max);
    let mean = apart.iter().map(|&x| f64::from(far(x))).sum::<f64>() / apart.len() as f64;
    Ok((most, mean as f32))
}
