//! The order of work of `alerts`: configuration, events, judgement, output.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use anyhow::{Context, bail};

use super::{
    args::{AlertsArgs, ReplayFormat},
    text,
};
use crate::{
    config::{self, Config},
    event::{Event, SCHEMA},
    events::{
        answers::calibrate_recorded,
        replay::{Recording, Rules},
    },
    json_input,
    logging::tell,
    plural::plural,
};

/// The name of standard input for `--replay`.
const STDIN: &str = "-";

/// Prints each switching of an alert and what became of each on standard output; on standard error, what could not be
/// judged.
///
/// # Errors
/// [`config::ConfigError`] with every error of the configuration; wrong options; when the events cannot be read, or a line
/// is none. All others are judged all the same.
pub fn run(args: &AlertsArgs) -> anyhow::Result<()> {
    let trial = args.trial()?;
    let loaded = config::load(args.config.as_deref())?;
    loaded.warnings.iter().for_each(tell);
    let rules = args.rules(&loaded.config, &trial)?;
    let name = args.replay.display();
    let (recording, wrong) = open(&args.replay)
        .and_then(|lines| read(lines, args, &loaded.config, &rules))
        .with_context(|| format!("the events in {name} cannot be read"))?;
    if let Some((camera, [one, other])) = recording.mixed() {
        bail!(
            "{name} has events of a camera {camera} from the nodes {one} and {other}: keep those of one node, such as \
             with grep '\"node\":\"{one}\"'"
        );
    }
    let replay = recording.replay(&rules);
    let mut out = io::stdout().lock();
    match args.format {
        ReplayFormat::Text => out.write_all(text::of(&replay).as_bytes())?,
        ReplayFormat::Json => {
            serde_json::to_writer_pretty(&mut out, &replay).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    text::notes(&replay.events).into_iter().for_each(tell);
    if wrong > 0 {
        bail!("left out of {name}, because they are no events: {}", plural(wrong, "line"));
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    Ok(match path.as_os_str() == STDIN {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(path)?)),
    })
}

/// Reads events of the cameras that are shown. Also returns how many lines are none; each is told.
fn read(
    lines: Box<dyn BufRead>,
    args: &AlertsArgs,
    config: &Config,
    rules: &Rules,
) -> io::Result<(Recording, usize)> {
    let (mut recording, mut wrong) = (Recording::default(), 0);
    for (number, line) in (1..).zip(lines.split(b'\n')) {
        let line = line?;
        // A topic that is cleared is an empty line.
        if line.trim_ascii().is_empty() {
            continue;
        }
        match event(&line) {
            Ok(mut event) if args.camera.as_ref().is_none_or(|camera| *camera == event.camera) => {
                if let Some(camera) = config.cameras.get(&event.camera) {
                    calibrate_recorded(&mut event, &camera.prompt_spec.questions);
                }
                recording.add(rules, event);
            }
            Ok(_) => {}
            Err(why) => {
                wrong += 1;
                tell(format_args!("line {number} is no event: {}", why.escape_debug()));
            }
        }
    }
    Ok((recording, wrong))
}

fn event(line: &[u8]) -> Result<Event, String> {
    let event: Event = json_input::from_slice(line).map_err(|mistake| mistake.to_string())?;
    if event.schema != SCHEMA {
        return Err(format!("schema is {}, and this camscribe knows {SCHEMA}", event.schema));
    }
    Ok(event)
}
