//! Synthetic sources: parses the part of a URI after `test://`. `test://shapes` shows the moving shapes
//! that the built-in model was trained on: a [`Script`] holds the objects of each scene, and the
//! sentence that describes them. `capture` draws it.
//!
//! The sentences have the wording of the training data of `models/shapes`.

use std::{fmt, str::FromStr, time::Duration};

use url::form_urlencoded;

/// A source that needs no camera.
#[derive(Clone, Debug, PartialEq)]
pub struct TestSource {
    /// What the frames show.
    pub content: TestContent,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Whether frames come at `fps`; otherwise as fast as they are consumed.
    pub live: bool,
    /// When the stream ends; `None`: never.
    pub duration: Option<Duration>,
}

/// What a synthetic source shows.
#[derive(Clone, Debug, PartialEq)]
pub enum TestContent {
    /// One of GStreamer's test patterns.
    Pattern(&'static str),
    /// Our moving shapes.
    Shapes(Script),
}

/// Colours, in the order in which objects are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    /// 255, 0, 0
    Red,
    /// 0, 200, 0
    Green,
    /// 0, 0, 255
    Blue,
    /// 255, 230, 0
    Yellow,
}

/// Outlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Of the object's radius.
    Circle,
    /// Its half side is 0.9 of the radius.
    Square,
    /// Equilateral, one corner up; its corners lie on the circle.
    Triangle,
}

/// How an object moves during a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// From the left edge to the right.
    Right,
    /// From the right edge to the left.
    Left,
    /// From the lower edge to the upper.
    Up,
    /// From the upper edge to the lower.
    Down,
    /// Not at all.
    Still,
    /// Visible in the second half of the scene.
    Appears,
    /// Visible in the first half of the scene.
    Disappears,
}

/// The colour behind the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// 16, 16, 24
    #[default]
    Black,
    /// 128, 128, 128
    Grey,
    /// 240, 240, 236
    White,
}

/// One object of a scene; written `red-circle-left`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The colour.
    pub colour: Colour,
    /// The outline.
    pub shape: Shape,
    /// The motion.
    pub motion: Motion,
}

/// One or two objects in front of a background.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    pub(crate) objects: Vec<Object>,
    /// The colour behind them.
    pub background: Background,
}

/// Scenes that repeat for ever, each for one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    scenes: Vec<Scene>,
    pub(crate) period: Duration,
}

/// A `test://` URI that names no source.
#[derive(Debug, thiserror::Error)]
pub enum TestSourceError {
    /// Neither shapes nor a pattern.
    #[error("test://{name} does not exist: use test://shapes or one of {known}")]
    Unknown {
        /// The name in the URI.
        name: String,
        /// The known patterns.
        known: String,
    },
    /// An option of `test://` that does not exist.
    #[error(
        "test:// has no option {0:?}: use object, background, period, width, height, fps, live, duration"
    )]
    Option(String),
    /// An option of `test://` with a value that it cannot have.
    #[error("test:// cannot use {key}={value:?}: {why}")]
    Value {
        /// The option.
        key: String,
        /// The value in the URI.
        value: String,
        /// What the option takes.
        why: String,
    },
    /// Not of the form colour-shape-motion.
    #[error(
        "object {0:?} is not colour-shape-motion: red, green, blue or yellow; circle, square or triangle; \
         right, left, up, down, still, appears or disappears"
    )]
    Object(String),
    /// No such background.
    #[error("background {0:?} does not exist: use black, grey or white")]
    Background(String),
    /// Too many objects.
    #[error("a scene holds at most two objects")]
    Crowded,
    /// Two objects of the same colour, which a sentence could not distinguish.
    #[error("two objects of a scene must differ in colour")]
    SameColour,
}

impl FromStr for Object {
    type Err = TestSourceError;

    fn from_str(s: &str) -> Result<Self, TestSourceError> {
        let parts: Vec<&str> = s.split('-').collect();
        let object = || {
            let [colour, shape, motion] = parts[..] else { return None };
            Some(Self {
                colour: named(&COLOURS, colour)?,
                shape: named(&SHAPES, shape)?,
                motion: named(&MOTIONS, motion)?,
            })
        };
        object().ok_or_else(|| TestSourceError::Object(s.into()))
    }
}

impl FromStr for Background {
    type Err = TestSourceError;

    fn from_str(s: &str) -> Result<Self, TestSourceError> {
        named(&BACKGROUNDS, s).ok_or_else(|| TestSourceError::Background(s.into()))
    }
}

const COLOURS: [(&str, Colour); 4] =
    [("red", Colour::Red), ("green", Colour::Green), ("blue", Colour::Blue), ("yellow", Colour::Yellow)];
const SHAPES: [(&str, Shape); 3] =
    [("circle", Shape::Circle), ("square", Shape::Square), ("triangle", Shape::Triangle)];
const MOTIONS: [(&str, Motion); 7] = [
    ("right", Motion::Right),
    ("left", Motion::Left),
    ("up", Motion::Up),
    ("down", Motion::Down),
    ("still", Motion::Still),
    ("appears", Motion::Appears),
    ("disappears", Motion::Disappears),
];
const BACKGROUNDS: [(&str, Background); 3] =
    [("black", Background::Black), ("grey", Background::Grey), ("white", Background::White)];

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, v)| v == value).map_or("", |(n, _)| n)
}

/// In the wording of the training data: `red circle moves to the left`.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.motion {
            Motion::Right => "moves to the right",
            Motion::Left => "moves to the left",
            Motion::Up => "moves up",
            Motion::Down => "moves down",
            Motion::Still => "stays still",
            Motion::Appears => "appears",
            Motion::Disappears => "disappears",
        };
        write!(f, "{} {} {verb}", name_of(&COLOURS, &self.colour), name_of(&SHAPES, &self.shape))
    }
}

/// The correct description: `A red circle moves to the left while a blue square stays still.`
impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.objects[..] {
            [] => f.write_str("Nothing is there."),
            objects => {
                let parts: Vec<String> = objects.iter().map(Object::to_string).collect();
                write!(f, "A {}.", parts.join(" while a "))
            }
        }
    }
}

impl Scene {
    /// Adds an object.
    ///
    /// # Errors
    /// The scene has two objects already, or one of the same colour.
    pub fn add(&mut self, object: Object) -> Result<(), TestSourceError> {
        match &self.objects[..] {
            [_, _, ..] => return Err(TestSourceError::Crowded),
            [other] if other.colour == object.colour => return Err(TestSourceError::SameColour),
            _ => self.objects.push(object),
        }
        self.objects.sort_by_key(|o| o.colour);
        Ok(())
    }
}

impl Script {
    /// Scenes that follow each other, each for one period.
    pub fn new(scenes: Vec<Scene>, period: Duration) -> Self {
        Self { scenes, period }
    }

    /// Eight scenes that show every colour, shape and motion.
    pub fn tour(period: Duration) -> Self {
        use {Background::*, Colour::*, Motion::*, Shape::*};
        let one = |colour, shape, motion| Object { colour, shape, motion };
        let scene = |background, objects: &[Object]| Scene { objects: objects.to_vec(), background };
        let scenes = vec![
            scene(Black, &[one(Red, Circle, Left)]),
            scene(White, &[one(Blue, Square, Right)]),
            scene(Grey, &[one(Green, Triangle, Up)]),
            scene(White, &[one(Red, Triangle, Still), one(Blue, Circle, Right)]),
            scene(Black, &[one(Yellow, Triangle, Appears)]),
            scene(White, &[one(Green, Circle, Disappears)]),
            scene(Black, &[one(Yellow, Circle, Down)]),
            scene(Grey, &[one(Red, Circle, Left), one(Blue, Square, Still)]),
        ];
        Self { scenes, period }
    }

    /// The correct description of the time from `start` to `start + length`. `None` if that time touches
    /// two scenes, or covers less than three quarters of one.
    pub fn sentence(&self, start: Duration, length: Duration) -> Option<String> {
        let (begin, end) = (start.as_nanos(), (start + length).as_nanos());
        let period = self.period.as_nanos();
        let whole = begin / period == end.saturating_sub(1) / period && 4 * (end - begin) >= 3 * period;
        whole.then(|| self.scene(start).map(Scene::to_string)).flatten()
    }

    /// The scene at `pts`.
    pub(crate) fn scene(&self, pts: Duration) -> Option<&Scene> {
        let turn = pts.as_nanos() / self.period.as_nanos();
        self.scenes.get((turn % self.scenes.len().max(1) as u128) as usize)
    }
}

/// GStreamer 1.22's videotestsrc patterns.
const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];

impl TestSource {
    /// Parses the part of a URI after `test://`.
    pub(super) fn parse(text: &str) -> Result<Self, TestSourceError> {
        let (name, query) = text.split_once('?').unwrap_or((text, ""));
        let name = name.trim_end_matches('/').to_ascii_lowercase();
        let mut scene = Scene::default();
        let mut period = Duration::from_secs(8);
        let mut test = Self {
            content: TestContent::Pattern("smpte"),
            width: 640,
            height: 360,
            fps: 25,
            live: true,
            duration: None,
        };
        let mut scene_options = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let option = Setting { key: &key, value: &value };
            match &*key {
                "width" => test.width = option.number(64, 3840)?,
                "height" => test.height = option.number(64, 2160)?,
                "fps" => test.fps = option.number(1, 60)?,
                "live" => test.live = option.parsed("true or false")?,
                "duration" => test.duration = Some(option.duration(Duration::from_secs(24 * 3600))?),
                "period" => period = option.duration(Duration::from_secs(3600))?,
                "object" => scene.add(value.parse()?)?,
                "background" => scene.background = value.parse()?,
                _ => return Err(TestSourceError::Option(key.into())),
            }
            if matches!(&*key, "period" | "object" | "background") {
                scene_options.push(key.into_owned());
            }
        }
        test.content = match PATTERNS.iter().find(|p| **p == name) {
            Some(pattern) => TestContent::Pattern(pattern),
            None if name == "shapes" => {
                TestContent::Shapes(match scene_options.iter().all(|k| k == "period") {
                    true => Script::tour(period),
                    false => Script::new(vec![scene], period),
                })
            }
            None => return Err(TestSourceError::Unknown { name, known: PATTERNS.join(", ") }),
        };
        match (&test.content, scene_options.into_iter().next()) {
            (TestContent::Pattern(_), Some(key)) => Err(TestSourceError::Option(key)),
            _ => Ok(test),
        }
    }

    /// Name of the pipeline that shows it.
    pub(super) fn pipeline(&self) -> &'static str {
        match self.content {
            TestContent::Pattern(_) => "test",
            TestContent::Shapes(_) => "shapes",
        }
    }

    /// `shapes`, or the name of the pattern.
    pub fn name(&self) -> &'static str {
        match self.content {
            TestContent::Pattern(name) => name,
            TestContent::Shapes(_) => "shapes",
        }
    }

    /// The correct description of the time from `start` to `start + length`: [`Script::sentence`] for
    /// moving shapes, `None` for a pattern.
    pub fn truth(&self, start: Duration, length: Duration) -> Option<String> {
        match &self.content {
            TestContent::Pattern(_) => None,
            TestContent::Shapes(script) => script.sentence(start, length),
        }
    }
}

/// Without its options.
impl fmt::Display for TestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "test://{}", self.name())
    }
}

/// One `key=value` of a query.
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
}

impl Setting<'_> {
    fn bad(&self, why: String) -> TestSourceError {
        TestSourceError::Value { key: self.key.into(), value: self.value.into(), why }
    }

    fn parsed<T: FromStr>(&self, kind: &str) -> Result<T, TestSourceError> {
        self.value.parse().map_err(|_| self.bad(format!("it must be {kind}")))
    }

    fn number(&self, low: u32, high: u32) -> Result<u32, TestSourceError> {
        let kind = format!("a whole number from {low} to {high}");
        let number = self.parsed(&kind)?;
        if (low..=high).contains(&number) { Ok(number) } else { Err(self.bad(format!("it must be {kind}"))) }
    }

    fn duration(&self, longest: Duration) -> Result<Duration, TestSourceError> {
        let fits = |d: &Duration| (Duration::from_millis(100)..=longest).contains(d);
        let limit = humantime::format_duration(longest);
        humantime::parse_duration(self.value).ok().filter(fits).ok_or_else(|| {
            self.bad(format!("it must be a time with its unit, from 100ms to {limit}, such as 8s"))
        })
    }
}
