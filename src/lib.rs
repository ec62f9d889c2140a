//! camscribe: what cameras see, in words, over MQTT.
//!
//! Data flows one way, a stage a folder: **Frame → Clip → Prompt → Description → Event**.

pub mod clip;
pub mod describe;
pub mod event;
pub mod frame;
#[cfg(feature = "daemon")]
pub mod publish;
pub mod queue;
