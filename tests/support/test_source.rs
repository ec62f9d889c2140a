//! Videos of the built-in test source's moving shapes: raw frames, and H.264 files.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use camscribe::config::{
    Origin, ParsedSource,
    test_source::{Script, TestContent},
};

use super::video::launch;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
const FPS: u32 = 25;

/// Returns the elements that read the file of [`raw`].
pub fn parse() -> String {
    format!("rawvideoparse format=rgb width={WIDTH} height={HEIGHT} framerate={FPS}/1 ! videoconvert")
}

/// What `test://shapes?…` shows.
fn script(options: &str) -> Script {
    let ParsedSource { source, .. } = format!("test://shapes?{options}").parse().unwrap();
    let Origin::Synthetic(test) = source.origin().clone() else { panic!("{options} is synthetic") };
    let TestContent::Shapes(script) = test.content else { panic!("{options} shows shapes") };
    script
}

/// The first frame of a scene, RGB, in the size of [`live`].
pub fn frame(scene: &str) -> Vec<u8> {
    let mut rgb = vec![0; (WIDTH * HEIGHT * 3) as usize];
    script(scene).draw(Duration::ZERO, WIDTH, HEIGHT, &mut rgb);
    rgb
}

/// The stream of a live camera that shows what [`RtspServer::show`](super::rtsp::RtspServer::show) was given.
pub fn live() -> String {
    format!(
        "videotestsrc is-live=true ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=10/1 \
         ! identity name=picture ! videoconvert ! video/x-raw,format=I420 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96"
    )
}

/// Writes one period of `test://shapes?…` as raw RGB frames. Returns the path.
pub fn raw(folder: &Path, scene: &str, seconds: u32) -> PathBuf {
    let script = script(&format!("{scene}&period={seconds}s"));
    let path = folder.join("scene.rgb");
    let mut out = BufWriter::new(File::create(&path).unwrap());
    let mut rgb = vec![0; (WIDTH * HEIGHT * 3) as usize];
    for n in 0..seconds * FPS {
        script.draw(Duration::from_secs(n.into()) / FPS, WIDTH, HEIGHT, &mut rgb);
        out.write_all(&rgb).unwrap();
    }
    out.flush().unwrap();
    path
}

/// Writes the same as an H.264 file. Returns the path.
pub fn h264(folder: &Path, scene: &str, seconds: u32) -> PathBuf {
    let (raw, film) = (raw(folder, scene, seconds), folder.join("scene.mp4"));
    launch(&format!(
        "filesrc location={} ! {} ! x264enc speed-preset=veryfast key-int-max=25 ! h264parse ! mp4mux \
         ! filesink location={}",
        raw.display(),
        parse(),
        film.display()
    ));
    film
}
