//! What the worker has taken out of the queue: clips and requests that wait for a place in the batch, and those that are
//! being answered.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    batch_payoff::BatchPayoff,
    batch_sizer::BatchSizer,
    change_gate::ChangeGate,
    describer::{Describer, RoomFor, Work},
    entry::{Client, Entry, Origin, Taken},
    outcome::{Answer, Batching, Outcome, QueueTiming},
    pace::Pace,
    share::TimeShare,
    warm_up::warm_up,
};
use crate::{
    answer::{DescribeError, Description, Part, Piece, StageTimes},
    camera::CameraId,
    gate::Fingerprint,
    heartbeat::Heartbeat,
    queue::{Asked, Batch, ClipQueue, Queued, Room},
    request::Request,
};

/// When a client may ask again that was sent away at the end.
const STOPPING: Duration = Duration::from_secs(30);
/// When a client may ask again whose answer was begun again and became another one.
const CHANGED: Duration = Duration::from_secs(1);
/// The fewest places that cameras and clients share: a long answer of a client leaves one to the cameras.
const SHARED_PLACES: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Tells a client that the rest of its answer does not continue what it has.
fn changed() -> DescribeError {
    let reason = "memory ran short, and the answer, begun again, became another one".into();
    DescribeError::Unavailable { reason, retry_after: CHANGED }
}

/// See the module.
pub struct InFlight<'a> {
    queue: &'a ClipQueue,
    batching: Batching,
    on_outcome: &'a mut (dyn FnMut(Outcome) + Send),
    heartbeat: Arc<Heartbeat>,
    gate: ChangeGate,
    share: TimeShare,
    sizer: BatchSizer,
    payoff: BatchPayoff,
    pace: Pace,
    /// A GPU reads several prompts in little more time than one.
    on_gpu: bool,
    /// The most pictures of a clip lately.
    pictures: usize,
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

impl<'a> InFlight<'a> {
    /// Nothing is in flight yet. `describer`: the one that will answer it.
    pub fn new(
        queue: &'a ClipQueue,
        batching: Batching,
        describer: &dyn Describer,
        on_outcome: &'a mut (dyn FnMut(Outcome) + Send),
    ) -> Self {
        // Where nobody but cameras may ask, they have all places.
        let places = if batching.client_share > 0.0 {
            batching.max_batch.max(SHARED_PLACES)
        } else {
            batching.max_batch
        };
        Self {
            queue,
            batching,
            on_outcome,
            heartbeat: describer.heartbeat(),
            gate: ChangeGate::default(),
            share: TimeShare::new(batching.client_share),
            sizer: BatchSizer::new(places),
            payoff: BatchPayoff::default(),
            pace: Pace::default(),
            on_gpu: describer.gpu().is_some(),
            pictures: 1,
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
                let too_large = DescribeError::TooLarge(why.clone());
                if let Some(entry) = self.waiting.pop_front() {
                    self.answer(entry, Err(too_large));
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
        Room {
            total: most.saturating_sub(count),
            clips: self.most_clips().saturating_sub(count - clients),
            asked,
            asked_beside_clips: if due { asked } else { 0 },
        }
    }

    /// How many clips are described at once, if there is memory for them: one where a batch does not pay.
    fn most_clips(&self) -> usize {
        if self.on_gpu || self.payoff.pays() { self.batching.max_batch.get() } else { 1 }
    }

    /// Asks how much fits. What clients ask is as large as it likes: it does not set how much is done at once.
    fn estimate(&mut self, running: usize, room_for: RoomFor<'_>) {
        let clips = self.waiting.iter().chain(self.running.values()).filter(|entry| entry.camera().is_some());
        if let Some(pictures) = clips.map(|entry| entry.request.pictures()).max() {
            self.pictures = pictures;
        }
        self.sizer.estimate(running, room_for(self.pictures), self.pictures);
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
            self.waiting.push_back(Entry::new(request, Origin::Camera(taken)));
        }
        for Asked { request, reply, .. } in asked {
            let client = Client { reply, sent: Vec::new(), repeated: 0 };
            self.waiting.push_back(Entry::new(request, Origin::Client(client)));
        }
    }

    /// The cameras that have a clip in flight.
    fn cameras(&self) -> BTreeSet<CameraId> {
        self.waiting.iter().chain(self.running.values()).filter_map(Entry::camera).cloned().collect()
    }

    /// What was begun waits again, before what was not.
    fn begin_again(&mut self) {
        for mut entry in std::mem::take(&mut self.running).into_values().rev() {
            entry.begin_again();
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
    fn more(&mut self, running: usize, room_for: RoomFor<'_>) -> Vec<Request> {
        self.running.retain(|_, entry| !entry.is_gone());
        self.waiting.retain(|entry| !entry.is_gone());
        if self.queue.is_closed() {
            self.send_clients_away();
        }
        // Nobody reads along while a clip is described: only the answers of clients are not to be held up for long.
        let holds_up_clients = self.running.values().any(|entry| entry.camera().is_none());
        let may_join = self.pace.lets_join(running) || !holds_up_clients;
        let nothing_waits = self.waiting.is_empty() && self.queue.waiting() == (0, 0);
        if !may_join || nothing_waits {
            return Vec::new();
        }
        self.estimate(running, room_for);
        let most = if running == 0 || self.on_gpu { usize::MAX } else { 1 };
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
        if !client.send(piece)
            && let Some(entry) = self.running.remove(&number)
        {
            self.answer(entry, Err(changed()));
        }
    }

    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>) {
        if let Some(entry) = self.running.remove(&number) {
            self.sizer.fitted();
            if answer.is_ok() && entry.camera().is_some() {
                self.payoff.learn(entry.alone);
            }
            let answer = answer.and_then(|told| if entry.is_cut_short() { Err(changed()) } else { Ok(told) });
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
        self.share.spent(begin + decode, cameras, clients);
        for number in numbers {
            if let Some(entry) = self.running.get_mut(number) {
                entry.alone.add(begin, cameras);
                entry.alone.add_steps(decode, numbers.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::{
        super::small_device::{SmallDevice, clips, description},
        *,
    };
    use crate::{
        clip::Clip,
        queue::{CLIPS_PER_CAMERA, Overflow},
        request::{Content, Message, Role},
    };

    fn ask(queue: &ClipQueue) -> UnboundedReceiver<Part> {
        #[expect(clippy::disallowed_methods, reason = "the daemon's answers come like this")]
        let (reply, answer) = tokio::sync::mpsc::unbounded_channel();
        let messages = vec![Message { role: Role::User, content: vec![Content::Text("who?".into())] }];
        let request = Request { messages, ..Request::default() };
        queue.ask(Asked { request, reply, is_urgent: false }).unwrap();
        answer
    }

    fn push(queue: &ClipQueue, camera: &str) {
        let clip = Clip { camera: camera.parse().unwrap(), ..clips(1).remove(0) };
        queue.push(clip, Overflow::DropOldest).unwrap();
    }

    fn piece(text: &str) -> Piece {
        Piece { text: text.into(), ..Piece::default() }
    }

    /// What is done with an [`InFlight`] of so many places on a GPU, and a queue of two cameras.
    fn with_places(max_batch: usize, test: impl FnOnce(&ClipQueue, &mut InFlight<'_>)) {
        let queue = ClipQueue::new(CLIPS_PER_CAMERA);
        for camera in ["a", "b"] {
            queue.register(&camera.parse().unwrap(), 1);
        }
        let max_batch = NonZeroUsize::new(max_batch).unwrap();
        let batching = Batching { max_batch, linger: Duration::ZERO, client_share: 0.25 };
        let mut on_outcome = |_: Outcome| {};
        test(&queue, &mut InFlight::new(&queue, batching, &SmallDevice::new(9), &mut on_outcome));
    }

    #[test]
    fn a_clip_has_a_place_beside_a_client_even_if_clips_are_described_one_at_a_time() {
        with_places(1, |queue, flight| {
            let _answers = [ask(queue), ask(queue)];
            assert_eq!(flight.more(0, &|_| None).len(), 1);
            push(queue, "a");
            push(queue, "b");
            let joined = flight.more(1, &|_| None);
            assert_eq!(
                joined.iter().map(|request| request.camera.clone()).collect::<Vec<_>>(),
                ["a".parse().ok()]
            );
            assert!(flight.more(2, &|_| None).is_empty(), "neither another client nor another clip");
        });
    }

    #[test]
    fn a_prompt_waits_for_the_answers_of_clients_only() {
        with_places(4, |queue, flight| {
            push(queue, "a");
            assert_eq!(flight.more(0, &|_| None).len(), 1);
            flight.pace.held_up(Duration::from_secs(1));
            let _answer = ask(queue);
            assert_eq!(flight.more(1, &|_| None).len(), 1, "no client is held up");
            push(queue, "b");
            assert!(flight.more(2, &|_| None).is_empty(), "a client would be");
            flight.pace.continued(Duration::from_secs(1));
            assert_eq!(flight.more(2, &|_| None).len(), 1);
        });
    }

    #[test]
    fn on_a_cpu_a_clip_joins_another_one_only_if_that_pays_and_a_client_joins_in_any_case() {
        with_places(4, |queue, flight| {
            flight.on_gpu = false;
            // Seconds to begin and to decode, and how many clips are under way then.
            for (begin, decode, together) in [(0, 0, 1), (9, 1, 1), (1, 9, 2)] {
                flight.payoff = BatchPayoff::default();
                push(queue, "a");
                push(queue, "b");
                assert_eq!(flight.more(0, &|_| None).len(), 1, "nothing is known yet");
                let [begin, decode] = [begin, decode].map(Duration::from_secs);
                flight.spent(
                    &[flight.given - 1],
                    StageTimes { vision: begin, decode, ..StageTimes::default() },
                );
                flight.answered(flight.given - 1, Ok(description("")));
                push(queue, "a");
                (0..3).for_each(|running| drop(flight.more(running, &|_| None)));
                assert_eq!(flight.running.len(), together, "{begin:?} {decode:?}");
                let _answer = ask(queue);
                assert_eq!(flight.more(together, &|_| None).len(), 1, "a client has a place beside clips");
                flight.running.clear();
                drop(queue.pop_waiting(Room::of(9), &BTreeSet::new()));
            }
        });
    }

    #[test]
    fn as_many_join_as_there_is_memory_for_now() {
        with_places(4, |queue, flight| {
            push(queue, "a");
            assert_eq!(flight.more(0, &|_| Some(1)).len(), 1);
            push(queue, "b");
            assert!(flight.more(1, &|_| Some(0)).is_empty());
            assert_eq!(flight.more(1, &|_| Some(1)).len(), 1);
        });
    }

    #[test]
    fn an_answer_that_is_begun_again_goes_on_where_it_was_or_ends_with_an_error() {
        // What the answer becomes, what the client gets of it, and whether it is whole.
        let cases: [(&[&str], &[&str], bool); 3] = [
            (&["A", " red", " ball"], &["A", " red", " ball"], true),
            (&["A", " blue"], &["A", " red"], false),
            (&["A"], &["A", " red"], false),
        ];
        for (again, gets, is_whole) in cases {
            with_places(4, |queue, flight| {
                let mut answer = ask(queue);
                assert_eq!(flight.more(0, &|_| None).len(), 1);
                ["A", " red"].into_iter().for_each(|text| flight.piece(0, piece(text)));
                flight.begin_again();
                assert_eq!(flight.more(0, &|_| None).len(), 1);
                again.iter().for_each(|text| flight.piece(1, piece(text)));
                flight.answered(1, Ok(description(&again.concat())));
                for text in gets {
                    assert_eq!(answer.try_recv().ok(), Some(Part::Piece(piece(text))));
                }
                let end = answer.try_recv();
                assert_eq!(matches!(end, Ok(Part::End(Ok(_)))), is_whole, "{end:?}");
                assert_eq!(matches!(end, Ok(Part::End(Err(DescribeError::Unavailable { .. })))), !is_whole);
            });
        }
    }
}
