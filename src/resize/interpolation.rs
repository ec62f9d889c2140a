//! Interpolation kernels.

use std::f64::consts::PI;

/// An interpolation kernel for resizing. A model family that needs another one defines it beside its own code.
#[derive(Clone, Copy, Debug)]
pub struct Interpolation {
    /// The weight is 0 at this distance and beyond, in pixels of the smaller image.
    pub support: f64,
    /// The weight of a pixel at a distance from the centre, in pixels of the smaller image. Weights are normalised later.
    pub weight: fn(f64) -> f64,
}

/// Lanczos with three lobes.
pub const LANCZOS3: Interpolation = Interpolation { support: 3.0, weight: lanczos3 };

/// A sinc, windowed by the middle lobe of a sinc three times as wide. The order of operations is the reference's, so that
/// every bit is.
fn lanczos3(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x <= -3.0 || x >= 3.0 {
        return 0.0;
    }
    let px = PI * x;
    (px.sin() / px) * ((px / 3.0).sin() / (px / 3.0))
}
