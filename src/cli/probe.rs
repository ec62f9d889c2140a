//! `camscribe check --probe`: is what the configuration names there, and does it answer? Model,
//! broker and cameras are tried side by side, and each gets a line as soon as it is known.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use tokio::{sync::Semaphore, task::JoinSet};

use super::run::runtime;
use crate::{
    app,
    capture::{self, CameraConfig, CameraFacts, CaptureError},
    config::{self, Config},
    describe::smolvlm::SmolVlm,
    hub, logging,
    publish::{self, mqtt},
};

/// How long a camera may take for its first picture.
const PATIENCE: Duration = Duration::from_secs(15);
/// Cameras that are tried at the same time: each decodes with threads of its own.
const CAMERAS_AT_ONCE: usize = 8;

/// What was tried, and what came of it: a fact, or what is wrong and what to do.
struct Finding {
    thing: String,
    outcome: Result<String, String>,
}

/// Tries everything that `config` names and prints a line for each thing to standard output.
///
/// # Errors
/// When something does not work.
pub fn run(config: &Config) -> anyhow::Result<()> {
    logging::init(true);
    let runtime = runtime()?;
    let result = runtime.block_on(probe(config));
    // A pipeline that does not stop must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn probe(config: &Config) -> anyhow::Result<()> {
    let mut probes = JoinSet::new();
    let model = config.model.clone();
    probes.spawn_blocking(move || probe_model(&model));
    probes.spawn(probe_broker(app::publish_settings(config, None)));
    let turns = Arc::new(Semaphore::new(CAMERAS_AT_ONCE));
    for (id, camera) in app::enabled(config) {
        let settings = app::camera_config(id, camera, &config.pipelines);
        let turns = Arc::clone(&turns);
        probes.spawn(async move {
            // Nobody closes the semaphore.
            let _turn = turns.acquire().await;
            probe_camera(settings).await
        });
    }
    let (all, mut failed) = (probes.len(), 0);
    while let Some(finding) = probes.join_next().await {
        let Finding { thing, outcome } = finding?;
        let (word, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => {
                failed += 1;
                ("failed", text)
            }
        };
        writeln!(io::stdout(), "{word:8}{thing}: {text}")?;
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {all} do not work: mend what the lines above say"),
    }
}

/// Finds the model and reads everything of it but its weights.
fn probe_model(model: &config::Model) -> Finding {
    let found = || -> anyhow::Result<String> {
        let hub::ModelDir { path, .. } = hub::resolve(&model.id, &model.revision)?;
        let chosen = SmolVlm::probe(&path, model.device, model.dtype)?;
        Ok(format!("it is in {} and runs on {chosen}", path.display()))
    };
    Finding { thing: format!("model {}", model.id), outcome: found().map_err(|e| format!("{e:#}")) }
}

async fn probe_broker(settings: publish::Settings) -> Finding {
    let outcome = mqtt::probe(&settings).await;
    Finding {
        thing: format!("broker {}", settings.broker),
        outcome: outcome
            .map(|()| "it lets us in (whether we may publish was not tried)".into())
            .map_err(|e| e.to_string()),
    }
}

async fn probe_camera(settings: CameraConfig) -> Finding {
    let thing = format!("camera {}", settings.id);
    let outcome = capture::probe(settings, PATIENCE).await;
    Finding { thing, outcome: outcome.map(in_words).map_err(with_advice) }
}

fn in_words(facts: CameraFacts) -> String {
    let CameraFacts { size: (width, height), decoder, frame_rate, sampling } = facts;
    let mut text = format!("pictures of {width}x{height}");
    if let Some(rate) = frame_rate {
        text += &format!(", {} a second", (rate * 100.0).round() / 100.0);
    }
    if let Some(decoder) = decoder {
        text += &format!(", decoded by {decoder}");
    }
    if let Some(sampling) = sampling {
        text += &format!(", sampled by {sampling}");
    }
    text
}

/// The error, its causes, and what to do about it in the words of the configuration.
fn with_advice(error: CaptureError) -> String {
    use CaptureError as E;
    let advice = match &error {
        E::Unauthorised(_) => "check username and password_file of this camera",
        E::NoFile(_) | E::NotMedia(_) | E::NoVideo(_) | E::NoStream(_) | E::NoDevice(_) => "check its uri",
        E::Unreadable { .. } => "let the user that camscribe runs as read it",
        E::Damaged { .. } | E::NoIndex(_) => "record or copy it again",
        E::Busy(_) => "end the other program",
        E::Stalled { .. } => "check its uri, and try another transport",
        E::Ended(_) | E::Undecodable { .. } => "check the camera",
        E::Other { .. } => "RUST_LOG=debug says more",
        // These say it themselves.
        E::UnknownHost { .. }
        | E::Unreachable { .. }
        | E::NoDatagrams(_)
        | E::MissingPlugin { .. }
        | E::TooLarge { .. }
        | E::Pipeline(_)
        | E::Window(_)
        | E::Gstreamer(_) => "",
    };
    let colon = if advice.is_empty() { "" } else { ": " };
    format!("{:#}{colon}{advice}", anyhow::Error::new(error))
}
