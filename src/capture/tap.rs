//! What hangs on a running pipeline: probes that let go of what no clip wants, and the callback that
//! turns decoded pictures into frames and frames into clips. All of it runs on GStreamer's own
//! streaming threads.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use tokio::sync::watch;

use super::{
    CameraConfig, CaptureError,
    sampler::{Finding, Mode, Rhythm},
    stamp::Stamper,
    vigil::{Trouble, Vigil},
};
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    clip::{Clip, Windower},
    frame::{Frame, Original},
    resize::{FrameScaler, RgbImage},
};

/// Largest side of a picture: 8K and a margin. More could exhaust the memory.
const LARGEST: u32 = 8192;

/// What a probe answers about data that goes no further. Not `Drop`: the bindings have freed the data
/// by then, and GStreamer before 1.24.8 complains that there is nothing left to free.
pub(super) const LET_GO: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// What a camera keeps while its pipelines come and go.
pub(super) struct Intake {
    pub windower: Windower,
    pub sink: Box<dyn FnMut(Clip) + Send>,
    /// Frames that went into the windower.
    pub frames: u64,
    /// Clips that came out.
    pub clips: u64,
    /// Windows of late that had too few frames, less clips, up to `BARREN`.
    pub barren: u64,
    /// Hardly a window comes to a clip.
    pub gives_none: bool,
}

/// So many windows without a clip are no accident.
const BARREN: u64 = 3;
/// What a camera is told to be then.
const GIVES_NO_CLIPS: &str = "its windows have fewer frames than min_frames asks for, so hardly one is described: \
                              write a longer window, fewer frames, or sampling = \"auto\"";

impl Intake {
    pub fn new(windower: Windower, sink: impl FnMut(Clip) + Send + 'static) -> Self {
        Self { windower, sink: Box::new(sink), frames: 0, clips: 0, barren: 0, gives_none: false }
    }

    fn push(&mut self, frame: Frame) {
        self.frames += 1;
        let before = self.windower.too_few();
        let clips = self.windower.push(frame);
        let barren = (self.barren + self.windower.too_few() - before).min(BARREN);
        self.barren = barren.saturating_sub(clips.len() as u64);
        self.hand_on(clips);
    }

    /// Hands clips to the sink, which may block.
    pub fn hand_on(&mut self, clips: Vec<Clip>) {
        self.clips += clips.len() as u64;
        clips.into_iter().for_each(&mut self.sink);
    }
}

/// Takes a lock that another thread may have panicked under: what it guards stays whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of a pipeline.
pub(super) struct Tap {
    pub camera: CameraId,
    /// The source, masked: for errors.
    what: String,
    live: bool,
    intake: Arc<Mutex<Intake>>,
    status: Arc<watch::Sender<CameraStatus>>,
    stamper: Stamper,
    /// Longest side of a frame.
    scaler: Option<FrameScaler>,
    rhythm: Mutex<Rhythm>,
    /// The stream's latest time, in nanoseconds.
    position: AtomicU64,
    started: Instant,
    vigil: Mutex<Vigil>,
    /// The run is over: a pipeline that does not stop is not listened to any more.
    closed: AtomicBool,
    /// Why we ended the pipeline ourselves.
    fault: Mutex<Option<CaptureError>>,
}

impl Tap {
    pub fn new(
        config: &CameraConfig,
        intake: Arc<Mutex<Intake>>,
        status: Arc<watch::Sender<CameraStatus>>,
        stamper: Stamper,
        rhythm: Rhythm,
    ) -> Self {
        Self {
            camera: config.id.clone(),
            what: config.source.to_string(),
            live: config.source.is_live(),
            intake,
            status,
            stamper,
            scaler: config.scaling.map(FrameScaler::new),
            rhythm: Mutex::new(rhythm),
            position: AtomicU64::new(0),
            started: Instant::now(),
            vigil: Mutex::new(Vigil::new(config.opening)),
            closed: AtomicBool::new(false),
            fault: Mutex::new(None),
        }
    }

    /// Hooks itself into a pipeline that is not running yet.
    pub fn attach(
        self: &Arc<Self>,
        pipeline: &gst::Pipeline,
        source: &gst::Element,
        frames: &gst_app::AppSink,
    ) {
        let tap = self.clone();
        pipeline.connect_deep_element_added(move |_, _, element| tap.watch_decoder(element));
        pipeline.iterate_recurse().into_iter().flatten().for_each(|e| self.watch_decoder(&e));
        self.watch_packets(source);
        if let Some(pad) = decoded_side(frames) {
            self.thin(&pad);
        }
        let tap = self.clone();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| tap.take(sink)).build();
        frames.set_callbacks(callbacks);
    }

    /// Why the run should end, if it should. A file may well be held up by the sink, but not before
    /// its first picture.
    pub fn trouble(&self) -> Option<Trouble> {
        let vigil = lock(&self.vigil);
        if self.live || !vigil.has_shown() { vigil.trouble(self.started.elapsed()) } else { None }
    }

    /// For how long pictures have come.
    pub fn up(&self) -> Duration {
        lock(&self.vigil).up()
    }

    /// From now on nothing more is taken in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The decoder could not use something, or gave a picture that is not whole.
    pub fn decode_error(&self) {
        lock(&self.vigil).error();
        self.status.send_modify(|s| s.decode_errors += 1);
    }

    /// The stream's latest time.
    pub fn position(&self) -> Duration {
        Duration::from_nanos(self.position.load(Ordering::Relaxed))
    }

    pub fn take_fault(&self) -> Option<CaptureError> {
        lock(&self.fault).take()
    }

    /// Tells the vigil what has come.
    fn note(&self, what: impl FnOnce(&mut Vigil, Duration)) {
        what(&mut lock(&self.vigil), self.started.elapsed());
    }

    fn reached(&self, pts: Duration) {
        self.position.fetch_max(u64::try_from(pts.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Before a video decoder: measures the rhythm of keyframes and lets go of what is not needed.
    fn watch_decoder(self: &Arc<Self>, element: &gst::Element) {
        let Some(factory) = element.factory().filter(|_| is_video_decoder(element)) else { return };
        let Some(pad) = element.static_pad("sink") else { return };
        let name = factory.name().to_string();
        let tap = self.clone();
        let told = AtomicBool::new(false);
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
            if !told.swap(true, Ordering::Relaxed) {
                tracing::info!(camera = %tap.camera, decoder = %name, "decoding");
                tap.status.send_modify(|s| s.decoder = Some(name.clone()));
            }
            if tap.reaches_decoder(pad, buffer) { gst::PadProbeReturn::Ok } else { LET_GO }
        });
    }

    fn reaches_decoder(&self, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
        if self.is_closed() {
            return false;
        }
        self.note(Vigil::alive);
        let Some(pts) = stream_time(pad, buffer) else { return true };
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let (mode, finding) = {
            let mut rhythm = lock(&self.rhythm);
            let finding = if key { rhythm.keyframe(pts) } else { None };
            (rhythm.mode(), finding)
        };
        if let Some(finding) = finding {
            self.tell(finding);
        }
        let wanted = match mode {
            Mode::Rate => true,
            Mode::Keyframes => {
                self.reached(pts);
                let wanted = lock(&self.intake).windower.offer(pts);
                key && wanted
            }
        };
        if wanted {
            self.note(|vigil, now| vigil.fed(now, key));
        }
        wanted
    }

    fn tell(&self, finding: Finding) {
        let Finding { mode, interval, rare } = finding;
        let text = format!("{mode} (a keyframe every {:.2} s)", interval.as_secs_f32());
        if mode == Mode::Keyframes && rare {
            tracing::warn!(camera = %self.camera, "keyframes come less often than frames are wanted: {text}");
        } else {
            tracing::info!(camera = %self.camera, sampling = %text, "sampling");
        }
        self.status.send_modify(|s| s.sampling = Some(text));
    }

    /// On packets from the network: learns the camera's clock.
    fn watch_packets(self: &Arc<Self>, source: &gst::Element) {
        let tap = self.clone();
        source.connect_pad_added(move |_, pad| {
            let tap = tap.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(buffer) = info.buffer()
                    && let Some(at) = stream_time(pad, buffer)
                {
                    tap.stamper.learn(buffer, at);
                }
                gst::PadProbeReturn::Ok
            });
        });
    }

    /// On decoded pictures, before anything is converted.
    fn thin(self: &Arc<Self>, pad: &gst::Pad) {
        let tap = self.clone();
        let which = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(which, move |pad, info| {
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) {
                return tap.check_size(pad, caps.caps());
            }
            match info.buffer() {
                Some(buffer) if !tap.wants(pad, buffer) => LET_GO,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }

    /// Whether a decoded picture is worth converting.
    fn wants(&self, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
        if self.is_closed() {
            return false;
        }
        // A file is described as well as it goes; a camera will send better pictures.
        let corrupt = buffer.flags().contains(gst::BufferFlags::CORRUPTED);
        if corrupt && self.live && self.status.borrow().decoder.is_some() {
            self.decode_error();
            self.note(Vigil::alive);
            return false;
        }
        self.note(Vigil::picture);
        let Some(pts) = stream_time(pad, buffer) else { return true };
        self.reached(pts);
        lock(&self.intake).windower.offer(pts)
    }

    fn check_size(&self, pad: &gst::Pad, caps: &gst::CapsRef) -> gst::PadProbeReturn {
        let Some((width, height)) = square_size(caps) else { return gst::PadProbeReturn::Ok };
        if width.max(height) <= LARGEST {
            return gst::PadProbeReturn::Ok;
        }
        *lock(&self.fault) = Some(CaptureError::TooLarge { what: self.what.clone(), width, height });
        if let Some(element) = pad.parent_element() {
            gst::element_error!(element, gst::StreamError::Format, ["the pictures are too large"]);
        }
        LET_GO
    }

    /// A converted picture has come out.
    fn take(&self, sink: &gst_app::AppSink) -> Result<gst::FlowSuccess, gst::FlowError> {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if self.is_closed() {
            return Err(gst::FlowError::Eos);
        }
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
        let pts = segment.zip(buffer.pts()).and_then(|(s, pts)| s.to_running_time(pts));
        let Some(pts) = pts.map(Duration::from).or_else(|| self.guess(buffer)) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let (rgb, width, height) = pixels(buffer, caps).ok_or(gst::FlowError::NotNegotiated)?;
        self.reached(pts);
        self.status.send_if_modified(|s| {
            let fresh = s.state != CameraState::Online || s.size != Some((width, height));
            s.frame_rate = frame_rate(caps);
            s.state = CameraState::Online;
            s.size = Some((width, height));
            s.position = pts;
            s.frames += 1;
            if fresh {
                s.why.clear();
                tracing::info!(camera = %self.camera, width, height, "pictures are coming");
            }
            true
        });
        let (captured_at, clock) = self.stamper.stamp(pts, sink);
        let frame = Frame {
            camera: self.camera.clone(),
            captured_at,
            clock,
            pts,
            width,
            height,
            rgb,
            original: None,
        };
        let frame = self.shrink(frame);
        let mut intake = lock(&self.intake);
        intake.push(frame);
        self.tell_of_windows(&mut intake);
        Ok(gst::FlowSuccess::Ok)
    }

    /// Says how many windows had too few frames for a clip, and whether hardly one has enough.
    fn tell_of_windows(&self, intake: &mut Intake) {
        if intake.barren == BARREN && !intake.gives_none {
            tracing::warn!(camera = %self.camera, "{GIVES_NO_CLIPS}");
        }
        intake.gives_none = intake.barren == BARREN || intake.gives_none && intake.barren > 0;
        let (why, too_few) = (if intake.gives_none { GIVES_NO_CLIPS } else { "" }, intake.windower.too_few());
        self.status.send_if_modified(|s| {
            let news = s.too_few != too_few || s.why != why;
            (s.too_few, s.why) = (too_few, why.into());
            news
        });
    }

    /// Keeps no more of a picture than is looked at.
    fn shrink(&self, frame: Frame) -> Frame {
        let Some(scaler) = &self.scaler else { return frame };
        let Ok(image) = RgbImage::new(&frame.rgb, frame.width, frame.height) else { return frame };
        let Some(small) = scaler.scale(image) else { return frame };
        // Smaller than a width and a height that were u32.
        let (width, height) = (small.width() as u32, small.height() as u32);
        let rgb = small.rgb().into();
        let original = Original { width: frame.width, height: frame.height, rgb: Some(frame.rgb) };
        Frame { width, height, rgb, original: Some(original), ..frame }
    }

    /// For pictures without a time of their own: each comes one duration after the one before.
    fn guess(&self, buffer: &gst::BufferRef) -> Option<Duration> {
        Some(self.position() + Duration::from(buffer.duration()?))
    }
}

/// Whether this is an element that makes pictures of data.
pub(super) fn is_video_decoder(element: &gst::Element) -> bool {
    let Some(factory) = element.factory() else { return false };
    let class = factory.klass();
    class.contains("Decoder") && (class.contains("Video") || class.contains("Image"))
}

/// A buffer's time since the start of the stream.
fn stream_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Duration> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(buffer.pts()?).map(Duration::from)
}

/// The pad where decoded pictures begin their way to `frames`: upstream of everything that only
/// converts, downstream of decoder and source.
pub(super) fn decoded_side(frames: &gst_app::AppSink) -> Option<gst::Pad> {
    let mut pad = frames.static_pad("sink")?;
    loop {
        let Some(element) = pad.peer().and_then(|peer| peer.parent_element()) else { return Some(pad) };
        let decodes = is_video_decoder(&element);
        match &element.sink_pads()[..] {
            [only] if !decodes && !element.is::<gst::Bin>() => pad = only.clone(),
            _ => return Some(pad),
        }
    }
}

/// Width and height of a picture once its pixels are made square.
fn square_size(caps: &gst::CapsRef) -> Option<(u32, u32)> {
    let s = caps.structure(0)?;
    let side = |name: &str| s.get::<i32>(name).ok().and_then(|v| u32::try_from(v).ok());
    let (width, height) = (side("width")?, side("height")?);
    let par = s
        .get::<gst::Fraction>("pixel-aspect-ratio")
        .map_or(1.0, |p| f64::from(p.numer()) / f64::from(p.denom()));
    Some(((f64::from(width) * par).round() as u32, height))
}

/// Pictures per second; a stream that does not know says 0.
fn frame_rate(caps: &gst::CapsRef) -> Option<f64> {
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    (rate.numer() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
}

/// Tight rows of RGB.
pub(super) fn pixels(buffer: &gst::BufferRef, caps: &gst::CapsRef) -> Option<(Arc<[u8]>, u32, u32)> {
    let info = gst_video::VideoInfo::from_caps(caps).ok()?;
    let picture = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).ok()?;
    let stride = usize::try_from(picture.plane_stride()[0]).ok()?;
    let row = info.width() as usize * 3;
    let data = picture.plane_data(0).ok()?;
    let rgb = if stride == row {
        data.get(..row * info.height() as usize)?.into()
    } else {
        data.chunks(stride).take(info.height() as usize).flat_map(|r| &r[..row]).copied().collect()
    };
    Some((rgb, info.width(), info.height()))
}
