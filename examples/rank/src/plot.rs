//! Line charts with logarithmic axes, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;
use crate::report::figures;

const SIZE: (u32, u32) = (1120, 640);
/// Width of the right margin, for the names at the ends of the curves.
const NAMES_WIDTH: u32 = 350;
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(226, 229, 234);
/// Distinguishable with every common kind of colour blindness (Okabe and Ito, 2008), darkened where text would have too
/// little contrast.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 138, 100),
    RGBColor(176, 88, 140),
    RGBColor(110, 110, 110),
];

/// A curve.
#[derive(Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Work done ahead of requests and not part of their latency; drawn dashed.
    pub(crate) offline: bool,
    /// Pairs of a size and a median time in milliseconds.
    pub(crate) points: Vec<(usize, f64)>,
}

impl Series {
    /// The points as numbers that have a logarithm.
    fn values(&self) -> impl Iterator<Item = (f64, f64)> + Clone + '_ {
        self.points.iter().map(|&(size, time)| (size as f64, time.max(1e-6)))
    }
}

/// The texts of a plot.
pub(crate) struct Labels<'a> {
    pub(crate) title: &'a str,
    /// Data, and what was run on what.
    pub(crate) subtitles: [&'a str; 2],
    /// Quantities of the axes.
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// Draws the curves, each with its name at its end.
pub(crate) fn draw(path: &Path, labels: &Labels<'_>, series: &[Series]) -> Outcome<()> {
    let (x, y) = axes(series)?;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    draw_on(&root, labels, series, x, y).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

/// Axes that hold every point.
fn axes(series: &[Series]) -> Outcome<(Decades, Decades)> {
    let points = || series.iter().flat_map(|series| series.values());
    if points().next().is_none() {
        return Err("there is nothing to plot".into());
    }
    let range = |value: fn((f64, f64)) -> f64| {
        points().map(value).fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (shortest, longest) = range(|point| point.0);
    let (fastest, slowest) = range(|point| point.1);
    Ok((
        Decades { from: shortest / 1.15, to: longest * 1.15 },
        Decades { from: fastest / 1.5, to: slowest * 1.5 },
    ))
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_on<'a>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    labels: &Labels<'_>,
    series: &[Series],
    x: Decades,
    y: Decades,
) -> Drawn<'a> {
    root.fill(&WHITE)?;
    let heading = ("sans-serif", 22).into_font().style(FontStyle::Bold).color(&INK);
    let small = ("sans-serif", 14).into_font().color(&INK.mix(0.75));
    root.draw(&Text::new(labels.title, (24, 18), heading))?;
    for (subtitle, y) in labels.subtitles.into_iter().zip([46, 66]) {
        root.draw(&Text::new(subtitle, (24, y), small.clone()))?;
    }
    let mut chart = ChartBuilder::on(root)
        .margin_top(98)
        .margin_left(14)
        .margin_bottom(10)
        .margin_right(NAMES_WIDTH)
        .x_label_area_size(52)
        .y_label_area_size(74)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.6))
        .x_desc(format!("{} (log scale)", labels.x))
        .y_desc(format!("{} (log scale)", labels.y))
        .axis_desc_style(("sans-serif", 15).into_font().color(&INK))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .draw()?;

    let mut names = Vec::new();
    for (series, &colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let Some(end) = series.values().last() else { continue };
        let style = colour.stroke_width(if series.offline { 2 } else { 3 });
        if series.offline {
            chart.draw_series(DashedLineSeries::new(series.values(), 6, 5, style))?;
        } else {
            chart.draw_series(LineSeries::new(series.values(), style))?;
        }
        chart.draw_series(series.values().map(|point| Circle::new(point, 4, colour.filled())))?;
        let (x, y) = chart.backend_coord(&end);
        names.push((x, y, colour, format!("{}: {} ms", series.name, figures(end.1))));
    }
    // Names are next to the ends of their curves, moved down where they would overlap.
    names.sort_by_key(|name| name.1);
    let mut free = i32::MIN;
    for (x, y, colour, name) in names {
        let at = y.max(free);
        free = at + 20;
        let style = ("sans-serif", 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&PathElement::new([(x + 6, y), (x + 20, at)], colour.mix(0.6)))?;
        root.draw(&Text::new(name, (x + 24, at), style))?;
    }
    root.present()
}

/// A logarithmic axis with lines at 1, 2 and 5 times each power of ten, or only at the powers of ten over long ranges.
struct Decades {
    from: f64,
    to: f64,
}

impl Decades {
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = self.from.log10().floor() as i32..=self.to.log10().ceil() as i32;
        let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        ticks.filter(|tick| (self.from..=self.to).contains(tick)).collect()
    }
}

impl Ranged for Decades {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value / self.from).ln() / (self.to / self.from).ln();
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Decades {
    fn format(value: &f64) -> String {
        if *value >= 1.0 { crate::report::count(value.round() as usize) } else { format!("{value}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        assert_eq!(Decades { from: 90.0, to: 1100.0 }.ticks(), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(Decades { from: 0.5, to: 2e4 }.ticks(), [1.0, 10.0, 100.0, 1e3, 1e4]);
    }

    #[test]
    fn plots_name_their_curves_and_need_at_least_one() {
        let path = std::env::temp_dir().join(format!("longseq-plot-{}.svg", std::process::id()));
        let series = |name: &str, points: &[(usize, f64)]| Series {
            name: name.into(),
            offline: false,
            points: points.to_vec(),
        };
        let labels = Labels { title: "Title", subtitles: ["Data", "Device"], x: "size", y: "time" };
        draw(&path, &labels, &[series("curve", &[(100, 1.0)])]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            svg.contains("curve: 1.00 ms")
                && svg.contains("Title")
                && svg.contains("Data")
                && svg.contains("Device")
        );
        assert!(draw(&path, &labels, &[]).is_err());
    }
}
