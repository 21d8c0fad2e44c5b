//! Plots as SVG: quality against cost, and curves of training.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;
use crate::estimates::Estimate;
use crate::report::figures;

const SIZE: (u32, u32) = (1120, 640);
/// Width of the right margin, for names.
const NAMES_WIDTH: u32 = 250;
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(226, 229, 234);
/// Distinguishable with every common kind of colour blindness (Okabe and Ito, 2008), darkened where text would have too
/// little contrast.
const COLOURS: [RGBColor; 7] = [
    RGBColor(110, 110, 110),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 138, 100),
    RGBColor(176, 88, 140),
    RGBColor(20, 130, 170),
    RGBColor(150, 110, 0),
];

/// The texts of a plot.
pub(crate) struct Labels<'a> {
    pub(crate) title: &'a str,
    /// Data and setting.
    pub(crate) subtitle: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// One system's quality and cost.
pub(crate) struct Dot {
    pub(crate) name: &'static str,
    /// Seconds of an epoch.
    pub(crate) cost: f64,
    pub(crate) quality: Estimate,
}

/// One system's curve: a value for each epoch.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;
type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Where a name is, its colour, its text.
type Name = ((i32, i32), RGBColor, String);

/// The smallest range that holds all values, and a tenth more on each side.
fn range(values: impl Iterator<Item = f64> + Clone) -> Outcome<std::ops::Range<f64>> {
    let (low, high) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
    if !low.is_finite() || !high.is_finite() || low > high {
        return Err("there is nothing to plot".into());
    }
    let margin = if high > low { (high - low) / 10.0 } else { high.abs().max(1e-3) / 10.0 };
    Ok(low - margin..high + margin)
}

/// Draws quality with its interval against cost, which has a logarithmic axis.
pub(crate) fn quality(path: &Path, labels: &Labels<'_>, dots: &[Dot]) -> Outcome<()> {
    // The axis shows the logarithm: its labels are the numbers themselves.
    let x = range(dots.iter().map(|dot| dot.cost.max(1e-6).log10()))?;
    let y = range(dots.iter().flat_map(|dot| [dot.quality.low, dot.quality.high]))?;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let draw = || -> Drawn<()> {
        let label = |x: &f64| figures(10f64.powf(*x));
        let mut chart = chart(&root, labels, x, y, &label)?;
        let mut names: Vec<Name> = Vec::new();
        for (dot, &colour) in dots.iter().zip(COLOURS.iter().cycle()) {
            let x = dot.cost.max(1e-6).log10();
            let interval = [(x, dot.quality.low), (x, dot.quality.high)];
            chart.draw_series([PathElement::new(interval, colour.stroke_width(2))])?;
            let middle = (x, dot.quality.value);
            chart.draw_series([Circle::new(middle, 6, colour.filled())])?;
            names.push((chart.backend_coord(&middle), colour, dot.name.into()));
        }
        write_names(&root, names)
    };
    draw().map_err(|error| format!("{}: {error}", path.display()))?;
    root.present().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

/// Draws curves over epochs, each with its name at its end.
pub(crate) fn curves(path: &Path, labels: &Labels<'_>, curves: &[Curve]) -> Outcome<()> {
    let longest = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(0);
    let y = range(curves.iter().flat_map(|curve| curve.values.iter().copied()))?;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let draw = || -> Drawn<()> {
        let label = |x: &f64| figures(*x);
        let mut chart = chart(&root, labels, 0.5..longest as f64 + 0.5, y, &label)?;
        let mut names: Vec<Name> = Vec::new();
        for (curve, &colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let points = curve.values.iter().enumerate().map(|(epoch, &value)| (epoch as f64 + 1.0, value));
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
            if let Some(end) = points.last() {
                names.push((chart.backend_coord(&end), colour, curve.name.into()));
            }
        }
        write_names(&root, names)
    };
    draw().map_err(|error| format!("{}: {error}", path.display()))?;
    root.present().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

/// Titles and axes.
fn chart<'a, 'b>(
    root: &'a Root<'b>,
    labels: &Labels<'_>,
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
    label: &dyn Fn(&f64) -> String,
) -> Drawn<Chart<'a, 'b>> {
    root.fill(&WHITE)?;
    let heading = ("sans-serif", 22).into_font().style(FontStyle::Bold).color(&INK);
    root.draw(&Text::new(labels.title, (24, 18), heading))?;
    let small = ("sans-serif", 14).into_font().color(&INK.mix(0.75));
    root.draw(&Text::new(labels.subtitle, (24, 46), small))?;
    let mut chart = ChartBuilder::on(root)
        .margin_top(78)
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
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_label_formatter(label)
        .y_label_formatter(&|y| figures(*y))
        .axis_desc_style(("sans-serif", 15).into_font().color(&INK))
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .draw()?;
    Ok(chart)
}

/// Writes names next to where they belong, moved down where they would overlap.
fn write_names(root: &Root<'_>, mut names: Vec<Name>) -> Drawn<()> {
    names.sort_by_key(|name| name.0.1);
    let mut free = i32::MIN;
    for ((x, y), colour, name) in names {
        let at = y.max(free);
        free = at + 20;
        let style = ("sans-serif", 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&PathElement::new([(x + 8, y), (x + 20, at)], colour.mix(0.6)))?;
        root.draw(&Text::new(name, (x + 24, at), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_name_what_they_show_and_need_something_to_show() {
        let path = std::env::temp_dir().join(format!("longseq-train-{}.svg", std::process::id()));
        let labels = Labels { title: "Title", subtitle: "Data", x: "cost", y: "quality" };
        let estimate = |value| Estimate { value, low: value - 0.01, high: value + 0.01 };
        let dots = [("one", 2.0, 0.89), ("two", 20.0, 0.9)];
        let dots = dots.map(|(name, cost, value)| Dot { name, cost, quality: estimate(value) });
        quality(&path, &labels, &dots).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(["Title", "Data", "cost", "quality", "one", "two"].iter().all(|text| svg.contains(text)));
        curves(&path, &labels, &[Curve { name: "curve", values: vec![0.5, 0.4] }]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("curve"));
        // One epoch of one system is one point.
        curves(&path, &labels, &[Curve { name: "point", values: vec![0.5] }]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(quality(&path, &labels, &[]).is_err() && curves(&path, &labels, &[]).is_err());
    }
}
