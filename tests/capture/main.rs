//! From a camera to a queued clip: files, RTSP servers and test sources, windows, the change gate and the
//! queue.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, or is a table of cases")]

#[path = "../support"]
mod support {
    #[expect(dead_code, reason = "the other test binary uses the rest")]
    pub mod hostile_camera;
    pub mod own_process;
    pub mod playback;
    pub mod rtsp;
    pub mod video;
    pub mod watched_camera;
}

mod colours;
mod gate;
mod gate_videos;
mod hostile_cameras;
mod masks;
mod odd_files;
mod overload;
mod queue;
mod references;
mod rtsp_relay;
mod sources;
mod supervision;
mod windowing;
