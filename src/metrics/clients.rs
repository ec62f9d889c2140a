//! The metrics of requests over HTTP: how many, how they end, and what answers of the model take.

use std::time::Duration;

use prometheus_client::{metrics::histogram::Histogram, registry::Registry};

use super::{
    labels::{OfClientTokens, OfRefusal, OfRequest, Refusal, Route, StatusClass, TokenKind},
    readings::Counters,
};
use crate::event::Tokens;

/// Upper bounds of the buckets of durations, in seconds: from a short answer of a GPU to a long one of a slow CPU that
/// waits for others.
const SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// What is counted of requests over HTTP.
#[derive(Debug)]
pub struct ClientMetrics {
    requests: Counters<OfRequest>,
    refused: Counters<OfRefusal>,
    tokens: Counters<OfClientTokens>,
    first_token: Histogram,
    answer: Histogram,
}

impl Default for ClientMetrics {
    /// All at zero, so that Prometheus sees the first request as an increase.
    fn default() -> Self {
        let metrics = Self {
            requests: Counters::default(),
            refused: Counters::default(),
            tokens: Counters::default(),
            first_token: Histogram::new(SECONDS),
            answer: Histogram::new(SECONDS),
        };
        for route in Route::ALL {
            for status in StatusClass::ALL {
                drop(metrics.requests.get_or_create(&OfRequest { route, status }));
            }
        }
        for reason in Refusal::ALL {
            drop(metrics.refused.get_or_create(&OfRefusal { reason }));
        }
        for kind in TokenKind::ALL {
            drop(metrics.tokens.get_or_create(&OfClientTokens { kind }));
        }
        metrics
    }
}

impl ClientMetrics {
    /// Adds the metrics to the registry.
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "camscribe_http_requests",
            "Requests over HTTP, and how they ended",
            self.requests.clone(),
        );
        r.register("camscribe_http_refused", "Requests over HTTP that were refused", self.refused.clone());
        let help = "Tokens in and out of the model for clients";
        r.register("camscribe_client_tokens", help, self.tokens.clone());
        let help = "From a client's request to the first token of its answer";
        r.register("camscribe_client_first_token_seconds", help, self.first_token.clone());
        let help = "From a client's request to the end of its answer";
        r.register("camscribe_client_answer_seconds", help, self.answer.clone());
    }

    /// Counts a request that is over. `refusal`: why it was not answered.
    pub fn request(&self, route: Route, status: StatusClass, refusal: Option<Refusal>) {
        self.requests.get_or_create(&OfRequest { route, status }).inc();
        if let Some(reason) = refusal {
            self.refused.get_or_create(&OfRefusal { reason }).inc();
        }
    }

    /// Counts the time after which an answer began.
    pub fn began(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// Counts a whole answer of the model, and the time that it took.
    pub fn answered(&self, tokens: Tokens, after: Duration) {
        self.answer.observe(after.as_secs_f64());
        for (kind, count) in [
            (TokenKind::Prompt, tokens.prompt),
            (TokenKind::Image, tokens.image),
            (TokenKind::Generated, tokens.generated),
        ] {
            self.tokens.get_or_create(&OfClientTokens { kind }).inc_by(count as u64);
        }
    }
}
