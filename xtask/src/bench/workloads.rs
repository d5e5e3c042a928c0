//! The workloads: what is asked of every target alike.

use clap::ValueEnum;

use super::idle;

/// The size of the large bodies, in bytes.
pub(crate) const LARGE: usize = 1 << 20;

/// What is asked of the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// Small answers on 32 keep-alive connections.
    Small32,
    /// Small answers on 512 keep-alive connections.
    Small512,
    /// Small answers, a connection for each request, 32 at a time.
    Connections,
    /// Answers of 1 MiB on 32 keep-alive connections.
    Download,
    /// Uploads of 1 MiB on 32 keep-alive connections.
    Upload,
    /// Small answers of 1 000 servers, on 512 keep-alive connections.
    Servers,
    /// 10 000 connections that ask once each and then stay idle.
    Idle,
}

/// What a client of `wrk` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// GET, answered with a few bytes.
    Small,
    /// The same, with `Connection: close`.
    SmallAndClose,
    /// GET, answered with [`LARGE`] bytes.
    Download,
    /// POST of [`LARGE`] bytes, answered with a few.
    Upload,
}

/// Who produces the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// `wrk`, with so many connections.
    Wrk(Request, u32),
    /// [`idle::hold`], with so many connections.
    Idle(usize),
}

impl Workload {
    /// Its name on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Small32 => "small32",
            Workload::Small512 => "small512",
            Workload::Connections => "connections",
            Workload::Download => "download",
            Workload::Upload => "upload",
            Workload::Servers => "servers",
            Workload::Idle => "idle",
        }
    }

    /// What it is, in a line.
    pub(crate) fn what(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        help.map(|text| text.to_string()).unwrap_or_default()
    }

    /// How many servers are behind each target.
    pub(crate) fn servers(self) -> u32 {
        if self == Workload::Servers { 1000 } else { 3 }
    }

    /// Who produces the load.
    pub(crate) fn load(self) -> Load {
        match self {
            Workload::Small32 => Load::Wrk(Request::Small, 32),
            Workload::Small512 | Workload::Servers => Load::Wrk(Request::Small, 512),
            Workload::Connections => Load::Wrk(Request::SmallAndClose, 32),
            Workload::Download => Load::Wrk(Request::Download, 32),
            Workload::Upload => Load::Wrk(Request::Upload, 32),
            Workload::Idle => Load::Idle(idle::possible(10_000)),
        }
    }
}

impl Load {
    /// How many connections there are at a time.
    pub(crate) fn connections(self) -> usize {
        match self {
            Load::Wrk(_, connections) => connections as usize,
            Load::Idle(connections) => connections,
        }
    }

    /// The bytes of body that one request moves, where that is what counts.
    pub(crate) fn body_bytes(self) -> Option<usize> {
        match self {
            Load::Wrk(Request::Download | Request::Upload, _) => Some(LARGE),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_command_line_takes() {
        for workload in Workload::value_variants() {
            assert_eq!(Workload::from_str(workload.name(), false), Ok(*workload));
            assert!(!workload.what().is_empty());
        }
    }
}
