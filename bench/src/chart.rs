//! Charts as SVG.

use std::error::Error;
use std::ops::Range;

use plotters::prelude::*;

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Names of the axes and what is above them.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Above the chart.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// To its left.
    pub y: &'a str,
}

/// What can go wrong: only that there is nothing to draw.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// No point.
    #[error("there is nothing to draw")]
    Empty,
    /// The drawing library's complaint.
    #[error("the chart cannot be drawn: {0}")]
    Drawing(String),
}

const SIZE: (u32, u32) = (860, 520);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(127, 127, 127),
];

/// Lines over a logarithmic axis of times, and the promise as a line of its own.
///
/// # Errors
/// If there is nothing to draw.
pub fn lines(labels: Labels<'_>, lines: &[Line], promise: Option<f64>) -> Result<String, ChartError> {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x = all().map(|(x, _)| x).fold(0.0, f64::max);
    let values: Vec<f64> = all().map(|(_, y)| y).chain(promise).filter(|y| *y > 0.0).collect();
    if x <= 0.0 || values.is_empty() || all().next().is_none() {
        return Err(ChartError::Empty);
    }
    let (low, high) = values.iter().fold((f64::MAX, 0.0_f64), |(low, high), &y| (low.min(y), high.max(y)));
    let mut svg = String::new();
    draw_lines(&mut svg, labels, lines, promise, 0.0..x * 1.05, low / 1.5..high * 1.5)
        .map_err(|error| ChartError::Drawing(error.to_string()))?;
    Ok(svg)
}

fn draw_lines(
    svg: &mut String,
    labels: Labels<'_>,
    lines: &[Line],
    promise: Option<f64>,
    x: Range<f64>,
    y: Range<f64>,
) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(labels.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(x.clone(), y.log_scale())?;
    chart.configure_mesh().x_desc(labels.x).y_desc(labels.y).light_line_style(WHITE).draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    if let Some(promise) = promise {
        chart
            .draw_series(LineSeries::new([(x.start, promise), (x.end, promise)], BLACK.stroke_width(1)))?
            .label("promise")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.stroke_width(1)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Groups of bars, one bar of each series in every group. A value that is not there leaves a gap.
///
/// # Errors
/// If there is nothing to draw.
pub fn bars(
    labels: Labels<'_>,
    groups: &[String],
    series: &[(String, Vec<Option<f64>>)],
) -> Result<String, ChartError> {
    let high = series.iter().flat_map(|(_, values)| values.iter().flatten().copied()).fold(0.0, f64::max);
    if groups.is_empty() || high <= 0.0 {
        return Err(ChartError::Empty);
    }
    let mut svg = String::new();
    draw_bars(&mut svg, labels, groups, series, high * 1.15).map_err(|error| ChartError::Drawing(error.to_string()))?;
    Ok(svg)
}

fn draw_bars(
    svg: &mut String,
    labels: Labels<'_>,
    groups: &[String],
    series: &[(String, Vec<Option<f64>>)],
    high: f64,
) -> Result<(), Box<dyn Error>> {
    let width = groups.len() as f64;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(labels.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..width, 0.0..high)?;
    // A label in the middle of every group.
    let name = |x: &f64| {
        let group = x.floor();
        if (x - group - 0.5).abs() < 1e-6 {
            groups.get(group as usize).cloned().unwrap_or_default()
        } else {
            String::new()
        }
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(groups.len() * 2 + 1)
        .x_label_formatter(&name)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .light_line_style(WHITE)
        .draw()?;
    let bar = 0.8 / series.len().max(1) as f64;
    for (number, ((name, values), colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let rectangle = |(group, value): (usize, &Option<f64>)| {
            let left = group as f64 + 0.1 + number as f64 * bar;
            value.map(|value| Rectangle::new([(left, 0.0), (left + bar * 0.92, value)], colour.filled()))
        };
        chart
            .draw_series(values.iter().enumerate().filter_map(rectangle))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels<'static> = Labels { title: "latency", x: "operations/s", y: "µs" };

    #[test]
    fn a_chart_has_its_names_in_it() {
        let line = Line { name: "p99 of hovercraft".into(), points: vec![(1000.0, 80.0), (2000.0, 900.0)] };
        let svg = lines(LABELS, &[line], Some(500.0)).expect("drawn");
        for word in ["<svg", "p99 of hovercraft", "operations/s", "promise"] {
            assert!(svg.contains(word), "{word}");
        }
        let series = [("leader".to_owned(), vec![Some(1.0), None])];
        let svg = bars(LABELS, &["raft 3".into(), "raft 5".into()], &series).expect("drawn");
        for word in ["raft 3", "raft 5", "leader"] {
            assert!(svg.contains(word), "{word}");
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(matches!(lines(LABELS, &[], Some(1.0)), Err(ChartError::Empty)));
        assert!(matches!(bars(LABELS, &[], &[]), Err(ChartError::Empty)));
    }
}
