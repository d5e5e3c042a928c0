//! Runs the workloads: all targets in turn, round after round.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{
    backend::Backend,
    cores::Cores,
    figures::{Figures, Measured},
    idle,
    progress::Progress,
    results::OfWorkload,
    targets::{Program, Running, Target},
    workloads::{Load, Request, Workload},
    wrk::Wrk,
};

/// How long each target is loaded before its first round.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// What a run needs.
pub(crate) struct Bench {
    /// The targets, in the order of the results.
    pub(crate) programs: Vec<Program>,
    /// The servers.
    pub(crate) backend: Backend,
    /// The load.
    pub(crate) wrk: Wrk,
    /// Who runs where.
    pub(crate) cores: Option<Cores>,
    /// How often each target is loaded.
    pub(crate) rounds: usize,
    /// How long, each time.
    pub(crate) time: Duration,
    /// How long idle connections stay before memory is looked at.
    pub(crate) settle: Duration,
}

impl Bench {
    /// Runs one workload.
    ///
    /// # Errors
    /// A target does not start, or ends; the load generator does not work.
    pub(crate) async fn run(&self, workload: Workload, progress: &Progress) -> Result<OfWorkload> {
        let rounds = match workload.load() {
            Load::Wrk(request, connections) => {
                self.with_wrk(workload, request, connections, progress).await
            }
            Load::Idle(connections) => self.with_idle(workload, connections, progress).await,
        };
        let rounds = rounds.with_context(|| format!("workload {}", workload.name()))?;
        Ok(OfWorkload::new(workload, rounds))
    }

    /// The targets run side by side and are loaded in turn.
    async fn with_wrk(
        &self,
        workload: Workload,
        request: Request,
        connections: u32,
        progress: &Progress,
    ) -> Result<Vec<(Target, Vec<Figures>)>> {
        let mut targets = Vec::new();
        for program in &self.programs {
            let target = self.start(program, workload).await?;
            self.wrk.run(target.addr, request, connections, WARM_UP).await?;
            targets.push((target, Vec::new()));
        }
        for round in 0..self.rounds {
            for place in order(targets.len(), round) {
                let Some((target, rounds)) = targets.get_mut(place) else { continue };
                let name = target.target.name();
                let measured = self.load(target, request, connections, workload).await;
                let figures = Figures::from(measured.with_context(|| name)?);
                progress.measured(workload, round, name, &figures);
                rounds.push(figures);
            }
        }
        let mut all = Vec::new();
        for (target, rounds) in targets {
            all.push((target.target, rounds));
            target.stop().await?;
        }
        Ok(all)
    }

    async fn load(
        &self,
        target: &Running,
        request: Request,
        connections: u32,
        workload: Workload,
    ) -> Result<Measured> {
        let before = target.processes.cpu_time()?;
        let memory = async {
            sleep(self.time.mul_f64(0.8)).await;
            target.processes.resident_kib()
        };
        let load = self.wrk.run(target.addr, request, connections, self.time);
        let (seen, resident_kib) = tokio::try_join!(load, memory)?;
        let cpu = target.processes.cpu_time()?.saturating_sub(before);
        Ok(Measured {
            seen,
            cpu,
            grown_kib: resident_kib.saturating_sub(target.idle_kib),
            connections: workload.load().connections(),
            body_bytes: workload.load().body_bytes(),
        })
    }

    /// Each round has a new process: what the last one grew by it would keep.
    async fn with_idle(
        &self,
        workload: Workload,
        connections: usize,
        progress: &Progress,
    ) -> Result<Vec<(Target, Vec<Figures>)>> {
        let mut all: Vec<_> = self.programs.iter().map(|p| (p.target, Vec::new())).collect();
        for round in 0..self.rounds {
            for place in order(all.len(), round) {
                let (Some(program), Some((_, rounds))) =
                    (self.programs.get(place), all.get_mut(place))
                else {
                    continue;
                };
                let name = program.target.name();
                let target = self.start(program, workload).await?;
                let held = idle::hold(&target, connections, self.settle).await;
                let held = held.with_context(|| name)?;
                let measured = Measured {
                    seen: held.seen,
                    cpu: held.cpu,
                    grown_kib: held.resident_kib.saturating_sub(target.idle_kib),
                    connections,
                    body_bytes: None,
                };
                target.stop().await?;
                let figures = Figures::from(measured);
                progress.measured(workload, round, name, &figures);
                rounds.push(figures);
            }
        }
        Ok(all)
    }

    async fn start(&self, program: &Program, workload: Workload) -> Result<Running> {
        let servers = self.backend.servers(workload.servers());
        Running::start(program, &servers, workload.load().connections(), self.cores).await
    }
}

/// The places `0..count`, beginning with another one each round, so that nobody
/// is always the first after something.
fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_elsewhere_and_has_all() {
        let rounds: Vec<Vec<_>> = (0..4).map(|round| order(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(order(0, 5).count(), 0);
    }
}
