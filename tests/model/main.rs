//! From a clip to its description: the model beside its reference, its files, and the worker.

#[path = "../support"]
mod support {
    pub mod checkpoint;
}

mod bench;
mod describe;
mod generation;
mod model_directory;
mod model_free;
mod shapes;
mod unchanged;
mod weights;
