//! Draws moving shapes: the pixels of a [`Script`], in the colours and proportions that `models/shapes` was
//! trained on.

use std::time::Duration;

use crate::config::test_source::{Background, Colour, Motion, Object, Scene, Script, Shape};

impl Script {
    /// Draws the frame of time `pts` into `rgb`: `height` rows of `width` RGB triples.
    pub fn draw(&self, pts: Duration, width: u32, height: u32, rgb: &mut [u8]) {
        let moment = (pts.as_nanos() % self.period.as_nanos()) as f64 / self.period.as_nanos() as f64;
        if let Some(scene) = self.scene(pts) {
            scene.draw(moment as f32, width as usize, height as usize, rgb);
        }
    }
}

impl Scene {
    /// Draws the scene at `moment`, from 0 (its start) to 1 (its end), into rows of RGB triples.
    fn draw(&self, moment: f32, width: usize, height: usize, rgb: &mut [u8]) {
        let ground: [u8; 3] = match self.background {
            Background::Black => [16, 16, 24],
            Background::Grey => [128, 128, 128],
            Background::White => [240, 240, 236],
        };
        rgb.as_chunks_mut().0.fill(ground);
        for (object, region) in self.objects.iter().zip(self.regions(width as f32, height as f32)) {
            let visible = match object.motion {
                Motion::Appears => moment >= 0.5,
                Motion::Disappears => moment < 0.5,
                _ => true,
            };
            if visible {
                object.draw(moment, &region, self.radius(width as f32, height as f32), width, rgb);
            }
        }
    }

    /// The radius of an object in pixels, as in training: 5 to 9 (8 for two objects) where the longer side is
    /// 64, and never more than its region holds.
    fn radius(&self, width: f32, height: f32) -> f32 {
        let (share, parts) = if self.objects.len() > 1 { (0.08, 2.0) } else { (0.1, 1.0) };
        (share * width.max(height)).min(width.min(height) / parts / 2.0 - 2.0)
    }

    /// A part of the frame for each object, so that two never touch.
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

/// A part of the frame, from and to in pixels.
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
    /// Whether the shape covers a point. `u` and `v` are its distance from the centre in units of the radius,
    /// to the right and down.
    fn covers(self, u: f32, v: f32) -> bool {
        match self {
            Self::Circle => u * u + v * v <= 1.0,
            Self::Square => u.abs() <= 0.9 && v.abs() <= 0.9,
            Self::Triangle => v <= 0.5 && u.abs() * 3f32.sqrt() <= v + 1.0,
        }
    }
}
