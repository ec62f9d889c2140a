//! The part of the picture that is left.

use std::{fmt, ops::Range, str::FromStr};

use super::corners::{BadCorners, MARGIN, parse};

/// The least part of the picture that a crop leaves.
const LEAST: f64 = 0.01;

/// A rectangle, in parts of the picture's width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Crop {
    /// The columns and rows of a picture of this size that lie wholly in the crop, and not within the margin of a side
    /// behind which something is hidden. They may be none.
    pub fn pixels(&self, width: usize, height: usize) -> (Range<usize>, Range<usize>) {
        let margin = usize::from(MARGIN);
        let within = |from: f64, to: f64, length: usize| {
            let (first, end) =
                ((from * length as f64).ceil() as usize, (to * length as f64).floor() as usize);
            let first = if first > 0 { first + margin } else { 0 };
            first..if end < length { end.saturating_sub(margin) } else { end }
        };
        (within(self.left, self.right, width), within(self.top, self.bottom, height))
    }
}

impl FromStr for Crop {
    type Err = BadCorners;

    /// Reads `left,top right,bottom`.
    fn from_str(text: &str) -> Result<Self, BadCorners> {
        let corners = parse(text)?;
        let &[(left, top), (right, bottom)] = corners.as_slice() else {
            return Err(BadCorners::NotTwo(corners.len()));
        };
        if right <= left || bottom <= top {
            return Err(BadCorners::Order);
        }
        if (right - left) * (bottom - top) < LEAST {
            return Err(BadCorners::TooSmall);
        }
        Ok(Self { left, top, right, bottom })
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{} {},{}", self.left, self.top, self.right, self.bottom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_is_two_corners_and_never_shows_what_is_outside() {
        let crop: Crop = "0.25, 0.1, 0.75, 0.8".parse().unwrap();
        assert_eq!(crop.to_string(), "0.25,0.1 0.75,0.8");
        assert_eq!(crop.to_string().parse(), Ok(crop));
        assert_eq!(crop.pixels(80, 100), (28..52, 18..72));
        // 26 to 75 wholly lie between 25.25 and 75.75.
        assert_eq!(crop.pixels(101, 100).0, 34..67);
        assert!(crop.pixels(30, 90).0.is_empty() && crop.pixels(90, 10).1.is_empty());
        let right: Crop = "0.5,0 1,1".parse().unwrap();
        assert_eq!(right.pixels(100, 50), (58..100, 0..50));
        assert_eq!("0,0 1,1".parse::<Crop>().unwrap().pixels(7, 3), (0..7, 0..3));
    }

    #[test]
    fn each_mistake_is_told() {
        for (text, why) in [
            ("0,0", BadCorners::NotTwo(1)),
            ("0,0 1,0 1,1", BadCorners::NotTwo(3)),
            ("0.9,0.8 0.2,0.1", BadCorners::Order),
            ("0.2,0.8 0.9,0.1", BadCorners::Order),
            ("0.2,0.1 0.2,0.8", BadCorners::Order),
            ("0,0 0.09,0.1", BadCorners::TooSmall),
            ("0,0 2,1", BadCorners::Outside(2.0)),
        ] {
            assert_eq!(text.parse::<Crop>(), Err(why), "{text}");
        }
        assert!("0,0 0.1,0.11".parse::<Crop>().is_ok());
    }
}
