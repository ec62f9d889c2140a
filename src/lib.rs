//! camscribe: what cameras see, in words, over MQTT.
//!
//! Data flows one way, a stage a folder: **Frame → Clip → Prompt → Description → Event**.

#[cfg(feature = "daemon")]
pub mod capture;
pub mod clip;
pub mod describe;
pub mod event;
pub mod frame;
