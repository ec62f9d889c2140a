//! The interface to whatever describes clips: a local model, or a deterministic stand-in in tests.

use std::sync::Arc;

use crate::{
    answer::{DescribeError, Description, Piece, StageTimes},
    device::{DeviceMemory, GpuInfo},
    event::ModelInfo,
    heartbeat::Heartbeat,
    request::{Request, VideoSampling},
    resize::FrameScaling,
};

/// What is known about a video file before its frames are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footage {
    /// Frames in it.
    pub frames: u64,
    /// Frames per second.
    pub fps: f64,
    /// Length in seconds.
    pub duration: f64,
}

/// Returns the indices of the frames that are taken of a whole file, in order.
pub type FileSampler = Arc<dyn Fn(Footage, VideoSampling) -> Vec<u64> + Send + Sync>;

/// Gets what continues an answer, as it is made, with the number of its request.
pub type PieceObserver<'a> = &'a mut (dyn FnMut(usize, Piece) + Send);

/// The answers to a batch, in the order of the requests.
pub type Answers = Vec<Result<Description, DescribeError>>;

/// How many more requests of so many pictures the device has memory for now. None if unknown.
pub type RoomFor<'a> = &'a dyn Fn(usize) -> Option<usize>;

/// What a describer works on: it gives requests and takes their answers. A request's number counts the requests that
/// were given before it.
pub trait Work: Send {
    /// The requests that the describer begins to answer now, beside `running` others. Never waits. When none are
    /// running and there are none, the work is done.
    fn more(&mut self, running: usize, room_for: RoomFor<'_>) -> Vec<Request>;

    /// Whether nobody wants this answer any more. It is not finished then.
    fn is_cancelled(&self, _number: usize) -> bool {
        false
    }

    /// What continues an answer.
    fn piece(&mut self, number: usize, piece: Piece);

    /// The whole answer. The request's pieces together are its text.
    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>);

    /// Tells that the device worked on these requests for so long: of [`StageTimes`], on a stage that they went through
    /// together.
    fn spent(&mut self, _numbers: &[usize], _time: StageTimes) {}
}

/// Answers requests, such as to describe a clip.
pub trait Describer: Send {
    /// The model, as events name it.
    fn model(&self) -> ModelInfo;

    /// The heartbeat that `run` beats at every step. The same one at every call.
    fn heartbeat(&self) -> Arc<Heartbeat>;

    /// How the model scales frames down first. Frames may already be scaled like this before they reach it. None if
    /// it wants frames as they are.
    fn frame_scaling(&self) -> Option<FrameScaling> {
        None
    }

    /// Which frames the model's reference implementation takes of a whole file. None if there is no such rule for this
    /// model.
    fn file_sampler(&self) -> Option<FileSampler> {
        None
    }

    /// The longest question and answer together, in tokens. None if that is not known.
    fn context_length(&self) -> Option<usize> {
        None
    }

    /// The GPU that it runs on. None on the CPU.
    fn gpu(&self) -> Option<GpuInfo> {
        None
    }

    /// The device's memory. None if the device has none of its own or does not report it.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Answers requests until there are no more. A request begins as soon as it is given: it joins those that are being
    /// answered, and leaves them when its answer is complete.
    ///
    /// # Errors
    /// When the device fails, is not available, or has too little memory. Requests without an answer have none then.
    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError>;

    /// Answers a batch. Returns one result per request, in order.
    ///
    /// # Errors
    /// When a request was not answered, because the device failed, is not available, or has too little memory.
    fn answer(
        &mut self,
        requests: &[Request],
        on_piece: PieceObserver<'_>,
    ) -> Result<Answers, DescribeError> {
        let answers = requests.iter().map(|_| None).collect();
        let mut batch = Batch { waiting: requests.to_vec(), answers, on_piece };
        self.run(&mut batch)?;
        let missing = || Err(DescribeError::Device("the model left a request without an answer".into()));
        Ok(batch.answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect())
    }
}

/// Requests that begin together.
struct Batch<'a> {
    /// Those that were not given yet: all or none.
    waiting: Vec<Request>,
    answers: Vec<Option<Result<Description, DescribeError>>>,
    on_piece: PieceObserver<'a>,
}

impl Work for Batch<'_> {
    fn more(&mut self, _running: usize, _room_for: RoomFor<'_>) -> Vec<Request> {
        std::mem::take(&mut self.waiting)
    }

    fn piece(&mut self, number: usize, piece: Piece) {
        (self.on_piece)(number, piece);
    }

    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>) {
        self.answers[number] = Some(answer);
    }
}

/// Works through `work` with a describer that answers whole batches. A batch begins when the one before it has ended.
///
/// # Errors
/// Those of `answer`.
pub fn in_batches(
    work: &mut dyn Work,
    room_for: RoomFor<'_>,
    mut answer: impl FnMut(&[Request]) -> Result<Answers, DescribeError>,
) -> Result<(), DescribeError> {
    let mut first = 0;
    loop {
        let batch = work.more(0, room_for);
        if batch.is_empty() {
            return Ok(());
        }
        let answers = answer(&batch)?;
        let numbers: Vec<usize> = (first..first + batch.len()).collect();
        if let Some(Ok(description)) = answers.iter().find(|answer| answer.is_ok()) {
            work.spent(&numbers, description.stages);
        }
        first += batch.len();
        for (number, answer) in numbers.into_iter().zip(answers) {
            if let Ok(description) = &answer {
                work.piece(number, Piece { text: description.text.clone(), ..Piece::default() });
            }
            work.answered(number, answer);
        }
    }
}
