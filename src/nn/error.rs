//! Errors of the engine. A model directory that is refused is described by one sentence that names the file,
//! the key if there is one, and what to do; its causes are in the error chain. A failed computation is
//! classified as out of memory, unavailable for a while, or broken.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::device::CpuOnly;

/// The result of a computation: candle's error unless another one is named.
pub type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// How long to leave a GPU alone that another process holds or that is still starting.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Why a computation on a device failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFailure {
    /// The device has too little memory for this batch. A smaller one may fit.
    #[error("the device has too little memory: {0}")]
    OutOfMemory(String),
    /// The device cannot be used now, but probably can after `retry_after`.
    #[error("the device is not available: {reason}; try again after {} s", retry_after.as_secs())]
    Unavailable {
        /// The driver's message.
        reason: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Broken(String),
}

impl DeviceFailure {
    /// Classifies an error by the names of the CUDA driver's and cuBLAS's error codes in its text, which is all
    /// that candle's errors keep of them.
    pub fn classify(error: &str) -> Self {
        let names = |codes: &[&str]| codes.iter().any(|code| error.contains(code));
        if names(&["OUT_OF_MEMORY", "ALLOC_FAILED"]) {
            return Self::OutOfMemory(error.into());
        }
        // Codes 46 and 802 in cuda.h: another process has the GPU for itself; the system is still starting.
        if names(&["CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA_ERROR_SYSTEM_NOT_READY"]) {
            return Self::Unavailable { reason: error.into(), retry_after: RETRY_AFTER };
        }
        Self::Broken(error.into())
    }

    /// Whether this is [`DeviceFailure::OutOfMemory`].
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory(_))
    }
}

/// Why the device that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The `cuda` feature is off in this build.
    #[error(
        "this camscribe was built without CUDA: build it with `--features cuda`, or use device = \"cpu\""
    )]
    NotBuilt,
    /// A library that the GPU needs cannot be loaded.
    #[error(
        "{0} cannot be loaded: install it (or put its folder on LD_LIBRARY_PATH), or use device = \"cpu\""
    )]
    NoLibrary(&'static str),
    /// The GPU is there but cannot be used.
    #[error(
        "CUDA device {ordinal} does not work ({failure}): check it with nvidia-smi, or use device = \"cpu\""
    )]
    Failed {
        /// `N` of `cuda:N`.
        ordinal: usize,
        /// What went wrong, and whether it is worth trying again.
        failure: DeviceFailure,
    },
    /// The number format is not available on a GPU.
    #[error(transparent)]
    CpuOnly(#[from] CpuOnly),
}

/// What is wrong with a file of weights, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
pub struct WeightsError {
    file: PathBuf,
    problem: String,
}

impl WeightsError {
    /// `problem` continues a sentence that begins with the file's name.
    pub fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.into(), problem: problem.into() }
    }
}

/// Why a model directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such directory.
    #[error("{} is not a directory: name the directory that holds the model's config.json", dir.display())]
    NotADirectory {
        /// The path that was given.
        dir: PathBuf,
    },
    /// The directory lacks a file that every checkpoint has.
    #[error(
        "{} is missing: the directory is not a model checkpoint, or its download is incomplete; download it again",
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
    /// A file is not JSON.
    #[error("{} is not valid JSON: the file is damaged; download the model again", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A key has a value that this program cannot use.
    #[error("{}: {key} {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: String,
        /// What is wrong with it and what would be right. It continues a sentence that begins with the key.
        problem: String,
    },
    /// `tokenizer.json` is not a tokenizer.
    #[error("{} is not a tokenizer that can be read: download the model again", path.display())]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// The parser's error.
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
    /// The self-check of our own kernels broke the device, so that it computes nothing any more.
    #[error(
        "camscribe's own kernels broke {device} ({why}): set kernels = \"candle\" under [model], and please report it"
    )]
    BrokenByKernels {
        /// `cuda:N`
        device: String,
        /// The first error.
        why: String,
    },
    /// The device that was asked for cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_classified_by_the_drivers_error_codes() {
        let classify = DeviceFailure::classify;
        assert!(classify("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")").is_out_of_memory());
        assert!(classify("the 2.2B model: CublasError(CUBLAS_STATUS_ALLOC_FAILED)").is_out_of_memory());
        let broken = classify("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"illegal\")");
        assert!(matches!(broken, DeviceFailure::Broken(_)));
        let busy = classify("DriverError(CUDA_ERROR_DEVICE_UNAVAILABLE, \"busy or unavailable\")");
        assert!(matches!(busy, DeviceFailure::Unavailable { retry_after: RETRY_AFTER, .. }));
        assert!(busy.to_string().ends_with("try again after 10 s"), "{busy}");
    }
}
