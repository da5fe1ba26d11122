//! Plots, as SVG.

use std::fmt::Write as _;

use crate::units::time;

const WIDTH: f64 = 720.0;
const STYLE: &str = "<style>text{font:13px sans-serif;fill:#555}.title{font-weight:bold;fill:#333}\
    .vayu{fill:#d2691e}.other{fill:#9fb4c7}line,polyline{stroke:#999;fill:none}</style>";

/// Returns a bar chart.
pub(crate) fn bars(title: &str, bars: &[(&str, f64, bool)]) -> String {
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let height = 40 + 22 * bars.len();
    let mut svg = begin(title, height);
    for (index, (name, value, is_vayu)) in bars.iter().enumerate() {
        let top = 32 + 22 * index;
        let length = (value / most * 360.0).max(1.0);
        let class = if *is_vayu { "vayu" } else { "other" };
        let _ = writeln!(
            svg,
            "<text x=\"240\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"248\" y=\"{top}\" width=\"{length:.1}\" height=\"16\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            top + 13,
            escape(name),
            254.0 + length,
            top + 13,
            time(*value)
        );
    }
    svg + "</svg>\n"
}

/// Returns a line chart over a logarithmic axis.
pub(crate) fn lines(title: &str, unit: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    const COLOURS: [&str; 8] =
        ["#d2691e", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf"];
    let points = || series.iter().flat_map(|(_, points)| points);
    let (first, last) = points().fold((f64::MAX, f64::MIN), |(first, last), point| {
        (first.min(point.0.log10()), last.max(point.0.log10()))
    });
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    let x = |value: f64| 60.0 + (value.log10() - first) / (last - first).max(1e-9) * 460.0;
    let y = |value: f64| 300.0 - value / most * 250.0;
    let mut svg = begin(title, 340);
    let _ = writeln!(svg, "<line x1=\"60\" y1=\"300\" x2=\"520\" y2=\"300\"/>");
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"54\" y=\"{:.0}\" text-anchor=\"end\">{value:.0}</text>",
            y(value) + 4.0
        );
    }
    let mut marks: Vec<_> = points().map(|point| point.0 as u64).collect();
    marks.sort_unstable();
    marks.dedup();
    for mark in marks {
        let at = x(mark as f64);
        let _ = writeln!(svg, "<text x=\"{at:.0}\" y=\"318\" text-anchor=\"middle\">{mark}</text>");
    }
    let _ = writeln!(svg, "<text x=\"60\" y=\"36\">{}</text>", escape(unit));
    for (index, ((name, points), colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: Vec<_> =
            points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" style=\"stroke:{colour};stroke-width:2\"/>\
             <text x=\"530\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            path.join(" "),
            60 + 20 * index,
            escape(name)
        );
    }
    svg + "</svg>\n"
}

fn begin(title: &str, height: usize) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\">{STYLE}\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text class=\"title\" x=\"12\" y=\"18\">{}</text>\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_complete_and_escape_names() {
        let svg = bars("a < b", &[("x -> y", 1.0, true), ("z", 2.0, false)]);
        assert!(svg.contains("a &lt; b") && svg.contains("x -&gt; y") && svg.ends_with("</svg>\n"));
        let svg = lines("growth", "ns", &[("one", vec![(100.0, 1.0), (1000.0, 2.0)])]);
        assert!(svg.contains("60.0,175.0 520.0,50.0"), "{svg}");
    }
}
