//! Fewer points that look the same.
//!
//! A chart is some hundred pixels wide; a run may have a million points. Of those that fall into
//! one column of pixels, the first, the last, the lowest and the highest are all that can be seen
//! of a line, so only they are drawn. A spike of one point stays.

/// Series up to this long are drawn as they are.
pub const POINTS_MAX: usize = 2_000;

/// Points of a line, thinned to what `columns` columns between the ends of `x` can show. Points
/// that are not finite are gaps, and stay.
pub fn thin_line(points: &[(f64, f64)], x: (f64, f64), columns: usize) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let mut thinned = Vec::new();
    let mut rest = points;
    while let Some(first) = rest.first() {
        let place = column(first.0, x, columns);
        let is_gap = !is_finite(first);
        let same = |point: &(f64, f64)| {
            is_finite(point) != is_gap && (is_gap || column(point.0, x, columns) == place)
        };
        let end = rest.iter().position(|point| !same(point)).unwrap_or(rest.len());
        let (inside, after) = rest.split_at(end);
        if is_gap {
            thinned.push(*first);
        } else {
            keep_extremes(inside, &mut thinned);
        }
        rest = after;
    }
    thinned
}

/// Points that are not joined, thinned to one for each cell of a grid.
pub fn thin_points(
    points: &[(f64, f64)],
    x: (f64, f64),
    y: (f64, f64),
    (columns, rows): (usize, usize),
) -> Vec<(f64, f64)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let mut taken = vec![false; columns * rows];
    let is_first = |point: &&(f64, f64)| {
        let cell = column(point.0, x, columns) + columns * column(point.1, y, rows);
        is_finite(point) && !std::mem::replace(&mut taken[cell], true)
    };
    points.iter().filter(is_first).copied().collect()
}

/// Of the points of a column, in their order: the ends and the extremes.
fn keep_extremes(points: &[(f64, f64)], kept: &mut Vec<(f64, f64)>) {
    let by_height = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
    let lowest = (0..points.len()).min_by(by_height);
    let highest = (0..points.len()).max_by(by_height);
    let mut places: Vec<usize> =
        [Some(0), lowest, highest, points.len().checked_sub(1)].into_iter().flatten().collect();
    places.sort_unstable();
    places.dedup();
    kept.extend(places.into_iter().map(|place| points[place]));
}

/// Which of `columns` equal parts of a range a value falls into; what is outside falls into the
/// first or the last.
fn column(value: f64, (from, to): (f64, f64), columns: usize) -> usize {
    let part = (value - from) / (to - from) * columns as f64;
    // The cast takes what is negative or no number as 0.
    (part as usize).min(columns.saturating_sub(1))
}

fn is_finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sawtooth with one spike up and one down.
    fn long() -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> =
            (0..100_000).map(|n| (f64::from(n), f64::from(n % 10))).collect();
        points[12_345].1 = 1_000.0;
        points[77_777].1 = -1_000.0;
        points
    }

    #[test]
    fn short_series_stay_as_they_are() {
        let points: Vec<(f64, f64)> = (0..2_000).map(|n| (f64::from(n), 1.0)).collect();
        assert_eq!(thin_line(&points, (0.0, 2_000.0), 10), points);
        assert_eq!(thin_points(&points, (0.0, 2_000.0), (0.0, 1.0), (2, 2)), points);
    }

    #[test]
    fn extremes_of_every_column_stay() {
        let (points, range, columns) = (long(), (0.0, 100_000.0), 500);
        let thinned = thin_line(&points, range, columns);
        assert!(thinned.len() <= 4 * columns, "{}", thinned.len());
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0), "order and no point twice");
        assert_eq!((thinned[0], thinned.last()), (points[0], points.last()));
        for place in 0..columns {
            let extremes = |points: &[(f64, f64)]| {
                let inside = points.iter().filter(|point| column(point.0, range, columns) == place);
                inside.fold((f64::MAX, f64::MIN), |(low, high), point| {
                    (low.min(point.1), high.max(point.1))
                })
            };
            assert_eq!(extremes(&thinned), extremes(&points), "column {place}");
        }
    }

    #[test]
    fn gaps_stay() {
        let mut points = long();
        for point in &mut points[40_000..41_000] {
            point.1 = f64::NAN;
        }
        let thinned = thin_line(&points, (0.0, 100_000.0), 500);
        let gaps: Vec<&(f64, f64)> = thinned.iter().filter(|point| !is_finite(point)).collect();
        assert_eq!(gaps.len(), 1);
        assert!(thinned.contains(&points[39_999]) && thinned.contains(&points[41_000]));
    }

    #[test]
    fn a_cloud_keeps_its_outline() {
        let points = long();
        let thinned = thin_points(&points, (0.0, 100_000.0), (-1_000.0, 1_000.0), (500, 200));
        assert!(thinned.len() < points.len() / 10, "{}", thinned.len());
        assert!(thinned.contains(&points[12_345]) && thinned.contains(&points[77_777]));
    }

    #[test]
    fn values_outside_of_the_range_fall_into_the_ends() {
        assert_eq!(column(-5.0, (0.0, 1.0), 10), 0);
        assert_eq!(column(1.0, (0.0, 1.0), 10), 9);
        assert_eq!(column(f64::NAN, (0.0, 1.0), 10), 0);
        assert_eq!(column(1.0, (1.0, 1.0), 10), 0, "an empty range has one place");
    }
}
