//! From cameras to clips. The only module that imports GStreamer.
//!
//! [`run`] plays the source of a [`CameraConfig`], hands its clips to the caller's sink, and reports a
//! [`CameraStatus`](crate::camera::CameraStatus) on a watch channel. Decoding and windowing happen on
//! GStreamer's own threads; [`run`] supervises and reconnects.
//!
//! | file | what it does |
//! |---|---|
//! | `camera_config` | what capture has to know about a camera |
//! | `supervise` | opens a source again and again until it ends or is cancelled |
//! | `survey`, `mp4`, `matroska`, `file_patch` | what has to be known of a file before it is played, or read differently |
//! | `run_once`, `bus`, `playing_time` | one run of one pipeline: start, watch, stop |
//! | `init`, `pipeline`, `pipeline_files`, `rtspsrc`, `test_source`, `shapes` | starts GStreamer and builds the pipeline of a source |
//! | `rtsp_relay/` | stands between GStreamer's RTSP client and the camera |
//! | `autoplug` | what GStreamer may add to it |
//! | `rtp` | pure: puts a camera's RTP packets in order |
//! | `sdp`, `picture_size` | completes a camera's description of its streams, and chooses the stream to ask for |
//! | `colorimetry` | what the values of YUV frames mean, where a stream does not say |
//! | `pixels` | the pixels of decoded frames, as RGB |
//! | `stream_probes`, `clip_assembler`, `inspect` | drops what no clip wants, turns samples into frames and clips |
//! | `keyframe_policy`, `stall`, `timestamper`, `camera_clock`, `file_time` | what to decode, whether a stream is alive, when a frame was captured |
//! | `parameter_sets` | pure: whether a camera sends what its pictures need to be decoded |
//! | `error`, `diagnose`, `preflight`, `network` | what went wrong, in words that help |
//! | `sniff` | whether a file is a video at all |
//! | `probe`, `reference` | other ways to play a source: a short look, or single frames of a whole file |

mod autoplug;
mod bus;
mod camera_clock;
mod camera_config;
mod clip_assembler;
mod colorimetry;
mod diagnose;
mod error;
mod file_patch;
mod file_time;
mod init;
mod inspect;
mod keyframe_policy;
mod matroska;
mod mp4;
mod network;
mod parameter_sets;
mod picture_size;
mod pipeline;
mod pipeline_files;
mod pixels;
mod playing_time;
mod preflight;
mod probe;
mod reference;
mod rtp;
mod rtsp_relay;
mod rtspsrc;
mod run_once;
mod sdp;
mod shapes;
mod sniff;
mod stall;
mod stream_probes;
mod supervise;
mod survey;
mod test_source;
mod timestamper;

pub use camera_config::CameraConfig;
pub use error::CaptureError;
pub use pipeline::check_pipeline;
pub use pipeline_files::PipelineError;
pub use probe::{CameraFacts, probe};
pub use reference::{ReadBounds, VideoInfo, read_frames_at, read_frames_within};
pub use sniff::is_video;
pub use supervise::{Summary, run};
