//! What others publish and we want to know: that Home Assistant has started, and commands.

use std::time::Duration;

use tokio::{sync::mpsc::error::TrySendError, time::Instant};

use super::{
    super::{Shared, command::Command},
    wire::{Client, Full},
};

/// So often at most it is told that a command is not obeyed: whoever sends nonsense must not fill
/// the log with it.
const COMPLAINTS: Duration = Duration::from_secs(1);
/// The most of a topic that is repeated in the log, characters.
const MOST_OF_A_TOPIC: usize = 200;

pub(super) struct Ears<'a> {
    shared: &'a Shared,
    /// A topic each, and what is missed without it.
    wanted: Vec<(String, &'static str)>,
    /// They were asked for, and the broker has not answered yet.
    pub waiting: bool,
    /// When a command that is not obeyed was last told.
    complained: Option<Instant>,
}

impl<'a> Ears<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        let birth = shared.discovery.as_ref().map(|discovery| discovery.birth_topic());
        let birth = birth.map(|topic| (topic, "it will not be noticed when Home Assistant starts"));
        let commands = shared.commands.as_ref().map(|_| shared.topics.commands());
        let commands = commands.map(|topic| (topic, "commands will not be heard"));
        Self { shared, wanted: birth.into_iter().chain(commands).collect(), waiting: false, complained: None }
    }

    /// Asks the broker for what is wanted.
    pub fn open(&mut self, client: &Client) -> Result<(), Full> {
        let topics: Vec<_> = self.wanted.iter().map(|(topic, _)| topic.clone()).collect();
        self.waiting = !topics.is_empty();
        if self.waiting { client.subscribe(&topics) } else { Ok(()) }
    }

    /// The broker's answer: which of them it lets us hear.
    pub fn opened(&mut self, stand: &[bool]) {
        self.waiting = false;
        for ((topic, missed), _) in self.wanted.iter().zip(stand).filter(|(_, stands)| !**stands) {
            tracing::warn!("{missed}: the broker does not let this user subscribe to {topic}");
        }
    }

    /// Somebody says something, or said it once and had the broker retain it.
    pub fn hear(&mut self, topic: &[u8], payload: &[u8], retained: bool) {
        let shared = self.shared;
        if let Some(discovery) = &shared.discovery
            && topic == discovery.birth_topic().as_bytes()
        {
            if payload == b"online" {
                shared.board().resend_below(discovery.prefix());
            }
            return;
        }
        // Whoever wants something says so live: it would be obeyed again at every start.
        let Some(commands) = shared.commands.as_ref().filter(|_| !retained) else { return };
        let command = match Command::read(&shared.topics, topic, payload) {
            Ok(command) => command,
            Err(bad) => return self.complain(topic, &bad.to_string()),
        };
        match commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.complain(topic, "too many come at once"),
            Err(TrySendError::Closed(_)) => self.complain(topic, "camscribe is about to end"),
        }
    }

    fn complain(&mut self, topic: &[u8], why: &str) {
        if self.complained.is_none_or(|then| then.elapsed() >= COMPLAINTS) {
            self.complained = Some(Instant::now());
            let topic: String = String::from_utf8_lossy(topic).chars().take(MOST_OF_A_TOPIC).collect();
            tracing::warn!("the command on {topic:?} is not obeyed: {why}");
        }
    }
}
