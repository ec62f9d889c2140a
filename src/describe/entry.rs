//! A clip or a client's request that was taken out of the queue, and whom its answer is for.

use tokio::sync::mpsc::UnboundedSender;

use super::{batch_payoff::ClipTime, outcome::QueueTiming};
use crate::{
    answer::{Part, Piece},
    camera::CameraId,
    clip::Clip,
    gate::Fingerprint,
    request::Request,
};

/// A clip or a client's request.
pub struct Entry {
    pub request: Request,
    pub origin: Origin,
    /// What its answer took so far, as if it had the model to itself. Of clips only.
    pub alone: ClipTime,
}

/// Whom an answer is for.
pub enum Origin {
    Camera(Taken),
    Client(Client),
}

/// A clip that was taken out of the queue.
pub struct Taken {
    pub clip: Clip,
    pub timing: QueueTiming,
    pub fingerprint: Option<Fingerprint>,
    /// How many clips were taken before it.
    pub order: u64,
}

/// A client that waits for an answer.
pub struct Client {
    pub reply: UnboundedSender<Part>,
    /// The pieces of the answer that it has.
    pub sent: Vec<Piece>,
    /// How many of them came again, since its answer was begun again.
    pub repeated: usize,
}

impl Client {
    /// Sends what continues the answer, unless it was sent before the answer was begun again. Returns false if the
    /// answer does not go the same way: in bf16, the size of the batch can change a token.
    pub fn send(&mut self, piece: Piece) -> bool {
        if let Some(before) = self.sent.get(self.repeated) {
            self.repeated += 1;
            return before.text == piece.text;
        }
        self.sent.push(piece.clone());
        self.repeated = self.sent.len();
        // A client that is gone is noticed before the next step.
        let _ = self.reply.send(Part::Piece(piece));
        true
    }
}

impl Entry {
    /// Nothing was done for it yet.
    pub fn new(request: Request, origin: Origin) -> Self {
        Self { request, origin, alone: ClipTime::default() }
    }

    pub fn camera(&self) -> Option<&CameraId> {
        match &self.origin {
            Origin::Camera(taken) => Some(&taken.clip.camera),
            Origin::Client(_) => None,
        }
    }

    /// It waits again, and its answer begins anew.
    pub fn begin_again(&mut self) {
        self.alone = ClipTime::default();
        if let Origin::Client(client) = &mut self.origin {
            client.repeated = 0;
        }
    }

    /// Whether a client has more than what came again.
    pub fn is_cut_short(&self) -> bool {
        matches!(&self.origin, Origin::Client(client) if client.repeated < client.sent.len())
    }

    pub fn is_gone(&self) -> bool {
        matches!(&self.origin, Origin::Client(client) if client.reply.is_closed())
    }
}
