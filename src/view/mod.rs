//! What of a camera's picture is seen: a crop, and masks that hide parts of it. Pure: text in, a checked [`View`] out;
//! pixels in, pixels out.
//!
//! Both are in parts of the upright picture as people see it: 0,0 is its top left corner, 1,1 its bottom right one.
//! A mask errs on the side of black, a crop on that of less.
//!
//! | file | what it holds |
//! |---|---|
//! | `settings.rs` | crop and masks of a camera |
//! | `crop.rs`, `polygon.rs`, `corners.rs` | a crop and a polygon, as people write them |
//! | `sized.rs` | a view laid out for pictures of one size, and how it is applied |
//! | `spans.rs` | the pixels that a polygon touches |

mod corners;
mod crop;
mod polygon;
mod settings;
mod sized;
mod spans;

pub use corners::BadCorners;
pub use crop::Crop;
pub use polygon::Polygon;
pub use settings::View;
pub use sized::{CannotApply, SizedView};
