//! The user's choice of device, number format and kernels, and what is known about a device. Which devices exist is
//! found out when the model is loaded.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// The user's choice of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number. It is an error if it cannot be used.
    Cuda(usize),
}

/// The user's choice of a number format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// f32 on the CPU, bf16 on a GPU.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floating point.
    F16,
    /// f32, with 8-bit weights and integer products in linear layers. On the CPU only.
    Q8,
}

/// The user's choice of kernels. Other than the default only for measuring, or after an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// Candle's operations.
    Candle,
    /// Our own kernels.
    Own,
    /// Our own kernels; on a GPU a decode step is captured as a CUDA graph and replayed.
    #[default]
    Graphs,
}

impl KernelChoice {
    /// `candle`, `own` or `graphs`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candle => "candle",
            Self::Own => "own",
            Self::Graphs => "graphs",
        }
    }
}

/// q8 was asked for on a GPU.
#[derive(Debug, thiserror::Error)]
#[error("q8 is computed on the CPU only: use device = \"cpu\", or another dtype")]
pub struct CpuOnly;

impl DtypeChoice {
    /// Checks that the device can compute in this format.
    ///
    /// # Errors
    /// For q8 on a GPU.
    pub fn check(self, device: DeviceChoice) -> Result<(), CpuOnly> {
        match (self, device) {
            (Self::Q8, DeviceChoice::Cuda(_)) => Err(CpuOnly),
            _ => Ok(()),
        }
    }
}

/// What a GPU's driver says about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuInfo {
    /// Its name.
    pub name: String,
    /// Its compute capability: `9.0`.
    pub compute_capability: String,
    /// The newest CUDA version that its driver supports: `13.0`.
    pub cuda: String,
    /// All of its memory, in bytes.
    pub memory_bytes: usize,
    /// Memory that was free before the model was loaded, in bytes.
    pub free_bytes: usize,
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{} (compute capability {}, driver for CUDA {}, {:.1} of {:.1} GiB free)",
            self.name,
            self.compute_capability,
            self.cuda,
            gib(self.free_bytes),
            gib(self.memory_bytes)
        )
    }
}

/// The memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In use, by all processes.
    pub used: usize,
    /// All of it.
    pub total: usize,
}

/// A text that names no device, number format or choice of kernels.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is no {what}: write {allowed}")]
pub struct UnknownChoice {
    given: String,
    what: &'static str,
    allowed: &'static str,
}

impl FromStr for DeviceChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        let number =
            |text: &str| text.parse().ok().filter(|n| *n < 1024 && text.bytes().all(|b| b.is_ascii_digit()));
        match (text, text.strip_prefix("cuda:").and_then(number)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(n)) => Ok(Self::Cuda(n)),
            _ => Err(UnknownChoice {
                given: text.into(),
                what: "device",
                allowed: "auto, cpu, cuda or cuda:N",
            }),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "q8" => Ok(Self::Q8),
            _ => Err(UnknownChoice {
                given: text.into(),
                what: "number format",
                allowed: "auto, f32, bf16, f16 or q8",
            }),
        }
    }
}

impl FromStr for KernelChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        [Self::Candle, Self::Own, Self::Graphs].into_iter().find(|choice| choice.as_str() == text).ok_or_else(
            || UnknownChoice {
                given: text.into(),
                what: "choice of kernels",
                allowed: "candle, own or graphs",
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_dtypes_are_read_from_their_names() {
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(3));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda:1024", "CPU"] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.ends_with("write auto, cpu, cuda or cuda:N"), "{error}");
        }
        assert_eq!("bf16".parse::<DtypeChoice>().unwrap(), DtypeChoice::Bf16);
        assert_eq!("q8".parse::<DtypeChoice>().unwrap(), DtypeChoice::Q8);
        let error = "float32".parse::<DtypeChoice>().unwrap_err().to_string();
        assert_eq!(error, "\"float32\" is no number format: write auto, f32, bf16, f16 or q8");
        assert_eq!("own".parse::<KernelChoice>().unwrap(), KernelChoice::Own);
        let error = "mine".parse::<KernelChoice>().unwrap_err().to_string();
        assert_eq!(error, "\"mine\" is no choice of kernels: write candle, own or graphs");
    }
}
