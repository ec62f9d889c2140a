//! What the HTTP server puts to the model: questions of clients, beside the clips of the cameras.

use std::{
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::mpsc;

use super::{deps::WorkerDeps, video_file::read_video};
use crate::{
    capture::{self, ReadBounds},
    describe::FileSampler,
    http::{ApiSource, Film, NotAsked, ServedModel},
    queue::{Asked, Busy},
    request::{Request, Video},
};

/// The model that answers clients.
pub struct ClientModel {
    /// What clients are told of it.
    pub served: ServedModel,
    /// Chooses the frames of videos.
    pub file_sampler: Option<FileSampler>,
}

/// The functions that the HTTP server calls. `model` is set once it is loaded.
pub fn api_source(deps: &WorkerDeps, model: &Arc<OnceLock<ClientModel>>) -> ApiSource {
    let (of_model, of_film) = (Arc::clone(model), Arc::clone(model));
    let WorkerDeps { queue, lifecycle, .. } = deps.clone();
    ApiSource {
        model: Box::new(move || of_model.get().map(|model| model.served.clone())),
        ask: Box::new(move |request: Request| {
            lifecycle.ready().map_err(NotAsked::NotReady)?;
            #[expect(clippy::disallowed_methods, reason = "an answer is bounded by its number of tokens")]
            let (reply, parts) = mpsc::unbounded_channel();
            let busy = |Busy| NotAsked::Busy;
            queue.ask(Asked { request, reply, is_urgent: false }).map_err(busy)?;
            Ok(parts)
        }),
        film: Box::new(move |film| {
            let model = of_film.get().ok_or("the model is being loaded")?;
            read_film(model, film)
        }),
    }
}

/// Reads a video out of its bytes, by way of a file that is in memory only.
fn read_film(model: &ClientModel, film: Film<'_>) -> Result<Video, String> {
    let Film { bytes, sampling, most_bytes, is_over } = film;
    let (file, path) = file_of(bytes).map_err(|error| format!("there is no place for the video: {error}"))?;
    // GStreamer is left alone with what is no video, such as a playlist.
    if !capture::is_video(&path).map_err(|error| error.to_string())? {
        return Err("this is not a video".into());
    }
    let bounds = ReadBounds { most_bytes, is_over };
    let read = read_video(&path, model.file_sampler.clone(), sampling, model.served.frame_scaling, bounds);
    drop(file);
    let shown = path.display().to_string();
    read.map_err(|error| error.to_string().replace(&format!("{shown}: "), "").replace(&shown, "the video"))
}

/// A file in memory that holds `bytes`, and its path for as long as it is open.
fn file_of(bytes: &[u8]) -> std::io::Result<(File, PathBuf)> {
    let mut file = File::from(memfd_create("video", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    Ok((file, path))
}
