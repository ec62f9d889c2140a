//! What a pipeline reports on its bus.

use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer::{glib, prelude::*};
use tokio::sync::mpsc;

use super::{
    inspect::{is_video_decoder, lock},
    stream_probes::StreamProbes,
};
use crate::camera::CameraId;

/// A message that ends a run.
pub(super) enum BusEvent {
    /// The stream is over.
    EndOfStream,
    /// An element has failed.
    Error(BusError),
}

/// An error that an element has reported.
#[derive(Debug)]
pub(super) struct BusError {
    /// For people.
    pub error: glib::Error,
    /// For developers. Read for what the error alone does not say, but never shown.
    pub debug: String,
}

impl From<&gst::message::Error> for BusError {
    fn from(message: &gst::message::Error) -> Self {
        let debug = message.debug().map(|d| d.to_string()).unwrap_or_default();
        Self { error: message.error(), debug }
    }
}

/// The kind of an element, and what flows into it, or out of a source.
fn name_and_caps(element: &gst::Element) -> (String, String) {
    let name = element.factory().map_or_else(String::new, |factory| factory.name().to_string());
    let pad = element.sink_pads().into_iter().chain(element.src_pads()).next();
    let caps = pad.and_then(|pad| pad.current_caps()).map_or_else(String::new, |caps| caps.to_string());
    (name, caps)
}

/// A plugin that GStreamer has looked for in vain.
#[derive(Clone, Debug)]
pub(super) struct MissingPlugin {
    /// For people.
    pub name: String,
    /// The media type that it would have to read, if it is a decoder or demuxer.
    pub media_type: Option<String>,
}

impl MissingPlugin {
    /// The plugin that `message` reports as missing, if that is what it says.
    pub fn of_message(message: &gst::message::Element) -> Option<Self> {
        let report = message.structure().filter(|s| s.name() == "missing-plugin")?;
        let caps = report.get::<gst::Caps>("detail").ok();
        let media_type = caps.and_then(|caps| Some(caps.structure(0)?.name().to_string()));
        Some(Self { name: report.get("name").ok()?, media_type })
    }
}

/// The messages of one pipeline.
pub(super) struct BusEvents {
    receiver: mpsc::Receiver<BusEvent>,
    missing_plugins: Arc<Mutex<Vec<MissingPlugin>>>,
}

impl BusEvents {
    /// Starts to read the bus of a pipeline. No message stays on it.
    pub fn subscribe(pipeline: &gst::Pipeline, camera: &CameraId, probes: &Arc<StreamProbes>) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let events = Self { receiver, missing_plugins: Arc::default() };
        let Some(bus) = pipeline.bus() else { return events };
        let (camera, probes, missing) = (camera.clone(), probes.clone(), events.missing_plugins.clone());
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Eos(_) => {
                    // The channel is full only if errors wait in it, and the first of them ends the run.
                    let _ = sender.try_send(BusEvent::EndOfStream);
                }
                gst::MessageView::Error(e) => {
                    let element = e.src().and_then(|source| source.downcast_ref::<gst::Element>());
                    let (name, caps) = element.map(name_and_caps).unwrap_or_default();
                    tracing::debug!(%camera, element = name, caps, "GStreamer's error: {}", e.error().message());
                    let _ = sender.try_send(BusEvent::Error(BusError::from(e)));
                }
                gst::MessageView::Warning(w) => {
                    tracing::debug!(%camera, "GStreamer warns: {}", w.error().message());
                    if w.src().and_then(|s| s.downcast_ref::<gst::Element>()).is_some_and(is_video_decoder) {
                        probes.count_decode_error();
                    }
                }
                gst::MessageView::Element(e) => lock(&missing).extend(MissingPlugin::of_message(e)),
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        events
    }

    /// The next message that ends the run.
    pub async fn next(&mut self) -> BusEvent {
        self.receiver.recv().await.unwrap_or(BusEvent::EndOfStream)
    }

    /// The plugins that GStreamer has looked for in vain so far.
    pub fn missing_plugins(&self) -> Vec<MissingPlugin> {
        lock(&self.missing_plugins).clone()
    }
}
