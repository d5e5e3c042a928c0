//! The results as text: a table for each workload, the ratios at the end.

use std::fmt::Write;

use super::results::{OfTarget, OfWorkload, Results};

/// The columns' names and widths, after the target's.
const COLUMNS: [(&str, usize); 9] = [
    ("CPU µs/req", 11),
    ("req/s", 9),
    ("p50 ms", 9),
    ("p99 ms", 9),
    ("p99.9 ms", 9),
    ("KiB/conn", 9),
    ("MiB/CPU s", 10),
    ("errors", 7),
    ("lb ÷ it", 8),
];

/// The table of one workload.
pub(crate) fn of(workload: &OfWorkload) -> String {
    let OfWorkload { name, what, connections, servers, targets } = workload;
    let mut text = format!("\n{name}: {what} ({connections} connections, {servers} servers)\n");
    let _ = write!(text, "{:<8}", "");
    for (column, width) in COLUMNS {
        let _ = write!(text, "{column:>width$}");
    }
    for target in targets {
        let _ = write!(text, "\n{:<8}", target.name);
        for ((_, width), cell) in COLUMNS.iter().zip(cells(target)) {
            let _ = write!(text, "{cell:>width$}");
        }
    }
    text
}

fn cells(target: &OfTarget) -> [String; COLUMNS.len()] {
    let median = &target.median;
    let or_nothing = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    [
        format!("{:.1}", median.cpu_us_per_request),
        format!("{:.0}", median.requests_per_second),
        format!("{:.2}", median.p50_ms),
        format!("{:.2}", median.p99_ms),
        format!("{:.2}", median.p999_ms),
        format!("{:.1}", median.kib_per_connection),
        or_nothing(median.mib_per_cpu_second.map(|rate| format!("{rate:.0}"))),
        median.errors.to_string(),
        or_nothing(target.lb_to_it.map(|ratios| format!("{:.2}", ratios.cpu))),
    ]
}

/// What `lb` costs for one of each peer's, in a line for each workload; nothing
/// if there is no pair.
pub(crate) fn ratios(results: &Results) -> String {
    let targets = results.workloads.iter().flat_map(|workload| &workload.targets);
    if targets.filter_map(|target| target.lb_to_it).next().is_none() {
        return String::new();
    }
    let mut text = String::from(
        "\nCPU time of lb for a request ÷ that of the peer, medians over pairs of one round:",
    );
    for workload in &results.workloads {
        let _ = write!(text, "\n  {:<12}", workload.name);
        for target in &workload.targets {
            if let Some(ratios) = target.lb_to_it {
                let _ = write!(text, " {} {:.2}", target.name, ratios.cpu);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_table_has_a_row_for_each_target() {
        let results = results();
        let text = of(&results.workloads[0]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("lb ") && lines[1].ends_with(" -"), "{text}");
        assert!(lines[2].starts_with("nginx ") && lines[2].ends_with(" 1.20"), "{text}");
        let widths: Vec<_> = lines.iter().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(ratios(&results).ends_with("small32      nginx 1.20"), "{}", ratios(&results));
    }
}
