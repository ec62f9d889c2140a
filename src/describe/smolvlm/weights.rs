//! The checkpoint's weights: `model.safetensors`, or the shards that `model.safetensors.index.json`
//! names. Headers are read and held against the architecture first; only then is a tensor read,
//! converted and put on the device, one at a time. A second source makes the numbers up (`random`).

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use serde::Deserialize;

use super::config::ModelConfig;

mod layout;
pub mod random;

pub use layout::layout;
use random::Random;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The format's own limit (safetensors' MAX_HEADER_SIZE), so that a hostile length allocates nothing.
const MAX_HEADER: u64 = 100_000_000;
/// A thousand tensors take about 100 kB of index; anything near this is no index.
const MAX_INDEX: u64 = 16 << 20;
/// Bytes converted at a time.
const BLOCK: usize = 1 << 20;

/// What is wrong with a file of weights, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
pub struct WeightsError {
    file: PathBuf,
    problem: String,
}

fn error<T>(file: &Path, problem: impl Into<String>) -> Result<T, WeightsError> {
    Err(WeightsError { file: file.into(), problem: problem.into() })
}

/// One tensor as a safetensors header describes it.
#[derive(Deserialize)]
struct Header {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// How numbers are stored.
#[derive(Clone, Copy)]
enum Stored {
    F32,
    Bf16,
    F16,
}

impl Stored {
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// Where a tensor lies.
struct Entry {
    shard: usize,
    stored: Option<Stored>,
    dtype: String,
    shape: Vec<usize>,
    /// From the start of the file.
    offset: u64,
}

struct Shard {
    path: PathBuf,
    file: File,
}

/// The open files of a checkpoint.
#[derive(Default)]
struct Files {
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
}

enum Source {
    Files(Files),
    Random(Random),
}

/// A model's weights, on their way to a device.
pub struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
}

impl Weights {
    /// Opens a checkpoint's files and reads their headers. Tensors will go to `device` as `dtype`.
    pub fn open(dir: &Path, device: &Device, dtype: DType) -> Result<Self, WeightsError> {
        Ok(Self { source: Source::Files(Files::open(dir)?), device: device.clone(), dtype })
    }

    /// Random weights of an architecture, which need no files. The same seed makes the same.
    pub fn random(config: &ModelConfig, seed: u64, device: &Device, dtype: DType) -> Self {
        Self { source: Source::Random(Random::new(config, seed)), device: device.clone(), dtype }
    }

    /// Holds every tensor of the architecture against the headers.
    pub fn check(&self, config: &ModelConfig) -> Result<(), WeightsError> {
        match &self.source {
            Source::Files(files) => files.check(config),
            Source::Random(_) => Ok(()),
        }
    }

    /// Reads one tensor and puts it on the device.
    pub fn tensor(&self, name: &str) -> Result<Tensor, WeightsError> {
        match self.dtype {
            DType::F32 => self.convert(name, |x| x),
            DType::BF16 => self.convert(name, bf16::from_f32),
            DType::F16 => self.convert(name, f16::from_f32),
            other => error(self.file(), format!("cannot be used as {}", other.as_str())),
        }
    }

    /// The error of a tensor that was read but could not be put to use.
    pub fn unusable(&self, name: &str, why: candle_core::Error) -> WeightsError {
        WeightsError { file: self.file().into(), problem: format!("{name}: {why}") }
    }

    /// What errors call the source where no one file is to blame.
    fn file(&self) -> &Path {
        match &self.source {
            Source::Files(files) => &files.shards[0].path,
            Source::Random(_) => Path::new("random weights"),
        }
    }

    fn convert<T: WithDType>(
        &self,
        name: &str,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<Tensor, WeightsError> {
        let (values, shape) = match &self.source {
            Source::Files(files) => files.values(name, narrow)?,
            Source::Random(random) => random.values(name, narrow)?,
        };
        Tensor::from_vec(values, shape, &self.device).map_err(|e| self.unusable(name, e))
    }
}

impl Files {
    fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut files = Self::default();
        let index = dir.join(INDEX);
        if index.is_file() {
            let map = read_index(&index)?;
            let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (tensor, file) in &map {
                by_file.entry(file).or_default().push(tensor);
            }
            for (file, names) in by_file {
                let mut header = files.add_shard(&dir.join(file))?;
                for name in names {
                    match header.remove(name) {
                        Some(entry) => files.tensors.insert(name.into(), entry),
                        None => {
                            return error(
                                &dir.join(file),
                                format!(
                                    "has no tensor {name:?}, which {INDEX} says is in it: download the model again"
                                ),
                            );
                        }
                    };
                }
            }
        } else {
            let header = files.add_shard(&dir.join(SINGLE))?;
            files.tensors = header;
        }
        Ok(files)
    }

    /// Opens a shard, and returns the tensors that its header names.
    fn add_shard(&mut self, path: &Path) -> Result<HashMap<String, Entry>, WeightsError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) => {
                return error(path, format!("cannot be opened ({e}): is this the folder of a whole model?"));
            }
        };
        let header = read_header(path, &file, self.shards.len())?;
        self.shards.push(Shard { path: path.into(), file });
        Ok(header)
    }

    fn check(&self, config: &ModelConfig) -> Result<(), WeightsError> {
        // Lazily, so that an absurd number of layers ends at the first one that is missing.
        for (name, shape) in layout(config) {
            let entry = self.entry(&name)?;
            let path = &self.shards[entry.shard].path;
            if entry.shape != shape {
                return error(
                    path,
                    format!(
                        "tensor {name:?} has shape {:?}, config.json makes it {shape:?}: weights and configuration \
                         belong to different models",
                        entry.shape
                    ),
                );
            }
            if entry.stored.is_none() {
                return error(
                    path,
                    format!(
                        "tensor {name:?} is stored as {}: only F32, BF16 and F16 can be read",
                        entry.dtype
                    ),
                );
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, WeightsError> {
        match self.tensors.get(name) {
            Some(entry) => Ok(entry),
            None => error(
                &self.shards[0].path,
                format!("has no tensor {name:?}: this is not the SmolVLM2 that config.json describes"),
            ),
        }
    }

    /// A tensor's numbers and shape.
    fn values<T>(&self, name: &str, narrow: impl Fn(f32) -> T) -> Result<(Vec<T>, &[usize]), WeightsError> {
        let entry = self.entry(name)?;
        let Shard { path, file } = &self.shards[entry.shard];
        let Some(stored) = entry.stored else {
            return error(path, format!("tensor {name:?}: is stored as {}", entry.dtype));
        };
        let count: usize = entry.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let mut block = vec![0; BLOCK.min(count * stored.size())];
        let mut at = entry.offset;
        while values.len() < count {
            let bytes = ((count - values.len()) * stored.size()).min(block.len());
            let block = &mut block[..bytes];
            if let Err(e) = file.read_exact_at(block, at) {
                return error(path, format!("tensor {name:?}: cannot be read ({e})"));
            }
            match stored {
                Stored::F32 => {
                    values.extend(block.as_chunks().0.iter().map(|&b| narrow(f32::from_le_bytes(b))))
                }
                Stored::Bf16 => {
                    values
                        .extend(block.as_chunks().0.iter().map(|&b| narrow(bf16::from_le_bytes(b).to_f32())));
                }
                Stored::F16 => {
                    values.extend(block.as_chunks().0.iter().map(|&b| narrow(f16::from_le_bytes(b).to_f32())))
                }
            }
            at += bytes as u64;
        }
        Ok((values, &entry.shape))
    }
}

/// Reads and checks the header of one safetensors file: eight bytes of length, then JSON, then data.
fn read_header(path: &Path, mut file: &File, shard: usize) -> Result<HashMap<String, Entry>, WeightsError> {
    let broken = |what: String| WeightsError {
        file: path.into(),
        problem: format!("is not a whole safetensors file ({what}): download the model again"),
    };
    let size = file.metadata().map_err(|e| broken(e.to_string()))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| broken(format!("{size} bytes, {e}")))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size.saturating_sub(8) {
        return Err(broken(format!("its header claims {length} bytes, the file has {size}")));
    }
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json).map_err(|e| broken(e.to_string()))?;
    let mut json: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&json).map_err(|e| broken(format!("its header is no JSON: {e}")))?;
    json.remove("__metadata__");

    let data = size - 8 - length;
    let mut ranges = Vec::with_capacity(json.len());
    let mut tensors = HashMap::with_capacity(json.len());
    for (name, value) in json {
        let header =
            Header::deserialize(value).map_err(|e| broken(format!("header of tensor {name:?}: {e}")))?;
        let (begin, end) = header.data_offsets;
        if begin > end || end > data {
            return Err(broken(format!("tensor {name:?} lies at bytes {begin} to {end} of {data}")));
        }
        let stored = match header.dtype.as_str() {
            "F32" => Some(Stored::F32),
            "BF16" => Some(Stored::Bf16),
            "F16" => Some(Stored::F16),
            _ => None,
        };
        if let Some(stored) = stored {
            let bytes = header.shape.iter().try_fold(stored.size() as u64, |n, &d| n.checked_mul(d as u64));
            if bytes != Some(end - begin) {
                return Err(broken(format!(
                    "tensor {name:?} of shape {:?} in {} takes {} bytes",
                    header.shape,
                    header.dtype,
                    end - begin
                )));
            }
        }
        ranges.push((begin, end, name.clone()));
        let Header { dtype, shape, .. } = header;
        tensors.insert(name, Entry { shard, stored, dtype, shape, offset: 8 + length + begin });
    }
    ranges.sort();
    let mut covered = 0;
    for (begin, end, name) in ranges {
        if begin != covered {
            let what = if begin < covered { "overlaps the one before it" } else { "leaves a gap before it" };
            return Err(broken(format!("tensor {name:?} {what}")));
        }
        covered = end;
    }
    if covered != data {
        return Err(broken(format!("its tensors take {covered} of {data} bytes")));
    }
    Ok(tensors)
}

/// Reads `model.safetensors.index.json`: which shard holds which tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(MAX_INDEX).read_to_string(&mut text));
    if let Err(e) = read {
        return error(path, format!("cannot be read ({e}): download the model again"));
    }
    let index: Index = match serde_json::from_str(&text) {
        Ok(index) => index,
        Err(e) => return error(path, format!("is no index of weights ({e}): download the model again")),
    };
    if index.weight_map.is_empty() {
        return error(path, "names no tensors: download the model again");
    }
    for (tensor, file) in &index.weight_map {
        // Plain names only: an index must not reach outside its folder.
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return error(
                path,
                format!("puts tensor {tensor:?} in {file:?}, which is not a file name in this folder"),
            );
        }
    }
    Ok(index.weight_map)
}
