//! Many seeds, on all cores: how far it is, what occurred, what failed.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Options,
    coverage::Coverage,
    draw::draw,
    plan::Plan,
    replay::{print_violations, verdict},
    run::Run,
    shrink::{shrink, shrink_elsewhere},
    watch::spins,
};

/// After how many failures no further ones are shrunk.
const SHRUNK: usize = 5;

/// What became of a seed.
struct Outcome {
    plan: Plan,
    run: Option<Run>,
    wrong: Vec<String>,
}

/// Runs the seeds that `options` name.
///
/// # Errors
/// A plan cannot be saved.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let seeds = options.chosen();
    let folder = &options.save;
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicUsize::new(0);
    let (sender, outcomes) = mpsc::channel();
    let clock = Clock::start();
    let (failed, spinning) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut tally = Tally::new(seeds.len());
    thread::scope(|scope| {
        for _ in 0..cores {
            let (sender, next, seeds, clock) = (sender.clone(), &next, &seeds, &clock);
            let (failed, spinning, first) = (&failed, &spinning, options.first);
            let goes_on = move || {
                let in_time = options.time.is_none_or(|limit| clock.elapsed() < limit);
                let enough = first && failed.load(Ordering::Relaxed);
                in_time && !enough && !spinning.load(Ordering::Relaxed)
            };
            scope.spawn(move || {
                while goes_on()
                    && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                    && sender.send(outcome(draw(*seed))).is_ok()
                {}
            });
        }
        drop(sender);
        for outcome in outcomes {
            failed.fetch_or(!outcome.wrong.is_empty(), Ordering::Relaxed);
            // Its thread keeps a core busy to the end.
            spinning.fetch_or(spins(&outcome.wrong), Ordering::Relaxed);
            tally.add(outcome, clock.elapsed());
        }
    });
    tally.finish(options, clock.elapsed())
}

impl Options {
    fn chosen(&self) -> Vec<u64> {
        let (index, count) = self.shard.unwrap_or((1, 1));
        let seeds = self.seed..self.seed.saturating_add(self.seeds);
        seeds.skip(index as usize - 1).step_by(count as usize).collect()
    }
}

fn outcome(plan: Plan) -> Outcome {
    match verdict(&plan) {
        Ok((run, wrong)) => Outcome { plan, run: Some(run), wrong },
        Err(error) => Outcome { plan, run: None, wrong: vec![format!("{error:#}")] },
    }
}

/// Real time, for whoever looks on: no run knows it.
struct Clock(Instant);

impl Clock {
    #[allow(
        clippy::disallowed_methods,
        reason = "how long the swarm takes, not what happens in it"
    )]
    fn start() -> Clock {
        Clock(Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Tally {
    bar: ProgressBar,
    coverage: Coverage,
    passed: usize,
    failures: Vec<(Plan, Vec<String>)>,
    virtual_time: Duration,
    /// When a line was last printed, where there is no terminal.
    told: Duration,
}

impl Tally {
    fn new(count: usize) -> Self {
        let bar = ProgressBar::new(count as u64);
        let style = "{bar:30} {pos}/{len} {msg} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            bar,
            coverage: Coverage::default(),
            passed: 0,
            failures: Vec::new(),
            virtual_time: Duration::ZERO,
            told: Duration::ZERO,
        }
    }

    fn add(&mut self, outcome: Outcome, elapsed: Duration) {
        if let Some(run) = &outcome.run {
            self.virtual_time += run.took;
            self.coverage.add(&outcome.plan, run);
        }
        match outcome.wrong.first() {
            None => self.passed += 1,
            Some(first) => {
                self.say(&format!("seed {} failed: {first}", outcome.plan.seed));
                self.failures.push((outcome.plan, outcome.wrong));
            }
        }
        self.bar.inc(1);
        let rates = self.rates(elapsed);
        if self.bar.is_hidden() && elapsed > self.told + Duration::from_secs(10) {
            self.told = elapsed;
            let left = self.bar.eta().as_secs();
            println!(
                "{}/{} {rates} {left}s left",
                self.bar.position(),
                self.bar.length().unwrap_or(0)
            );
        }
        self.bar.set_message(rates);
    }

    fn rates(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let runs = (self.passed + self.failures.len()) as f64 / seconds;
        let virtually = self.virtual_time.as_secs_f64() / seconds;
        format!("{runs:.1} runs/s, {virtually:.0} virtual s/s")
    }

    fn say(&self, line: &str) {
        match self.bar.is_hidden() {
            true => println!("{line}"),
            false => self.bar.println(line),
        }
    }

    fn finish(self, options: &Options, elapsed: Duration) -> Result<ExitCode> {
        let shrunk = if options.first { 1 } else { SHRUNK };
        self.bar.finish_and_clear();
        print!("{}", self.coverage);
        let mut failures: Vec<_> = self.failures.iter().collect();
        failures.sort_by_key(|(plan, wrong)| (spins(wrong), plan.seed));
        for (number, (plan, wrong)) in failures.iter().enumerate() {
            println!("\nseed {} failed:", plan.seed);
            print_violations(wrong);
            if number < shrunk && !spins(wrong) {
                show(&shrink(plan), &options.save)?;
            }
        }
        println!("{} in {:.1} s", self.rates(elapsed), elapsed.as_secs_f64());
        let never = self.coverage.never().len();
        if never > 0 {
            println!("{never} things that must occur never did");
        }
        let failed = self.failures.len();
        let unrun = self.bar.length().unwrap_or(0) as usize - self.passed - failed;
        let totals = format!("{} passed, {failed} failed, {unrun} skipped", self.passed);
        if let Some((plan, _)) = failures.iter().find(|(_, wrong)| spins(wrong)) {
            return shrink_in_its_stead(plan, options, &totals);
        }
        println!("{totals}");
        Ok(ExitCode::from(u8::from(failed > 0 || never > 0)))
    }
}

/// Gives this process's place to one that shrinks `plan`: the threads that
/// nothing else can end leave it the processor.
fn shrink_in_its_stead(plan: &Plan, options: &Options, totals: &str) -> Result<ExitCode> {
    show(plan, &options.save)?;
    let file = options.save.join(format!("seed-{}.toml", plan.seed));
    let mut other = Command::new(std::env::current_exe()?);
    other.args(["sim", "--shrink"]).arg(file).arg("--save").arg(&options.save);
    Err(other.args(["--totals", totals]).exec()).context("cannot shrink it")
}

/// `--shrink`: shrinks a plan whose runs may never end.
///
/// # Errors
/// It cannot be read or saved.
pub(super) fn shrink_file(file: &Path, options: &Options) -> Result<ExitCode> {
    show(&shrink_elsewhere(&Plan::read(file)?), &options.save)?;
    println!("{}", options.totals.as_deref().unwrap_or_default());
    Ok(ExitCode::FAILURE)
}

/// Saves a shrunk plan, prints it, and says how to repeat it.
fn show(plan: &Plan, folder: &Path) -> Result<()> {
    let text = plan.to_text()?;
    let file = folder.join(format!("seed-{}.toml", plan.seed));
    let shown = file.display();
    fs::write(&file, &text).with_context(|| format!("cannot write {shown}"))?;
    println!("{} operations:\n{text}", plan.operations.len());
    println!("repeat it with: cargo xtask sim --replay {shown}");
    Ok(())
}
