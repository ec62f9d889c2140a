//! Pad probes and the appsink callback of one running pipeline: they drop what no clip wants, and turn
//! decoded samples into frames. All of it runs on GStreamer's streaming threads.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer::{glib, prelude::*};
use gstreamer_app as gst_app;
use tokio::sync::watch;

use super::{
    camera_config::CameraConfig,
    clip_assembler::{ClipAssembler, WindowReport},
    colorimetry,
    error::CaptureError,
    inspect::{
        DROP_BUFFER, decoded_pad, frame_rate, is_video_decoder, lock, running_time, sample_running_time,
        square_size,
    },
    keyframe_policy::{DecodeMode, KeyframePolicy, SamplingDecision},
    parameter_sets::{Codec, ParameterSets},
    pixels::{NoPicture, Pixels},
    rtp,
    stall::{StallDetector, StallReason},
    survey::Survey,
    timestamper::Timestamper,
};
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    frame::{Frame, Original},
    resize::{FrameScaler, RgbImage},
};

/// Largest side of a frame: 8K and a margin. More could exhaust the memory.
const LARGEST_SIDE: u32 = 8192;

/// Why a camera that gives frames gives no clips.
const GIVES_NO_CLIPS: &str = "its windows have fewer frames than min_frames asks for, so hardly one is described: \
                              write a longer window, fewer frames, or sampling = \"auto\"";

/// The state of one run of a pipeline, shared by its probes, its appsink and the supervisor.
pub(super) struct StreamProbes {
    camera: CameraId,
    /// The source, masked: for errors.
    source: String,
    live: bool,
    assembler: Arc<Mutex<ClipAssembler>>,
    status: Arc<watch::Sender<CameraStatus>>,
    timestamper: Timestamper,
    pixels: Pixels,
    scaler: Option<FrameScaler>,
    keyframe_policy: Mutex<KeyframePolicy>,
    /// The stream's latest running time, in nanoseconds.
    position: AtomicU64,
    started: Instant,
    stall_detector: Mutex<StallDetector>,
    /// What a network camera calls the codec of its stream.
    codec: OnceLock<String>,
    /// Of the stream of a network camera, if its codec has any.
    parameter_sets: OnceLock<Option<Mutex<ParameterSets>>>,
    /// The run is over: nothing of a pipeline that does not stop is taken any more.
    closed: AtomicBool,
    /// The part of the stream that is cut into clips has ended.
    over: AtomicBool,
    /// What the user should know about the colours of the frames.
    colour_warning: Mutex<Option<String>>,
    /// Why a probe has stopped the pipeline.
    fault: Mutex<Option<CaptureError>>,
}

impl StreamProbes {
    /// Probes for one run of the camera's source, which starts now.
    pub fn new(
        config: &CameraConfig,
        survey: &Survey,
        assembler: Arc<Mutex<ClipAssembler>>,
        status: Arc<watch::Sender<CameraStatus>>,
    ) -> Self {
        let keyframe_policy = KeyframePolicy::new(config.sampling, config.window.interval());
        lock(&assembler).set_early(keyframe_policy.mode() == DecodeMode::Keyframes);
        Self {
            camera: config.id.clone(),
            source: config.source.to_string(),
            live: config.source.is_live(),
            assembler,
            status,
            timestamper: Timestamper::for_source(&config.source, survey, config.clock),
            pixels: Pixels::seen_through(config.view.clone()),
            scaler: config.scaling.map(FrameScaler::new),
            keyframe_policy: Mutex::new(keyframe_policy),
            position: AtomicU64::new(0),
            started: Instant::now(),
            stall_detector: Mutex::new(StallDetector::new(config.connect_timeout)),
            codec: OnceLock::new(),
            parameter_sets: OnceLock::new(),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            colour_warning: Mutex::new(None),
            fault: Mutex::new(None),
        }
    }

    /// Installs the probes and the callback in a pipeline that does not run yet.
    pub fn attach(
        self: &Arc<Self>,
        pipeline: &gst::Pipeline,
        source: &gst::Element,
        frames: &gst_app::AppSink,
    ) {
        let probes = self.clone();
        pipeline.connect_deep_element_added(move |_, _, element| probes.probe_decoder(element));
        pipeline.iterate_recurse().into_iter().flatten().for_each(|e| self.probe_decoder(&e));
        self.probe_packets(source);
        if let Some(pad) = decoded_pad(frames) {
            self.drop_unwanted(&pad);
        }
        let probes = self.clone();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| probes.on_sample(sink));
        frames.set_callbacks(callbacks.build());
    }

    /// Why the run should end. `None`: it may go on. A file may be held up by the sink, but not before its
    /// first frame.
    pub fn stalled(&self) -> Option<StallReason> {
        let detector = lock(&self.stall_detector);
        if self.live || !detector.has_frame() { detector.check(self.started.elapsed()) } else { None }
    }

    /// The parameter sets that a network camera does not send, if that is why no frame has come: their names.
    pub fn missing_parameter_sets(&self) -> Option<String> {
        lock(self.parameter_sets.get()?.as_ref()?).missing()
    }

    /// What a network camera calls the codec of its packets, if no picture came of them.
    pub fn codec_without_pictures(&self) -> Option<String> {
        self.codec.get().filter(|_| lock(&self.stall_detector).has_only_packets()).cloned()
    }

    /// For how long frames have come.
    pub fn uptime(&self) -> Duration {
        lock(&self.stall_detector).uptime()
    }

    /// Whether the part of the stream that is cut into clips has ended. Does not wait for a sink that blocks.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends the run: nothing more is taken.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Counts an error of the decoder, or an incomplete frame.
    pub fn count_decode_error(&self) {
        lock(&self.stall_detector).on_decoder_error();
        self.status.send_modify(|s| s.decode_errors += 1);
    }

    /// The stream's latest running time.
    pub fn position(&self) -> Duration {
        Duration::from_nanos(self.position.load(Ordering::Relaxed))
    }

    /// What the user should know about the colours of the frames.
    pub fn colour_warning(&self) -> Option<String> {
        lock(&self.colour_warning).clone()
    }

    /// Why a probe has stopped the pipeline, if one has.
    pub fn take_fault(&self) -> Option<CaptureError> {
        lock(&self.fault).take()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Tells the stall detector what has come.
    fn detect(&self, event: impl FnOnce(&mut StallDetector, Duration)) {
        event(&mut lock(&self.stall_detector), self.started.elapsed());
    }

    fn advance_position(&self, pts: Duration) {
        self.position.fetch_max(u64::try_from(pts.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Upstream of a video decoder: measures keyframe intervals, and drops what need not be decoded.
    fn probe_decoder(self: &Arc<Self>, element: &gst::Element) {
        let Some(factory) = element.factory().filter(|_| is_video_decoder(element)) else { return };
        let Some(pad) = element.static_pad("sink") else { return };
        let name = factory.name().to_string();
        let probes = self.clone();
        let reported = AtomicBool::new(false);
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
            if !reported.swap(true, Ordering::Relaxed) {
                tracing::info!(camera = %probes.camera, decoder = %name, "decoding");
                probes.status.send_modify(|s| s.decoder = Some(name.clone()));
            }
            if probes.wants_decoding(pad, buffer) { gst::PadProbeReturn::Ok } else { DROP_BUFFER }
        });
    }

    fn wants_decoding(&self, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
        if self.is_closed() {
            return false;
        }
        self.detect(StallDetector::on_activity);
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let Some(pts) = running_time(pad, buffer) else {
            // AVI states times of keyframes only. The other frames build on keyframes that may not be decoded.
            return keyframe || lock(&self.keyframe_policy).mode() == DecodeMode::Rate;
        };
        let (mode, decision) = {
            let mut policy = lock(&self.keyframe_policy);
            let decision = if keyframe { policy.on_keyframe(pts) } else { None };
            (policy.mode(), decision)
        };
        if let Some(decision) = decision {
            lock(&self.assembler).set_early(mode == DecodeMode::Keyframes && decision.about_as_wanted);
            self.report_sampling(decision);
        }
        let wanted = match mode {
            DecodeMode::Rate => true,
            DecodeMode::Keyframes => {
                self.advance_position(pts);
                // The windower learns of every frame, whether or not it is decoded.
                let wanted = lock(&self.assembler).offer(pts);
                keyframe && wanted
            }
        };
        if wanted {
            self.detect(|detector, now| detector.on_decoder_input(now, keyframe));
        }
        wanted
    }

    fn report_sampling(&self, SamplingDecision { mode, keyframe_interval, too_rare, .. }: SamplingDecision) {
        let text = format!("{mode} (a keyframe every {:.2} s)", keyframe_interval.as_secs_f32());
        if mode == DecodeMode::Keyframes && too_rare {
            tracing::warn!(camera = %self.camera, "keyframes come less often than frames are wanted: {text}");
        } else {
            tracing::info!(camera = %self.camera, sampling = %text, "sampling");
        }
        self.status.send_modify(|s| s.sampling = Some(text));
    }

    /// Downstream of the source: reads the camera's clock from network packets, and looks for parameter sets.
    fn probe_packets(self: &Arc<Self>, source: &gst::Element) {
        let probes = self.clone();
        source.connect_pad_added(move |_, pad| {
            let probes = probes.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(buffer) = info.buffer()
                    && let Some(pts) = running_time(pad, buffer)
                {
                    probes.detect(StallDetector::on_packet);
                    if probes.codec.get().is_none()
                        && let Some(codec) = announced_codec(pad)
                    {
                        let _ = probes.codec.set(codec);
                    }
                    probes.timestamper.observe_camera_clock(buffer, pts);
                    probes.find_parameter_sets(pad, buffer);
                }
                gst::PadProbeReturn::Ok
            });
        });
    }

    fn find_parameter_sets(&self, pad: &gst::Pad, packet: &gst::BufferRef) {
        let Some(sets) = self.parameter_sets.get_or_init(|| announced_parameter_sets(pad).map(Mutex::new))
        else {
            return;
        };
        let mut sets = lock(sets);
        if !sets.is_complete()
            && let Ok(packet) = packet.map_readable()
        {
            sets.on_payload(rtp::payload(&packet).unwrap_or_default());
        }
    }

    /// Downstream of the decoder: drops frames that no clip wants before anything is converted.
    fn drop_unwanted(self: &Arc<Self>, pad: &gst::Pad) {
        let probes = self.clone();
        let which = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(which, move |pad, info| {
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) {
                *lock(&probes.colour_warning) = colorimetry::warning(caps.caps());
                return probes.check_size(pad, caps.caps());
            }
            match info.buffer() {
                Some(buffer) if !probes.wants_conversion(pad, buffer) => DROP_BUFFER,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }

    fn wants_conversion(&self, pad: &gst::Pad, buffer: &gst::BufferRef) -> bool {
        if self.is_closed() {
            return false;
        }
        // A file is described as well as possible; a camera will send better frames.
        let corrupt = buffer.flags().contains(gst::BufferFlags::CORRUPTED);
        if corrupt && self.live && self.status.borrow().decoder.is_some() {
            self.count_decode_error();
            self.detect(StallDetector::on_activity);
            return false;
        }
        self.detect(StallDetector::on_frame);
        let Some(pts) = running_time(pad, buffer) else { return true };
        self.advance_position(pts);
        lock(&self.assembler).offer(pts)
    }

    /// Stops the pipeline if its frames are too large.
    fn check_size(&self, pad: &gst::Pad, caps: &gst::CapsRef) -> gst::PadProbeReturn {
        let Some((width, height)) = square_size(caps) else { return gst::PadProbeReturn::Ok };
        if width.max(height) <= LARGEST_SIDE {
            return gst::PadProbeReturn::Ok;
        }
        *lock(&self.fault) = Some(CaptureError::TooLarge { what: self.source.clone(), width, height });
        if let Some(element) = pad.parent_element() {
            gst::element_error!(element, gst::StreamError::Format, ["the frames are too large"]);
        }
        DROP_BUFFER
    }

    /// The appsink has a converted frame.
    fn on_sample(&self, sink: &gst_app::AppSink) -> Result<gst::FlowSuccess, gst::FlowError> {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if self.is_closed() {
            return Err(gst::FlowError::Eos);
        }
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let Some(pts) = sample_running_time(&sample).or_else(|| self.estimate_pts(buffer)) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let picture = self.pixels.picture(buffer, caps);
        let (rgb, width, height) = picture.map_err(|why| self.refuse(sink, why))?;
        self.advance_position(pts);
        self.report_frame(pts, (width, height), frame_rate(caps));
        let (captured_at, clock) = self.timestamper.utc_at(sink, pts);
        let warning = self.report_clock().or_else(|| self.colour_warning());
        let camera = self.camera.clone();
        let frame = Frame { camera, captured_at, clock, pts, width, height, rgb, original: None };
        let frame = self.scale_down(frame);
        let mut assembler = lock(&self.assembler);
        // Perhaps since: the camera may have been started again, with other masks.
        if self.is_closed() {
            return Err(gst::FlowError::Eos);
        }
        let report = assembler.push(frame);
        self.over.store(assembler.is_over(), Ordering::Relaxed);
        self.report_windows(report, warning);
        Ok(gst::FlowSuccess::Ok)
    }

    /// Stops the pipeline if what may be seen of a frame cannot be told: nothing of it is shown.
    fn refuse(&self, sink: &gst_app::AppSink, why: NoPicture) -> gst::FlowError {
        let NoPicture::View(cause) = why else { return gst::FlowError::NotNegotiated };
        self.close();
        *lock(&self.fault) = Some(CaptureError::View { what: self.source.clone(), cause });
        gst::element_error!(sink, gst::StreamError::Format, ["crop and masks cannot be applied"]);
        gst::FlowError::Error
    }

    fn report_frame(&self, pts: Duration, (width, height): (u32, u32), frame_rate: Option<f64>) {
        self.status.send_modify(|s| {
            let changed = s.state != CameraState::Online || s.size != Some((width, height));
            s.frame_rate = frame_rate;
            s.state = CameraState::Online;
            s.size = Some((width, height));
            s.position = pts;
            s.frames += 1;
            if changed {
                s.why.clear();
                tracing::info!(camera = %self.camera, width, height, "frames are arriving");
            }
        });
    }

    /// Returns why the camera's clock is not used, if it states a time.
    fn report_clock(&self) -> Option<String> {
        let (clock_known, warning) = self.timestamper.camera_clock();
        self.status.send_if_modified(|s| std::mem::replace(&mut s.clock_known, clock_known) != clock_known);
        warning
    }

    fn report_windows(&self, report: WindowReport, warning: Option<String>) {
        let WindowReport { too_few, gives_no_clips, newly_empty } = report;
        if newly_empty {
            tracing::warn!(camera = %self.camera, "{GIVES_NO_CLIPS}");
        }
        let why = if gives_no_clips { GIVES_NO_CLIPS.into() } else { warning.unwrap_or_default() };
        self.status.send_if_modified(|s| {
            let changed = s.too_few != too_few || s.why != why;
            if self.live && s.why != why && !why.is_empty() && !gives_no_clips {
                tracing::warn!(camera = %self.camera, "{why}");
            }
            (s.too_few, s.why) = (too_few, why);
            changed
        });
    }

    /// Scales a frame down to what the model looks at, and keeps the original beside it.
    fn scale_down(&self, frame: Frame) -> Frame {
        let Some(scaler) = &self.scaler else { return frame };
        let Ok(image) = RgbImage::new(&frame.rgb, frame.width, frame.height) else { return frame };
        let Some(small) = scaler.scale(image) else { return frame };
        // Both fit into u32: they are smaller than the sides of the original.
        let (width, height) = (small.width() as u32, small.height() as u32);
        let rgb = small.rgb().into();
        let original = Original { width: frame.width, height: frame.height, rgb: Some(frame.rgb) };
        Frame { width, height, rgb, original: Some(original), ..frame }
    }

    /// The time of a frame that has none: one frame duration after the frame before it.
    fn estimate_pts(&self, buffer: &gst::BufferRef) -> Option<Duration> {
        Some(self.position() + Duration::from(buffer.duration()?))
    }
}

/// What a camera calls the codec of the packets that leave by this pad. JPEG needs no name, only its number (RFC 3551,
/// section 6).
fn announced_codec(pad: &gst::Pad) -> Option<String> {
    let caps = pad.current_caps()?;
    let stream = caps.structure(0)?;
    let by_number = || match stream.get("payload").ok()? {
        26 => Some("JPEG".into()),
        number => Some(format!("packets of the type {number}")),
    };
    stream.get("encoding-name").ok().or_else(by_number)
}

/// The parameter sets that the description of a stream has (RFC 6184, section 8.1; RFC 7798, section 7.1). `None`: its
/// codec has none.
fn announced_parameter_sets(pad: &gst::Pad) -> Option<ParameterSets> {
    let mut sets = ParameterSets::new(Codec::named(&announced_codec(pad)?)?);
    let caps = pad.current_caps()?;
    let stream = caps.structure(0)?;
    for name in ["sprop-parameter-sets", "sprop-vps", "sprop-sps", "sprop-pps"] {
        let announced = stream.get::<&str>(name).unwrap_or_default();
        announced.split(',').for_each(|unit| sets.on_unit(&glib::base64_decode(unit)));
    }
    Some(sets)
}
