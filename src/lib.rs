//! camscribe: what cameras see, in words, over MQTT.
//!
//! Data flows one way, a stage a folder: **Frame → Clip → Prompt → Description → Event**.

#[cfg(feature = "daemon")]
pub mod cli;
pub mod clip;
#[cfg(feature = "daemon")]
pub mod config;
pub mod describe;
pub mod event;
pub mod frame;
#[cfg(feature = "daemon")]
pub mod hub;
