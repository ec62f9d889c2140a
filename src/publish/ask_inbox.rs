//! Questions of subscribers about cameras, between the connection that receives them and the daemon that has them
//! answered; and the answers on their way back. Bounded: what comes too fast is refused, and what comes faster than
//! that is dropped and counted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use tokio_util::bytes::Bytes;

use crate::{
    camera::CameraId,
    camera_ask::{self, Answered, CameraAsk, Refusal},
};

/// The most questions that wait to be taken.
const MAX_WAITING: usize = 16;
/// The most replies that wait to be sent.
const MAX_REPLIES: usize = 64;
/// A reply that could not be sent for so long is of no use.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// Refusals are rationed, so that nobody can keep the connection busy with them: so many at once, and one more after
/// each pause.
const REFUSALS: u32 = 20;
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// Questions that wait to be answered, and replies that wait to be sent.
#[derive(Debug, Default)]
pub struct AskInbox {
    inner: Mutex<Inner>,
    arrived: Notify,
    replied: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<WaitingAsk>,
    replies: VecDeque<Reply>,
    /// When the ration of refusals is whole again.
    rationed_until: Option<Instant>,
    dropped: u64,
}

/// A question that waits to be answered.
#[derive(Debug)]
pub struct WaitingAsk {
    /// What it is about.
    pub camera: CameraId,
    /// What is asked.
    pub ask: CameraAsk,
    /// An answer after this is of no use.
    pub until: Instant,
    /// Where the reply goes.
    pub reply_to: ReplyTo,
}

/// Where a reply goes.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    pub(super) topic: String,
    pub(super) correlation: Option<Bytes>,
    /// What the caller calls its question.
    pub(super) request: Option<String>,
}

/// An answer or a refusal that waits to be sent.
#[derive(Debug)]
pub(super) struct Reply {
    pub topic: String,
    pub payload: Bytes,
    pub correlation: Option<Bytes>,
    /// Later it is of no use.
    pub until: Instant,
}

impl AskInbox {
    /// Takes in a question.
    pub(super) fn receive(&self, asked: WaitingAsk) {
        let mut inner = self.lock();
        if inner.waiting.len() < MAX_WAITING {
            inner.waiting.push_back(asked);
            drop(inner);
            self.arrived.notify_one();
        } else {
            drop(inner);
            self.reply(&asked.camera, asked.reply_to, &Err(Refusal::Busy));
        }
    }

    /// Waits for the next question. For one waiter, which may stop to wait at any time.
    pub async fn take(&self) -> WaitingAsk {
        loop {
            if let Some(asked) = self.lock().waiting.pop_front() {
                return asked;
            }
            self.arrived.notified().await;
        }
    }

    /// Sends an answer or a refusal.
    pub fn reply(&self, camera: &CameraId, to: ReplyTo, outcome: &Result<Answered, Refusal>) {
        let ReplyTo { topic, correlation, request } = to;
        let payload = camera_ask::reply(camera, request.as_deref(), outcome).to_string().into();
        let mut inner = self.lock();
        let may = outcome.is_ok() || inner.may_refuse(Instant::now());
        if !may || inner.replies.len() >= MAX_REPLIES {
            inner.dropped += 1;
            return;
        }
        let until = Instant::now() + REPLY_LIMIT;
        inner.replies.push_back(Reply { topic, payload, correlation, until });
        drop(inner);
        self.replied.notify_one();
    }

    /// The next reply that is of use still.
    pub(super) fn take_reply(&self) -> Option<Reply> {
        let (mut inner, now) = (self.lock(), Instant::now());
        while let Some(reply) = inner.replies.pop_front() {
            if now < reply.until {
                return Some(reply);
            }
            inner.dropped += 1;
        }
        None
    }

    /// Completes when a reply has come.
    pub(super) fn replied(&self) -> Notified<'_> {
        self.replied.notified()
    }

    /// How many questions got no reply at all, because too many came.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held, so a poisoned lock guards whole data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether the ration has a refusal left, which it has not any more then.
    fn may_refuse(&mut self, now: Instant) -> bool {
        let whole = self.rationed_until.map_or(now, |until| until.max(now));
        let after = whole + REFUSAL_PAUSE;
        let may = after <= now + REFUSAL_PAUSE * REFUSALS;
        if may {
            self.rationed_until = Some(after);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> WaitingAsk {
        WaitingAsk {
            camera: "porch".parse().unwrap(),
            ask: CameraAsk::default(),
            until: Instant::now(),
            reply_to: ReplyTo { topic: "answers".into(), correlation: None, request: Some(request.into()) },
        }
    }

    #[tokio::test]
    async fn of_a_burst_some_wait_some_are_refused_and_the_others_are_counted() {
        let inbox = AskInbox::default();
        (0..1000).for_each(|i| inbox.receive(asked(&i.to_string())));
        for i in 0..MAX_WAITING {
            assert_eq!(inbox.take().await.reply_to.request, Some(i.to_string()));
        }
        let mut refused = 0;
        while let Some(reply) = inbox.take_reply() {
            assert!(str::from_utf8(&reply.payload).unwrap().contains(r#""code":"busy""#));
            refused += 1;
        }
        // On a slow machine the ration grows meanwhile.
        assert!((REFUSALS as usize..200).contains(&refused), "{refused}");
        assert_eq!(inbox.dropped() as usize, 1000 - MAX_WAITING - refused);
    }

    #[test]
    fn refusals_are_rationed() {
        let (mut inner, start) = (Inner::default(), Instant::now());
        let mut refusals = |after| (0..100).filter(|_| inner.may_refuse(start + after)).count();
        assert_eq!(refusals(Duration::ZERO), REFUSALS as usize);
        assert_eq!(refusals(REFUSAL_PAUSE * 3), 3);
        assert_eq!(refusals(Duration::from_secs(3600)), REFUSALS as usize);
    }
}
