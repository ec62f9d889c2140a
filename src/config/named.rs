//! Reads the sections that people name: questions, cameras, and the masks and alerts of cameras.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    alert,
    camera::CameraSettings,
    diagnostic::{Diagnostics, Location},
    layers::Layers,
    mask, question,
    schema::{self, Group, SectionSchema},
    section::Section,
};
use crate::{alert::AlertRule, camera::CameraId, prompt_spec::NamedQuestion, view::View};

/// The most alerts of a camera.
const MAX_ALERTS: usize = 32;

/// The most masks of a camera.
const MAX_MASKS: usize = 32;

/// All of these sections, read.
pub struct Named {
    /// All questions, by name.
    pub questions: BTreeMap<String, NamedQuestion>,
    /// The settings of all cameras.
    pub cameras: BTreeMap<CameraId, CameraSettings>,
    /// The checked sections: the questions', then each camera's with those of its masks and alerts.
    pub sections: Vec<(&'static SectionSchema, Section)>,
}

/// Reads all sections that people name. Cameras inherit from `defaults`; relative files are taken from `folder`.
/// `calibrated`: whether the calibrations of questions are read.
pub fn read(
    layers: &Layers,
    defaults: &Section,
    folder: &Path,
    calibrated: bool,
    diagnostics: &mut Diagnostics,
) -> Named {
    let mut reader = Reader { layers, diagnostics, sections: Vec::new() };
    let questions = reader.questions(calibrated.then_some(folder));
    let cameras = reader.cameras(defaults, folder, &questions);
    reader.warn_of_idle(&questions, &cameras);
    Named { questions, cameras, sections: reader.sections }
}

struct Reader<'a> {
    layers: &'a Layers,
    diagnostics: &'a mut Diagnostics,
    sections: Vec<(&'static SectionSchema, Section)>,
}

impl<'a> Reader<'a> {
    /// All questions. Their calibrations are read from `folder`, unless that is `None`.
    fn questions(&mut self, folder: Option<&Path>) -> BTreeMap<String, NamedQuestion> {
        let mut questions = BTreeMap::new();
        for name in self.names(schema::QUESTIONS.name) {
            let section = self.section(&schema::QUESTIONS, schema::QUESTIONS.name, name, None);
            let decision = question::read(&section, self.diagnostics);
            let calibration = folder
                .and_then(|folder| question::read_calibration(&section, &decision, folder, self.diagnostics));
            questions.insert(name.into(), NamedQuestion { name: name.into(), decision, calibration });
            self.sections.push((&schema::QUESTIONS.section, section));
        }
        questions
    }

    fn cameras(
        &mut self,
        defaults: &Section,
        folder: &Path,
        questions: &BTreeMap<String, NamedQuestion>,
    ) -> BTreeMap<CameraId, CameraSettings> {
        let mut cameras = BTreeMap::new();
        for name in self.names(schema::CAMERAS.name) {
            let mut section = self.section(&schema::CAMERAS, schema::CAMERAS.name, name, Some(defaults));
            let mut camera = CameraSettings::read(&mut section, folder, self.diagnostics);
            camera.prompt_spec.questions = question::of_camera(&section, questions, self.diagnostics);
            let path = section.path().to_owned();
            let crop = mask::read_crop(&section, self.diagnostics);
            self.sections.push((&schema::CAMERAS.section, section));
            camera.view = self.view(&path, View { crop, ..View::default() });
            camera.prompt_spec.alerts = self.alerts(&path, &camera.prompt_spec.questions);
            // The layers have checked it.
            if let Ok(id) = name.parse() {
                cameras.insert(id, camera);
            }
        }
        cameras
    }

    /// What is seen of the camera whose section is at `path`: its masks are added to those of `view`.
    fn view(&mut self, path: &str, mut view: View) -> Option<Arc<View>> {
        let table = format!("{path}.{}", schema::MASKS.name);
        for (count, name) in self.names(&table).into_iter().enumerate() {
            let section = self.section(&schema::MASKS, &table, name, None);
            if count == MAX_MASKS {
                let location = &section.entry(mask::POLYGON.name).location;
                self.diagnostics
                    .error(location, format!("the camera has more than {MAX_MASKS} masks: remove some"));
                break;
            }
            mask::add(&section, name, &mut view, self.diagnostics);
            self.sections.push((&schema::MASKS.section, section));
        }
        (!view.is_whole()).then(|| Arc::new(view))
    }

    /// The alerts of the camera whose section is at `path`, and which asks `questions`.
    fn alerts(&mut self, path: &str, questions: &[NamedQuestion]) -> BTreeMap<String, AlertRule> {
        let table = format!("{path}.{}", schema::ALERTS.name);
        let mut alerts = BTreeMap::new();
        for name in self.names(&table) {
            let section = self.section(&schema::ALERTS, &table, name, None);
            if alerts.len() == MAX_ALERTS {
                let location = &section.entry(alert::QUESTION.name).location;
                let why = format!("the camera has more than {MAX_ALERTS} alerts: remove some");
                self.diagnostics.error(location, why);
            }
            alerts.insert(name.into(), alert::read(&section, questions, self.diagnostics));
            self.sections.push((&schema::ALERTS.section, section));
        }
        alerts
    }

    /// The names of the sections in the group at `table`. Refuses two that a variable's name cannot tell apart, since
    /// it cannot hold `-`.
    fn names(&mut self, table: &str) -> Vec<&'a str> {
        let names: Vec<_> = self.layers.declared.names(table).collect();
        let mut in_variables = BTreeMap::new();
        for name in &names {
            let Some(other) = in_variables.insert(name.replace('-', "_"), name) else { continue };
            let text = format!(
                "differs from {name:?} by \"-\" and \"_\" only, which the environment cannot tell apart: choose \
                 another name"
            );
            self.diagnostics.error(&Location::Unset { key: format!("{table}.{other}") }, text);
        }
        names
    }

    /// The checked section `name` of the group at `table`, which inherits from `fallback`.
    fn section(&mut self, group: &Group, table: &str, name: &str, fallback: Option<&Section>) -> Section {
        let path = format!("{table}.{name}");
        let set = self.layers.section(&path);
        let section = Section::check(&path, group.section.keys, &set, fallback, self.diagnostics);
        let Group { noun, required, required_example, .. } = *group;
        if !set.contains_key(required) {
            let why =
                format!("is missing: every {noun} needs one, such as {required} = {required_example:?}");
            self.diagnostics.error(&section.entry(required).location, why);
        }
        section
    }

    /// Warns of what is configured in vain.
    fn warn_of_idle(
        &mut self,
        questions: &BTreeMap<String, NamedQuestion>,
        cameras: &BTreeMap<CameraId, CameraSettings>,
    ) {
        let asked = cameras.values().flat_map(|camera| &camera.prompt_spec.questions);
        let asked: BTreeSet<_> = asked.map(|question| &question.name).collect();
        // The questions' sections come first, in the same order.
        let sections = questions.keys().zip(&self.sections);
        for (name, (_, section)) in sections.filter(|(name, _)| !asked.contains(name)) {
            let location = &section.entry(question::ASK.name).location;
            let why =
                format!("no camera asks it: write {name:?} into the questions of one, or of [defaults]");
            self.diagnostics.warning(location, why);
        }
        if !cameras.is_empty() && cameras.values().all(|camera| !camera.enabled) {
            let location = Location::Unset { key: schema::CAMERAS.name.into() };
            self.diagnostics.warning(&location, "no camera is enabled: nothing is watched");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{
        config::{ConfigError, Loaded, load},
        decision::{Choice, Decision},
    };

    const PARCEL: &str = "[questions.parcel]\nask = \"Is there a parcel?\"\n";
    const GATE: &str =
        "[questions.gate]\nask = \"Is the gate open?\"\nanswers = [\"open\", \"half open\", \"closed\"]\n";
    const PORCH: &str = "[cameras.porch]\nuri = \"test://shapes\"\n";

    fn read(toml: &str) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, toml).unwrap();
        load(Some(&file))
    }

    fn camera(toml: &str) -> CameraSettings {
        read(toml).unwrap().config.cameras.into_values().next().unwrap()
    }

    #[test]
    fn a_camera_asks_the_questions_of_its_list_else_those_of_the_defaults_in_their_order() {
        let file =
            |own: &str| format!("{GATE}{PARCEL}[defaults]\nquestions = [\"parcel\", \"gate\"]\n{PORCH}{own}");
        let option = |label: &str| Choice { label: label.into(), description: None };
        let parcel = NamedQuestion {
            name: "parcel".into(),
            decision: Decision::Predicate { instructions: "Is there a parcel?".into() },
            calibration: None,
        };
        let gate = NamedQuestion {
            name: "gate".into(),
            decision: Decision::Choice {
                instructions: "Is the gate open?".into(),
                options: ["open", "half open", "closed"].map(option).into(),
            },
            calibration: None,
        };
        let spec = camera(&file("")).prompt_spec;
        assert_eq!((spec.describe, spec.questions), (true, vec![parcel.clone(), gate.clone()]));
        let spec = camera(&file("describe = false\nquestions = [\"gate\"]\n")).prompt_spec;
        assert_eq!((spec.describe, spec.questions), (false, vec![gate]));
        assert!(spec.prompt.starts_with("Describe"), "the prompt stays: {}", spec.prompt);
        assert_eq!(camera(&file("questions = []\n")).prompt_spec.questions, []);
    }

    #[test]
    fn an_alert_has_the_defaults_of_what_is_not_set() {
        let file = |own: &str| {
            format!(
                "{PARCEL}{GATE}{PORCH}questions = [\"parcel\", \"gate\"]\n[cameras.porch.alerts.a-1]\n{own}"
            )
        };
        let plain = AlertRule {
            question: "parcel".into(),
            answer: "yes".into(),
            on: 0.8,
            off: 0.5,
            of: 2,
            last: 3,
            min_confidence: 0.2,
            min_duration: Duration::ZERO,
            cool_down: Duration::ZERO,
            device_class: None,
        };
        let alerts = camera(&file("question = \"parcel\"\n")).prompt_spec.alerts;
        assert_eq!(alerts, BTreeMap::from([("a-1".into(), plain)]));
        let all = "question = \"gate\"\nanswer = \"half open\"\non = 1\noff = 1.0\nof = \"1/20\"\n\
                   min_confidence = 0\nmin_duration = \"1d\"\ncool_down = \"90s\"\ndevice_class = \"garage_door\"\n";
        let rule = AlertRule {
            question: "gate".into(),
            answer: "half open".into(),
            on: 1.0,
            off: 1.0,
            of: 1,
            last: 20,
            min_confidence: 0.0,
            min_duration: Duration::from_secs(24 * 3600),
            cool_down: Duration::from_secs(90),
            device_class: Some("garage_door".into()),
        };
        assert_eq!(camera(&file(all)).prompt_spec.alerts, BTreeMap::from([("a-1".into(), rule)]));
    }

    /// The file of a camera that asks a question with these keys.
    fn question_with(keys: &str) -> String {
        format!("[questions.q]\n{keys}\n{PORCH}questions = [\"q\"]\n")
    }

    #[test]
    fn each_error_in_a_question_is_told_with_its_line() {
        for (keys, key, text) in [
            (
                "answers = []",
                "c.toml: questions.q.ask",
                "is missing: every question needs one, such as ask = \"Is a",
            ),
            (r#"ask = " ""#, "c.toml:2: questions.q.ask", "is empty: write what to ask"),
            ("ask = 5", "c.toml:2: questions.q.ask", "needs text, not a number: write it in quotes"),
            (r#"ask = "a <image> b""#, "c.toml:2: questions.q.ask", "holds \"<image>\""),
            ("ask = \"a\"\nanswer = []", "c.toml:3: questions.q.answer", "did you mean answers?"),
        ] {
            assert_only_error(&question_with(keys), key, text);
        }
    }

    #[test]
    fn each_error_in_the_answers_to_a_question_is_told_with_its_line() {
        let list = |count: usize| format!("{:?}", (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
        let file = |answers: &str| question_with(&format!("ask = \"a\"\nanswers = {answers}"));
        for (answers, text) in [
            (r#""b""#, "not \"b\": write it in brackets"),
            (r#"["b", 5]"#, "number 2 of it is no text: write it in quotes"),
            (r#"[["b"]]"#, "number 1 of it is no text"),
            ("{ b = 1 }", "a list of texts, not a section"),
            (r#"["b"]"#, "has 1 of 2 to 20 answers"),
            (&list(21), "has 21 of 2 to 20 answers"),
            (r#"["b", "B"]"#, "number 2 of the answers is \"B\" again"),
            (r#"["", "b"]"#, "number 1 of the answers is empty"),
            (r#"["b", "c "]"#, "ends with a space"),
            (r#"["b", "c\nd"]"#, "holds a control character"),
            (r#"["b", "<|im_end|>"]"#, "is a special token"),
            (&format!("[\"b\", \"{}\"]", "x".repeat(101)), "is 101 bytes long; 100 are allowed"),
        ] {
            assert_only_error(&file(answers), "c.toml:3: questions.q.answers", text);
        }
        assert!(read(&file(&list(20))).is_ok());
    }

    fn assert_only_error(toml: &str, key: &str, text: &str) {
        let error = read(toml).expect_err(toml).to_string();
        assert!(error.contains(&format!("{key}: ")) && error.contains(text), "{toml}{error}");
        assert_eq!(error.lines().count(), 1, "{toml}{error}");
    }

    #[test]
    fn each_error_in_what_a_camera_asks_is_told_with_its_line() {
        let names: Vec<_> = (0..33).map(|n| format!("q{n}")).collect();
        let questions: String =
            names.iter().map(|name| format!("[questions.{name}]\nask = \"a\"\n")).collect();
        let line = questions.lines().count() + 3;
        let too_many = format!("{questions}{PORCH}questions = {names:?}\n");
        assert_only_error(
            &too_many,
            &format!("c.toml:{line}: cameras.porch.questions"),
            "names 33 questions; 32 are",
        );
        assert!(read(&format!("{questions}{PORCH}questions = {:?}\n", &names[..32])).is_ok());

        let file = |own: &str| format!("{PARCEL}{GATE}{PORCH}{own}");
        for (own, key, text) in [
            (
                "questions = [\"gat\"]",
                "c.toml:8: cameras.porch.questions",
                "there is no question \"gat\"; there are gate, parcel",
            ),
            (
                "questions = [\"gate\", \"gate\"]",
                "c.toml:8: cameras.porch.questions",
                "names \"gate\" twice: remove one",
            ),
            ("questions = \"gate\"", "c.toml:8: cameras.porch.questions", "write it in brackets"),
            ("questions = true", "c.toml:8: cameras.porch.questions", "needs a list of texts, not true"),
            (
                "describe = false",
                "c.toml:8: cameras.porch.describe",
                "there is no question: name some in questions",
            ),
        ] {
            assert_only_error(&file(own), key, text);
        }
        // Once, whatever number of cameras inherits it.
        let yard = "[cameras.yard]\nuri = \"test://shapes\"\n";
        let toml = format!("[defaults]\nquestions = [\"x\"]\n{PORCH}{yard}");
        assert_only_error(
            &toml,
            "c.toml:2: defaults.questions",
            "no question \"x\": write a section [questions.<name>]",
        );
    }

    #[test]
    fn an_alert_goes_by_an_answer_to_a_question_of_its_camera() {
        let file = |keys: &str| {
            let asks = "questions = [\"gate\"]\n[defaults]\nquestions = [\"parcel\"]\n";
            format!("{PARCEL}{GATE}{PORCH}{asks}[cameras.porch.alerts.a]\n{keys}")
        };
        for (keys, key, text) in [
            (
                "on = 1",
                "c.toml: cameras.porch.alerts.a.question",
                "is missing: every alert needs one, such as question = ",
            ),
            (
                "question = \"parcel\"",
                "c.toml:12: cameras.porch.alerts.a.question",
                "the camera does not ask \"parcel\": add it to the camera's questions, or write one of gate",
            ),
            (
                "question = \"gate\"",
                "c.toml: cameras.porch.alerts.a.answer",
                "question \"gate\" has no answer \"yes\": write one of \"open\", \"half open\", \"closed\"",
            ),
            (
                "question = \"gate\"\nanswer = \"Open\"",
                "c.toml:13: cameras.porch.alerts.a.answer",
                "no answer \"Open\"",
            ),
        ] {
            assert_only_error(&file(keys), key, text);
        }
    }

    #[test]
    fn each_error_in_an_alert_is_told_with_its_line() {
        for (setting, text) in [
            ("off = 0.9", "off = 0.9 is more than on = 0.8: lower off, or raise on"),
            ("on = 0.4", "off = 0.5 is more than on = 0.4"),
            ("on = 1.1", "a number from 0 to 1, not the number 1.1"),
            ("of = \"3/2\"", "write such as \"2/3\""),
            ("of = \"1/21\"", "to \"20/20\""),
            ("min_confidence = -1", "from 0 to 1, not -1"),
            ("min_duration = 5", "a number without a unit"),
            ("cool_down = \"25h\"", "from \"0s\" to \"1d\""),
            ("device_class = \"bell\"", "\"vibration\", \"window\", not \"bell\""),
            ("cooldown = \"1s\"", "did you mean cool_down?"),
        ] {
            let alert = format!("[cameras.porch.alerts.a]\nquestion = \"parcel\"\n{setting}\n");
            let key = setting.split(' ').next().unwrap();
            let toml = format!("{PARCEL}{PORCH}questions = [\"parcel\"]\n{alert}");
            assert_only_error(&toml, &format!("c.toml:8: cameras.porch.alerts.a.{key}"), text);
        }
    }

    #[test]
    fn a_camera_has_at_most_32_alerts() {
        let alert = |n: usize| format!("[cameras.porch.alerts.a{n:02}]\nquestion = \"parcel\"\n");
        let alerts = |count: usize| {
            format!("{PARCEL}{PORCH}questions = [\"parcel\"]\n{}", (0..count).map(alert).collect::<String>())
        };
        assert!(read(&alerts(32)).is_ok());
        assert_only_error(&alerts(33), "c.toml:71: cameras.porch.alerts.a32.question", "more than 32 alerts");
    }

    #[test]
    fn a_section_in_the_wrong_place_is_told_where_it_belongs() {
        for (toml, key, text) in [
            (
                "questions = [\"gate\"]\n",
                "c.toml:1: questions",
                "write [questions.<name>] and its keys under it",
            ),
            (
                "[questions]\ngate = \"Open?\"\n",
                "c.toml:2: questions.gate",
                "each question is a section: write [questions.gate]",
            ),
            (
                "[questions]\nask = \"Open?\"\n",
                "c.toml:2: questions.ask",
                "write [questions.parcel] above ask",
            ),
            ("[questions.Gate]\n", "c.toml:1: questions.Gate", "cannot name a question: use 1 to 64 of a-z"),
            ("[question.gate]\n", "c.toml:1: question", "did you mean questions?"),
            ("[alerts.a]\n", "c.toml:1: alerts", "write [cameras.<id>.alerts.<name>]"),
            ("[defaults.alerts.a]\n", "c.toml:1: defaults.alerts", "write [cameras.<id>.alerts.<name>]"),
            ("[cameras.porch.alert.a]\n", "c.toml:1: cameras.porch.alert", "did you mean alerts?"),
            (
                "[cameras.porch.alerts]\na = 1\n",
                "c.toml:2: cameras.porch.alerts.a",
                "write [cameras.porch.alerts.a]",
            ),
            (
                "[cameras.porch.alerts]\non = 1\n",
                "c.toml:2: cameras.porch.alerts.on",
                "write [cameras.porch.alerts.parcel] above on",
            ),
            ("[cameras.porch.alerts.A]\n", "c.toml:1: cameras.porch.alerts.A", "cannot name an alert"),
            ("[model]\nanswers = []\n", "c.toml:2: model.answers", "belongs under [questions.<name>]"),
            (
                "[model]\ncool_down = \"1s\"\n",
                "c.toml:2: model.cool_down",
                "belongs under [cameras.<id>.alerts.<name>]",
            ),
        ] {
            assert_only_error(&format!("{toml}{PORCH}"), key, text);
        }
        let toml = format!("{PORCH}alerts = 5\n");
        assert_only_error(&toml, "c.toml:3: cameras.porch.alerts", "each alert is a section of its own");
        let alert = |name: &str| format!("[cameras.porch.alerts.{name}]\nquestion = \"parcel\"\n");
        let toml = format!("{PARCEL}{PORCH}questions = [\"parcel\"]\n{}{}", alert("a-b"), alert("a_b"));
        assert_only_error(&toml, "cameras.porch.alerts.a-b", "differs from \"a_b\"");
    }

    #[test]
    fn a_question_that_no_camera_asks_is_worth_a_warning() {
        let toml = format!("{PARCEL}{GATE}{PORCH}questions = [\"parcel\"]\n");
        let warnings = read(&toml).unwrap().warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("c.toml:4: questions.gate.ask: no camera asks it"), "{warning}");
    }
}
