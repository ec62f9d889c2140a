//! Commands between the connection that receives them and the daemon that applies them.
//!
//! Only the newest command for each setting of each camera waits, and all that wait are taken together, at most
//! twice a second. However many commands come, so few are applied, stored and logged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{commands::CameraCommand, topics::Topics};
use crate::camera::CameraId;

/// The shortest time between two times that commands are taken.
const TAKE_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest time between two warnings about invalid commands, so that nobody can fill the log with them.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);
/// The most unknown cameras that are logged.
const MAX_UNKNOWN: usize = 32;
/// The longest part of a topic that is logged, characters.
const MAX_LOGGED_TOPIC: usize = 200;

/// The commands that wait to be applied. Bounded by the number of cameras.
#[derive(Debug, Default)]
pub struct CommandInbox {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// By camera and name of the setting.
    waiting: BTreeMap<(CameraId, &'static str), CameraCommand>,
    /// Commands were taken then.
    taken: Option<Instant>,
    /// An invalid command was logged then.
    warned: Option<Instant>,
    /// Cameras that do not exist and were logged.
    unknown: BTreeSet<CameraId>,
    /// Commands for cameras that do not exist.
    for_unknown: u64,
}

impl CommandInbox {
    /// Takes in the command that a message carries, in place of an older one for the same setting. What is no
    /// command for a camera that `exists` is logged.
    pub(super) fn receive(
        &self,
        topics: &Topics,
        exists: impl FnOnce(&CameraId) -> bool,
        topic: &[u8],
        payload: &[u8],
    ) {
        match CameraCommand::parse(topics, topic, payload) {
            Ok(command) if exists(&command.camera) => self.put([command]),
            Ok(command) => self.lock().count_unknown(command.camera),
            Err(bad) => self.lock().warn(topic, &bad.to_string()),
        }
    }

    /// Takes in commands for cameras that exist, each in place of an older one for the same setting. They are taken
    /// together.
    pub fn put(&self, commands: impl IntoIterator<Item = CameraCommand>) {
        let by_setting = |command: CameraCommand| ((command.camera.clone(), command.setting.name), command);
        self.lock().waiting.extend(commands.into_iter().map(by_setting));
        self.arrived.notify_one();
    }

    /// Waits for commands. Returns all that wait. For one waiter, which may stop to wait at any time.
    pub async fn take(&self) -> Vec<CameraCommand> {
        loop {
            let taken = self.lock().taken;
            if let Some(taken) = taken {
                time::sleep_until(taken + TAKE_INTERVAL).await;
            }
            let waiting = std::mem::take(&mut self.lock().waiting);
            if !waiting.is_empty() {
                self.lock().taken = Some(Instant::now());
                return waiting.into_values().collect();
            }
            self.arrived.notified().await;
        }
    }

    /// Returns all commands that wait, at once.
    pub fn take_now(&self) -> Vec<CameraCommand> {
        std::mem::take(&mut self.lock().waiting).into_values().collect()
    }

    /// How many commands were for cameras that do not exist.
    pub fn for_unknown_cameras(&self) -> u64 {
        self.lock().for_unknown
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held, so a poisoned lock guards whole data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Counts a command for a camera that does not exist. Logs each such camera once, as long as there are few.
    fn count_unknown(&mut self, camera: CameraId) {
        self.for_unknown += 1;
        if self.unknown.len() < MAX_UNKNOWN && !self.unknown.contains(&camera) {
            tracing::warn!("commands for camera {camera} are ignored: there is no such camera");
            self.unknown.insert(camera);
        }
    }

    fn warn(&mut self, topic: &[u8], why: &str) {
        if self.warned.is_none_or(|then| then.elapsed() >= WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            let topic: String = String::from_utf8_lossy(topic).chars().take(MAX_LOGGED_TOPIC).collect();
            tracing::warn!("the command on {topic:?} is ignored: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives a message on `<camera>/set/<setting>` where the cameras `a` and `b` exist.
    fn receive(inbox: &CommandInbox, topic: &str, payload: &str) {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let exists = |camera: &CameraId| ["a", "b"].contains(&camera.as_str());
        inbox.receive(&topics, exists, format!("camscribe/edge1/{topic}").as_bytes(), payload.as_bytes());
    }

    /// The commands that wait, as they are shown.
    async fn take(inbox: &CommandInbox) -> Vec<String> {
        inbox.take().await.iter().map(|command| format!("{}: {command}", command.camera)).collect()
    }

    #[tokio::test]
    async fn of_a_burst_the_last_value_of_each_setting_is_taken() {
        let inbox = CommandInbox::default();
        for i in 0..500 {
            receive(&inbox, "a/set/prompt", &format!("Who {i}?"));
            receive(&inbox, "a/set/enabled", if i % 2 == 0 { "ON" } else { "OFF" });
            receive(&inbox, "b/set/prompt", &format!("What {i}?"));
        }
        let taken =
            ["a: set enabled to \"OFF\"", "a: set prompt to \"Who 499?\"", "b: set prompt to \"What 499?\""];
        let before = Instant::now();
        assert_eq!(take(&inbox).await, taken);
        receive(&inbox, "b/set/prompt", "");
        assert_eq!(take(&inbox).await, ["b: reset prompt to the configuration"]);
        assert!(before.elapsed() >= TAKE_INTERVAL);
    }

    #[tokio::test]
    async fn a_waiter_that_stops_to_wait_loses_no_command() {
        let inbox = CommandInbox::default();
        assert!(time::timeout(Duration::ZERO, inbox.take()).await.is_err());
        receive(&inbox, "a/set/enabled", "ON");
        assert_eq!(take(&inbox).await, ["a: set enabled to \"ON\""]);
        let waiting =
            async { tokio::join!(take(&inbox), async { receive(&inbox, "b/set/enabled", "OFF") }).0 };
        assert_eq!(waiting.await, ["b: set enabled to \"OFF\""]);
    }

    #[test]
    fn commands_for_unknown_cameras_are_counted_and_few_are_remembered() {
        let inbox = CommandInbox::default();
        for i in 0..1000 {
            receive(&inbox, &format!("other-{i}/set/enabled"), "ON");
            receive(&inbox, "a/set/enabled", "perhaps");
        }
        assert_eq!(inbox.for_unknown_cameras(), 1000);
        let inner = inbox.lock();
        assert_eq!((inner.unknown.len(), inner.waiting.len()), (MAX_UNKNOWN, 0));
    }
}
