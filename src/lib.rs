//! camscribe: what cameras see, in words, over MQTT.
//!
//! Data flows one way, a stage a folder: **Frame → Clip → Prompt → Description → Event**.
//!
//! | room | what it is for |
//! |---|---|
//! | [`camera`], [`frame`], [`clip`], [`interval`] | what cameras give, and how it is cut into clips |
//! | [`prompt_spec`] | what the model is asked about a clip |
//! | [`gate`] | whether a clip shows anything new |
//! | [`resize`] | images made smaller, as the model does it |
//! | [`nn`] | the inference engine: device, weights, kernels, decoder |
//! | [`device`] | where the model is wanted to compute |
//! | [`describe`] | clips in, descriptions out: the model |
//! | [`event`] | what subscribers read: the public contract |
//! | [`events`] | answers in, events out |
//! | [`heartbeat`] | for how long the model's thread has made no step |
//! | [`mod@bench`] | how fast the model is on this machine |
#![cfg_attr(
    feature = "daemon",
    doc = "| [`config`], [`hub`] | what the person said, and the model's files |
| [`capture`] | cameras and files in, clips out: GStreamer |
| [`queue`] | between the cameras and the model: bounded, fair |
| [`publish`] | events out, over MQTT |
| [`metrics`], [`http`] | what Prometheus reads, and where |
| [`retry`] | pauses between attempts: the one backoff |
| [`app`], [`cli`] | the wiring, and the commands |"
)]

// For what unit tests share with integration tests.
#[cfg(test)]
extern crate self as camscribe;

pub mod bench;
pub mod camera;
#[cfg(feature = "daemon")]
pub mod capture;
pub mod clip;
pub mod describe;
pub mod device;
pub mod event;
pub mod events;
pub mod frame;
pub mod gate;
pub mod heartbeat;
pub mod interval;
pub mod logging;
pub mod nn;
pub mod prompt_spec;
pub mod queue;
pub mod resize;

#[cfg(feature = "daemon")]
pub mod app;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
pub mod hub;
#[cfg(feature = "daemon")]
pub mod lifecycle;
#[cfg(feature = "daemon")]
pub mod metrics;
#[cfg(feature = "daemon")]
pub mod publish;
#[cfg(feature = "daemon")]
pub mod retry;
#[cfg(feature = "daemon")]
pub mod runtime_settings;
#[cfg(feature = "daemon")]
pub mod shutdown;
