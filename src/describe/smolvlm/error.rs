//! Why a model directory was refused: one sentence that names the file, the key where there is one,
//! and what to do; causes stand under it in the chain.

use std::{io, path::PathBuf};

use super::{device::DeviceError, weights::WeightsError};

/// A model directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such directory.
    #[error("{} is not a directory: name the directory that holds the model's config.json", dir.display())]
    NotADirectory {
        /// What was named.
        dir: PathBuf,
    },
    /// The directory lacks a file that every checkpoint has.
    #[error(
        "{} is missing: the directory is no SmolVLM2 checkpoint, or its download is incomplete; download it again",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file is there but cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is not valid JSON: the file is damaged; download the model again", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where the parser gave up.
        source: serde_json::Error,
    },
    /// A key holds something that this program cannot use.
    #[error("{}: {key} {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: String,
        /// What is wrong with it and what would be right: the rest of a sentence that begins with the key.
        problem: String,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{} is not a tokenizer that can be read: download the model again", path.display())]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: tokenizers::Error,
    },
    /// The tokenizer does not belong to the model.
    #[error("{} does not fit this model: {problem}", path.display())]
    WrongTokenizer {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The weights are missing, damaged, or another model's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A kernel of ours went so wrong that the device computes nothing any more.
    #[error(
        "camscribe's own kernels broke {device} ({why}): set kernels = \"candle\" under [model], and please report it"
    )]
    BrokenByKernels {
        /// `cuda:N`
        device: String,
        /// What went wrong first.
        why: String,
    },
    /// The device that was asked for cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
