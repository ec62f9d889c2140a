//! What the worker has taken out of the queue: clips and requests that wait for a place in the batch, and those that are
//! being answered.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    batch_sizer::BatchSizer,
    change_gate::ChangeGate,
    describer::{Describer, Work},
    outcome::{Answer, Batching, Outcome, QueueTiming},
    pace::Pace,
    share::TimeShare,
    warm_up::warm_up,
};
use crate::{
    answer::{DescribeError, Description, Part, Piece, StageTimes},
    camera::CameraId,
    clip::Clip,
    gate::Fingerprint,
    heartbeat::Heartbeat,
    queue::{Asked, Batch, ClipQueue, Queued, Room},
    request::Request,
};

/// When a client may ask again that was sent away at the end.
const STOPPING: Duration = Duration::from_secs(30);

/// See the module.
pub struct InFlight<'a> {
    queue: &'a ClipQueue,
    batching: Batching,
    on_outcome: &'a mut (dyn FnMut(Outcome) + Send),
    heartbeat: Arc<Heartbeat>,
    gate: ChangeGate,
    share: TimeShare,
    sizer: BatchSizer,
    pace: Pace,
    /// Most that join answers under way at a time.
    joining: usize,
    /// Taken, in order; not given to the describer yet.
    waiting: VecDeque<Entry>,
    /// Given to the describer, by the number that its run knows.
    running: BTreeMap<usize, Entry>,
    /// How many requests this run of the describer was given.
    given: usize,
    /// Clips that were answered before an earlier clip of their camera.
    early: Vec<(Taken, Result<Answer, DescribeError>)>,
    /// How many clips were taken.
    taken: u64,
}

/// A clip or a client's request.
struct Entry {
    request: Request,
    origin: Origin,
}

/// Whom an answer is for.
enum Origin {
    Camera(Taken),
    Client(Client),
}

/// A clip that was taken out of the queue.
struct Taken {
    clip: Clip,
    timing: QueueTiming,
    fingerprint: Option<Fingerprint>,
    /// How many clips were taken before it.
    order: u64,
}

/// A client that waits for an answer.
struct Client {
    reply: UnboundedSender<Part>,
    /// How many pieces of the answer it has.
    sent: usize,
    /// How many pieces come that it has already, because its answer was begun again.
    repeated: usize,
}

impl Entry {
    fn camera(&self) -> Option<&CameraId> {
        match &self.origin {
            Origin::Camera(taken) => Some(&taken.clip.camera),
            Origin::Client(_) => None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(&self.origin, Origin::Client(client) if client.reply.is_closed())
    }
}

impl<'a> InFlight<'a> {
    /// Nothing is in flight yet.
    pub fn new(
        queue: &'a ClipQueue,
        batching: Batching,
        heartbeat: Arc<Heartbeat>,
        on_outcome: &'a mut (dyn FnMut(Outcome) + Send),
    ) -> Self {
        Self {
            queue,
            batching,
            on_outcome,
            heartbeat,
            gate: ChangeGate::default(),
            share: TimeShare::new(batching.client_share),
            sizer: BatchSizer::new(batching.max_batch),
            pace: Pace::default(),
            joining: 1,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            given: 0,
            early: Vec::new(),
            taken: 0,
        }
    }

    /// Waits until there is something for the describer. Returns false when the queue is closed and empty.
    pub fn wait(&mut self) -> bool {
        while self.waiting.is_empty() {
            self.heartbeat.idle();
            let room = self.room();
            let Some(batch) = self.queue.pop_batch(room, self.batching.linger) else { return false };
            self.heartbeat.beat();
            self.take(batch);
        }
        true
    }

    /// Has the describer answer what waits, and whatever else comes meanwhile.
    ///
    /// # Errors
    /// When the describer is not available, fails, or has too little memory even for the smallest clip. All that was
    /// taken gets that error.
    pub fn answer_all(&mut self, describer: &mut dyn Describer) -> Result<(), DescribeError> {
        while !self.waiting.is_empty() {
            // What clients ask is as large as it likes: it does not set how much is done at once.
            let clips = self.waiting.iter().filter(|entry| entry.camera().is_some());
            let pictures = clips.map(|entry| entry.request.pictures()).max().unwrap_or(1);
            self.sizer.estimate(describer, pictures);
            // A GPU reads several prompts in little more time than one.
            self.joining = if describer.gpu().is_some() { self.sizer.batch_size().get() } else { 1 };
            self.given = 0;
            let error = match describer.run(self) {
                Ok(()) => {
                    self.running.retain(|_, entry| !entry.is_gone());
                    if self.running.is_empty() {
                        continue;
                    }
                    DescribeError::Device("the model left requests without an answer".into())
                }
                Err(error) => error,
            };
            let DescribeError::OutOfMemory(why) = &error else { return Err(self.give_up(error)) };
            let count = self.running.len();
            self.begin_again();
            // A single one is too large, unless not even the smallest one fits.
            if !self.sizer.did_not_fit(count, why) {
                if warm_up(describer).is_err() {
                    return Err(self.give_up(error));
                }
                if let Some(entry) = self.waiting.pop_front() {
                    self.answer(entry, Err(error));
                }
            }
        }
        Ok(())
    }

    /// How much the describer can take beside what is in flight.
    fn room(&mut self) -> Room {
        let flying = self.waiting.iter().chain(self.running.values());
        let (count, clients) = flying.fold((0, 0), |(count, clients), entry| {
            (count + 1, clients + usize::from(entry.camera().is_none()))
        });
        let most = self.sizer.batch_size().get();
        // However long their answers are, clients leave places for the cameras.
        let places = (most as f64 * self.batching.client_share).ceil() as usize;
        let most_clients = if self.queue.serves_cameras() { places.clamp(1, most) } else { most };
        let asked = most_clients.saturating_sub(clients);
        let (clips, requests) = self.queue.waiting();
        let due = self.share.clients_are_due(clips > 0, requests > 0);
        Room { total: most.saturating_sub(count), asked, asked_beside_clips: if due { asked } else { 0 } }
    }

    /// Adds what came out of the queue. Clips in which nothing has changed are answered at once.
    fn take(&mut self, Batch { clips, asked }: Batch) {
        let now = Instant::now();
        for Queued { clip, queued_at, dropped_before } in clips {
            let timing = QueueTiming { queued_at, queued: now.duration_since(queued_at), dropped_before };
            let fingerprint = Fingerprint::of(&clip);
            // A clip is compared with a described one: not with one in flight, whose description is not known yet.
            let first = !self.cameras().contains(&clip.camera);
            let unchanged = |fingerprint| self.gate.is_unchanged(&clip, fingerprint);
            if first && fingerprint.as_ref().is_some_and(unchanged) {
                (self.on_outcome)(Outcome { clip, timing, answer: Ok(Answer::Unchanged) });
                continue;
            }
            let request = Request::from(&clip);
            let taken = Taken { clip, timing, fingerprint, order: self.taken };
            self.taken += 1;
            self.waiting.push_back(Entry { request, origin: Origin::Camera(taken) });
        }
        for Asked { request, reply } in asked {
            let client = Client { reply, sent: 0, repeated: 0 };
            self.waiting.push_back(Entry { request, origin: Origin::Client(client) });
        }
    }

    /// The cameras that have a clip in flight.
    fn cameras(&self) -> BTreeSet<CameraId> {
        self.waiting.iter().chain(self.running.values()).filter_map(Entry::camera).cloned().collect()
    }

    /// What was begun waits again, before what was not.
    fn begin_again(&mut self) {
        for mut entry in std::mem::take(&mut self.running).into_values().rev() {
            if let Origin::Client(client) = &mut entry.origin {
                client.repeated = client.sent;
            }
            self.waiting.push_front(entry);
        }
    }

    /// Ends the answers of clients, which can ask elsewhere or later, so that they do not hold up the end.
    fn send_clients_away(&mut self) {
        let is_client = |entry: &Entry| entry.camera().is_none();
        let running = self.running.iter().filter(|(_, entry)| is_client(entry)).map(|(number, _)| *number);
        let running: Vec<usize> = running.collect();
        let mut sent: Vec<Entry> = running.iter().filter_map(|number| self.running.remove(number)).collect();
        let (clients, clips): (VecDeque<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_client);
        self.waiting = clips;
        sent.extend(clients);
        let stopping =
            DescribeError::Unavailable { reason: "it is being stopped".into(), retry_after: STOPPING };
        sent.into_iter().for_each(|entry| self.answer(entry, Err(stopping.clone())));
    }

    /// Answers all with an error.
    fn give_up(&mut self, error: DescribeError) -> DescribeError {
        self.begin_again();
        while let Some(entry) = self.waiting.pop_front() {
            self.answer(entry, Err(error.clone()));
        }
        error
    }

    /// Hands out an answer: that of a clip after those of the earlier clips of its camera.
    fn answer(&mut self, entry: Entry, answer: Result<Description, DescribeError>) {
        let taken = match entry.origin {
            Origin::Camera(taken) => taken,
            // A client that is gone wants no answer.
            Origin::Client(client) => return drop(client.reply.send(Part::End(answer))),
        };
        let camera = taken.clip.camera.clone();
        self.early.push((taken, answer.map(Answer::Described)));
        let unanswered =
            self.waiting.iter().chain(self.running.values()).filter_map(|entry| match &entry.origin {
                Origin::Camera(taken) if taken.clip.camera == camera => Some(taken.order),
                _ => None,
            });
        let first_unanswered = unanswered.min().unwrap_or(u64::MAX);
        let is_next = |taken: &Taken| taken.clip.camera == camera && taken.order < first_unanswered;
        let (mut next, early): (Vec<_>, _) =
            std::mem::take(&mut self.early).into_iter().partition(|(taken, _)| is_next(taken));
        self.early = early;
        next.sort_by_key(|(taken, _)| taken.order);
        for (Taken { clip, timing, fingerprint, .. }, answer) in next {
            if answer.is_ok() {
                self.gate.described(&clip, fingerprint);
            }
            (self.on_outcome)(Outcome { clip, timing, answer });
            self.heartbeat.beat();
        }
    }
}

impl Work for InFlight<'_> {
    fn more(&mut self, running: usize) -> Vec<Request> {
        self.running.retain(|_, entry| !entry.is_gone());
        self.waiting.retain(|entry| !entry.is_gone());
        if self.queue.is_closed() {
            self.send_clients_away();
        }
        if !self.pace.lets_join(running) {
            return Vec::new();
        }
        let most = if running == 0 { usize::MAX } else { self.joining };
        let places = self.sizer.batch_size().get().saturating_sub(self.running.len()).min(most);
        let room = Room { total: places.saturating_sub(self.waiting.len()), ..self.room() };
        if room.total > 0 {
            let batch = self.queue.pop_waiting(room, &self.cameras());
            self.take(batch);
        }
        let mut requests = Vec::new();
        for entry in self.waiting.drain(..places.min(self.waiting.len())) {
            requests.push(entry.request.clone());
            self.running.insert(self.given, entry);
            self.given += 1;
        }
        requests
    }

    fn is_cancelled(&self, number: usize) -> bool {
        self.running.get(&number).is_none_or(Entry::is_gone)
    }

    fn piece(&mut self, number: usize, piece: Piece) {
        let Some(Entry { origin: Origin::Client(client), .. }) = self.running.get_mut(&number) else {
            return;
        };
        match client.repeated.checked_sub(1) {
            Some(left) => client.repeated = left,
            None => {
                client.sent += 1;
                // A client that is gone is noticed before the next step.
                let _ = client.reply.send(Part::Piece(piece));
            }
        }
    }

    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>) {
        if let Some(entry) = self.running.remove(&number) {
            self.sizer.fitted();
            self.answer(entry, answer);
        }
    }

    fn spent(&mut self, numbers: &[usize], time: StageTimes) {
        let StageTimes { preprocess, vision, prefill, decode } = time;
        let entries = || numbers.iter().filter_map(|number| self.running.get(number));
        let cameras = entries().filter(|entry| entry.camera().is_some()).count();
        let clients = entries().count() - cameras;
        let begin = preprocess + vision + prefill;
        if self.running.len() > numbers.len() {
            self.pace.held_up(begin);
        }
        self.pace.continued(decode);
        let time = begin + decode;
        self.share.spent(time, cameras, clients);
    }
}
