//! Bodies as they arrive: memory and time that they may take. Memory is given out as the bytes come, so that a client
//! that sends slowly keeps none from the others.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header::CONTENT_LENGTH},
};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::super::api_error::ApiError;

/// What bodies may take. Sizes are in KiB.
#[derive(Clone, Copy)]
struct Limits {
    /// The longest body.
    body: usize,
    /// What each question has without asking: a text, or the image of a camera. There are at most
    /// [`MAX_QUESTIONS`](super::intake::MAX_QUESTIONS) of them.
    own: usize,
    /// What is shared by the bodies that are longer.
    shared: usize,
    /// What a body takes of that at a time.
    step: usize,
    /// How long a body waits for that.
    wait: Duration,
    /// How long a body may take in all.
    time: Duration,
    /// How long until something more of it comes.
    pause: Duration,
    /// How long it may be slower than `rate` at its beginning.
    grace: Duration,
    /// KiB a second, on average.
    rate: usize,
}

const LIMITS: Limits = Limits {
    body: 64 << 10,
    own: 1 << 10,
    shared: 192 << 10,
    step: 1 << 10,
    wait: Duration::from_secs(30),
    time: Duration::from_secs(300),
    pause: Duration::from_secs(30),
    grace: Duration::from_secs(10),
    rate: 16,
};

/// The memory of all bodies.
pub struct Uploads {
    limits: Limits,
    shared: Arc<Semaphore>,
}

/// A body that has arrived.
pub struct Upload {
    pub bytes: Vec<u8>,
    /// To be dropped when nothing of it is needed any more.
    pub memory: UploadMemory,
}

/// What a body holds of the shared memory.
#[derive(Default)]
pub struct UploadMemory(Option<OwnedSemaphorePermit>);

impl Uploads {
    pub fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        Self { limits, shared: Arc::new(Semaphore::new(limits.shared)) }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When it is too long, comes too slowly, or there is no memory for it. It gives back what it has then, so that
    /// bodies which wait for each other do not wait for ever.
    pub async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Upload, ApiError> {
        let Limits { time, pause, .. } = self.limits;
        if stated_length(headers).is_some_and(|length| length > self.most_bytes()) {
            return Err(self.too_long());
        }
        let start = Instant::now();
        let mut waited = Duration::ZERO;
        let mut upload = Upload { bytes: Vec::new(), memory: UploadMemory::default() };
        loop {
            let now = Instant::now();
            let by = (start + time).min(now + pause).min(start + waited + self.allowed(upload.bytes.len()));
            let frame = match timeout_at(by, body.frame()).await.map_err(|_| ApiError::too_slow())? {
                None => return Ok(upload),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(ApiError::bad_request(format!("the body cannot be read: {error}")));
                }
            };
            let data = frame.into_data().unwrap_or_default();
            let length = upload.bytes.len() + data.len();
            if length > self.most_bytes() {
                return Err(self.too_long());
            }
            let asked = Instant::now();
            self.make_room(length, &mut upload).await?;
            waited += asked.elapsed();
            upload.bytes.extend_from_slice(&data);
        }
    }

    /// How long a body may have taken of which so many bytes have come.
    fn allowed(&self, bytes: usize) -> Duration {
        let Limits { grace, rate, .. } = self.limits;
        grace + Duration::from_secs_f64(bytes as f64 / (rate << 10) as f64)
    }

    /// Takes memory until `upload` may have `length` bytes.
    async fn make_room(&self, length: usize, upload: &mut Upload) -> Result<(), ApiError> {
        let Limits { own, step, wait, .. } = self.limits;
        let held = upload.memory.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = length.div_ceil(1024).saturating_sub(own + held);
        if missing > 0 {
            let more = missing.next_multiple_of(step) as u32;
            let more = timeout(wait, Arc::clone(&self.shared).acquire_many_owned(more)).await;
            // Semaphores are never closed.
            let Ok(Ok(more)) = more else {
                return Err(ApiError::busy("the bodies of others take all memory: ask again later"));
            };
            match &mut upload.memory.0 {
                Some(held) => held.merge(more),
                none => *none = Some(more),
            }
        }
        // A vector that doubles would take more than was asked for.
        let held = upload.memory.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if upload.bytes.capacity() < length {
            let most = if held == 0 { length.next_power_of_two().min(own << 10) } else { (own + held) << 10 };
            upload.bytes.reserve_exact(most - upload.bytes.len());
        }
        Ok(())
    }

    fn most_bytes(&self) -> usize {
        self.limits.body << 10
    }

    fn too_long(&self) -> ApiError {
        ApiError::too_large(format!("the body is longer than {} MB", self.limits.body >> 10))
    }
}

/// The stated length of the body; what is too large for a number is the largest one.
fn stated_length(headers: &HeaderMap) -> Option<usize> {
    let stated = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    Some(stated.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Bytes;
    use tokio::sync::mpsc::{Sender, channel};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// A long time for a test.
    const LONG: Duration = Duration::from_secs(60);
    const PATIENT: Limits = Limits {
        body: 8,
        own: 1,
        shared: 8,
        step: 1,
        wait: LONG,
        time: LONG,
        pause: LONG,
        grace: LONG,
        rate: 16,
    };
    const SHORT: Duration = Duration::from_millis(20);

    type Reading = tokio::task::JoinHandle<Result<Upload, ApiError>>;

    /// A body that is sent by hand.
    fn begin(uploads: &Arc<Uploads>) -> (Sender<Result<Bytes, Infallible>>, Reading) {
        let (sender, receiver) = channel(16);
        let (uploads, body) = (Arc::clone(uploads), Body::from_stream(ReceiverStream::new(receiver)));
        (sender, tokio::spawn(async move { uploads.read(&HeaderMap::new(), body).await }))
    }

    async fn send(to: &Sender<Result<Bytes, Infallible>>, kib: usize) {
        to.send(Ok(Bytes::from(vec![b'x'; kib << 10]))).await.unwrap();
    }

    /// Waits until so much of the shared memory is left.
    async fn left(uploads: &Uploads, kib: usize) {
        let wait = async {
            while uploads.shared.available_permits() != kib {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, wait).await.expect("so much memory is left");
    }

    fn status(read: Result<Upload, ApiError>) -> u16 {
        read.map_or_else(|error| error.status().as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn memory_is_taken_as_the_bytes_come_and_small_bodies_need_none_of_it() {
        let uploads = Arc::new(Uploads::with(PATIENT));
        let (slow, reading) = begin(&uploads);
        send(&slow, 3).await;
        left(&uploads, 6).await;
        let (greedy, waiting) = begin(&uploads);
        send(&greedy, 7).await;
        left(&uploads, 0).await;
        let (small, read) = begin(&uploads);
        send(&small, 1).await;
        drop(small);
        assert_eq!(read.await.unwrap().ok().unwrap().bytes.len(), 1024);
        drop(greedy);
        let upload = waiting.await.unwrap().ok().unwrap();
        assert!(upload.bytes.capacity() <= 7 << 10, "{}", upload.bytes.capacity());
        drop(upload);
        send(&slow, 5).await;
        drop(slow);
        assert_eq!(reading.await.unwrap().ok().unwrap().bytes, vec![b'x'; 8 << 10]);
        left(&uploads, 8).await;
    }

    #[tokio::test]
    async fn bodies_that_wait_for_each_other_are_refused_and_give_back_what_they_have() {
        let uploads = Arc::new(Uploads::with(Limits { wait: SHORT, ..PATIENT }));
        let (first, one) = begin(&uploads);
        let (second, other) = begin(&uploads);
        send(&first, 5).await;
        send(&second, 5).await;
        left(&uploads, 0).await;
        send(&first, 3).await;
        send(&second, 3).await;
        drop((first, second));
        let statuses = [status(one.await.unwrap()), status(other.await.unwrap())];
        assert!(statuses.contains(&429), "{statuses:?}");
        left(&uploads, 8).await;
    }

    #[tokio::test]
    async fn a_body_that_comes_slowly_or_pauses_is_given_up() {
        for limits in [
            Limits { grace: SHORT, ..PATIENT },
            Limits { pause: SHORT, ..PATIENT },
            Limits { time: SHORT, ..PATIENT },
        ] {
            let uploads = Arc::new(Uploads::with(limits));
            let (slow, reading) = begin(&uploads);
            send(&slow, 2).await;
            assert_eq!(status(reading.await.unwrap()), 408);
            left(&uploads, 8).await;
        }
        // 16 KiB a second: 8 KiB may take half a second more.
        let uploads = Uploads::with(Limits { grace: SHORT, ..PATIENT });
        assert_eq!(uploads.allowed(8 << 10), SHORT + Duration::from_millis(500));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
        let uploads = Arc::new(Uploads::with(PATIENT));
        let (long, reading) = begin(&uploads);
        send(&long, 9).await;
        assert_eq!(status(reading.await.unwrap()), 413);
        for stated in ["8193", "99999999999999999999999"] {
            let headers = [(CONTENT_LENGTH, stated.parse().unwrap())].into_iter().collect();
            assert_eq!(status(uploads.read(&headers, Body::empty()).await), 413, "{stated}");
        }
    }
}
