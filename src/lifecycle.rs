//! The phase that the daemon is in, and whether it is healthy. Both are reported to the service manager
//! (sd_notify(3)) and answered at `/healthz` and `/readyz`.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{self, MissedTickBehavior};

use crate::heartbeat::Heartbeat;

/// A model that makes no step for this long is stuck: on any machine that is fast enough to be useful, a step
/// takes less. Under a service manager with a watchdog, half of its limit (`WatchdogSec=`) applies instead.
pub const STUCK_AFTER: Duration = Duration::from_secs(150);

/// Healthy, or a sentence that says why not.
pub type HealthStatus = Result<(), String>;

/// A phase of the daemon, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The model is being loaded.
    Loading,
    /// The model makes its first, small inference.
    WarmingUp,
    /// Clips of this many cameras are described as they arrive.
    Watching(usize),
    /// The configuration is read again, while clips are still described.
    Reloading,
    /// Work that has begun is being finished.
    Stopping,
}

impl Phase {
    /// The phase as text, for people.
    fn text(&self) -> String {
        match self {
            Self::Loading => "loading the model".into(),
            Self::WarmingUp => "warming up the model".into(),
            Self::Watching(1) => "watching 1 camera".into(),
            Self::Watching(count) => format!("watching {count} cameras"),
            Self::Reloading => "reloading the configuration".into(),
            Self::Stopping => "shutting down".into(),
        }
    }
}

/// The daemon's current phase and health.
#[derive(Debug)]
pub struct Lifecycle {
    phase: Mutex<Phase>,
    /// What is told to the service manager in place of the number of watched cameras, once it is known.
    summary: Mutex<String>,
    /// The heartbeat of the model's thread, once the model is loaded.
    heartbeat: OnceLock<Arc<Heartbeat>>,
    stuck_after: Duration,
}

impl Default for Lifecycle {
    /// Takes the limit from the service manager, if that has one.
    fn default() -> Self {
        Self::with_limit(sd_notify::watchdog_enabled().map_or(STUCK_AFTER, |limit| limit / 2))
    }
}

impl Lifecycle {
    /// A lifecycle in which a model that makes no step for `stuck_after` counts as stuck.
    pub fn with_limit(stuck_after: Duration) -> Self {
        Self {
            phase: Mutex::new(Phase::Loading),
            summary: Mutex::default(),
            heartbeat: OnceLock::new(),
            stuck_after,
        }
    }

    /// Enters a phase and reports it to the service manager.
    pub fn enter(&self, phase: Phase) {
        let text = self.text(&phase);
        let status = NotifyState::Status(&text);
        match phase {
            Phase::Loading | Phase::WarmingUp => notify(&[status]),
            Phase::Watching(_) => notify(&[NotifyState::Ready, status]),
            Phase::Stopping => notify(&[NotifyState::Stopping, status]),
            Phase::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => notify(&[NotifyState::Reloading, now, status]),
                Err(_) => notify(&[NotifyState::Reloading, status]),
            },
        }
        *lock(&self.phase) = phase;
    }

    /// Tells the service manager how the cameras and the broker are doing, in one line for people.
    pub fn summarise(&self, summary: String) {
        let old = std::mem::replace(&mut *lock(&self.summary), summary.clone());
        if old != summary && matches!(&*lock(&self.phase), Phase::Watching(_)) {
            notify(&[NotifyState::Status(&summary)]);
        }
    }

    /// A phase as text, for people.
    fn text(&self, phase: &Phase) -> String {
        let summary = lock(&self.summary);
        let known = matches!(phase, Phase::Watching(_)) && !summary.is_empty();
        if known { summary.clone() } else { phase.text() }
    }

    /// The phase and how things are, in one line for people.
    pub fn describe(&self) -> String {
        let phase = lock(&self.phase).clone();
        self.text(&phase)
    }

    /// Makes health depend on this heartbeat from now on. Only the first call has an effect: there is one
    /// model.
    pub fn monitor(&self, heartbeat: Arc<Heartbeat>) {
        let _ = self.heartbeat.set(heartbeat);
    }

    /// Whether the model's thread waits for clips or makes progress.
    pub fn health(&self) -> HealthStatus {
        let silence = self.heartbeat.get().map_or(Duration::ZERO, |heartbeat| heartbeat.silence());
        if silence < self.stuck_after {
            return Ok(());
        }
        Err(format!("the model has made no step for {} s", silence.as_secs()))
    }

    /// Whether clips are being described.
    pub fn ready(&self) -> HealthStatus {
        match &*lock(&self.phase) {
            Phase::Watching(_) | Phase::Reloading => self.health(),
            other => Err(other.text()),
        }
    }

    /// Pings the service manager's watchdog for as long as the daemon is healthy. Returns at once where no
    /// watchdog is enabled, else never.
    pub async fn watchdog(self: Arc<Self>) {
        if sd_notify::watchdog_enabled().is_some() {
            self.ping_while_healthy(|| notify(&[NotifyState::Watchdog])).await;
        }
    }

    /// Calls `ping` twice within the limit after which the model counts as stuck, except while it is stuck.
    pub async fn ping_while_healthy(&self, mut ping: impl FnMut()) {
        let mut ticks = time::interval(self.stuck_after / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.health() {
                Ok(()) => ping(),
                Err(why) => tracing::error!("{why}: it seems to be stuck"),
            }
        }
    }
}

/// Nothing can panic while a lock is held, so what it guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends states to the service manager. Does nothing without one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_while_it_watches_unless_the_model_is_stuck() {
        let lifecycle = Lifecycle::with_limit(Duration::from_millis(30));
        for phase in [Phase::Loading, Phase::WarmingUp] {
            lifecycle.enter(phase.clone());
            assert_eq!(lifecycle.ready(), Err(phase.text()));
            assert_eq!(lifecycle.health(), Ok(()));
        }
        let heartbeat = Arc::new(Heartbeat::default());
        lifecycle.monitor(Arc::clone(&heartbeat));
        lifecycle.enter(Phase::Watching(2));
        assert_eq!(lifecycle.ready(), Ok(()));
        lifecycle.enter(Phase::Reloading);
        assert_eq!(lifecycle.ready(), Ok(()));
        heartbeat.beat();
        std::thread::sleep(Duration::from_millis(40));
        assert!(lifecycle.ready().unwrap_err().contains("no step"));
        heartbeat.idle();
        assert_eq!(lifecycle.ready(), Ok(()));
        lifecycle.enter(Phase::Stopping);
        assert!(lifecycle.ready().is_err());
        assert_eq!(lifecycle.health(), Ok(()));
    }
}
