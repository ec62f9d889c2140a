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
    posts: VecDeque<Entry>,
    /// Of the next post.
    number: u64,
}

#[derive(Debug)]
struct Entry {
    /// Tells it from an older one of the same topic, which may still be under way.
    number: u64,
    post: Post,
    stand: Stand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Unsent,
    Sent,
    /// The broker has it.
    Delivered,
    /// The broker does not take it now.
    Postponed,
    /// The broker refuses it: not sent again until it is posted anew.
    Shelved,
}

impl Board {
    /// Puts up a message in the place of the topic's last one.
    pub fn post(&mut self, post: Post) {
        self.posts.retain(|old| old.post.topic != post.topic);
        self.posts.push_back(Entry { number: self.number, post, stand: Stand::Unsent });
        self.number += 1;
    }

    /// The newest message of a topic.
    pub fn get(&self, topic: &str) -> Option<&Post> {
        self.posts.iter().map(|entry| &entry.post).find(|post| post.topic == topic)
    }

    /// The message that has waited longest, and its number; from now on it counts as sent.
    pub fn take(&mut self) -> Option<(u64, Post)> {
        let entry = self.posts.iter_mut().find(|entry| entry.stand == Stand::Unsent)?;
        entry.stand = Stand::Sent;
        Some((entry.number, entry.post.clone()))
    }

    /// Everything has been handed to the connection.
    pub fn all_sent(&self) -> bool {
        self.posts.iter().all(|entry| entry.stand != Stand::Unsent)
    }

    /// The broker has, or refuses, every message.
    pub fn all_delivered(&self) -> bool {
        self.posts.iter().all(|entry| matches!(entry.stand, Stand::Delivered | Stand::Shelved))
    }

    /// The broker has this message.
    pub fn delivered(&mut self, number: u64) {
        self.turn(number, Stand::Delivered);
    }

    /// A new broker session: it may know nothing.
    pub fn resend_all(&mut self) {
        self.resend(|_| true);
    }

    /// Someone who reads the topics below `prefix` has just come up.
    pub fn resend_below(&mut self, prefix: &str) {
        self.resend(|topic| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')));
    }

    /// The broker does not take this message now.
    pub fn postpone(&mut self, number: u64) {
        self.turn(number, Stand::Postponed);
    }

    /// What was postponed is tried again.
    pub fn resend_postponed(&mut self) {
        for entry in self.posts.iter_mut().filter(|entry| entry.stand == Stand::Postponed) {
            entry.stand = Stand::Unsent;
        }
    }

    /// The broker will not take this message. Something newer on its topic still gets its chance.
    pub fn shelve(&mut self, number: u64) {
        self.turn(number, Stand::Shelved);
    }

    fn turn(&mut self, number: u64, into: Stand) {
        let sent = |entry: &&mut Entry| entry.number == number && entry.stand == Stand::Sent;
        if let Some(entry) = self.posts.iter_mut().find(sent) {
            entry.stand = into;
        }
    }

    fn resend(&mut self, which: impl Fn(&str) -> bool) {
        for entry in &mut self.posts {
            if entry.stand != Stand::Shelved && which(&entry.post.topic) {
                entry.stand = Stand::Unsent;
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
        std::iter::from_fn(|| board.take()).map(|(_, post)| (post.topic, post.payload)).collect()
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
        while let Some((number, post)) = board.take() {
            if post.topic == "b" {
                board.shelve(number);
            }
        }
        board.resend_all();
        assert_eq!(taken(&mut board), [("a".into(), "1".into()), ("c".into(), "1".into())]);
        board.post(post("b", "2"));
        assert_eq!(taken(&mut board), [("b".into(), "2".into())]);
    }

    #[test]
    fn an_answer_is_about_the_message_that_it_belongs_to() {
        let mut board = Board::default();
        board.post(post("a", "1"));
        let (older, _) = board.take().unwrap();
        board.post(post("a", "2"));
        let (newer, _) = board.take().unwrap();
        board.delivered(older);
        assert!(!board.all_delivered());
        board.delivered(newer);
        assert!(board.all_delivered());
    }

    #[test]
    fn what_is_not_taken_now_is_sent_later() {
        let mut board = Board::default();
        board.post(post("a", "1"));
        let (number, _) = board.take().unwrap();
        board.postpone(number);
        assert!(board.take().is_none() && board.all_sent() && !board.all_delivered());
        board.resend_postponed();
        assert_eq!(taken(&mut board), [("a".into(), "1".into())]);
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
