//! The outline of a mask.

use std::{fmt, str::FromStr};

use super::corners::{BadCorners, Corner, MAX_CORNERS, parse};

/// Three corners that turn by less lie on a line, but for the rounding of their numbers.
const ON_A_LINE: f64 = 1e-12;

/// An area whose edges do not cross, in parts of the picture's width and height.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    corners: Vec<Corner>,
}

impl Polygon {
    /// The corners, in order around the area.
    pub fn corners(&self) -> &[Corner] {
        &self.corners
    }
}

impl FromStr for Polygon {
    type Err = BadCorners;

    fn from_str(text: &str) -> Result<Self, BadCorners> {
        // With their numbers, by which mistakes are told.
        let mut written: Vec<(usize, Corner)> = (1..).zip(parse(text)?).collect();
        let count = written.len();
        // A corner that is written twice in a row, as where the outline is closed, is one.
        written.dedup_by_key(|(_, corner)| *corner);
        if written.len() > 1 && written.first().map(|it| it.1) == written.last().map(|it| it.1) {
            written.pop();
        }
        let corners: Vec<Corner> = written.iter().map(|(_, corner)| *corner).collect();
        if corners.len() < 3 {
            return Err(if count < 3 { BadCorners::TooFew(count) } else { BadCorners::NoArea });
        }
        if corners.len() > MAX_CORNERS {
            return Err(BadCorners::TooMany(count));
        }
        let (a, b) = (corners[0], corners[1]);
        if corners.iter().all(|c| turn(a, b, *c).abs() < ON_A_LINE) {
            return Err(BadCorners::NoArea);
        }
        if let Some((one, other)) = crossing(&corners) {
            return Err(BadCorners::Crosses(written[one].0, written[other].0));
        }
        Ok(Self { corners })
    }
}

impl fmt::Display for Polygon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (x, y)) in self.corners.iter().enumerate() {
            write!(f, "{}{x},{y}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// The edges between corners, the last of which leads back to the first.
pub fn edges(corners: &[Corner]) -> impl Iterator<Item = (Corner, Corner)> {
    let next = corners.iter().cycle().skip(1);
    corners.iter().copied().zip(next.copied())
}

/// The first two edges that meet, but for those that follow each other.
fn crossing(corners: &[Corner]) -> Option<(usize, usize)> {
    let edges: Vec<_> = edges(corners).collect();
    let last = edges.len() - 1;
    let pairs = (0..edges.len()).flat_map(|one| (one + 2..edges.len()).map(move |other| (one, other)));
    pairs.filter(|pair| *pair != (0, last)).find(|(one, other)| meet(edges[*one], edges[*other]))
}

/// Whether two edges have a point in common.
fn meet((a, b): (Corner, Corner), (c, d): (Corner, Corner)) -> bool {
    let (of_c, of_d, of_a, of_b) = (turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b));
    if of_c * of_d < 0.0 && of_a * of_b < 0.0 {
        return true;
    }
    (of_c == 0.0 && is_between(a, b, c))
        || (of_d == 0.0 && is_between(a, b, d))
        || (of_a == 0.0 && is_between(c, d, a))
        || (of_b == 0.0 && is_between(c, d, b))
}

/// To which side the way from `a` over `b` to `c` turns: 0 if they lie on a line.
fn turn(a: Corner, b: Corner, c: Corner) -> f64 {
    (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0)
}

/// Whether `point`, which lies on the line through `a` and `b`, lies between them.
fn is_between(a: Corner, b: Corner, point: Corner) -> bool {
    let within = |a: f64, b: f64, at: f64| (a.min(b)..=a.max(b)).contains(&at);
    within(a.0, b.0, point.0) && within(a.1, b.1, point.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polygon_may_be_closed_concave_and_of_frigate() {
        let corners = |text: &str| text.parse::<Polygon>().unwrap().corners().to_vec();
        let street = corners("0,0 1,0 1,0.4 0,0.4");
        assert_eq!(street, [(0.0, 0.0), (1.0, 0.0), (1.0, 0.4), (0.0, 0.4)]);
        assert_eq!(corners("0,0,1,0,1,0.4,0,0.4"), street);
        assert_eq!(corners("0,0 0,0 1,0 1,0.4 0,0.4 0,0"), street);
        assert_eq!(corners("0,0 1,0 1,1 0.9,0.1 0.1,0.1 0,1").len(), 6);
        let round = |count: usize| {
            let corner = |i: usize| {
                let (y, x) = (i as f64 * std::f64::consts::TAU / count as f64).sin_cos();
                format!("{},{}", 0.5 + 0.4 * x, 0.5 + 0.4 * y)
            };
            (0..count).map(corner).collect::<Vec<_>>().join(" ").parse::<Polygon>()
        };
        assert_eq!(round(64).unwrap().corners().len(), 64);
        assert_eq!(round(65), Err(BadCorners::TooMany(65)));
    }

    #[test]
    fn each_mistake_is_told() {
        for (text, why) in [
            ("", BadCorners::TooFew(0)),
            ("0,0 1,1", BadCorners::TooFew(2)),
            ("0,0 1,1 0,0", BadCorners::NoArea),
            ("0,0 0.5,0.5 1,1", BadCorners::NoArea),
            ("0,0.1 0.1,0.2 0.2,0.3", BadCorners::NoArea),
            ("0,0 0,0 1,1 1,0 0,1", BadCorners::Crosses(1, 4)),
            ("0,0 1,0 0.5,0", BadCorners::NoArea),
            ("0,0 1,1 1,0 0,1", BadCorners::Crosses(1, 3)),
            // A star.
            ("0.5,0 0.8,1 0,0.4 1,0.4 0.2,1", BadCorners::Crosses(1, 3)),
            // An edge that touches a corner, one that returns on another, and two parts with a corner in common.
            ("0,0 1,0 1,1 0.5,0 0,1", BadCorners::Crosses(1, 3)),
            ("0,0 1,0 0.5,0 0.5,1", BadCorners::Crosses(1, 3)),
            ("0,0 0.5,0.5 1,0 1,1 0.5,0.5 0,1", BadCorners::Crosses(1, 4)),
            ("0,0 1,0 1", BadCorners::NotACorner("1".into())),
            ("0,0,1,0,1", BadCorners::Odd(5)),
            ("0,0 1,0 1,1.2", BadCorners::Outside(1.2)),
        ] {
            assert_eq!(text.parse::<Polygon>(), Err(why), "{text}");
        }
    }
}
