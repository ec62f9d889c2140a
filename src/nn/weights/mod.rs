//! A model's weights on their way to a device: the safetensors files of a checkpoint, or random numbers for
//! measuring speed. The files are checked against a list of expected tensors before any tensor is read.
//!
//! | file | what it holds |
//! |---|---|
//! | `checkpoint.rs` | the safetensors files |
//! | `random.rs` | random numbers in their place |
//! | `loader.rs` | reads, converts, puts on the device |
//! | `shape.rs` | what a tensor is expected to be |

pub mod checkpoint;
pub mod loader;
pub mod random;
mod shape;

pub use loader::Weights;
pub use random::RandomNumbers;
pub use shape::TensorShape;
