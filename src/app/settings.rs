//! The configuration, translated for the modules that use it: what capture needs to know about a camera, what
//! publishing needs to know about the broker.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use crate::{
    camera::CameraId,
    capture::{self, CameraConfig},
    clip::{TimeRange, WindowConfig},
    config::{self, Config, Loaded, Source},
    publish::{BrokerAddress, CameraProfile, Inboxes, Settings, TlsFiles},
    queue::Overflow,
};

/// A source that delivers no data within this time after it was opened is restarted. Other limits are multiples of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The cameras that are to be watched.
pub fn enabled(config: &Config) -> impl Iterator<Item = (&CameraId, &config::CameraSettings)> {
    config.cameras.iter().filter(|(_, camera)| camera.enabled)
}

/// What capture needs to know about a camera. `pipelines` is the folder with the user's own pipelines.
pub fn camera_config(id: &CameraId, camera: &config::CameraSettings, pipelines: &Path) -> CameraConfig {
    CameraConfig {
        id: id.clone(),
        source: camera.source.clone(),
        login: camera.login.clone(),
        transport: camera.transport,
        tls: camera.tls.clone(),
        pipeline: camera.pipeline.clone(),
        pipelines_dir: Some(pipelines.to_owned()),
        view: camera.view.clone(),
        scaling: None,
        sampling: camera.sampling,
        clock: camera.clock,
        window: WindowConfig {
            window: camera.window,
            stride: camera.stride,
            frames: camera.frames,
            min_frames: camera.min_frames,
        },
        range: TimeRange::default(),
        prompt_spec: Arc::new(camera.prompt_spec.clone()),
        look_back: None,
        connect_timeout: CONNECT_TIMEOUT,
        retry: true,
    }
}

/// What is wrong with the pipeline files of the user's own that enabled cameras use, a line each.
pub fn pipeline_mistakes(loaded: &Loaded) -> impl Iterator<Item = String> {
    let check = |(id, camera)| {
        let checked = capture::check_pipeline(&camera_config(id, camera, &loaded.config.pipelines));
        let error = anyhow::Error::new(checked.err()?);
        Some(format!("{}: {error:#}", loaded.locate(id, "pipeline")))
    };
    enabled(&loaded.config).filter_map(check)
}

/// What people and Home Assistant know of each camera.
pub fn camera_profiles(config: &Config) -> BTreeMap<CameraId, CameraProfile> {
    let profile = |(id, camera): (&CameraId, &config::CameraSettings)| {
        let questions = &camera.prompt_spec.questions;
        let questions = questions.iter().map(|it| (it.name.clone(), it.decision.answers())).collect();
        let alerts = &camera.prompt_spec.alerts;
        let alerts = alerts.iter().map(|(name, rule)| (name.clone(), rule.device_class.clone())).collect();
        let (name, questions_only) = (camera.display_name(id).into(), !camera.prompt_spec.describe);
        (id.clone(), CameraProfile { name, questions_only, questions, alerts })
    };
    config.cameras.iter().map(profile).collect()
}

/// What happens to clips that the model is too slow for: live ones are dropped, recordings wait.
pub fn overflow(source: &Source) -> Overflow {
    if source.is_live() { Overflow::DropOldest } else { Overflow::Block }
}

/// What publishing needs to know. `inboxes` take what subscribers send; it is ignored without
/// it, or where the configuration switches them off.
pub fn publish_settings(config: &Config, inboxes: Option<&Inboxes>) -> Settings {
    let mqtt = &config.mqtt;
    Settings {
        broker: BrokerAddress {
            host: mqtt.host.clone(),
            port: mqtt.port,
            tls: mqtt
                .tls
                .as_ref()
                .map(|tls| TlsFiles { ca: tls.ca_file.clone(), client: tls.client_cert_and_key.clone() }),
        },
        version: mqtt.version,
        login: mqtt.login.clone(),
        node: config.node.id.clone(),
        topic_prefix: mqtt.topic_prefix.clone(),
        discovery_prefix: mqtt.discovery_prefix.clone().unwrap_or_default(),
        cameras: camera_profiles(config),
        inboxes: inboxes.filter(|_| mqtt.commands).cloned(),
        response_topics: mqtt.response_topics.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_allows_no_more_overlap_than_the_windower() {
        assert_eq!(u128::from(config::MAX_OVERLAP), WindowConfig::MAX_OVERLAP);
    }
}
