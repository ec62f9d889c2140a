//! Corners as people write them: `x,y x,y …` in parts of the picture, or with commas only, as Frigate has them.

/// The most corners of a polygon.
pub const MAX_CORNERS: usize = 64;

/// How many pixels around what is hidden are hidden, too. In most streams two by two pixels share a colour, in interlaced
/// ones the lines of two frames, and where pixels are made square neighbours are mixed, up to four to one: what stands just
/// inside of a mask also colours what stands just outside.
pub const MARGIN: u8 = 8;

/// A point of the picture in parts of its width and height, 0 to 1.
pub type Corner = (f64, f64);

/// Why a text is no crop, or no polygon.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadCorners {
    /// A part of it is no number.
    #[error("{0:?} is no number: write corners such as \"0,0 1,0 1,0.4 0,0.4\"")]
    NotANumber(String),
    /// Some, but not all, are pairs.
    #[error("{0:?} is no corner: write each as x,y with a space between corners, or commas only")]
    NotACorner(String),
    /// A number outside of the picture.
    #[error("{0} is outside of the picture: write parts of its width and height, from 0 to 1, not pixels")]
    Outside(f64),
    /// There is an x without a y.
    #[error("has {0} numbers, an odd count: each corner has an x and a y")]
    Odd(usize),
    /// No area lies between so few corners.
    #[error("has {0} corners: a polygon has at least 3")]
    TooFew(usize),
    /// More than are allowed.
    #[error("has {0} corners: at most {MAX_CORNERS} are allowed")]
    TooMany(usize),
    /// Two edges meet where no corner joins them. The numbers of the corners at which they begin, from 1.
    #[error(
        "its edge from corner {0} crosses or touches that from corner {1}: write the corners in order around the area"
    )]
    Crosses(usize, usize),
    /// All corners lie on a line.
    #[error("has no area: its corners lie on one line")]
    NoArea,
    /// A crop has two corners.
    #[error("has {0} corners: a crop has two, such as \"0.2,0.1 0.9,0.8\": top left and bottom right")]
    NotTwo(usize),
    /// The corners of a crop in another order.
    #[error("its corners are in the wrong order: write the top left one, then the bottom right one")]
    Order,
    /// A crop that hardly shows anything.
    #[error("leaves less than 1 % of the picture")]
    TooSmall,
}

/// Reads corners.
///
/// # Errors
/// When the text is no list of points of the picture.
pub fn parse(text: &str) -> Result<Vec<Corner>, BadCorners> {
    // Spaces beside a comma separate no corners.
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() > 1
        && let Some(word) = words.iter().find(|word| word.matches(',').count() != 1)
    {
        return Err(BadCorners::NotACorner((*word).into()));
    }
    let numbers: Vec<f64> =
        words.iter().flat_map(|word| word.split(',')).map(number).collect::<Result<_, _>>()?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[x, y]| (*x, *y)).collect())
    } else {
        Err(BadCorners::Odd(numbers.len()))
    }
}

fn number(text: &str) -> Result<f64, BadCorners> {
    let number: f64 = text.parse().map_err(|_| BadCorners::NotANumber(text.into()))?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(BadCorners::Outside(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_pairs_or_numbers_with_commas_only() {
        let wanted = vec![(0.0, 0.1), (1.0, 0.25), (0.5, 1.0)];
        for text in [
            "0,0.1 1,0.25 0.5,1",
            " 0,.1\t1,0.25  0.5,1.0\n",
            "0, 0.1 1, 0.25 0.5, 1",
            "0,0.1,1,0.25,0.5,1",
            "0, 0.1, 1, 0.25, 0.5, 1",
        ] {
            assert_eq!(parse(text), Ok(wanted.clone()), "{text}");
        }
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn each_mistake_is_told() {
        use BadCorners as B;
        for (text, why) in [
            ("0,0 1,x", B::NotANumber("x".into())),
            ("0,0,", B::NotANumber(String::new())),
            ("0,0 0.5 1,1", B::NotACorner("0.5".into())),
            ("0,0 1,0,1,1", B::NotACorner("1,0,1,1".into())),
            ("0,0 1.01,0", B::Outside(1.01)),
            ("-0.1,0", B::Outside(-0.1)),
            ("320,180,1,1", B::Outside(320.0)),
            ("inf,0", B::Outside(f64::INFINITY)),
            ("0,0,1", B::Odd(3)),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
        assert!(matches!(parse("nan,0"), Err(B::Outside(_))));
    }
}
