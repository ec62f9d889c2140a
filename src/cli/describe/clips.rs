//! One source: its clips, described as they are read.

use std::{
    fmt, fs,
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{
    job::Job,
    printer::Printer,
    source::{NamedSource, camera_config},
    text::on_one_line,
};
use crate::{
    app,
    camera::CameraStatus,
    capture::{self, CameraConfig, Summary},
    clip::{Clip, TimeRange},
    config,
    describe::{
        Describer, Footage,
        worker::{self, Answer, Batching, Outcome, QueueTiming},
    },
    events::EventBuilder,
    frame::{Clock, Frame},
    image_file,
    logging::tell,
    prompt_spec::PromptSpec,
    queue::{ClipQueue, Overflow},
    request::{Content, Message, Request, Role, VideoSampling},
};

/// No frame of a source lies between `--from` and `--to`.
#[derive(Debug, thiserror::Error)]
pub struct NothingInRange {
    name: String,
    /// Its end, if that is before `--from`.
    early_end: Option<Duration>,
}

impl fmt::Display for NothingInRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.early_end {
            Some(end) => {
                write!(f, "{}: it ends after {:.1} s, before --from", self.name, end.as_secs_f64())
            }
            None => write!(f, "{}: it has no frame between --from and --to", self.name),
        }
    }
}

/// Describes a source window by window, while it is being read on another thread. Returns whether it was read to its
/// end.
///
/// # Errors
/// When the source cannot be read, the model fails, or a description cannot be written.
pub fn describe_windows(
    source: &NamedSource,
    job: &Job,
    model: &mut dyn Describer,
    printer: &mut Printer,
) -> anyhow::Result<bool> {
    let camera = CameraConfig { scaling: model.frame_scaling(), ..camera_config(source, job) };
    let queue = Arc::new(ClipQueue::new(NonZeroUsize::MIN));
    let Job { runtime, cancel, progress, .. } = job;
    let stop = cancel.child_token();
    let mut written = Ok(());
    let summary = thread::scope(|scope| {
        let reader = scope.spawn({
            let (pushed, queue, progress, stop) =
                (Arc::clone(&queue), Arc::clone(&queue), progress.clone(), stop.clone());
            move || {
                let (status, changes) = watch::channel(CameraStatus::default());
                runtime.spawn(progress.follow(changes));
                let overflow = app::overflow(&camera.source);
                let sink = move |clip| drop(pushed.push(clip, overflow));
                let result = runtime.block_on(capture::run(camera, sink, status, stop.clone()));
                queue.close();
                result.map(|summary| (summary, !stop.is_cancelled()))
            }
        });
        written = describe_queue(model, &queue, job, printer);
        if written.is_err() {
            stop.cancel();
            queue.close();
        }
        reader.join()
    });
    written?;
    let (Summary { clips, duration, warning, .. }, to_its_end) =
        summary.map_err(|_| anyhow::anyhow!("the thread that reads the source panicked"))??;
    if let Some(warning) = warning {
        progress.suspend(|| tell(format_args!("warning: {}: {warning}", on_one_line(&source.text))));
    }
    if clips == 0 && !cancel.is_cancelled() {
        if job.range == TimeRange::default() {
            bail!("{}: it has no frames", source.text);
        }
        return Err(NothingInRange {
            name: source.text.clone(),
            early_end: (duration < job.range.from).then_some(duration),
        }
        .into());
    }
    Ok(to_its_end)
}

/// Describes a whole file as one clip, from the frames that transformers would sample.
///
/// # Errors
/// When the file cannot be read, the model fails, or the description cannot be written.
pub fn describe_whole_file(
    source: &NamedSource,
    job: &Job,
    model: &mut dyn Describer,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let no_rule = "the reference of this model has no rule for whole files: use another --sampling";
    let sampler = model.file_sampler().context(no_rule)?;
    let (frames, file) = capture::read_frames_at(&camera_config(source, job), |file| {
        let footage = Footage { frames: file.frames as u64, fps: file.fps, duration: file.duration };
        sampler(footage, VideoSampling::default()).into_iter().map(|i| i as usize).collect()
    })?;
    let Some(first) = frames.first() else { bail!("{}: the file has no frames", source.text) };
    let duration = Duration::try_from_secs_f64(file.duration)
        .context("the duration that the file states is not valid")?;
    let clip = Clip {
        camera: source.camera.clone(),
        seq: 0,
        start: first.captured_at - first.pts,
        end: first.captured_at - first.pts + duration,
        clock: first.clock,
        start_pts: Duration::ZERO,
        duration,
        gap: false,
        view: None,
        prompt_spec: Arc::new(job.settings.prompt_spec.clone()),
        frames,
    };
    let queue = ClipQueue::new(NonZeroUsize::MIN);
    queue.push(clip, Overflow::Block)?;
    queue.close();
    describe_queue(model, &queue, job, printer)
}

/// Describes still images together, as images. The event is named after the first of them; the others count as further
/// frames.
///
/// # Errors
/// When a file cannot be read, a part of a film is asked for, the model fails, or the description cannot be written.
pub fn describe_images(
    images: &[(&Path, &NamedSource)],
    job: &Job,
    model: &mut dyn Describer,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let (mut frames, mut content) = (Vec::new(), Vec::new());
    for (path, source) in images {
        if job.range != TimeRange::default() {
            bail!("{}: it is an image, which has no times: leave out --from and --to", source.text);
        }
        let picture = image_file::read(path).with_context(|| source.text.clone())?;
        let time =
            fs::metadata(path).and_then(|file| file.modified()).with_context(|| source.text.clone())?;
        frames.push(Frame {
            camera: images[0].1.camera.clone(),
            captured_at: DateTime::<Utc>::from(time),
            clock: Clock::File,
            pts: Duration::ZERO,
            width: picture.width,
            height: picture.height,
            rgb: Arc::clone(&picture.rgb),
            original: None,
        });
        content.push(Content::Image(picture));
    }
    let prompt = job.args.prompt.clone().unwrap_or_else(|| config::default_image_prompt(&job.args.model));
    let time = frames[0].captured_at;
    let clip = Clip {
        camera: images[0].1.camera.clone(),
        seq: 0,
        start: time,
        end: time,
        clock: Clock::File,
        start_pts: Duration::ZERO,
        duration: Duration::ZERO,
        frames,
        gap: false,
        view: None,
        prompt_spec: Arc::new(PromptSpec { prompt, ..job.settings.prompt_spec.clone() }),
    };
    let request = Request { messages: vec![Message { role: Role::User, content }], ..Request::from(&clip) };
    let timing = QueueTiming { queued_at: Instant::now(), queued: Duration::ZERO, dropped_before: 0 };
    let answer = model.answer(&[request], &mut |_, _| ())?.remove(0).map(Answer::Described);
    let mut events = EventBuilder::new(&config::default_node_id(), model.model());
    let (clip, event) = events.build(Outcome { clip, timing, answer });
    job.progress.suspend(|| printer.outcome(&clip, &event))?;
    job.progress.add_clip();
    Ok(())
}

/// Describes the clips of the queue until it is closed and empty.
fn describe_queue(
    model: &mut dyn Describer,
    queue: &ClipQueue,
    job: &Job,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let batching = Batching { max_batch: NonZeroUsize::MIN, linger: Duration::ZERO, client_share: 0.0 };
    let mut printed = Ok(());
    let mut events = EventBuilder::new(&config::default_node_id(), model.model());
    worker::run(model, queue, batching, |outcome| {
        let (clip, event) = events.build(outcome);
        if printed.is_ok() {
            printed = job.progress.suspend(|| printer.outcome(&clip, &event));
            if event.is_ok() {
                job.progress.add_clip();
            }
            if printed.is_err() {
                queue.close();
            }
        }
    })?;
    printed
}
