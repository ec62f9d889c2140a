//! Questions about what a camera shows now: its newest frames and the question make a request, which goes before those of
//! other clients; its answer, or why there is none, goes to whoever asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{status_reporter::StatusReporter, views::Views};
use crate::{
    answer::{DescribeError, Description, Part},
    camera::{CameraId, CameraState},
    camera_ask::{Answered, CameraAsk, Refusal},
    config::units,
    decision::Decision,
    event::ModelInfo,
    events::answers::answer,
    frame::Frame,
    lifecycle::Lifecycle,
    look_back::LookBack,
    metrics::{AskEnd, Metrics},
    prompt_spec::PromptSpec,
    publish::{AskInbox, WaitingAsk},
    queue::{Asked, Busy, ClipQueue},
    request::{Content, Message, Picture, Request, Role, Video},
    view::View,
};

/// The most questions that are being answered at a time. The model's queue takes them before all others.
const MAX_ASKS: usize = 8;
/// The most questions that wait for their turn.
const MAX_WAITING: usize = 16;
/// How long a client of the HTTP server is kept waiting.
pub const HTTP_LIMIT: Duration = Duration::from_secs(60);
/// The most frames that a question is about: more would hold up the cameras for long.
const MAX_FRAMES: usize = 16;

/// Puts questions about cameras to the model.
pub struct Asks {
    queue: Arc<ClipQueue>,
    reporter: Arc<StatusReporter>,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    views: Arc<Views>,
    /// For those that are being answered, and those that wait.
    admitted: Semaphore,
    places: Semaphore,
    /// The model, once it is loaded.
    model: OnceLock<ModelInfo>,
    cameras: Mutex<BTreeMap<CameraId, Askable>>,
}

/// What is needed to ask about a camera that is being watched.
#[derive(Clone)]
pub struct Askable {
    /// Its newest frames.
    pub frames: Arc<LookBack>,
    /// What they show of its picture.
    pub view: Option<Arc<View>>,
    /// How many seconds a question is about that does not say it.
    pub window: Duration,
    /// What is asked about its clips.
    pub prompt_spec: watch::Receiver<Arc<PromptSpec>>,
}

/// What the answer to a request tells of it.
struct Prepared {
    question: String,
    decision: Option<Decision>,
    /// The possible answers as they were given.
    answers: Vec<String>,
    frames: Vec<Frame>,
}

impl Prepared {
    /// An answer as the caller has written it.
    fn spelled(&self, answer: &str) -> String {
        let given = self.answers.iter().find(|given| given.to_lowercase() == answer.to_lowercase());
        given.map_or(answer, |given| given).to_owned()
    }
}

impl Asks {
    /// Nothing can be asked yet.
    pub fn new(
        queue: Arc<ClipQueue>,
        reporter: Arc<StatusReporter>,
        lifecycle: Arc<Lifecycle>,
        metrics: Arc<Metrics>,
        views: Arc<Views>,
    ) -> Self {
        Self {
            queue,
            reporter,
            lifecycle,
            metrics,
            views,
            admitted: Semaphore::new(MAX_ASKS + MAX_WAITING),
            places: Semaphore::new(MAX_ASKS),
            model: OnceLock::new(),
            cameras: Mutex::default(),
        }
    }

    /// Sets the model that answers. There is one.
    pub fn set_model(&self, model: ModelInfo) {
        let _ = self.model.set(model);
    }

    /// A camera is being watched from now on.
    pub fn watch(&self, camera: &CameraId, askable: Askable) {
        self.lock().insert(camera.clone(), askable);
    }

    /// A camera is not being watched any more: nothing of it can be asked, not even by a question that already waits for
    /// its turn. When the camera is back, parts of its picture may be masked that its old frames show.
    pub fn forget(&self, camera: &CameraId) {
        if let Some(askable) = self.lock().remove(camera) {
            askable.frames.clear();
        }
    }

    /// Asks the model about a camera, for as long as `limit`. Whoever does not wait for the answer any more drops this.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask(&self, camera: &CameraId, ask: CameraAsk, limit: Duration) -> Result<Answered, Refusal> {
        let began = Instant::now();
        let outcome = timeout(limit, self.answer(camera, ask)).await.unwrap_or(Err(Refusal::Expired));
        let end = match &outcome {
            Ok(_) => AskEnd::Answered,
            Err(Refusal::Busy) => AskEnd::Busy,
            Err(Refusal::Expired) => AskEnd::Expired,
            Err(Refusal::CameraOffline(_)) => AskEnd::CameraOffline,
            Err(Refusal::NoSuchCamera(_) | Refusal::Invalid(_)) => return outcome,
            Err(Refusal::Unavailable(_) | Refusal::Failed(_)) => AskEnd::Failed,
        };
        // Nothing is counted of a camera that does not exist, or does no more: anybody could name any number of them.
        if self.reporter.state(camera).is_some() {
            self.metrics.asked(camera, end, began.elapsed());
        }
        outcome
    }

    async fn answer(&self, camera: &CameraId, ask: CameraAsk) -> Result<Answered, Refusal> {
        let began = Instant::now();
        let Some((state, why)) = self.reporter.state(camera) else {
            return Err(Refusal::NoSuchCamera(camera.to_string()));
        };
        let model =
            self.model.get().ok_or_else(|| Refusal::Unavailable("the model is being loaded".into()))?;
        self.lifecycle.ready().map_err(Refusal::Unavailable)?;
        let offline = |why: String| Refusal::CameraOffline(format!("the camera {camera} {why}"));
        if state != CameraState::Online {
            let reason = why.map(|why| format!(": {why}")).unwrap_or_default();
            return Err(offline(format!("is {}{reason}", state.as_str())));
        }
        let askable = self.lock().get(camera).cloned();
        let askable = askable.ok_or_else(|| offline("is not being watched".into()))?;
        let _admitted = self.admitted.try_acquire().map_err(|_| Refusal::Busy)?;
        let _place = self.places.acquire().await.map_err(|_| Refusal::Busy)?;
        let (request, prepared) = askable.prepare(camera, ask).map_err(offline)?;
        #[expect(clippy::disallowed_methods, reason = "an answer is bounded by its number of tokens")]
        let (reply, mut parts) = mpsc::unbounded_channel();
        let asked = Asked { request, reply, is_urgent: true };
        self.queue.ask(asked).map_err(|Busy| Refusal::Busy)?;
        let description = loop {
            match parts.recv().await {
                Some(Part::Piece(_)) => {}
                Some(Part::End(end)) => break end.map_err(refusal)?,
                None => return Err(Refusal::Unavailable("camscribe is being stopped".into())),
            }
        };
        if !self.views.current().allow(camera, &askable.view) {
            return Err(offline("has another crop or other masks now: ask again".into()));
        }
        let Description { text, labels, finish_reason, tokens, .. } = description;
        let answer = prepared.decision.as_ref().and_then(|decision| answer(decision, None, &labels, model));
        let frames = &prepared.frames;
        let (first, last) = (&frames[0], &frames[frames.len() - 1]);
        Ok(Answered {
            question: prepared.question.clone(),
            text: answer.as_ref().map_or(text, |answer| prepared.spelled(answer.answer())),
            answer,
            finish_reason,
            start: first.captured_at,
            end: last.captured_at,
            frames: frames.len(),
            model: model.clone(),
            tokens,
            total_ms: began.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CameraId, Askable>> {
        // Nothing panics while the lock is held, so what it guards is whole.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Askable {
    /// The request, or why there is nothing to ask about: the rest of a sentence about the camera.
    fn prepare(&self, camera: &CameraId, ask: CameraAsk) -> Result<(Request, Prepared), String> {
        let span = ask.last.unwrap_or(self.window);
        let frames = self.frames.last(span, MAX_FRAMES);
        // Which the model gets as a video: of one frame it would say little.
        if frames.len() < 2 {
            let kept = units::format_duration(self.frames.span());
            return Err(format!(
                "has not shown two frames of a clip within look_back = {kept}: ask again in some seconds"
            ));
        }
        // What happened long ago is not what happens now, however few frames the camera shows.
        let newest = self.frames.age().filter(|age| *age > span.max(self.window));
        if let Some(age) = newest {
            return Err(format!("has shown nothing for {} s", age.as_secs()));
        }
        let spec = Arc::clone(&self.prompt_spec.borrow());
        let decision = ask.decision();
        let question = ask.question.unwrap_or_else(|| spec.prompt.clone());
        let questions = decision.iter().flat_map(Decision::questions).collect();
        let max_tokens = if decision.is_some() { 0 } else { ask.max_tokens.unwrap_or(spec.max_tokens) };
        let request = Request {
            messages: vec![Message { role: Role::User, content: vec![Content::Video(video(&frames))] }],
            prompt: Some(question.clone()),
            questions,
            max_tokens,
            camera: Some(camera.clone()),
            ..Request::default()
        };
        Ok((request, Prepared { question, decision, answers: ask.answers, frames }))
    }
}

/// The frames with their times. Each is shown for as long as they are apart on average, the last one, too.
fn video(frames: &[Frame]) -> Video {
    let first = frames[0].pts;
    let picture =
        |frame: &Frame| Picture { width: frame.width, height: frame.height, rgb: Arc::clone(&frame.rgb) };
    let timed: Vec<_> =
        frames.iter().map(|frame| (frame.pts.saturating_sub(first), picture(frame))).collect();
    let shown = timed[timed.len() - 1].0;
    let apart = shown / u32::try_from(timed.len() - 1).unwrap_or(u32::MAX).max(1);
    Video { frames: timed, duration: shown + apart }
}

/// Answers the questions of subscribers, until it is dropped.
pub async fn answer_subscribers(asks: Arc<Asks>, inbox: Arc<AskInbox>) {
    // Bounded: beyond a few, each is refused at once.
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            asked = inbox.take() => {
                let WaitingAsk { camera, ask, until, reply_to } = asked;
                let (asks, inbox) = (Arc::clone(&asks), Arc::clone(&inbox));
                tasks.spawn(async move {
                    let limit = until.saturating_duration_since(Instant::now());
                    let outcome = asks.ask(&camera, ask, limit).await;
                    inbox.reply(&camera, reply_to, &outcome);
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn refusal(error: DescribeError) -> Refusal {
    let why = error.to_string();
    match error {
        DescribeError::Request(_) | DescribeError::TooLarge(_) => Refusal::Failed(why),
        DescribeError::OutOfMemory(_) | DescribeError::Unavailable { .. } | DescribeError::Device(_) => {
            Refusal::Unavailable(why)
        }
    }
}
