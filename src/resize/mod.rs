//! Image resizing, bit for bit as torchvision 0.29 on torch 2.15 does it on the CPU with antialiasing: in 16-bit fixed
//! point, rows first, rounded to bytes, then columns. RGB bytes in, RGB bytes out. Pure.
//!
//! It is written by hand because no crate gives the same bytes, and the model's answers depend on them. Which
//! interpolation and size is used is the model's choice: a [`FrameScaling`].
//!
//! | file | what it holds |
//! |---|---|
//! | `image.rs` | an image, and how it is resized |
//! | `scaling.rs` | how a model scales frames down first |
//! | `axis.rs`, `interpolation.rs` | weights along one axis |
//! | `portable.rs`, `avx2.rs` | the two passes |

#[cfg(target_arch = "x86_64")]
mod avx2;
mod axis;
pub mod image;
pub mod interpolation;
mod portable;
pub mod scaling;

pub use image::{BadImage, Resizer, RgbImage};
pub use interpolation::{Interpolation, LANCZOS3};
pub use scaling::{FrameScaler, FrameScaling, keep_aspect};
