//! Videos of the built-in test source's moving shapes: raw frames, and H.264 files.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use camscribe::config::{Origin, ParsedSource, test_source::TestContent};

use super::video::launch;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
const FPS: u32 = 25;

/// Returns the elements that read the file of [`raw`].
pub fn parse() -> String {
    format!("rawvideoparse format=rgb width={WIDTH} height={HEIGHT} framerate={FPS}/1 ! videoconvert")
}

/// Writes one period of `test://shapes?…` as raw RGB frames. Returns the path.
pub fn raw(folder: &Path, scene: &str, seconds: u32) -> PathBuf {
    let ParsedSource { source, .. } = format!("test://shapes?{scene}&period={seconds}s").parse().unwrap();
    let Origin::Synthetic(test) = source.origin().clone() else { panic!("{scene} is synthetic") };
    let TestContent::Shapes(script) = test.content else { panic!("{scene} shows shapes") };
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
