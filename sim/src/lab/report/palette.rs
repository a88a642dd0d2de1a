//! Colours, as names that a page can give another value.
//!
//! The plotting crate writes colours as numbers into the SVG. Each number used is one of those here,
//! and the page's style sheet gives every one of them a custom property: so one drawing serves
//! light, dark and print. Numbers are those of the light theme, so that a drawing taken out of its
//! page still looks right. Dashes have no word in the plotting crate: they are a colour, too.
//!
//! Neighbouring colours differ for the colour-blind (they follow the scheme of Okabe and Ito,
//! darkened or lightened until each has a contrast of at least 3 with its background), and
//! no series is told by its colour alone: see [`super::Style`] and [`super::marker`].

use super::{Series, Style};
use plotters::style::RGBColor;
use std::fmt::Write;

/// Text, and what else is read.
pub const INK: RGBColor = RGBColor(0x1C, 0x1F, 0x24);
/// Axes.
pub const AXIS: RGBColor = RGBColor(0x6B, 0x72, 0x7C);
/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(0xE2, 0xE5, 0xEA);
/// Lines of marks; dotted.
pub const MARK: RGBColor = RGBColor(0x4A, 0x50, 0x59);

/// Series in light and in dark, in their order; then they repeat.
const SERIES: [(RGBColor, RGBColor); 7] = [
    (RGBColor(0x00, 0x66, 0xA8), RGBColor(0x62, 0xB5, 0xF0)),
    (RGBColor(0xC2, 0x4E, 0x00), RGBColor(0xFF, 0x9A, 0x57)),
    (RGBColor(0x00, 0x7D, 0x5A), RGBColor(0x34, 0xC7, 0x9A)),
    (RGBColor(0x9E, 0x3D, 0x78), RGBColor(0xE8, 0x97, 0xC4)),
    (RGBColor(0x86, 0x69, 0x00), RGBColor(0xE8, 0xC2, 0x4A)),
    (RGBColor(0x4A, 0x4A, 0xA8), RGBColor(0xA9, 0xA9, 0xF5)),
    (RGBColor(0x5A, 0x5A, 0x5A), RGBColor(0xB8, 0xB8, 0xB8)),
];

/// The others in dark.
const DARK: [(RGBColor, RGBColor); 4] = [
    (INK, RGBColor(0xE6, 0xE8, 0xEB)),
    (AXIS, RGBColor(0x8E, 0x95, 0xA0)),
    (GRID, RGBColor(0x2C, 0x31, 0x39)),
    (MARK, RGBColor(0xB9, 0xC0, 0xCA)),
];

/// The colour of each series of a chart. A dashed line right behind points says what they should be,
/// and has their colour; for all others it is the next. Dashed lines have a number of their own,
/// hardly another to the eye.
pub fn colours(all: &[Series]) -> Vec<RGBColor> {
    let mut used = 0;
    let mut before = None;
    let mut next = |series: &Series| {
        let follows = series.style == Style::Dashed && before == Some(Style::Points);
        before = Some(series.style);
        used += usize::from(!follows);
        let light = SERIES[(used - 1) % SERIES.len()].0;
        if series.style == Style::Dashed { dashed(light) } else { light }
    };
    all.iter().map(&mut next).collect()
}

/// A colour as an SVG attribute has it.
pub fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The rules of the style sheet: a custom property for each colour, and what draws with it. Charts
/// are drawn `scale` times as large as they are shown.
pub fn style_rules(scale: u32) -> String {
    let named =
        |kind: &'static str, list: &[(RGBColor, RGBColor)]| -> Vec<(String, RGBColor, RGBColor)> {
            let name = |(place, (light, dark)): (usize, &(RGBColor, RGBColor))| {
                (format!("--{kind}-{place}"), *light, *dark)
            };
            list.iter().enumerate().map(name).collect()
        };
    let colours = [named("series", &SERIES), named("chart", &DARK)].concat();
    let mut rules = String::new();
    let properties = |dark: bool| -> String {
        let one = |(name, light, in_dark): &(String, RGBColor, RGBColor)| {
            format!("{name}:{};", hex(if dark { *in_dark } else { *light }))
        };
        colours.iter().map(one).collect()
    };
    // Writing to a string does not fail.
    let _ = writeln!(rules, ":root{{{}}}", properties(false));
    let _ = writeln!(
        rules,
        "@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}",
        properties(true)
    );
    for (name, light, _) in &colours {
        for colour in [*light, dashed(*light)] {
            let hex = hex(colour);
            let _ = writeln!(rules, "[stroke=\"{hex}\"]{{stroke:var({name})}}");
            let _ = writeln!(rules, "[fill=\"{hex}\"]{{fill:var({name})}}");
        }
    }
    for (light, _) in SERIES {
        let hex = hex(dashed(light));
        let _ =
            writeln!(rules, "[stroke=\"{hex}\"]{{stroke-dasharray:{} {}}}", 7 * scale, 5 * scale);
    }
    let _ = writeln!(rules, "[stroke=\"{}\"]{{stroke-dasharray:{scale} {}}}", hex(MARK), 3 * scale);
    rules
}

fn dashed(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    RGBColor(red, green, blue ^ 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Relative luminance as WCAG 2 defines it.
    fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn colours_stand_out_from_their_background() {
        // The backgrounds of page.css.
        let (light, dark) = (RGBColor(0xFF, 0xFF, 0xFF), RGBColor(0x14, 0x17, 0x1C));
        assert!(super::super::html::STYLE.contains(&hex(dark).to_lowercase()));
        for (in_light, in_dark) in SERIES {
            assert!(contrast(in_light, light) >= 4.5, "{}", hex(in_light));
            assert!(contrast(in_dark, dark) >= 4.5, "{}", hex(in_dark));
        }
        for (in_light, in_dark) in [DARK[0], DARK[3]] {
            assert!(contrast(in_light, light) >= 4.5 && contrast(in_dark, dark) >= 4.5);
        }
    }

    #[test]
    fn every_colour_has_one_meaning() {
        let all = SERIES.iter().chain(&DARK).flat_map(|(light, _)| [*light, dashed(*light)]);
        let names: Vec<String> = all.map(hex).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let rules = style_rules(4);
        for name in &names {
            assert!(rules.contains(&format!("[stroke=\"{name}\"]")), "{name}");
        }
    }

    #[test]
    fn a_prediction_has_the_colour_of_its_points() {
        let styles = [Style::Points, Style::Dashed, Style::Line, Style::Dashed, Style::Dashed];
        let series = styles.map(|style| Series { name: String::new(), style, points: vec![] });
        let [a, b, c, d] = [0, 1, 2, 3].map(|place: usize| SERIES[place].0);
        assert_eq!(colours(&series), [a, dashed(a), b, dashed(c), dashed(d)]);
        let many = vec![series[2].clone(); SERIES.len() + 1];
        assert_eq!(colours(&many)[SERIES.len()], SERIES[0].0, "then they repeat");
    }
}
