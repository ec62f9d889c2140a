//! What subscribers should find retained at the broker: the newest payload of each topic.
//!
//! States are posted here at any time, connected or not; the publisher takes those that the broker
//! does not have yet, oldest posting first, and after a reconnect it takes all of them again.

use std::collections::VecDeque;

use tokio_util::bytes::Bytes;
use uuid::Uuid;

/// What kind of payload a message has: MQTT 5 tells subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Text,
    Json,
    Jpeg,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Post {
    pub topic: String,
    pub payload: Bytes,
    pub content: ContentType,
    /// Id of the event that it belongs to: the user property `id`.
    pub event: Option<Uuid>,
}

/// The newest message of every topic. Bounded by the number of topics, which is that of cameras.
#[derive(Debug, Default)]
pub(super) struct Board {
    posts: VecDeque<(Post, Stand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Unsent,
    Sent,
    /// The broker has it.
    Delivered,
    /// The broker refuses it: not sent again until it is posted anew.
    Shelved,
}

impl Board {
    /// Puts up a message in the place of the topic's last one.
    pub fn post(&mut self, post: Post) {
        self.posts.retain(|(old, _)| old.topic != post.topic);
        self.posts.push_back((post, Stand::Unsent));
    }

    /// The message that has waited longest; from now on it counts as sent.
    pub fn take(&mut self) -> Option<Post> {
        let (post, stand) = self.posts.iter_mut().find(|(_, stand)| *stand == Stand::Unsent)?;
        *stand = Stand::Sent;
        Some(post.clone())
    }

    /// Everything has been handed to the connection.
    pub fn all_sent(&self) -> bool {
        self.posts.iter().all(|(_, stand)| *stand != Stand::Unsent)
    }

    /// The broker has, or refuses, every message.
    pub fn all_delivered(&self) -> bool {
        self.posts.iter().all(|(_, stand)| matches!(stand, Stand::Delivered | Stand::Shelved))
    }

    /// The broker has what was last sent on `topic`.
    pub fn delivered(&mut self, topic: &str) {
        self.turn(topic, Stand::Delivered);
    }

    /// A new broker session: it may know nothing.
    pub fn resend_all(&mut self) {
        self.resend(|_| true);
    }

    /// Someone who reads the topics below `prefix` has just come up.
    pub fn resend_below(&mut self, prefix: &str) {
        self.resend(|topic| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')));
    }

    /// The broker will not take what was last sent on `topic`. Something newer still gets its chance.
    pub fn shelve(&mut self, topic: &str) {
        self.turn(topic, Stand::Shelved);
    }

    fn turn(&mut self, topic: &str, into: Stand) {
        let sent = |(post, stand): &&mut (Post, Stand)| post.topic == topic && *stand == Stand::Sent;
        if let Some((_, stand)) = self.posts.iter_mut().find(sent) {
            *stand = into;
        }
    }

    fn resend(&mut self, which: impl Fn(&str) -> bool) {
        for (post, stand) in &mut self.posts {
            if matches!(stand, Stand::Sent | Stand::Delivered) && which(&post.topic) {
                *stand = Stand::Unsent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(topic: &str, payload: &'static str) -> Post {
        Post { topic: topic.into(), payload: payload.into(), content: ContentType::Text, event: None }
    }

    fn taken(board: &mut Board) -> Vec<(String, Bytes)> {
        std::iter::from_fn(|| board.take()).map(|post| (post.topic, post.payload)).collect()
    }

    #[test]
    fn only_the_newest_message_of_a_topic_is_sent() {
        let mut board = Board::default();
        board.post(post("a", "1"));
        board.post(post("b", "1"));
        board.post(post("a", "2"));
        assert!(!board.all_sent());
        assert_eq!(taken(&mut board), [("b".into(), "1".into()), ("a".into(), "2".into())]);
        assert!(board.all_sent());
    }

    #[test]
    fn a_new_session_gets_everything_again_but_what_the_broker_refuses() {
        let mut board = Board::default();
        for topic in ["a", "b", "c"] {
            board.post(post(topic, "1"));
        }
        taken(&mut board);
        board.shelve("b");
        board.resend_all();
        assert_eq!(taken(&mut board), [("a".into(), "1".into()), ("c".into(), "1".into())]);
        board.post(post("b", "2"));
        assert_eq!(taken(&mut board), [("b".into(), "2".into())]);
    }

    #[test]
    fn resending_below_a_prefix_leaves_the_others_and_prefixes_alike() {
        let mut board = Board::default();
        for topic in ["home/x", "homeassistant/x", "home"] {
            board.post(post(topic, "1"));
        }
        taken(&mut board);
        board.resend_below("home");
        assert_eq!(taken(&mut board), [("home/x".into(), "1".into())]);
    }
}
