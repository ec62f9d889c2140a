//! One run of the model: requests become sequences of the network, and tokens become text.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::Tensor;

use super::{
    super::{answer_format::FormatMatcher, describer::Work, stop_texts::StopTexts},
    label_scoring::LabelScoring,
    model::{Prepared, Ready, SmolVlm},
    prompt::{PromptError, TextStream},
};
use crate::{
    answer::{DescribeError, Description, Piece, StageTimes, TokenScore},
    event::{FinishReason, Tokens},
    nn::{
        error::Result as NetworkResult,
        generate::{Completion, GenerationRequest, Group, NotFinite, Sequences, Then},
        observer::ActivationObserver,
        sampler::{Choice, Likelihood, TokenMask},
    },
    request::Request,
};

// Estimates for a usual request, in tokens.
/// Tokens of a frame beside its image tokens: its time and the tokens around the image.
const FRAME_TOKENS: usize = 13;
/// Tokens of the rest of the prompt.
const TEXT_TOKENS: usize = 64;
/// Tokens of the answer.
const ANSWER_TOKENS: usize = 96;

/// Requests that are being answered.
pub(super) struct Answering<'a> {
    model: &'a SmolVlm,
    work: &'a mut dyn Work,
    /// Requests that were taken so far, with those that could not be answered.
    taken: usize,
    /// Sequences that were made of them so far.
    begun: usize,
    /// By the number of the sequence.
    open: BTreeMap<usize, Open<'a>>,
}

/// A request that is being answered.
struct Open<'a> {
    /// The request's number.
    number: usize,
    prompt_tokens: usize,
    image_tokens: usize,
    stream: TextStream<'a>,
    stop: StopTexts,
    format: Option<FormatMatcher>,
    /// The text so far.
    text: String,
    /// Of the questions.
    labels: Vec<Vec<f32>>,
    stages: StageTimes,
    /// When its prompt had been read.
    prefilled: Instant,
    /// Why its tokens are no text.
    broken: Option<PromptError>,
}

impl Open<'_> {
    /// What the text is continued by with a token, and whether it ends there.
    fn push(&mut self, id: u32) -> (String, bool) {
        match self.stream.push(id) {
            Ok(text) => self.stop.push(&text),
            Err(error) => {
                self.broken = Some(error);
                (String::new(), true)
            }
        }
    }

    /// The rest of the text, when no token follows.
    fn finish(&mut self) -> String {
        match self.stream.finish() {
            Ok(text) => self.stop.finish(&text),
            Err(error) => {
                self.broken = Some(error);
                String::new()
            }
        }
    }

    fn description(self, completion: Result<Completion, NotFinite>) -> Result<Description, DescribeError> {
        let Completion { ids, finish_reason } =
            completion.map_err(|error| DescribeError::Request(error.to_string()))?;
        if let Some(why) = self.format.as_ref().and_then(FormatMatcher::error) {
            return Err(DescribeError::Request(format!("the JSON schema cannot be followed: {why}")));
        }
        if let Some(error) = self.broken {
            return Err(DescribeError::Request(error.to_string()));
        }
        let tokens = Tokens { prompt: self.prompt_tokens, image: self.image_tokens, generated: ids.len() };
        let stages = StageTimes { decode: self.prefilled.elapsed(), ..self.stages };
        Ok(Description { text: self.text, labels: self.labels, finish_reason, tokens, stages })
    }
}

impl<'a> Answering<'a> {
    pub fn new(model: &'a SmolVlm, work: &'a mut dyn Work) -> Self {
        Self { model, work, taken: 0, begun: 0, open: BTreeMap::new() }
    }

    /// Answers requests until there are no more.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    pub fn run(mut self) -> Result<(), DescribeError> {
        let model = self.model;
        // One beat per layer of every forward pass; per token where own kernels decode.
        let heartbeat = Arc::clone(&model.heartbeat);
        let mut observe = |_, _: &Tensor| {
            heartbeat.beat();
            Ok(())
        };
        model.network.generate(&mut self, &mut observe).map_err(|error| model.device_error(error))
    }

    /// The next requests as sequences. Those that cannot be answered are answered so, and so are those that have nothing
    /// but questions.
    fn begin(&mut self, requests: &[Request]) -> NetworkResult<Group> {
        let start = Instant::now();
        let model = self.model;
        let heartbeat = Arc::clone(&model.heartbeat);
        heartbeat.beat();
        let Prepared { requests: prepared, tiles } = model.prepare(requests);
        let preprocess = start.elapsed();
        heartbeat.beat();
        let start = Instant::now();
        let mut observe = |_, _: &Tensor| {
            heartbeat.beat();
            Ok(())
        };
        let features = model.network.encode(&tiles, &mut observe)?;
        let mut stages = StageTimes { preprocess, vision: start.elapsed(), ..StageTimes::default() };
        let first = self.taken;
        self.taken += requests.len();
        let good = prepared.iter().enumerate().filter(|(_, prepared)| prepared.is_ok());
        let numbers: Vec<usize> = good.map(|(i, _)| first + i).collect();
        // What cannot be answered has taken time, too.
        let charged = if numbers.is_empty() { (first..self.taken).collect() } else { numbers };
        self.work.spent(&charged, stages);
        // The features of all requests stand one after the other.
        let (mut generations, mut parts, mut next_row) = (Vec::new(), Vec::new(), 0);
        for ((request, prepared), number) in requests.iter().zip(prepared).zip(first..) {
            let Ready { prompt, sampling, format, questions } = match prepared {
                Ok(ready) => ready,
                Err(error) => {
                    self.work.answered(number, Err(error));
                    continue;
                }
            };
            let rows = prompt.image_tokens;
            let own = features.as_ref().filter(|_| rows > 0).map(|all| all.narrow(0, next_row, rows));
            let own = own.transpose()?;
            next_row += rows;
            let labels = self.score_questions(number, &questions, own.as_ref(), &mut stages, &mut observe)?;
            if !labels.iter().all(|labels| is_sound(labels)) {
                self.work.answered(number, Err(DescribeError::Request(NotFinite.to_string())));
                continue;
            }
            if request.max_tokens == 0 && !labels.is_empty() {
                let tokens = Tokens { prompt: questions.prompt_tokens, image: rows, generated: 0 };
                let finish_reason = FinishReason::Stop;
                let answer = Description { text: String::new(), labels, finish_reason, tokens, stages };
                self.work.answered(number, Ok(answer));
                continue;
            }
            parts.extend(own);
            let open = Open {
                number,
                prompt_tokens: prompt.ids.len(),
                image_tokens: rows,
                stream: model.prompter.text_stream(),
                stop: StopTexts::new(request.stop.clone()),
                format,
                text: String::new(),
                labels,
                stages,
                prefilled: Instant::now(),
                broken: None,
            };
            self.open.insert(self.begun, open);
            self.begun += 1;
            generations.push(GenerationRequest { ids: prompt.ids, max_tokens: request.max_tokens, sampling });
        }
        let features = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Tensor::cat(&parts, 0)?),
        };
        Ok(Group { requests: generations, features })
    }

    /// How many requests of so many pictures fit into three quarters of the memory that is free now. None if unknown.
    fn room_for(model: &SmolVlm, pictures: usize) -> Option<usize> {
        let network = &model.network;
        let prompt = pictures * (network.config.tokens_per_tile() + FRAME_TOKENS) + TEXT_TOKENS;
        Some(network.target.free_memory()? / 4 * 3 / network.sequence_bytes(prompt + ANSWER_TOKENS))
    }

    /// The labels' probabilities of a request's questions. `features` are those of its images.
    fn score_questions(
        &mut self,
        number: usize,
        questions: &LabelScoring,
        features: Option<&Tensor>,
        stages: &mut StageTimes,
        observe: ActivationObserver<'_>,
    ) -> NetworkResult<Vec<Vec<f32>>> {
        if questions.sequences.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let scores = self.model.network.score(&questions.sequences, features, observe)?;
        let time = StageTimes { prefill: start.elapsed(), ..StageTimes::default() };
        self.work.spent(&[number], time);
        stages.prefill = time.prefill;
        Ok(questions.labels(&scores))
    }

    /// The tokens of a choice and their probabilities.
    fn score(&self, id: u32, likelihood: &Likelihood) -> TokenScore {
        let token = |id| self.model.prompter.token(id);
        TokenScore {
            token: token(id),
            logprob: likelihood.logprob,
            top: likelihood.top.iter().map(|(id, logprob)| (token(*id), *logprob)).collect(),
        }
    }

    fn numbers(&self, sequences: impl Iterator<Item = usize>) -> Vec<usize> {
        sequences.filter_map(|sequence| Some(self.open.get(&sequence)?.number)).collect()
    }
}

/// Whether these are logarithms of probabilities, not all of them of 0.
fn is_sound(labels: &[f32]) -> bool {
    !labels.iter().any(|label| label.is_nan()) && labels.iter().any(|label| label.is_finite())
}

impl Sequences for Answering<'_> {
    fn join(&mut self, running: usize) -> NetworkResult<Group> {
        let (work, model) = (&*self.work, self.model);
        self.open.retain(|_, open| !work.is_cancelled(open.number));
        loop {
            let requests = self.work.more(running, &|pictures| Self::room_for(model, pictures));
            if requests.is_empty() {
                return Ok(Group { requests: Vec::new(), features: None });
            }
            let group = self.begin(&requests)?;
            if !group.requests.is_empty() {
                return Ok(group);
            }
        }
    }

    fn is_cancelled(&self, sequence: usize) -> bool {
        self.open.get(&sequence).is_none_or(|open| self.work.is_cancelled(open.number))
    }

    fn mask(&mut self, sequence: usize) -> Option<TokenMask> {
        self.open.get_mut(&sequence)?.format.as_mut().map(FormatMatcher::mask)
    }

    fn token(&mut self, sequence: usize, choice: &Choice) -> Then {
        let score = choice.likelihood.as_ref().map(|likelihood| self.score(choice.id, likelihood));
        let Some(open) = self.open.get_mut(&sequence) else { return Then::Stop };
        if let Some(format) = &mut open.format {
            format.push(choice.id);
        }
        let (text, stops) = open.push(choice.id);
        open.text += &text;
        let piece = Piece { text, scores: score.into_iter().collect() };
        if piece != Piece::default() {
            self.work.piece(open.number, piece);
        }
        if stops { Then::Stop } else { Then::Continue }
    }

    fn ended(&mut self, sequence: usize, completion: Result<Completion, NotFinite>) {
        let Some(mut open) = self.open.remove(&sequence) else { return };
        let number = open.number;
        let text = open.finish();
        if !text.is_empty() {
            open.text += &text;
            self.work.piece(number, Piece { text, scores: Vec::new() });
        }
        self.work.answered(number, open.description(completion));
    }

    fn prefilled(&mut self, sequences: Range<usize>, time: Duration) {
        for sequence in sequences.clone() {
            if let Some(open) = self.open.get_mut(&sequence) {
                open.stages.prefill += time;
                open.prefilled = Instant::now();
            }
        }
        let numbers = self.numbers(sequences);
        self.work.spent(&numbers, StageTimes { prefill: time, ..StageTimes::default() });
    }

    fn stepped(&mut self, sequences: &[usize], time: Duration) {
        self.model.heartbeat.beat();
        let numbers = self.numbers(sequences.iter().copied());
        self.work.spent(&numbers, StageTimes { decode: time, ..StageTimes::default() });
    }
}
