//! Figures over time as SVG, readable on a light and on a dark page.

use std::fmt::Write;

use super::Sample;

/// The size of a picture, and the room for the scale's words; in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 20.0;

/// No picture has more points than this in a line: of more, the largest of
/// neighbours is drawn.
const POINTS: usize = 700;

/// For the page's head.
pub(super) const STYLE: &str = "\
svg text{font:12px system-ui,sans-serif;fill:#57606a}svg .title{font-weight:600;fill:#24292f}\
svg path{fill:none;stroke-width:1.5}.l0{stroke:#0969da}.l1{stroke:#cf222e}.t0{fill:#0969da}\
.t1{fill:#cf222e}.axis{stroke:#d0d7de}.mark{stroke:#57606a;stroke-dasharray:3 3}\
@media (prefers-color-scheme:dark){svg text{fill:#9198a1}svg .title{fill:#e6edf3}\
.l0{stroke:#4493f8}.l1{stroke:#f85149}.t0{fill:#4493f8}.t1{fill:#f85149}.axis{stroke:#30363d}\
.mark{stroke:#9198a1}}";

/// A line: its name, and what it shows.
type Line = (&'static str, fn(&Sample) -> f64);

/// All pictures of a run.
pub(super) fn all(samples: &[Sample]) -> String {
    let pictures: [(&str, &[Line]); 6] = [
        (
            "Memory, MiB",
            &[
                ("resident", |s| s.resident_kib as f64 / 1024.0),
                ("heap and stacks", |s| s.heap_kib as f64 / 1024.0),
            ],
        ),
        (
            "Descriptors",
            &[("open", |s| s.descriptors as f64), ("client connections", |s| s.connections as f64)],
        ),
        ("Requests in flight", &[("in flight", |s| s.in_flight as f64)]),
        ("Answers of 2xx, by lb's own count", &[("answers", |s| s.counted as f64)]),
        ("Requests a second", &[("requests", |s| s.requests_per_second)]),
        ("Latency of small GETs, ms", &[("median", |s| s.p50_ms), ("p99", |s| s.p99_ms)]),
    ];
    pictures.iter().map(|(title, lines)| picture(title, lines, samples)).collect()
}

fn picture(title: &str, lines: &[Line], samples: &[Sample]) -> String {
    let end = samples.last().map_or(1.0, |sample| sample.seconds).max(1.0);
    let values = lines.iter().flat_map(|(_, value)| samples.iter().map(value));
    let top = values.fold(0.0, f64::max).max(1e-9);
    let x = |seconds: f64| LEFT + (WIDTH - LEFT) * seconds / end;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"100%\" role=\"img\">\n<title>{title}</title>\n\
         <text class=\"title\" x=\"0\" y=\"14\">{title}</text>\n"
    );
    for (value, at) in [(top, y(top)), (top / 2.0, y(top / 2.0)), (0.0, y(0.0))] {
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    for pair in samples.windows(2).filter(|pair| pair[0].life != pair[1].life) {
        let at = x(pair[1].seconds);
        let _ = writeln!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
            y(0.0)
        );
    }
    for (number, (name, value)) in lines.iter().enumerate() {
        let path = path(samples, |sample| (x(sample.seconds), y(value(sample))));
        let _ = writeln!(
            svg,
            "<path class=\"l{number}\" d=\"{path}\"/>\
             <text class=\"t{number}\" x=\"{}\" y=\"14\" text-anchor=\"end\">{name}</text>",
            WIDTH - 140.0 * number as f64
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{HEIGHT}\">0</text>\
         <text x=\"{WIDTH}\" y=\"{HEIGHT}\" text-anchor=\"end\">{end:.0} s</text>\n</svg>"
    );
    svg
}

fn path(samples: &[Sample], place: impl Fn(&Sample) -> (f64, f64)) -> String {
    let mut path = String::new();
    for some in samples.chunks(samples.len().div_ceil(POINTS).max(1)) {
        let points = some.iter().map(&place);
        // Upwards on the page is less.
        let Some((x, y)) = points.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    path
}

/// A number in few characters.
fn short(value: f64) -> String {
    match value {
        10.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::tests::evidence;

    #[test]
    fn all_points_are_inside_and_restarts_are_marked() {
        let mut samples = evidence().samples;
        samples[0].life = 7;
        let svg = all(&samples);
        assert_eq!((svg.matches("<svg").count(), svg.matches("class=\"mark\"").count()), (6, 6));
        for number in svg.split(" d=\"").skip(1).flat_map(|path| {
            path.split('"').next().unwrap_or_default().split(['M', 'L', ' ']).skip(1)
        }) {
            let number: f64 = number.parse().unwrap();
            assert!((0.0..=WIDTH).contains(&number), "{number}");
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(!all(&[]).contains("NaN"));
    }
}
