//! A chart as SVG, through the plotting crate.
//!
//! A chart is drawn for two [`Frame`]s, a wide one and one for a phone, and the style sheet shows
//! the one that fits: a drawing that is only made smaller has letters nobody can read. Legends are
//! not part of the drawing: the page writes them as text below it.

use super::downsample::{thin_line, thin_points};
use super::html::{escape, printable};
use super::marker::{self, Shape};
use super::palette::{self, AXIS, GRID, INK, MARK};
use super::{Axis, Chart, Mark, Series, Style, number};
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::ops::Range;

/// A drawing's units for each pixel it is shown with. The plotting crate rounds to whole units.
pub const SCALE: u32 = 4;

/// A size to draw for, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A page.
    Wide,
    /// A phone.
    Narrow,
}

impl Frame {
    /// Both.
    pub const ALL: [Frame; 2] = [Frame::Wide, Frame::Narrow];

    /// What the style sheet calls it.
    pub fn class(self) -> &'static str {
        match self {
            Frame::Wide => "wide",
            Frame::Narrow => "narrow",
        }
    }

    /// Width and height, without the lanes of marks.
    fn size(self) -> (u32, u32) {
        match self {
            Frame::Wide => (880, 380),
            Frame::Narrow => (370, 290),
        }
    }

    /// About how many numbers are written along the axes.
    fn ticks(self) -> (usize, usize) {
        match self {
            Frame::Wide => (10, 8),
            Frame::Narrow => (5, 6),
        }
    }
}

/// Height of letters, in pixels.
const TEXT: u32 = 13;
/// Width of a letter on average, in pixels; there is no font to ask.
const LETTER: f64 = 6.8;
/// Height of a line of text.
const LINE: u32 = 18;

/// An SVG element with this chart. `label` says to those who do not see it what it shows.
pub fn svg(chart: &Chart, frame: Frame, label: &str) -> String {
    let extent = Extent::of(chart);
    let lanes = lanes(&chart.marks, frame, &extent);
    let (width, mut height) = frame.size();
    height += LINE * lanes.height;
    let mut drawn = String::new();
    let root = SVGBackend::with_string(&mut drawn, (width * SCALE, height * SCALE));
    // It is a string: nothing but a mistake of ours can go wrong.
    draw(chart, frame, &extent, &lanes, root).expect("drawing into a string");
    let inside = drawn.find('>').map_or("", |end| &drawn[end + 1..]);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"{}\" role=\"img\" aria-label=\"{}\" \
         viewBox=\"0 0 {} {}\">{inside}",
        frame.class(),
        escape(label),
        width * SCALE,
        height * SCALE,
    )
}

/// What the axes span. Never empty, always finite.
#[derive(Clone, Debug)]
struct Extent {
    x: Range<f64>,
    y: Range<f64>,
}

impl Extent {
    fn of(chart: &Chart) -> Extent {
        let points = || {
            let points = chart.series.iter().flat_map(|series| &series.points);
            points.filter(|(x, y)| x.is_finite() && y.is_finite())
        };
        let marks = chart.marks.iter().map(|mark| mark.x).filter(|x| x.is_finite());
        let x = span(points().map(|point| point.0).chain(marks));
        let y = span(points().map(|point| point.1));
        // Heights are compared with zero, so zero is shown unless all is below.
        let (low, high) = (y.0.min(0.0), y.1.max(0.0));
        let room = 0.06 * (high - low);
        let low = if low < 0.0 { low - room } else { low };
        Extent { x: widened(x.0, x.1), y: widened(low, high + room) }
    }
}

/// The least and the greatest; zero when there is none.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

fn widened(low: f64, high: f64) -> Range<f64> {
    if high > low { low..high } else { low..low + low.abs().max(1.0) }
}

fn draw(
    chart: &Chart,
    frame: Frame,
    extent: &Extent,
    lanes: &Lanes<'_>,
    backend: SVGBackend<'_>,
) -> Result<(), Box<dyn Error>> {
    let root = backend.into_drawing_area();
    let text = ("sans-serif", f64::from(TEXT * SCALE) * 1.24).into_text_style(&root);
    let ink = text.color(&INK);
    let heading = LINE + 8 + LINE * lanes.height;
    let mut context = ChartBuilder::on(&root)
        .margin_top(heading * SCALE)
        .margin_right(margin_right(frame) * SCALE)
        .margin_left(MARGIN_LEFT * SCALE)
        .x_label_area_size((LINE * 2 + 6) * SCALE)
        .y_label_area_size(label_width(frame, extent) * SCALE)
        .build_cartesian_2d(extent.x.clone(), extent.y.clone())?;
    let (columns, rows) = frame.ticks();
    let places = decimals(&extent.x, columns);
    let x_number = |value: &f64| number(*value, places);
    let places = decimals(&extent.y, rows);
    let y_number = |value: &f64| number(*value, places);
    context
        .configure_mesh()
        .x_labels(columns)
        .y_labels(rows)
        .max_light_lines(0)
        .disable_x_mesh()
        .bold_line_style(GRID.stroke_width(SCALE))
        .axis_style(AXIS.stroke_width(SCALE))
        .set_all_tick_mark_size(4 * SCALE)
        .label_style(ink.clone())
        .x_label_formatter(&x_number)
        .y_label_formatter(&y_number)
        .draw()?;
    let (width, height) = root.dim_in_pixel();
    let plot = context.plotting_area().get_pixel_range();
    let at = |x: i32, y: i32, horizontal: HPos, words: String| {
        let style = ink.pos(Pos::new(horizontal, VPos::Bottom));
        root.draw(&Text::new(printable(&words), (x, y), style))
    };
    at((MARGIN_LEFT * SCALE) as i32, (LINE * SCALE) as i32, HPos::Left, described(&chart.y))?;
    let middle = (plot.0.start + plot.0.end) / 2;
    at(middle.min(width as i32), (height - 4 * SCALE) as i32, HPos::Center, described(&chart.x))?;
    draw_marks(&root, &context, lanes, extent, &ink)?;
    let shapes = marker::shapes(&chart.series);
    let looks = palette::colours(&chart.series).into_iter().zip(shapes);
    for (place, (series, (colour, shape))) in chart.series.iter().zip(looks).enumerate() {
        let marked = if series.style == Style::Points {
            all_points(series, extent, frame)
        } else {
            draw_line(&mut context, series, extent, frame, colour)?;
            // Lines that lie on each other have their shapes at different places.
            let phase = (place as f64 + 0.5) / chart.series.len() as f64;
            let x = (extent.x.start, extent.x.end);
            marker::along(&series.points, x, frame.ticks().1, phase)
        };
        if let Some(shape) = shape {
            draw_shapes(&mut context, &marked, shape, colour)?;
        }
    }
    root.present()?;
    Ok(())
}

type Context<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_line(
    context: &mut Context<'_, '_>,
    series: &Series,
    extent: &Extent,
    frame: Frame,
    colour: RGBColor,
) -> Result<(), Box<dyn Error>> {
    let stairs = if series.style == Style::Step { stairs(&series.points) } else { Vec::new() };
    let points = if series.style == Style::Step { &stairs } else { &series.points };
    // Two columns for each pixel: the drawing may be enlarged.
    let columns = 2 * frame.size().0 as usize;
    let thinned = thin_line(points, (extent.x.start, extent.x.end), columns);
    let stroke = colour.stroke_width(2 * SCALE);
    for piece in thinned.split(|(x, y)| !x.is_finite() || !y.is_finite()) {
        match piece {
            [] => {}
            [alone] => {
                let dot = Circle::new(*alone, (2 * SCALE) as i32, colour.filled());
                context.draw_series([dot])?;
            }
            _ if series.style == Style::Area => {
                let area = AreaSeries::new(piece.iter().copied(), 0.0, colour.mix(0.18));
                context.draw_series(area.border_style(stroke))?;
            }
            _ => {
                context.draw_series([PathElement::new(piece.to_vec(), stroke)])?;
            }
        }
    }
    Ok(())
}

/// The points of a series that are not joined, as many as can be seen.
fn all_points(series: &Series, extent: &Extent, frame: Frame) -> Vec<(f64, f64)> {
    let (width, height) = frame.size();
    let (x, y) = ((extent.x.start, extent.x.end), (extent.y.start, extent.y.end));
    let mut points = thin_points(&series.points, x, y, (width as usize, height as usize));
    points.retain(|(x, y)| x.is_finite() && y.is_finite());
    points
}

fn draw_shapes(
    context: &mut Context<'_, '_>,
    points: &[(f64, f64)],
    shape: Shape,
    colour: RGBColor,
) -> Result<(), Box<dyn Error>> {
    let radius = 4 * SCALE as i32;
    let unit = |part: f64| (part * f64::from(radius)).round() as i32;
    let corners: Vec<(i32, i32)> =
        shape.corners().iter().map(|(x, y)| (unit(*x), unit(*y))).collect();
    let stroke = colour.stroke_width(2 * SCALE);
    for at in points {
        match (shape, corners.as_slice()) {
            (Shape::Cross, [a, b, c, d]) => {
                let strokes = [vec![*a, *b], vec![*c, *d]];
                let strokes =
                    strokes.map(|ends| EmptyElement::at(*at) + PathElement::new(ends, stroke));
                context.draw_series(strokes)?;
            }
            (_, []) => {
                context.draw_series([Circle::new(*at, radius, colour.filled())])?;
            }
            _ => {
                let filled = Polygon::new(corners.clone(), colour.filled());
                context.draw_series([EmptyElement::at(*at) + filled])?;
            }
        }
    }
    Ok(())
}

fn draw_marks(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    context: &Context<'_, '_>,
    lanes: &Lanes<'_>,
    extent: &Extent,
    ink: &TextStyle<'_>,
) -> Result<(), Box<dyn Error>> {
    for placed in &lanes.marks {
        let (x, bottom) = context.backend_coord(&(placed.mark.x, extent.y.start));
        // A lane's line of text, from the one next to the plot upwards.
        let top = context.plotting_area().get_pixel_range().1.start;
        let lane = top - ((4 + LINE * placed.lane) * SCALE) as i32;
        root.draw(&PathElement::new(vec![(x, lane), (x, bottom)], MARK.stroke_width(SCALE)))?;
        let (horizontal, aside) = match placed.to_the_left {
            true => (HPos::Right, -((4 * SCALE) as i32)),
            false => (HPos::Left, (4 * SCALE) as i32),
        };
        let style = ink.pos(Pos::new(horizontal, VPos::Bottom));
        root.draw(&Text::new(printable(&placed.mark.label), (x + aside, lane), style))?;
    }
    Ok(())
}

/// Marks with a place for their words above the plot: in lanes, so that no two overlap.
struct Lanes<'c> {
    marks: Vec<Placed<'c>>,
    height: u32,
}

struct Placed<'c> {
    mark: &'c Mark,
    lane: u32,
    to_the_left: bool,
}

fn lanes<'c>(marks: &'c [Mark], frame: Frame, extent: &Extent) -> Lanes<'c> {
    let left = f64::from(MARGIN_LEFT + label_width(frame, extent));
    let right = f64::from(frame.size().0 - margin_right(frame));
    let mut sorted: Vec<&Mark> = marks.iter().filter(|mark| mark.x.is_finite()).collect();
    sorted.sort_by(|a, b| a.x.total_cmp(&b.x));
    // For each lane, what is taken of it.
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut placed = Vec::new();
    for mark in sorted {
        let part = (mark.x - extent.x.start) / (extent.x.end - extent.x.start);
        let at = left + part * (right - left);
        let width = LETTER * mark.label.chars().count() as f64 + 10.0;
        let to_the_left = at + width > f64::from(frame.size().0) && at > width;
        let wanted = if to_the_left { (at - width, at) } else { (at, at + width) };
        let free = |lane: &Vec<(f64, f64)>| {
            lane.iter().all(|(from, to)| wanted.1 < *from || *to < wanted.0)
        };
        let lane = taken.iter().position(free).unwrap_or(taken.len());
        if lane == taken.len() {
            taken.push(Vec::new());
        }
        taken[lane].push(wanted);
        placed.push(Placed { mark, lane: lane as u32, to_the_left });
    }
    Lanes { marks: placed, height: taken.len() as u32 }
}

const MARGIN_LEFT: u32 = 4;

/// Half of the last number on the x axis stands right of the plot.
fn margin_right(frame: Frame) -> u32 {
    match frame {
        Frame::Wide => 28,
        Frame::Narrow => 20,
    }
}

/// Room for the longest number on the y axis.
fn label_width(frame: Frame, extent: &Extent) -> u32 {
    let rows = frame.ticks().1;
    let places = decimals(&extent.y, rows);
    let ticks = RangedCoordf64::from(extent.y.clone()).key_points(rows);
    let letters = ticks.iter().map(|tick| number(*tick, places).chars().count()).max();
    (LETTER * 1.15 * letters.unwrap_or(1) as f64) as u32 + 14
}

/// Points of a line that keeps its height until the next point. A gap ends the line there.
fn stairs(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut stairs: Vec<(f64, f64)> = Vec::with_capacity(2 * points.len());
    for (x, y) in points {
        if let Some((_, before)) = stairs.last().copied().filter(|(_, before)| before.is_finite()) {
            stairs.push((*x, before));
        }
        stairs.push((*x, *y));
    }
    stairs
}

/// How many decimals the numbers along an axis need to differ.
fn decimals(range: &Range<f64>, ticks: usize) -> usize {
    let points = RangedCoordf64::from(range.clone()).key_points(ticks);
    let step = points.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::MAX, f64::min);
    let enough = |places: &usize| {
        let scaled = step * 10f64.powi(*places as i32);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1e-9)
    };
    (0..9).find(enough).unwrap_or(3)
}

/// What an axis measures, with its unit.
pub fn described(axis: &Axis) -> String {
    match (axis.label.is_empty(), axis.unit.is_empty()) {
        (true, _) => axis.unit.clone(),
        (_, true) => axis.label.clone(),
        _ => format!("{} ({})", axis.label, axis.unit),
    }
}

#[cfg(test)]
mod tests {
    use super::super::html::check;
    use super::*;

    fn chart() -> Chart {
        let wave: Vec<(f64, f64)> =
            (0..5_000).map(|n| (f64::from(n), f64::from(n % 300) / 50.0)).collect();
        Chart::new("ε < 7 & \"more\"", Axis::new("time", "s"), Axis::new("ε", "ms"))
            .series("measured", Style::Line, wave.clone())
            .series("predicted", Style::Dashed, wave.clone())
            .series("steps", Style::Step, wave[..50].to_vec())
            .series("filled", Style::Area, wave[..50].to_vec())
            .series("seen", Style::Points, vec![(1.0, 2.0), (3.0, f64::NAN)])
            .series("heard", Style::Points, vec![(100.0, 3.0)])
            .series("felt", Style::Points, vec![(100.0, 4.0)])
            .mark(1_000.0, "masters <lost>")
            .mark(1_010.0, "& back")
    }

    #[test]
    fn drawings_are_well_formed() {
        for frame in Frame::ALL {
            let drawn = svg(&chart(), frame, "a \"label\" <b>");
            check::well_formed(&drawn).unwrap();
            check::no_reference(&drawn).unwrap();
            assert!(drawn.contains("aria-label=\"a &quot;label&quot; &lt;b&gt;\""));
            assert!(drawn.contains("masters &lt;lost&gt;") && drawn.contains("&amp; back"));
            assert!(drawn.contains("time (s)") && drawn.contains("ε (ms)"));
            assert!(drawn.contains("<polygon") && drawn.contains("<circle"));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
            // Both long lines are thinned: some 7 letters a point, 4 points a column.
            assert!(drawn.len() < 200_000, "{}", drawn.len());
        }
    }

    #[test]
    fn charts_of_nothing_are_drawn() {
        let axis = || Axis::new("", "");
        let empty = Chart::new("empty", axis(), axis());
        let never = vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)];
        let alone = vec![(5.0, 0.0)];
        let charts = [
            empty.clone(),
            empty.clone().series("gaps", Style::Line, never),
            empty.clone().series("alone", Style::Line, alone.clone()),
            empty.clone().series("alone", Style::Area, alone),
            empty.series("flat", Style::Step, vec![(0.0, -3.0), (1e9, -3.0)]),
        ];
        for chart in charts {
            for frame in Frame::ALL {
                check::well_formed(&svg(&chart, frame, "")).unwrap();
            }
        }
    }

    #[test]
    fn axes_span_what_is_drawn_and_zero() {
        let axis = || Axis::new("", "");
        let extent = Extent::of(&chart());
        assert_eq!((extent.x, extent.y.start), (0.0..4_999.0, 0.0));
        assert!(extent.y.end > 5.98 && extent.y.end < 7.0);
        let below = Chart::new("", axis(), axis()).series("", Style::Line, vec![(2.0, -4.0)]);
        let extent = Extent::of(&below.mark(9.0, "later"));
        assert_eq!(extent.x, 2.0..9.0);
        assert!(extent.y.start < -4.0 && extent.y.contains(&0.0));
    }

    #[test]
    fn words_of_marks_do_not_overlap() {
        let chart = chart();
        let extent = Extent::of(&chart);
        let placed = lanes(&chart.marks, Frame::Wide, &extent);
        assert_eq!(placed.height, 2);
        assert_eq!(placed.marks.iter().map(|mark| mark.lane).collect::<Vec<_>>(), [0, 1]);
        let apart = [Mark { x: 0.0, label: "a".into() }, Mark { x: 4_999.0, label: "b".into() }];
        let placed = lanes(&apart, Frame::Narrow, &extent);
        assert_eq!(placed.height, 1);
        let long = [Mark { x: 4_999.0, label: "the very end".into() }];
        assert!(lanes(&long, Frame::Narrow, &extent).marks[0].to_the_left);
    }

    #[test]
    fn steps_are_stairs() {
        let points = [(0.0, 1.0), (2.0, 3.0), (4.0, f64::NAN), (5.0, 1.0)];
        let stairs = stairs(&points);
        assert_eq!(stairs[..4], [(0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (4.0, 3.0)]);
        assert!(stairs[4].1.is_nan());
        assert_eq!(stairs[5..], [(5.0, 1.0)]);
    }

    #[test]
    fn axes_are_described() {
        let described = |label, unit| described(&Axis::new(label, unit));
        assert_eq!(described("ε", "ms"), "ε (ms)");
        assert_eq!((described("ε", "").as_str(), described("", "ms").as_str()), ("ε", "ms"));
    }

    #[test]
    fn numbers_along_an_axis_differ() {
        assert_eq!(decimals(&(0.0..7.0), 6), 0);
        assert_eq!(decimals(&(0.0..0.7), 6), 1);
        assert_eq!(decimals(&(0.0..0.001), 5), 4);
    }
}
