//! Shapes that tell series apart for those who see no colours, and on paper.
//!
//! Points are drawn as shapes anyway. Lines get some on the way, as soon as there are two of them
//! in a chart; dashed ones have their dashes.

use super::{Series, Style};

/// What marks a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// ●
    Circle,
    /// ▲
    Triangle,
    /// ×
    Cross,
    /// ■
    Square,
}

impl Shape {
    const ALL: [Shape; 4] = [Shape::Circle, Shape::Triangle, Shape::Square, Shape::Cross];

    /// Its corners around a point, in parts of its radius, with `y` downwards; none for a circle.
    /// Those of a cross are the ends of its two strokes.
    pub fn corners(self) -> &'static [(f64, f64)] {
        match self {
            Shape::Circle => &[],
            Shape::Triangle => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            Shape::Cross => &[(-0.9, -0.9), (0.9, 0.9), (0.9, -0.9), (-0.9, 0.9)],
            Shape::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        }
    }
}

/// The shape of each series of a chart, if it needs one.
pub fn shapes(all: &[Series]) -> Vec<Option<Shape>> {
    let has_shape = |series: &&Series| series.style != Style::Dashed;
    let is_alone = all.iter().filter(has_shape).count() < 2;
    let mut shapes = Shape::ALL.into_iter().cycle();
    let mut shape_of = |series: &Series| match series.style {
        Style::Dashed => None,
        Style::Points => shapes.next(),
        _ if is_alone => None,
        _ => shapes.next(),
    };
    all.iter().map(&mut shape_of).collect()
}

/// Some points of a line, `count` at most and evenly spaced between the ends of `x`. Lines with a
/// different `phase`, from 0 to 1, have theirs at different places.
pub fn along(points: &[(f64, f64)], x: (f64, f64), count: usize, phase: f64) -> Vec<(f64, f64)> {
    let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    if points.len() <= count {
        return points.iter().filter(finite).copied().collect();
    }
    let mut chosen: Vec<(f64, f64)> = Vec::new();
    for place in 0..count {
        let wanted = x.0 + (x.1 - x.0) * (place as f64 + phase) / count as f64;
        let found = points.iter().filter(finite).find(|point| point.0 >= wanted);
        // The same one again: the line has a hole there, or begins later.
        chosen.extend(found.filter(|point| chosen.last() != Some(*point)));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(styles: &[Style]) -> Vec<Series> {
        let one = |style: &Style| Series { name: String::new(), style: *style, points: vec![] };
        styles.iter().map(one).collect()
    }

    #[test]
    fn series_are_told_apart_without_colours() {
        use Style::{Area, Dashed, Line, Points, Step};
        let of = |styles: &[Style]| shapes(&series(styles));
        assert_eq!(of(&[Line, Dashed]), [None, None], "dashes are enough");
        assert_eq!(of(&[Points, Dashed]), [Some(Shape::Circle), None]);
        let many = of(&[Line, Dashed, Area, Step, Points]);
        assert_eq!(many[1], None);
        for (place, shape) in many.iter().enumerate().filter(|(place, _)| *place != 1) {
            assert!(shape.is_some() && !many[..place].contains(shape));
        }
    }

    #[test]
    fn shapes_along_a_line_are_its_points() {
        let points: Vec<(f64, f64)> = (0..1_000).map(|n| (f64::from(n), 1.0)).collect();
        let (a, b) = (along(&points, (0.0, 999.0), 8, 0.2), along(&points, (0.0, 999.0), 8, 0.7));
        assert_eq!((a.len(), b.len()), (8, 8));
        assert!(a.iter().all(|point| points.contains(point) && !b.contains(point)));
        assert_eq!(along(&points[..5], (0.0, 999.0), 8, 0.5), points[..5]);
        assert_eq!(along(&points[900..], (0.0, 999.0), 8, 0.5).len(), 2, "no point twice");
        assert_eq!(along(&[(f64::NAN, 1.0)], (0.0, 1.0), 8, 0.5), []);
    }
}
