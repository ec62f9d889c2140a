//! Bodies of chat requests of any content: a question within the limits, or one sentence about what is wrong.
#![no_main]

use camscribe::{
    http::{Film, read_request},
    request::Video,
};
use libfuzzer_sys::fuzz_target;

/// Videos are GStreamer's, which has fuzzers of its own.
fn no_film(_: Film<'_>) -> Result<Video, String> {
    Err("no film".into())
}

fuzz_target!(|body: &[u8]| {
    match read_request(body, &no_film) {
        Ok(request) => {
            assert!(!request.messages.is_empty() && request.pictures() <= 256);
            assert!(request.max_tokens > 0 && request.stop.len() <= 4 && request.sampling.check().is_ok());
        }
        Err(error) => {
            assert!(error.status().is_client_error());
            assert!(!error.message().is_empty());
        }
    }
});
