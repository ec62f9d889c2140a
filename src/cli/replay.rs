//! `camscribe replay`: describes the frames of an event again, with the model that it names, and compares. Only reads: it
//! works while camscribe runs.

use std::io::{self, Write};

use anyhow::{Context, bail};
use clap::Args;
use uuid::Uuid;

use super::{
    history::{PlaceArgs, find, place::Place, text::on_one_line},
    usage::UsageError,
};
use crate::{
    answer::Description,
    app,
    calibration::CalibratedModel,
    config::ModelSettings,
    device::{DeviceChoice, DtypeChoice},
    event::{Event, EventKind, ModelInfo},
    history::{EventDetails, Reader, Replay, read_lossless},
    hub,
    logging::{self, tell},
    plural::plural,
    request::Picture,
};

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The event
    pub id: Uuid,
    /// Where the event's model is now, such as the folder that it was moved to [default: where the event says]
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// Where to compute: auto, cpu, cuda or cuda:N [default: as configured]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Compute in: auto, f32, bf16, f16 or q8 [default: as the event says]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<DtypeChoice>,
    /// Where the history is
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Prints what was said of the frames and what is said now, on standard output.
///
/// # Errors
/// When the event cannot be replayed; when other words are said now, or another answer is the likeliest.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    let place = Place::find(&args.place)?;
    let reader = place.reader()?;
    let EventDetails { event, frames, is_lossless, replay, .. } = find(&reader, args.id)?;
    let replay = replayable(&event, frames.len(), is_lossless, replay)?;
    let pictures = pictures(&reader, event.id, frames.len())?;
    drop(reader);
    let mut model = app::load_model(&settings(args, &event.model, place.model)?)?;
    let now = model.model();
    tell_differences(&event.model, &now);
    tell(format_args!(
        "describing {} again with {} on {}, {}",
        plural(pictures.len(), "frame"),
        now.id,
        now.device,
        now.dtype
    ));
    let request = replay.request(pictures);
    let said = model.answer(&[request], &mut |_, _| {})?.remove(0)?;
    let Comparison { lines, is_same } = compare(&event, &replay, &said);
    write!(io::stdout(), "{lines}")?;
    if !is_same {
        bail!("event {} is not described the same again: the lines above say what differs", event.id);
    }
    Ok(())
}

/// What it takes to describe the frames of an event again.
///
/// # Errors
/// Why they cannot be.
fn replayable(
    event: &Event,
    frames: usize,
    is_lossless: bool,
    replay: Option<Replay>,
) -> anyhow::Result<Replay> {
    let id = event.id;
    if event.kind == EventKind::Unchanged {
        let other = event.repeats.map(|other| format!(": camscribe replay {other}")).unwrap_or_default();
        bail!(
            "event {id} is of an unchanged clip, which the model did not see: replay the event that it repeats{other}"
        );
    }
    if frames == 0 {
        match event.evidence {
            Some(_) => bail!("the frames of event {id} have been deleted, so it cannot be replayed"),
            None => bail!(
                "event {id} has no frames, so it cannot be replayed: history.frames of the configuration says of which \
                 events they are kept"
            ),
        }
    }
    if !is_lossless {
        bail!(
            "the frames of event {id} are JPEG, in which the model would see other pixels: set history.frame_format = \
             \"lossless\" for events that are to be replayed"
        );
    }
    let replay =
        replay.with_context(|| format!("what was asked about the frames of event {id} cannot be read"))?;
    if replay.offsets_ns.len() != frames {
        bail!("event {id} had {}, and {frames} are left", plural(replay.offsets_ns.len(), "frame"));
    }
    Ok(replay)
}

fn pictures(reader: &Reader, id: Uuid, count: usize) -> anyhow::Result<Vec<Picture>> {
    let picture = |number| {
        let frame = reader.frame(id, number)?.context("the frames have just been forgotten")?;
        read_lossless(&frame.bytes).with_context(|| format!("frame {number} of event {id} cannot be used"))
    };
    (0..count).map(picture).collect()
}

/// The settings of the event's model.
///
/// # Errors
/// When `--model` names another one, or the model is not on this machine.
fn settings(
    args: &ReplayArgs,
    of_event: &ModelInfo,
    configured: ModelSettings,
) -> anyhow::Result<ModelSettings> {
    let id = args.model.as_ref().unwrap_or(&of_event.id);
    let revision = match of_event.revision.is_empty() {
        true => configured.revision,
        false => of_event.revision.clone(),
    };
    let found = hub::resolve(id, &revision).with_context(|| {
        format!(
            "the model of the event, {}, cannot be found: --model says where it is now",
            CalibratedModel::from(of_event).named()
        )
    })?;
    // What has no revision is a folder, or the model inside this program: the words will tell.
    let is_other = (&found.id, &found.revision) != (&of_event.id, &of_event.revision);
    if is_other && !found.revision.is_empty() && !of_event.revision.is_empty() {
        let why = format!("--model: the event is of {}, and {id} is another model", of_event.id);
        return Err(UsageError(why).into());
    }
    let dtype = match args.dtype {
        Some(dtype) => dtype,
        None => of_event
            .dtype
            .parse()
            .context("the event names a number format that this camscribe does not know")?,
    };
    let device = args.device.unwrap_or(configured.device);
    dtype.check(device).map_err(|why| UsageError(why.to_string()))?;
    Ok(ModelSettings { id: id.clone(), revision, device, dtype, max_batch: 1, ..configured })
}

/// Tells what may make a difference.
fn tell_differences(then: &ModelInfo, now: &ModelInfo) {
    let pairs = [
        ("model", &then.id, &now.id),
        ("device", &then.device, &now.device),
        ("number format", &then.dtype, &now.dtype),
    ];
    for (what, then, now) in pairs.into_iter().filter(|(_, then, now)| then != now) {
        let then = on_one_line(then);
        tell(format_args!(
            "warning: the {what} was {then}, and is {now} now: what is said may differ for that"
        ));
    }
}

/// What was said then beside what is said now.
struct Comparison {
    /// For people.
    lines: String,
    is_same: bool,
}

fn compare(event: &Event, replay: &Replay, now: &Description) -> Comparison {
    let (mut lines, mut is_same) = (String::new(), true);
    let was_described = replay.max_tokens > 0;
    if was_described && event.description == now.text {
        lines += &format!("the same words: {}\n", on_one_line(&now.text));
    } else if was_described {
        is_same = false;
        lines += &format!(
            "other words\n  then: {}\n  now:  {}\n",
            on_one_line(&event.description),
            on_one_line(&now.text)
        );
    }
    let mut largest: Option<f32> = None;
    for (number, (question, labels)) in replay.questions.iter().enumerate() {
        let question = on_one_line(&question.split_whitespace().collect::<Vec<_>>().join(" "));
        let both = replay.labels.get(number).zip(now.labels.get(number));
        let Some((then, now)) = both.filter(|(then, now)| then.len() == now.len()) else {
            is_same = false;
            lines += &format!("{question} the probabilities cannot be compared\n");
            continue;
        };
        let label =
            |logs: &[f32]| likeliest(logs).and_then(|it| labels.get(it)).map(|it| on_one_line(it.trim()));
        let [said, says] = [then, now].map(|logs| label(logs).unwrap_or_default());
        is_same &= said == says;
        lines += &match said == says {
            true => format!("{question} {says}, the same\n"),
            false => format!("{question} another answer\n  then: {said}\n  now:  {says}\n"),
        };
        // One that is no number is the largest, so that it is seen.
        let difference = then.iter().zip(now).map(|(then, now)| (then - now).abs()).max_by(f32::total_cmp);
        largest = largest.into_iter().chain(difference).max_by(f32::total_cmp);
    }
    lines += &match largest {
        Some(0.0) => "the probabilities are the same\n".into(),
        Some(largest) => format!("the logarithms of the probabilities differ by at most {largest:.1e}\n"),
        None => String::new(),
    };
    Comparison { lines, is_same }
}

/// The place of the largest number.
fn likeliest(logs: &[f32]) -> Option<usize> {
    logs.iter().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        answer::StageTimes,
        event::{FinishReason, Tokens},
    };

    fn event(kind: &str, description: &str) -> Event {
        let time = "2026-03-01T08:00:00.000Z";
        let event = json!({
            "schema": 1, "id": "00000000-0000-7000-8000-000000000001", "type": kind, "node": "n", "camera": "porch",
            "description": description, "prompt": "?", "repeats": "00000000-0000-7000-8000-000000000002",
            "clip": {"seq": 0, "start": time, "end": time, "clock": "camera", "frames": [], "width": 4, "height": 2,
                "gap": false},
            "finish_reason": "stop", "model": {"id": "m", "revision": "", "device": "cpu", "dtype": "f32"},
            "tokens": {"prompt": 1, "image": 1, "generated": 1},
            "timing_ms": {"queued": 0, "preprocess": 0, "vision": 0, "prefill": 0, "decode": 0, "total": 0},
            "dropped": {"clips": 0, "failed": 0},
        });
        serde_json::from_value(event).unwrap()
    }

    fn replay(labels: Vec<Vec<f32>>) -> Replay {
        Replay {
            prompt: "?".into(),
            max_tokens: 8,
            questions: vec![("Is it?\nSay it.".into(), vec!["Yes".into(), "No".into()])],
            duration_ns: Duration::from_secs(4).as_nanos() as u64,
            offsets_ns: vec![0, 1],
            labels,
        }
    }

    fn said(text: &str, labels: Vec<Vec<f32>>) -> Description {
        Description {
            text: text.into(),
            labels,
            finish_reason: FinishReason::Stop,
            tokens: Tokens::default(),
            stages: StageTimes::default(),
        }
    }

    #[test]
    fn the_same_words_and_answers_are_the_same_whatever_little_the_numbers_differ() {
        let then = replay(vec![vec![-0.5, -1.0]]);
        let Comparison { lines, is_same } =
            compare(&event("description", "A box."), &then, &said("A box.", vec![vec![-0.5, -0.75]]));
        assert_eq!(
            (lines.as_str(), is_same),
            (
                "the same words: A box.\nIs it? Say it. Yes, the same\n\
                 the logarithms of the probabilities differ by at most 2.5e-1\n",
                true
            )
        );
    }

    #[test]
    fn other_words_or_another_answer_are_shown_beside_those_of_then() {
        let compared = |now: Description| {
            compare(&event("description", "A box.\u{9b}"), &replay(vec![vec![-0.5, -1.0]]), &now)
        };
        let Comparison { lines, is_same } = compared(said("A cat.", vec![vec![-0.5, -1.0]]));
        assert!(
            !is_same && lines.starts_with("other words\n  then: A box.\\u{9b}\n  now:  A cat.\n"),
            "{lines}"
        );
        let Comparison { lines, is_same } = compared(said("A box.\u{9b}", vec![vec![-2.0, -1.0]]));
        assert!(!is_same && lines.contains("another answer\n  then: Yes\n  now:  No\n"), "{lines}");
        let Comparison { lines, is_same } = compared(said("A box.\u{9b}", vec![]));
        assert!(!is_same && lines.contains("cannot be compared"), "{lines}");
    }

    #[test]
    fn what_cannot_be_replayed_says_why_and_what_to_do() {
        let kept = || Some(replay(Vec::new()));
        let why = |event: &Event, frames, is_lossless, replay| {
            replayable(event, frames, is_lossless, replay).unwrap_err().to_string()
        };
        let described = event("description", "x");
        assert!(replayable(&described, 2, true, kept()).is_ok());
        let unchanged = why(&event("unchanged", "x"), 0, false, None);
        assert!(
            unchanged.ends_with("repeats: camscribe replay 00000000-0000-7000-8000-000000000002"),
            "{unchanged}"
        );
        assert!(why(&described, 0, false, None).contains("history.frames"));
        assert!(why(&described, 2, false, kept()).contains("history.frame_format = \"lossless\""));
        assert!(why(&described, 2, true, None).contains("cannot be read"));
        assert!(why(&described, 1, true, kept()).ends_with("had 2 frames, and 1 are left"));
    }
}
