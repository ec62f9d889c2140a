//! What a tensor is expected to be.

/// A tensor's name and shape.
pub type TensorShape = (String, Vec<usize>);
