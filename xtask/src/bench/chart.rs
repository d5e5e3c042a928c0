//! The ratios as an SVG, readable on a light and on a dark page.

use std::fmt::Write;

use super::results::{OfWorkload, Results};

/// The width of the picture, of the names at its left, and of a bar of 1.0 if
/// nothing is longer; in pixels, as all here.
const WIDTH: f64 = 720.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 60.0;
const BAR: f64 = 14.0;
const GAP: f64 = 14.0;
const TOP: f64 = 58.0;

/// Colours by the page's scheme; a class for each peer.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}\
.title{font-weight:600;font-size:15px}.note{fill:#57606a}.one{stroke:#57606a;stroke-dasharray:4 3}\
.nginx{fill:#1a7f37}.haproxy{fill:#0969da}.caddy{fill:#8250df}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.one{stroke:#9198a1}\
.nginx{fill:#3fb950}.haproxy{fill:#4493f8}.caddy{fill:#ab7df8}}";

/// Draws the CPU ratios of all workloads.
pub(crate) fn draw(results: &Results) -> String {
    let longest = bars(results).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let mut y = TOP;
    let mut body = String::new();
    for workload in &results.workloads {
        y = group(&mut body, workload, scale, y) + GAP;
    }
    let one = LEFT + scale;
    let height = y + 8.0;
    let versions: Vec<_> =
        results.targets.iter().map(|t| format!("{} {}", t.name, t.version)).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <title>CPU time of lb for a request, the peer's being 1</title>\n\
         <text class=\"title\" x=\"8\" y=\"20\">CPU time of lb for a request, the peer's \
         being 1 (shorter is better)</text>\n\
         <text class=\"note\" x=\"8\" y=\"40\">{}</text>\n\
         <line class=\"one\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{}\" y2=\"{y:.1}\"/>\n\
         {body}</svg>\n",
        escape(&versions.join(", ")),
        TOP - 8.0,
    )
}

/// One workload's bars from `y` on; returns where they end.
fn group(body: &mut String, workload: &OfWorkload, scale: f64, mut y: f64) -> f64 {
    let _ = writeln!(
        body,
        "<text class=\"title\" x=\"8\" y=\"{:.1}\">{}</text>",
        y + BAR - 2.0,
        escape(workload.name)
    );
    for target in &workload.targets {
        let Some(ratios) = target.lb_to_it else { continue };
        let (name, length, base) = (escape(target.name), ratios.cpu * scale, y + BAR - 2.0);
        let _ = writeln!(
            body,
            "<text class=\"note\" x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{name}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" \
             height=\"{BAR}\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{base:.1}\">{:.2}</text>",
            LEFT - 6.0,
            LEFT + length + 5.0,
            ratios.cpu
        );
        y += BAR + 3.0;
    }
    y
}

/// All ratios that are drawn.
fn bars(results: &Results) -> impl Iterator<Item = f64> {
    let targets = results.workloads.iter().flat_map(|workload| &workload.targets);
    targets.filter_map(|target| target.lb_to_it).map(|ratios| ratios.cpu)
}

/// `text` with what XML would read replaced.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    /// Follows the tags; every one must be closed, in order.
    fn check_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        }
        assert!(open.is_empty(), "{open:?} are open");
    }

    #[test]
    fn the_picture_is_well_formed_and_escaped() {
        let svg = draw(&results());
        check_well_formed(&svg);
        assert!(svg.contains("lb &lt;1&gt;"), "{svg}");
        assert!(svg.contains(">1.20</text>"), "{svg}");
    }

    #[test]
    fn no_bar_leaves_the_picture() {
        let mut results = results();
        if let Some(ratios) = &mut results.workloads[0].targets[1].lb_to_it {
            ratios.cpu = 40.0;
        }
        assert!(draw(&results).contains("width=\"490.0\""));
    }
}
