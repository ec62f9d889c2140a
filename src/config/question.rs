//! `[questions.<name>]`: what cameras may ask about each clip, answered by probabilities; and which of these a camera
//! asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
};

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    prompt::{check_prompt, check_special_tokens},
    section::Section,
    text_file,
};
use crate::{calibration::Calibration, decision::Decision, prompt_spec::NamedQuestion};

/// The most questions of a camera.
pub const MAX_QUESTIONS: usize = 32;
/// How many answers a question may name.
const ANSWERS: RangeInclusive<usize> = 2..=20;
/// The longest answer, bytes.
const MAX_ANSWER_BYTES: usize = 100;

/// The key that each question must set.
pub const ASK: Key = Key::required("ask", Kind::Text, "What is asked about a clip");

/// The file of a question's calibration.
const CALIBRATION_FILE: &str = "calibration_file";
/// The longest such file, bytes: a hundred times what is written.
const MAX_CALIBRATION_BYTES: u64 = 256 << 10;

pub const KEYS: &[Key] = &[
    ASK,
    Key::new("answers", Kind::List, "", "The possible answers, 2 to 20; empty: yes and no"),
    Key::new(
        CALIBRATION_FILE,
        Kind::Text,
        "",
        "The file that `camscribe calibrate` has written for this question; empty: its probabilities are the model's",
    ),
];

/// The question of a checked section, without its calibration.
pub fn read(section: &Section, diagnostics: &mut Diagnostics) -> Decision {
    let instructions = section.text(ASK.name).trim().to_owned();
    if section.is_set(ASK.name)
        && let Err(why) = check_prompt(&instructions)
    {
        diagnostics.error(&section.entry(ASK.name).location, why);
    }
    let answers = section.list("answers");
    if !answers.is_empty()
        && let Err(why) = check_answers(answers)
    {
        let yes_or_no = "leave answers out for a question that is answered by yes or no";
        diagnostics.error(&section.entry("answers").location, format!("{why}; {yes_or_no}"));
    }
    Decision::among(instructions, answers)
}

/// The calibration of the question `decision`, whose checked section this is; a relative file is taken from `folder`.
pub fn read_calibration(
    section: &Section,
    decision: &Decision,
    folder: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<Calibration>> {
    let path = folder.join(section.optional(CALIBRATION_FILE)?);
    let read =
        text_file::read(&path, MAX_CALIBRATION_BYTES).map_err(|error| format!("cannot be read: {error}"));
    let calibration = read.and_then(|text| Calibration::parse(&text));
    let fitting = calibration.and_then(|it| it.check_question(decision).map(|()| it));
    let why = match fitting {
        Ok(calibration) => return Some(Arc::new(calibration)),
        Err(why) => why,
    };
    let text = format!("{} {why}: make it with `camscribe calibrate`, or remove the key", path.display());
    diagnostics.error(&section.entry(CALIBRATION_FILE).location, text);
    None
}

/// Checks that a model can choose from `answers`.
///
/// # Errors
/// What is wrong with them: the rest of a sentence that begins with their name.
pub fn check_answers(answers: &[String]) -> Result<(), String> {
    if !ANSWERS.contains(&answers.len()) {
        let (min, max) = (ANSWERS.start(), ANSWERS.end());
        return Err(format!("has {} of {min} to {max} answers", answers.len()));
    }
    let mut seen = BTreeSet::new();
    for (place, answer) in (1..).zip(answers) {
        // It may be long, or hold what disturbs a terminal.
        let wrong = |why: &str| Err(format!("number {place} of the answers {why}"));
        if answer.is_empty() || answer.trim() != answer {
            return wrong("is empty, or begins or ends with a space: write one such as \"half open\"");
        }
        if answer.len() > MAX_ANSWER_BYTES {
            return wrong(&format!("is {} bytes long; {MAX_ANSWER_BYTES} are allowed", answer.len()));
        }
        if answer.contains(char::is_control) {
            return wrong("holds a control character: remove it");
        }
        check_special_tokens(answer).or_else(|why| wrong(&why))?;
        if !seen.insert(answer.to_lowercase()) {
            return wrong(&format!("is {answer:?} again, or differs in case only: remove it"));
        }
    }
    Ok(())
}

/// The questions that the checked section of a camera names, in its order. `known`: all questions.
pub fn of_camera(
    section: &Section,
    known: &BTreeMap<String, NamedQuestion>,
    diagnostics: &mut Diagnostics,
) -> Vec<NamedQuestion> {
    let names = section.list("questions");
    if names.is_empty() && !section.bool("describe") {
        let why = "is false, and there is no question: name some in questions, or set describe = true";
        diagnostics.error(&section.entry("describe").location, why);
    }
    let location = &section.entry("questions").location;
    if names.len() > MAX_QUESTIONS {
        let why = format!("names {} questions; {MAX_QUESTIONS} are allowed for a camera", names.len());
        diagnostics.error(location, why);
    }
    let mut seen = BTreeSet::new();
    let mut questions = Vec::new();
    for name in names.iter().take(MAX_QUESTIONS) {
        match known.get(name) {
            _ if !seen.insert(name) => {
                diagnostics.error(location, format!("names {name:?} twice: remove one"));
            }
            None => diagnostics.error(location, unknown_question(name, known)),
            Some(asked) => questions.push(asked.clone()),
        }
    }
    questions
}

fn unknown_question(name: &str, known: &BTreeMap<String, NamedQuestion>) -> String {
    if known.is_empty() {
        return format!("there is no question {name:?}: write a section [questions.<name>] with its ask");
    }
    let known: Vec<_> = known.keys().map(String::as_str).collect();
    format!("there is no question {name:?}; there are {}", known.join(", "))
}

/// The possible answers to a question, as an alert names them.
pub fn answers(decision: &Decision) -> Vec<&str> {
    match decision {
        Decision::Predicate { .. } => vec!["yes", "no"],
        Decision::Choice { options, .. } | Decision::Score { levels: options, .. } => {
            options.iter().map(|option| option.label.as_str()).collect()
        }
    }
}
