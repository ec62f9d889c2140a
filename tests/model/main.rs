//! From a clip to its description: preprocessing, the model, its files, and the worker.

#[path = "../support"]
mod support {
    pub mod checkpoint;
}

mod bench;
mod describe;
mod generation;
mod model_directory;
mod preparation;
mod shapes;
mod unchanged;
mod weights;
