//! The safetensors files of a checkpoint: `model.safetensors`, or the shards that
//! `model.safetensors.index.json` lists. The headers are read and checked first; numbers are read when a tensor
//! is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use super::{super::error::WeightsError, shape::TensorShape};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The format's own limit (`MAX_HEADER_SIZE` in the safetensors crate), so that a false length allocates nothing.
const MAX_HEADER: u64 = 100_000_000;
/// Largest index that is read. The index of a model with a thousand tensors takes about 100 kB.
const MAX_INDEX: u64 = 16 << 20;
/// Bytes that are read and converted at a time.
const BLOCK: usize = 1 << 20;

fn error<T>(file: &Path, problem: impl Into<String>) -> Result<T, WeightsError> {
    Err(WeightsError::new(file, problem))
}

/// Where a tensor is stored.
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes from the start of the file.
    offset: u64,
}

struct Shard {
    path: PathBuf,
    file: File,
}

/// The open files of a checkpoint.
#[derive(Default)]
pub struct Checkpoint {
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
}

impl Checkpoint {
    /// Opens the files in `dir` and reads their headers.
    ///
    /// # Errors
    /// When a file is missing, or is not a whole safetensors file.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self::default();
        let index = dir.join(INDEX);
        if !index.is_file() {
            checkpoint.tensors = checkpoint.add_shard(&dir.join(SINGLE))?;
            return Ok(checkpoint);
        }
        let map = read_index(&index)?;
        let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &map {
            by_file.entry(file).or_default().push(tensor);
        }
        for (file, names) in by_file {
            let path = dir.join(file);
            let mut header = checkpoint.add_shard(&path)?;
            for name in names {
                let Some(entry) = header.remove(name) else {
                    return error(
                        &path,
                        format!(
                            "has no tensor {name:?}, which {INDEX} says is in it: download the model again"
                        ),
                    );
                };
                checkpoint.tensors.insert(name.into(), entry);
            }
        }
        Ok(checkpoint)
    }

    /// The file that errors name when no single file is at fault.
    pub fn first_file(&self) -> &Path {
        &self.shards[0].path
    }

    /// Opens a shard and returns the tensors of its header.
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

    /// Checks that every expected tensor is there, with its shape and in a number format that can be read.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub fn check(&self, expected: impl IntoIterator<Item = TensorShape>) -> Result<(), WeightsError> {
        for (name, shape) in expected {
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
            if !matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                return error(
                    path,
                    format!(
                        "tensor {name:?} is stored as {:?}: only F32, BF16 and F16 can be read",
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
                self.first_file(),
                format!("has no tensor {name:?}: these are not the weights of the model in config.json"),
            ),
        }
    }

    /// Reads a tensor. Returns its numbers, each converted from f32 by `narrow`, and its shape.
    ///
    /// # Errors
    /// When it does not exist, has another number format than F32, BF16 or F16, or cannot be read.
    pub fn values<T>(
        &self,
        name: &str,
        narrow: impl Fn(f32) -> T,
    ) -> Result<(Vec<T>, &[usize]), WeightsError> {
        let entry = self.entry(name)?;
        let Shard { path, file } = &self.shards[entry.shard];
        let size = match entry.dtype {
            Dtype::F32 => 4,
            Dtype::BF16 | Dtype::F16 => 2,
            other => return error(path, format!("tensor {name:?}: is stored as {other:?}")),
        };
        let count: usize = entry.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let mut block = vec![0; BLOCK.min(count * size)];
        let mut at = entry.offset;
        while values.len() < count {
            let bytes = ((count - values.len()) * size).min(block.len());
            let block = &mut block[..bytes];
            if let Err(e) = file.read_exact_at(block, at) {
                return error(path, format!("tensor {name:?}: cannot be read ({e})"));
            }
            let pairs = || block.as_chunks().0.iter();
            match entry.dtype {
                Dtype::BF16 => values.extend(pairs().map(|&b| narrow(bf16::from_le_bytes(b).to_f32()))),
                Dtype::F16 => values.extend(pairs().map(|&b| narrow(f16::from_le_bytes(b).to_f32()))),
                _ => values.extend(block.as_chunks().0.iter().map(|&b| narrow(f32::from_le_bytes(b)))),
            }
            at += bytes as u64;
        }
        Ok((values, &entry.shape))
    }
}

/// Reads the header of one safetensors file: eight bytes of length, then JSON, then the data. The safetensors
/// crate parses and validates the JSON; its `read_metadata` is not used, because it wants the whole file in
/// memory.
fn read_header(path: &Path, mut file: &File, shard: usize) -> Result<HashMap<String, Entry>, WeightsError> {
    let broken = |what: String| {
        WeightsError::new(path, format!("is not a whole safetensors file ({what}): download the model again"))
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
    let metadata: Metadata = serde_json::from_slice(&json).map_err(|e| broken(format!("its header: {e}")))?;
    let tensors = metadata.tensors();
    let end = tensors.values().map(|info| info.data_offsets.1).max().unwrap_or(0) as u64;
    let data = size - 8 - length;
    if end != data {
        return Err(broken(format!("its tensors take {end} bytes, and the file has {data} for them")));
    }
    let entry = |info: &safetensors::tensor::TensorInfo| Entry {
        shard,
        dtype: info.dtype,
        shape: info.shape.clone(),
        offset: 8 + length + info.data_offsets.0 as u64,
    };
    Ok(tensors.into_iter().map(|(name, info)| (name, entry(info))).collect())
}

/// Reads `model.safetensors.index.json`: which file holds which tensor.
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
        // Plain file names only: an index must not reach outside its folder.
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return error(
                path,
                format!("puts tensor {tensor:?} in {file:?}, which is not a file name in this folder"),
            );
        }
    }
    Ok(index.weight_map)
}
