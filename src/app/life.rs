//! Where the daemon stands, from its start to its end: told to the service manager (sd_notify(3)),
//! and to whoever asks `/healthz` and `/readyz`.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{self, MissedTickBehavior};

use crate::{http::Verdict, progress::Progress};

/// A step of the model takes less than this on any machine that is worth it; longer means stuck.
/// Half of what the service manager allows, where it watches: `WatchdogSec=` of the unit.
const PATIENCE: Duration = Duration::from_secs(150);

/// A part of the daemon's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The model is being read.
    Loading,
    /// The model makes its first, small inference.
    WarmingUp,
    /// Clips are described as they come, of so many cameras.
    Watching(usize),
    /// The configuration is read again; the work goes on.
    Reloading,
    /// What is under way is being finished.
    Stopping,
}

impl Stage {
    fn in_words(&self) -> String {
        match self {
            Self::Loading => "loading the model".into(),
            Self::WarmingUp => "trying the model out".into(),
            Self::Watching(1) => "watching 1 camera".into(),
            Self::Watching(count) => format!("watching {count} cameras"),
            Self::Reloading => "reading the configuration again".into(),
            Self::Stopping => "finishing what is under way".into(),
        }
    }
}

/// Where the daemon stands.
#[derive(Debug)]
pub struct Life {
    stage: Mutex<Stage>,
    /// Of the model's thread, once there is a model.
    progress: OnceLock<Arc<Progress>>,
    patience: Duration,
}

impl Default for Life {
    /// As patient as the service manager allows.
    fn default() -> Self {
        Self::with_patience(sd_notify::watchdog_enabled().map_or(PATIENCE, |time| time / 2))
    }
}

impl Life {
    /// A model that makes no step for so long is stuck.
    pub fn with_patience(patience: Duration) -> Self {
        Self { stage: Mutex::new(Stage::Loading), progress: OnceLock::new(), patience }
    }

    /// The next part of it begins.
    pub fn enter(&self, stage: Stage) {
        let words = stage.in_words();
        let status = NotifyState::Status(&words);
        match stage {
            Stage::Loading | Stage::WarmingUp => tell(&[status]),
            Stage::Watching(_) => tell(&[NotifyState::Ready, status]),
            Stage::Stopping => tell(&[NotifyState::Stopping, status]),
            Stage::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now, status]),
                Err(_) => tell(&[NotifyState::Reloading, status]),
            },
        }
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// From now on the model's thread is looked at.
    pub fn follow(&self, progress: Arc<Progress>) {
        // There is one model.
        let _ = self.progress.set(progress);
    }

    /// Whether the model's thread waits or gets on.
    pub fn health(&self) -> Verdict {
        let silence = self.progress.get().map_or(Duration::ZERO, |progress| progress.silence());
        if silence < self.patience {
            return Ok(());
        }
        Err(format!("the model has made no step for {} s", silence.as_secs()))
    }

    /// Whether clips are being described.
    pub fn ready(&self) -> Verdict {
        match &*self.stage.lock().unwrap_or_else(PoisonError::into_inner) {
            Stage::Watching(_) | Stage::Reloading => self.health(),
            other => Err(other.in_words()),
        }
    }

    /// Tells the service manager again and again that all is well, as long as it is; does nothing
    /// where nobody watches.
    pub async fn reassure(self: Arc<Self>) {
        if sd_notify::watchdog_enabled().is_some() {
            self.beat(|| tell(&[NotifyState::Watchdog])).await;
        }
    }

    /// Calls `well` twice in the time of its patience, except while the model is stuck.
    pub async fn beat(&self, mut well: impl FnMut()) {
        let mut beat = time::interval(self.patience / 2);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            match self.health() {
                Ok(()) => well(),
                Err(why) => tracing::error!("{why}: it seems to be stuck"),
            }
        }
    }
}

fn tell(news: &[NotifyState<'_>]) {
    // Without a service manager this does nothing.
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!("the service manager cannot be told how things stand: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_while_it_watches_and_until_the_model_is_stuck() {
        let life = Life::with_patience(Duration::from_millis(30));
        for stage in [Stage::Loading, Stage::WarmingUp] {
            life.enter(stage.clone());
            assert_eq!(life.ready(), Err(stage.in_words()));
            assert_eq!(life.health(), Ok(()));
        }
        let progress = Arc::new(Progress::default());
        life.follow(Arc::clone(&progress));
        life.enter(Stage::Watching(2));
        assert_eq!(life.ready(), Ok(()));
        life.enter(Stage::Reloading);
        assert_eq!(life.ready(), Ok(()));
        progress.step();
        std::thread::sleep(Duration::from_millis(40));
        assert!(life.ready().unwrap_err().contains("no step"));
        progress.idle();
        assert_eq!(life.ready(), Ok(()));
        life.enter(Stage::Stopping);
        assert!(life.ready().is_err());
        assert_eq!(life.health(), Ok(()));
    }
}
