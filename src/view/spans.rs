//! The pixels that a polygon touches, row by row.

use std::ops::Range;

use super::{
    corners::{Corner, MARGIN},
    polygon::{Polygon, edges},
};

/// The columns that polygons touch in a row of a picture, each range once, in order.
pub fn touched(polygons: &[Vec<Corner>], row: usize, columns: &Range<usize>) -> Vec<Range<usize>> {
    let (top, bottom) = (row as f64 - f64::from(MARGIN), row as f64 + 1.0 + f64::from(MARGIN));
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for polygon in polygons {
        if polygon.iter().all(|corner| corner.1 < top) || polygon.iter().all(|corner| corner.1 > bottom) {
            continue;
        }
        let at_edges = edges(polygon).filter_map(|edge| part_within(edge, top, bottom));
        let parts = at_edges.chain(inside(polygon, row as f64 + 0.5));
        ranges.extend(parts.map(|(from, to)| {
            let (from, to) = ((from - f64::from(MARGIN)).floor(), (to + f64::from(MARGIN)).ceil());
            // A negative number becomes 0.
            (from as usize).max(columns.start)..(to as usize).min(columns.end)
        }));
    }
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let joins = next.start <= before.end;
        if joins {
            before.end = before.end.max(next.end);
        }
        joins
    });
    ranges
}

/// The corners of a polygon in pixels of a picture.
pub fn in_pixels(polygon: &Polygon, width: usize, height: usize) -> Vec<Corner> {
    polygon.corners().iter().map(|(x, y)| (x * width as f64, y * height as f64)).collect()
}

/// From where to where the part of an edge reaches that lies between two heights.
fn part_within((a, b): (Corner, Corner), top: f64, bottom: f64) -> Option<(f64, f64)> {
    if a.1.max(b.1) < top || a.1.min(b.1) > bottom {
        return None;
    }
    let at = |height: f64| {
        let part = ((height - a.1) / (b.1 - a.1)).clamp(0.0, 1.0);
        a.0 + part * (b.0 - a.0)
    };
    let (one, other) = if a.1 == b.1 { (a.0, b.0) } else { (at(top), at(bottom)) };
    Some((one.min(other), one.max(other)))
}

/// From where to where the inside of a polygon reaches at a height.
fn inside(polygon: &[Corner], height: f64) -> Vec<(f64, f64)> {
    let crosses = |(a, b): &(Corner, Corner)| (a.1 <= height) != (b.1 <= height);
    let at = |(a, b): (Corner, Corner)| a.0 + (height - a.1) / (b.1 - a.1) * (b.0 - a.0);
    let mut crossings: Vec<f64> = edges(polygon).filter(crosses).map(at).collect();
    crossings.sort_by(f64::total_cmp);
    let (pairs, _) = crossings.as_chunks::<2>();
    pairs.iter().map(|[from, to]| (*from, *to)).collect()
}
