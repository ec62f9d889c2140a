//! Bytes of a file that GStreamer is to read as others. The file itself stays as it is.

use gstreamer as gst;
use gstreamer::prelude::*;

/// The bytes to read at one place of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FilePatch {
    /// Bytes from the start of the file.
    pub at: u64,
    /// What stands there.
    pub bytes: Vec<u8>,
}

impl FilePatch {
    /// Changes what an element reads from a file.
    pub fn apply(self, source: &gst::Element) {
        let Some(pad) = source.static_pad("src") else { return };
        // GStreamer's demuxers pull; others have the file pushed to them.
        let which = gst::PadProbeType::BUFFER | gst::PadProbeType::PUSH | gst::PadProbeType::PULL;
        pad.add_probe(which, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
                self.write_into(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn write_into(&self, buffer: &mut gst::Buffer) {
        let (start, length) = (buffer.offset(), buffer.size() as u64);
        let end = self.at + self.bytes.len() as u64;
        if end <= start || self.at >= start.saturating_add(length) {
            return;
        }
        let Ok(mut content) = buffer.make_mut().map_writable() else { return };
        for (at, byte) in (self.at..).zip(&self.bytes) {
            let place = at.checked_sub(start).and_then(|i| content.get_mut(i as usize));
            if let Some(place) = place {
                *place = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_of_the_patch_change_wherever_buffers_begin() {
        gst::init().unwrap();
        let patch = FilePatch { at: 10, bytes: vec![1, 2, 3] };
        for (offset, expected) in [
            (10, [1, 2, 3, 0, 0, 0]),
            (8, [0, 0, 1, 2, 3, 0]),
            (5, [0, 0, 0, 0, 0, 1]),
            (12, [3, 0, 0, 0, 0, 0]),
            (4, [0; 6]),
            (13, [0; 6]),
        ] {
            let mut buffer = gst::Buffer::from_slice([0u8; 6]);
            buffer.get_mut().unwrap().set_offset(offset);
            patch.write_into(&mut buffer);
            assert_eq!(buffer.map_readable().unwrap().as_slice(), expected, "from {offset} on");
        }
    }
}
