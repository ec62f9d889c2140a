//! An answer as it comes from the model.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedReceiver};

use super::{super::exchange::Exchange, intake::Place};
use crate::answer::{DescribeError, Part};

/// An answer as it is made. Dropping it takes the question back.
pub struct Answer {
    parts: UnboundedReceiver<Part>,
    /// A part that was received already.
    first: Option<Part>,
    /// Held until the model is done: should the memory not be enough, it begins again.
    pixels: Option<OwnedSemaphorePermit>,
    exchange: Arc<Exchange>,
    _place: Place,
}

impl Answer {
    /// The answer whose `parts` will come. `pixels` are those of the question; `exchange` is what it belongs to.
    pub fn new(
        parts: UnboundedReceiver<Part>,
        pixels: OwnedSemaphorePermit,
        exchange: Arc<Exchange>,
        place: Place,
    ) -> Self {
        Self { parts, first: None, pixels: Some(pixels), exchange, _place: place }
    }

    /// Makes `part` the next one again.
    pub fn put_back(&mut self, part: Part) {
        self.first = Some(part);
    }

    /// The next part.
    pub async fn next(&mut self) -> Part {
        if let Some(first) = self.first.take() {
            return first;
        }
        let part = self.parts.recv().await.unwrap_or_else(|| {
            let retry_after = Duration::from_secs(10);
            Part::End(Err(DescribeError::Unavailable { reason: "it has been stopped".into(), retry_after }))
        });
        match &part {
            Part::Piece(_) => self.exchange.began(),
            Part::End(end) => {
                self.pixels = None;
                if let Ok(answer) = end {
                    self.exchange.answered(answer.tokens);
                }
            }
        }
        part
    }
}
