//! What the worker remembers of each camera in order to leave out clips in which nothing has changed.

use std::collections::BTreeMap;

use crate::{camera::CameraId, clip::Clip, gate::Fingerprint};

/// The last described clip of every camera that has a gate.
#[derive(Default)]
pub struct ChangeGate {
    described: BTreeMap<CameraId, Described>,
}

struct Described {
    seq: u64,
    fingerprint: Fingerprint,
}

impl ChangeGate {
    /// Whether `clip`, which looks like `fingerprint`, shows nothing new since the last described clip of its camera. A
    /// camera that was restarted counts its clips from 0 again and may look somewhere else: then it is false.
    pub fn is_unchanged(&self, clip: &Clip, fingerprint: &Fingerprint) -> bool {
        self.described
            .get(&clip.camera)
            .is_some_and(|described| clip.seq > described.seq && fingerprint.repeats(&described.fingerprint))
    }

    /// Remembers a clip that was described. `fingerprint` is None if its camera has no gate.
    pub fn described(&mut self, clip: &Clip, fingerprint: Option<Fingerprint>) {
        match fingerprint {
            Some(fingerprint) => {
                let described = Described { seq: clip.seq, fingerprint: fingerprint.keep_last_frame() };
                self.described.insert(clip.camera.clone(), described);
            }
            None => drop(self.described.remove(&clip.camera)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chrono::DateTime;

    use super::{super::warm_up::grey_clip, *};
    use crate::prompt_spec::{GateConfig, PromptSpec};

    fn clip(seq: u64) -> Clip {
        let gate = GateConfig { threshold: 10, heartbeat: Duration::from_secs(600) };
        let prompt_spec = Arc::new(PromptSpec { gate: Some(gate), ..PromptSpec::new("What?", 1) });
        Clip { seq, start: DateTime::UNIX_EPOCH, prompt_spec, ..grey_clip().unwrap() }
    }

    #[test]
    fn a_restarted_camera_is_described_again() {
        let mut gate = ChangeGate::default();
        let is_unchanged =
            |gate: &ChangeGate, seq| gate.is_unchanged(&clip(seq), &Fingerprint::of(&clip(seq)).unwrap());
        assert!(!is_unchanged(&gate, 4));
        gate.described(&clip(4), Fingerprint::of(&clip(4)));
        assert!(is_unchanged(&gate, 5));
        assert!(!is_unchanged(&gate, 0));
        gate.described(&clip(5), None);
        assert!(!is_unchanged(&gate, 6));
    }
}
