//! From a camera to a queued clip: real files, real RTSP servers and drawn scenes, windows, the change gate
//! and the queue.

#[path = "../support"]
mod support {
    pub mod media;
    pub mod own_process;
    pub mod rtsp;
    pub mod watching;
}

mod gate;
mod gate_films;
mod overload;
mod queue;
mod sources;
mod supervision;
mod windowing;
