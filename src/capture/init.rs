//! GStreamer's initialisation.

use std::sync::Once;

use gstreamer as gst;
use gstreamer::glib;

use super::error::CaptureError;

/// Initialises GStreamer. What its libraries would print on standard error goes into our log from then on.
///
/// # Errors
/// If GStreamer cannot be used.
pub(super) fn init() -> Result<(), CaptureError> {
    static LOG: Once = Once::new();
    gst::init().map_err(CaptureError::Gstreamer)?;
    LOG.call_once(|| {
        glib::log_set_default_handler(|domain, level, text| {
            let domain = domain.unwrap_or("GStreamer");
            match level {
                glib::LogLevel::Error | glib::LogLevel::Critical => {
                    tracing::warn!("{domain} reports a fault of its own: {text}");
                }
                _ => tracing::debug!("{domain}: {text}"),
            }
        });
    });
    Ok(())
}
