//! A live RTSP camera, and its descriptions as a subscriber receives them.

use std::collections::BTreeSet;

use camscribe::event::Event;

use super::broker::Received;

/// The stream of the camera: 320x240 pixels, 10 frames per second, a keyframe a second.
pub const STREAM: &str = "videotestsrc is-live=true pattern=ball \
     ! video/x-raw,format=I420,width=320,height=240,framerate=10/1 \
     ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96";

/// The descriptions of one camera, each once, in the order in which they first arrived.
pub fn events(messages: &[Received], camera: &str) -> Vec<Event> {
    let (topic, mut ids) = (format!("camscribe/edge1/{camera}/description"), BTreeSet::new());
    let all = messages.iter().filter(|m| m.topic == topic);
    let all = all.map(|m| serde_json::from_value::<Event>(m.json()).unwrap());
    all.filter(|event| ids.insert(event.id)).collect()
}

/// Asserts that no clip is missing but those that are counted as dropped.
pub fn assert_whole(events: &[Event]) {
    assert!(events.len() > 3, "{}", events.len());
    for pair in events.windows(2) {
        assert_eq!(pair[1].clip.seq, pair[0].clip.seq + 1 + pair[1].dropped.clips);
    }
}

/// A condition for [`Subscriber::until`](super::broker::Subscriber::until): a description of this camera.
pub fn described(camera: &str) -> impl FnMut(&Received) -> bool {
    let topic = format!("camscribe/edge1/{camera}/description");
    move |m| m.topic == topic
}
