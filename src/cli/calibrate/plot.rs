//! The reliability diagram: how often what was said with a probability was so. A picture that stands on light and on dark
//! pages.

use std::fmt::Write;

use crate::calibration::quality::Bin;

/// The width of the drawing, and the square of the diagram within it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const SIDE: f64 = 320.0;
/// Colours of middle brightness.
const LINES: &str = "#808080";
const BEFORE: &str = "#d9822b";
const AFTER: &str = "#3b82d0";

/// The diagram as SVG. `title` is text of any kind.
pub fn reliability_diagram(title: &str, before: &[Bin], after: &[Bin]) -> String {
    let bottom = TOP + SIDE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"{LINES}\">\n<title>{0}</title>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"13\">{0}</text>\n\
         <path d=\"M{LEFT} {TOP}h{SIDE}v{SIDE}h-{SIDE}z M{LEFT} {bottom}l{SIDE} -{SIDE}\" fill=\"none\" stroke=\"{LINES}\" \
         stroke-dasharray=\"3 3\"/>\n",
        escaped(title)
    );
    for tick in [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] {
        let (x, y) = at(tick, tick);
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            bottom + 14.0,
            LEFT - 6.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\">said</text>\
         <text x=\"20\" y=\"{2:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {2:.1})\">so</text>",
        LEFT + SIDE / 2.0,
        bottom + 28.0,
        TOP + SIDE / 2.0
    );
    series(&mut svg, "before", BEFORE, before, bottom + 46.0);
    series(&mut svg, "after", AFTER, after, bottom + 62.0);
    svg + "</svg>\n"
}

/// Draws the points of some bins, and writes how many samples each has into the row at `row`.
fn series(svg: &mut String, name: &str, colour: &str, bins: &[Bin], row: f64) {
    let _ = write!(
        svg,
        "<g fill=\"{colour}\"><text x=\"{:.1}\" y=\"{row:.1}\" text-anchor=\"end\">{name}</text>",
        LEFT - 2.0
    );
    let mut line = String::new();
    for (place, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.count > 0) {
        let (x, y) = at(bin.said, bin.so);
        let (column, _) = at((place as f64 + 0.5) / bins.len() as f64, 0.0);
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\
             <text x=\"{column:.1}\" y=\"{row:.1}\" text-anchor=\"middle\">{}</text>",
            bin.count
        );
        let _ = write!(line, "{x:.1},{y:.1} ");
    }
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/></g>",
        line.trim_end()
    );
}

/// Where a point of the diagram is drawn.
fn at(said: f64, so: f64) -> (f64, f64) {
    (LEFT + said * SIDE, TOP + (1.0 - so) * SIDE)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bin_with_samples_is_a_point_with_its_count_and_text_stays_text() {
        let bin = |count, said, so| Bin { count, said, so };
        let before = [bin(0, 0.0, 0.0), bin(7, 0.75, 0.5)];
        let svg = reliability_diagram("Is 1 < 2 & so?", &before, &[bin(3, 0.25, 0.25), bin(4, 0.5, 1.0)]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("<circle cx=\"300.0\" cy=\"200.0\" r=\"4\"/>"), "{svg}");
        for count in [">7<", ">3<", ">4<"] {
            assert!(svg.contains(count), "{svg}");
        }
        assert!(svg.contains("<title>Is 1 &lt; 2 &amp; so?</title>"), "{svg}");
        let opened = svg.matches('<').count() - svg.matches("</").count() - svg.matches("/>").count();
        assert_eq!(opened, svg.matches("</").count());
    }
}
