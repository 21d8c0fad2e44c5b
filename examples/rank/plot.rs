//! Curves over logarithmic axes, as an SVG.

use std::path::Path;

use plotters::coord::ranged1d::{KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;
use crate::report::figures;

const SIZE: (u32, u32) = (1120, 620);
/// Room for the names at the ends of the curves.
const NAMES: u32 = 350;
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(226, 229, 234);
/// Told apart with every common kind of colour blindness (Okabe and Ito, 2008), darkest where text needs it.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 138, 100),
    RGBColor(176, 88, 140),
    RGBColor(110, 110, 110),
];

/// A curve of the plot.
#[derive(Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Work done before a request comes, not part of its latency.
    pub(crate) offline: bool,
    /// A size and median milliseconds.
    pub(crate) points: Vec<(usize, f64)>,
}

/// What a plot says beside its curves.
pub(crate) struct Labels<'a> {
    pub(crate) title: &'a str,
    pub(crate) subtitle: &'a str,
    /// What is measured along the axes.
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// Draws the curves and names each at its end.
pub(crate) fn draw(path: &Path, labels: &Labels<'_>, series: &[Series]) -> Outcome<()> {
    let points = || series.iter().flat_map(|series| &series.points);
    let lengths = points().map(|&(length, _)| length as f64);
    let times = points().map(|&(_, time)| time.max(1e-6));
    let (from, to) = (lengths.clone().fold(f64::MAX, f64::min), lengths.fold(1.0, f64::max));
    let (low, high) = (times.clone().fold(f64::MAX, f64::min), times.fold(1e-6, f64::max));
    if from > to {
        return Err("there is nothing to plot".into());
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let heading = ("sans-serif", 22).into_font().style(FontStyle::Bold).color(&INK);
    let small = ("sans-serif", 14).into_font().color(&INK.mix(0.75));
    root.draw(&Text::new(labels.title, (24, 18), heading)).map_err(|error| failed(&error))?;
    root.draw(&Text::new(labels.subtitle, (24, 46), small)).map_err(|error| failed(&error))?;

    let ranges = (Decades::around(from / 1.15, to * 1.15), Decades::around(low / 1.5, high * 1.5));
    let mut chart = ChartBuilder::on(&root)
        .margin_top(78)
        .margin_left(14)
        .margin_bottom(10)
        .margin_right(NAMES)
        .x_label_area_size(52)
        .y_label_area_size(74)
        .build_cartesian_2d(ranges.0, ranges.1)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.6))
        .x_desc(format!("{} (log scale)", labels.x))
        .y_desc(format!("{} (log scale)", labels.y))
        .axis_desc_style(("sans-serif", 15).into_font().color(&INK))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .draw()
        .map_err(|error| failed(&error))?;

    let mut names = Vec::new();
    for (series, &colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<(f64, f64)> =
            series.points.iter().map(|&(length, time)| (length as f64, time.max(1e-6))).collect();
        let Some(&end) = points.last() else { continue };
        let style = colour.stroke_width(if series.offline { 2 } else { 3 });
        let drawn = if series.offline {
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 5, style)).map(drop)
        } else {
            chart.draw_series(LineSeries::new(points.iter().copied(), style)).map(drop)
        };
        drawn.map_err(|error| failed(&error))?;
        let dots = points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
        chart.draw_series(dots).map_err(|error| failed(&error))?;
        let (x, y) = chart.backend_coord(&end);
        names.push((x, y, colour, format!("{}: {} ms", series.name, figures(end.1))));
    }
    // Names stand beside the ends of their curves, apart from one another.
    names.sort_by_key(|name| name.1);
    let mut free = i32::MIN;
    for (x, y, colour, name) in names {
        let at = y.max(free);
        free = at + 20;
        let style = ("sans-serif", 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&PathElement::new([(x + 6, y), (x + 20, at)], colour.mix(0.6)))
            .map_err(|error| failed(&error))?;
        root.draw(&Text::new(name, (x + 24, at), style)).map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))?;
    Ok(())
}

/// A logarithmic axis with lines at 1, 2 and 5 times the powers of ten, or at the powers alone where they are many.
struct Decades {
    from: f64,
    to: f64,
}

impl Decades {
    fn around(from: f64, to: f64) -> Self {
        Self { from, to }
    }

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
    fn ticks_are_round_and_inside() {
        assert_eq!(Decades::around(90.0, 1100.0).ticks(), [100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(Decades::around(0.5, 2e4).ticks(), [1.0, 10.0, 100.0, 1e3, 1e4]);
    }

    #[test]
    fn a_plot_names_its_curves_and_no_curve_is_an_error() {
        let path = std::env::temp_dir().join(format!("longseq-plot-{}.svg", std::process::id()));
        let series = |name: &str, points: &[(usize, f64)]| Series {
            name: name.into(),
            offline: false,
            points: points.to_vec(),
        };
        let labels = Labels { title: "Title", subtitle: "Subtitle", x: "size", y: "time" };
        draw(&path, &labels, &[series("curve", &[(100, 1.0)])]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("curve: 1.00 ms") && svg.contains("Title"));
        assert!(draw(&path, &labels, &[]).is_err());
    }
}
