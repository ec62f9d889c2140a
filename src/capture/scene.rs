//! Moving shapes: the small world that the shipped model knows, drawn without a camera. A [`Script`]
//! says what is where at which time; pixels come out, and the sentence that is true of them.
//!
//! Colours, backgrounds and wording are those that `models/shapes` was trained on.

use std::{fmt, str::FromStr, time::Duration};

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

/// What an object does in the course of a scene.
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
    /// Nothing.
    Still,
    /// Is there from half time on.
    Appears,
    /// Is there until half time.
    Disappears,
}

/// What is behind the objects.
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

/// One thing in a scene; written `red-circle-left`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its colour.
    pub colour: Colour,
    /// Its outline.
    pub shape: Shape,
    /// What it does.
    pub motion: Motion,
}

/// One or two objects in front of a background.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    objects: Vec<Object>,
    /// What is behind them.
    pub background: Background,
}

/// Scenes that follow each other for ever, each for one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    scenes: Vec<Scene>,
    period: Duration,
}

/// A scene that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum BadScene {
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
    /// Objects that cannot be told apart in words.
    #[error("two objects of a scene must differ in colour")]
    SameColour,
}

impl FromStr for Object {
    type Err = BadScene;

    fn from_str(s: &str) -> Result<Self, BadScene> {
        let parts: Vec<&str> = s.split('-').collect();
        let object = || {
            let [colour, shape, motion] = parts[..] else { return None };
            Some(Self {
                colour: named(&COLOURS, colour)?,
                shape: named(&SHAPES, shape)?,
                motion: named(&MOTIONS, motion)?,
            })
        };
        object().ok_or_else(|| BadScene::Object(s.into()))
    }
}

impl FromStr for Background {
    type Err = BadScene;

    fn from_str(s: &str) -> Result<Self, BadScene> {
        named(&BACKGROUNDS, s).ok_or_else(|| BadScene::Background(s.into()))
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

/// As the model words it: `red circle moves to the left`.
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

/// What a model that sees rightly says: `A red circle moves to the left while a blue square stays still.`
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
    /// Puts an object in.
    pub fn add(&mut self, object: Object) -> Result<(), BadScene> {
        match &self.objects[..] {
            [_, _, ..] => return Err(BadScene::Crowded),
            [other] if other.colour == object.colour => return Err(BadScene::SameColour),
            _ => self.objects.push(object),
        }
        self.objects.sort_by_key(|o| o.colour);
        Ok(())
    }

    /// Draws the scene at `moment`, from 0 (its begin) to 1 (its end), into rows of RGB triples.
    fn draw(&self, moment: f32, width: usize, height: usize, rgb: &mut [u8]) {
        let ground: [u8; 3] = match self.background {
            Background::Black => [16, 16, 24],
            Background::Grey => [128, 128, 128],
            Background::White => [240, 240, 236],
        };
        rgb.as_chunks_mut().0.fill(ground);
        for (object, region) in self.objects.iter().zip(self.regions(width as f32, height as f32)) {
            let there = match object.motion {
                Motion::Appears => moment >= 0.5,
                Motion::Disappears => moment < 0.5,
                _ => true,
            };
            if there {
                object.draw(moment, &region, self.radius(width as f32, height as f32), width, rgb);
            }
        }
    }

    /// Sizes as trained: 5 to 9 (8, if there are two) where the longer side is 64, if it fits its lane.
    fn radius(&self, width: f32, height: f32) -> f32 {
        let (share, lanes) = if self.objects.len() > 1 { (0.08, 2.0) } else { (0.1, 1.0) };
        (share * width.max(height)).min(width.min(height) / lanes / 2.0 - 2.0)
    }

    /// A part of the picture for each object, so that two never touch.
    fn regions(&self, w: f32, h: f32) -> [Region; 2] {
        let region = |x0, y0, x1, y1| Region { x: (x0, x1), y: (y0, y1) };
        let moves = |o: &Object| match o.motion {
            Motion::Right | Motion::Left => (true, false),
            Motion::Up | Motion::Down => (false, true),
            _ => (false, false),
        };
        let [a, b] = &self.objects[..] else { return [region(0.0, 0.0, w, h), region(0.0, 0.0, w, h)] };
        match (moves(a), moves(b)) {
            ((true, _), (_, true)) => [region(0.0, 0.0, 0.75 * w, h), region(0.75 * w, 0.0, w, h)],
            ((_, true), (true, _)) => [region(0.0, 0.0, 0.25 * w, h), region(0.25 * w, 0.0, w, h)],
            ((true, _), _) | (_, (true, _)) => [region(0.0, 0.0, w, h / 2.0), region(0.0, h / 2.0, w, h)],
            _ => [region(0.0, 0.0, w / 2.0, h), region(w / 2.0, 0.0, w, h)],
        }
    }
}

/// From and to, in pixels.
struct Region {
    x: (f32, f32),
    y: (f32, f32),
}

impl Object {
    fn draw(&self, moment: f32, region: &Region, r: f32, width: usize, rgb: &mut [u8]) {
        let along =
            |(low, high): (f32, f32), part: f32| low + r + 1.0 + part * (high - low - 2.0 * (r + 1.0));
        let (across, down) = match self.motion {
            Motion::Right => (moment, 0.5),
            Motion::Left => (1.0 - moment, 0.5),
            Motion::Down => (0.5, moment),
            Motion::Up => (0.5, 1.0 - moment),
            _ => (0.5, 0.5),
        };
        let (cx, cy) = (along(region.x, across), along(region.y, down));
        let colour: [u8; 3] = match self.colour {
            Colour::Red => [255, 0, 0],
            Colour::Green => [0, 200, 0],
            Colour::Blue => [0, 0, 255],
            Colour::Yellow => [255, 230, 0],
        };
        let range =
            |centre: f32, end: usize| (centre - r).max(0.0) as usize..end.min((centre + r + 2.0) as usize);
        for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate().skip((cy - r).max(0.0) as usize) {
            let v = (y as f32 + 0.5 - cy) / r;
            if v > 1.0 {
                break;
            }
            for x in range(cx, width) {
                if self.shape.covers((x as f32 + 0.5 - cx) / r, v) {
                    row[3 * x..3 * x + 3].copy_from_slice(&colour);
                }
            }
        }
    }
}

impl Shape {
    /// Whether a point belongs to it, in units of the radius from its centre; `v` points down.
    fn covers(self, u: f32, v: f32) -> bool {
        match self {
            Self::Circle => u * u + v * v <= 1.0,
            Self::Square => u.abs() <= 0.9 && v.abs() <= 0.9,
            Self::Triangle => v <= 0.5 && u.abs() * 3f32.sqrt() <= v + 1.0,
        }
    }
}

impl Script {
    /// Scenes that follow each other, each for one period.
    pub fn new(scenes: Vec<Scene>, period: Duration) -> Self {
        Self { scenes, period }
    }

    /// A round trip through what the shipped model knows.
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

    /// Draws what is to be seen at `pts`: `height` rows of `width` RGB triples.
    pub fn draw(&self, pts: Duration, width: u32, height: u32, rgb: &mut [u8]) {
        let moment = (pts.as_nanos() % self.period.as_nanos()) as f64 / self.period.as_nanos() as f64;
        if let Some(scene) = self.scene(pts) {
            scene.draw(moment as f32, width as usize, height as usize, rgb);
        }
    }

    /// The true sentence about the time from `start` on for `length`, if that is at least three
    /// quarters of one scene and nothing of another.
    pub fn sentence(&self, start: Duration, length: Duration) -> Option<String> {
        let (begin, end) = (start.as_nanos(), (start + length).as_nanos());
        let period = self.period.as_nanos();
        let whole = begin / period == end.saturating_sub(1) / period && 4 * (end - begin) >= 3 * period;
        whole.then(|| self.scene(start).map(Scene::to_string)).flatten()
    }

    fn scene(&self, pts: Duration) -> Option<&Scene> {
        let turn = pts.as_nanos() / self.period.as_nanos();
        self.scenes.get((turn % self.scenes.len().max(1) as u128) as usize)
    }
}
