//! What comes before the network equals the reference, by its tables in `tests/golden-data/common`: frame
//! sampling, wording, prompts and pixels.

use std::{fs, path::Path, time::Duration};

use camscribe::{
    describe::{
        Footage,
        smolvlm::{
            config::{ModelConfig, ProcessorConfig},
            preprocess::Preprocessor,
            prompt::{Message, Part, Prompter, Role},
            sampling::FrameSampling,
        },
    },
    resize::RgbImage,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::picture::frame;

fn table(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-data/common").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn load(dir: &Path) -> (ModelConfig, ProcessorConfig, Prompter) {
    let model = ModelConfig::load(dir).unwrap();
    let processor = ProcessorConfig::load(dir, &model).unwrap();
    let prompter = Prompter::load(dir, &model, &processor).unwrap();
    (model, processor, prompter)
}

fn shapes() -> (ModelConfig, ProcessorConfig, Prompter) {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn number(v: &Value, key: &str) -> u32 {
    u32::try_from(v[key].as_u64().unwrap()).unwrap()
}

#[test]
fn frames_of_a_file_are_sampled_as_by_the_reference() {
    for row in table("sampling.json").as_array().unwrap() {
        let footage = Footage {
            frames: row["total_num_frames"].as_u64().unwrap(),
            fps: row["fps"].as_f64().unwrap(),
            duration: row["duration"].as_f64().unwrap(),
        };
        let sampling = FrameSampling {
            fps: row["target_fps"].as_f64().unwrap(),
            max_frames: row["num_frames"].as_u64().unwrap() as usize,
            skip: row["skip_secs"].as_f64().unwrap(),
        };
        assert_eq!(serde_json::json!(sampling.indices(footage)), row["indices"], "{row}");
    }
}

#[test]
fn counts_durations_and_timestamps_are_worded_as_by_the_reference() {
    let (_, _, prompter) = shapes();
    let intro = |times: Vec<Duration>, duration| {
        let part = Part::Video { times, duration };
        let prompt = prompter.build(&[Message { role: Role::User, parts: vec![part] }]).unwrap();
        prompt.text
    };
    let words = table("words.json");
    for (count, word) in words["frame_count"].as_object().unwrap() {
        let text = intro(vec![Duration::ZERO; count.parse().unwrap()], Duration::ZERO);
        assert!(
            text.contains(&format!(" following series of {} frames from a ", word.as_str().unwrap())),
            "{text}"
        );
    }
    for (seconds, word) in words["duration"].as_object().unwrap() {
        let text = intro(vec![], Duration::from_millis(seconds.parse::<u64>().unwrap() * 1000 + 999));
        assert!(
            text.contains(&format!(" frames from a {} [H:MM:SS] video.\n", word.as_str().unwrap())),
            "{text}"
        );
    }
    for (seconds, word) in words["timestamp"].as_object().unwrap() {
        let text = intro(vec![Duration::from_secs_f64(seconds.parse().unwrap())], Duration::ZERO);
        assert!(text.contains(&format!("\n\nFrame from {}:<fake_token", word.as_str().unwrap())), "{text}");
    }
}

/// Parses a conversation of the tables. `image` and `video` stand for its media.
fn conversation(messages: &Value, image: &Part, video: &Part) -> Vec<Message> {
    let part = |part: &Value| match part["type"].as_str().unwrap() {
        "text" => Part::Text(part["text"].as_str().unwrap().into()),
        "image" => image.clone(),
        "video" => video.clone(),
        other => panic!("unknown part {other}"),
    };
    let message = |m: &Value| Message {
        role: match m["role"].as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => panic!("unknown role {other}"),
        },
        parts: m["content"].as_array().unwrap().iter().map(part).collect(),
    };
    messages.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn conversations_are_formatted_as_by_the_reference() {
    let (_, processor, prompter) = shapes();
    let tile = format!(
        "<fake_token_around_image><global-img>{}<fake_token_around_image>",
        "<image>".repeat(processor.image_seq_len)
    );
    let video = "You are provided the following series of one frames from a 0:00:03 [H:MM:SS] video.\n\n\
                 Frame from 00:02:{tile}\n\n";
    for (name, case) in table("templates.json").as_object().unwrap() {
        let part = Part::Video { times: vec![Duration::from_secs(2)], duration: Duration::from_secs(3) };
        let messages = conversation(&case["messages"], &Part::Image { rows: 0, cols: 0 }, &part);
        let template = case["with_generation_prompt"].as_str().unwrap();
        let wanted = template.replace("<image>", "{tile}").replace("<video>", video).replace("{tile}", &tile);
        assert_eq!(prompter.build(&messages).unwrap().text, wanted, "{name}");
    }
}

#[test]
fn the_test_image_equals_the_references() {
    for row in table("frame_formula.json").as_array().unwrap() {
        let rgb = frame(number(row, "t"), number(row, "w"), number(row, "h"));
        assert_eq!(serde_json::json!(rgb[..12]), row["first"]);
        assert_eq!(sha256(&rgb), row["sha256_hwc_u8"]);
    }
}

#[test]
fn video_frames_become_the_references_tiles_byte_for_byte() {
    let (_, processor, _) = shapes();
    for row in table("resize.json").as_array().unwrap() {
        let config = ProcessorConfig {
            tile: number(row, "tile") as usize,
            video_edge: number(row, "longest_edge") as usize,
            ..processor.clone()
        };
        let (width, height) = (number(row, "w"), number(row, "h"));
        let rgb = frame(number(row, "t"), width, height);
        let preprocessor = Preprocessor::new(&config);
        let medium = preprocessor.frame(RgbImage::new(&rgb, width, height).unwrap());
        let tile = preprocessor.tiles(&[medium]).remove(0).bytes;
        assert_eq!(serde_json::json!(tile[..16]), row["first_row"], "{width}x{height}");
        assert_eq!(sha256(&tile), row["sha256_chw_u8"], "{width}x{height}");
    }
}
