//! Balancers that are not ours: how they are told what to do, and started.

mod claims;
mod file;
mod observer;
mod running;
mod setup;
mod shapes;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use minijinja::Environment;

use crate::programs::{self, find};
pub(crate) use claims::{Bounds, Routing};
pub(crate) use file::TargetFile;
pub(crate) use observer::Observer;
pub(crate) use running::Running;
pub(crate) use setup::Setup;
pub(crate) use shapes::Shape;

/// Why a scenario cannot judge this balancer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unsupported(pub(crate) String);

/// The balancer did not come to the point of being judged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SetupFailed(pub(crate) String);

/// A balancer that is to be judged from outside.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    file: TargetFile,
    program: PathBuf,
    /// What it says of its version; empty if it was not asked.
    pub(crate) version: String,
    /// The period between its probes, if it cannot be told another.
    period: Option<Duration>,
    /// What its probes ask for.
    health_path: String,
    /// The shape of the file that it reads, instead of a template.
    shape: Option<Shape>,
    /// The port on which it listens whatever it is told.
    port: Option<u16>,
}

/// Where it runs, and what for.
pub(crate) struct Place<'a> {
    /// A folder for its files.
    pub(crate) folder: &'a Path,
    /// The port to listen on.
    pub(crate) port: u16,
    /// Its task.
    pub(crate) setup: &'a Setup,
}

/// A newcomer's own balancer, as typed.
pub(crate) struct Typed {
    /// The command line.
    pub(crate) command: String,
    /// The shape of its configuration.
    pub(crate) shape: Shape,
    /// What its probes ask for.
    pub(crate) health_path: String,
    /// The period between its probes.
    pub(crate) period: Duration,
    /// The port on which it listens, if it cannot be told one.
    pub(crate) port: Option<u16>,
    /// Capabilities that it lacks.
    pub(crate) without: Vec<String>,
    /// How evenly it deals in turn.
    pub(crate) routing: Routing,
}

impl Target {
    /// The target of this name or file; none with a reason if it is not
    /// installed.
    ///
    /// # Errors
    /// There is no such target, or its file is not valid.
    pub(crate) fn load(name: &str) -> Result<std::result::Result<Target, String>> {
        let file = TargetFile::load(name)?;
        let Some(program) = find(&file.program) else {
            return Ok(Err(format!("{} is not installed", file.program)));
        };
        let asked = (!file.version.is_empty()).then(|| programs::version(&program, &file.version));
        let version = asked.flatten().unwrap_or_default();
        let (period, shape, port) = (None, None, None);
        let health_path = "/health".into();
        Ok(Ok(Target { file, program, version, period, health_path, shape, port }))
    }

    /// The names of those that the suite brings along.
    ///
    /// # Errors
    /// None but mistakes of ours.
    pub(crate) fn names() -> Result<Vec<(String, String)>> {
        let all = TargetFile::built_in()?;
        Ok(all.into_iter().map(|file| (file.name, file.about)).collect())
    }

    /// Those, each with what it is and what it claims, for people.
    ///
    /// # Errors
    /// None but mistakes of ours.
    pub(crate) fn list() -> Result<String> {
        let line = |file: &TargetFile| {
            let TargetFile { name, about, routing, timing, .. } = file;
            format!("{name:<20} {about}\n{:<20} deals {routing}; {timing}\n", "")
        };
        Ok(TargetFile::built_in()?.iter().map(line).collect())
    }

    /// The program that was typed.
    ///
    /// # Errors
    /// It is no command line, or there is no such program.
    pub(crate) fn typed(typed: Typed) -> Result<Target> {
        let words = shell_words::split(&typed.command).context("the command line")?;
        let first = words.first().context("an empty command line")?;
        let program = find(first).with_context(|| {
            format!("there is no program {first}: expected a name on the path, or a path from here")
        })?;
        let names = |words: &[&str]| words.iter().any(|word| typed.command.contains(word));
        ensure!(
            typed.port.is_some() || names(&["{port}", "{config}"]),
            "the command line has neither {{port}} nor {{config}}: it cannot be told where to \
             listen. If it always listens on the same port, say --listens-on PORT"
        );
        ensure!(
            names(&["{config}", "{backends}", "{urls}"]),
            "the command line has none of {{backends}}, {{urls}} and {{config}}: it cannot be told \
             which servers there are, and they are others in each run"
        );
        let told = names(&["{config}"]) && !names(&["{health_period}"]);
        ensure!(
            !told || typed.shape != Shape::List || typed.period.subsec_nanos() == 0,
            "{:?} cannot be told by {{config}}: its health_check_period is in whole seconds",
            typed.period
        );
        let can = ["active_health"].map(String::from).into_iter();
        let told = ("rise_fall".into(), "rise and fall cannot be told to it".into());
        let lacks = typed.without.iter().map(|can| (can.clone(), "you said so".into()));
        let file = TargetFile {
            name: "your balancer".into(),
            about: typed.command.clone(),
            program: first.clone(),
            version: Vec::new(),
            command: typed.command,
            config_file: typed.shape.file_name().into(),
            config: String::new(),
            options: Default::default(),
            routing: typed.routing,
            timing: Default::default(),
            shortest_period_ms: 0,
            can: can.filter(|can| !typed.without.contains(can)).collect(),
            lacks: lacks.chain([told]).collect(),
            known: Default::default(),
            sometimes: Default::default(),
        };
        Ok(Target {
            file,
            program,
            version: String::new(),
            period: Some(typed.period),
            health_path: typed.health_path,
            shape: Some(typed.shape),
            port: typed.port,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.file.name
    }

    /// What it is.
    pub(crate) fn about(&self) -> &str {
        &self.file.about
    }

    /// What its probes ask for.
    pub(crate) fn health_path(&self) -> &str {
        &self.health_path
    }

    /// The port on which it listens whatever it is told.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Why it is known to fail this scenario, and whether it does each time.
    pub(crate) fn known(&self, scenario: &str) -> Option<(&str, bool)> {
        let always = self.file.known.get(scenario).map(|reason| (reason.as_str(), true));
        let sometimes = || self.file.sometimes.get(scenario).map(|reason| (reason.as_str(), false));
        always.or_else(sometimes)
    }

    /// How evenly it claims to deal in turn.
    pub(crate) fn routing(&self) -> Routing {
        self.file.routing
    }

    /// How soon it claims to notice a change of a server, with this task.
    ///
    /// # Errors
    /// Its formula comes to no time.
    pub(crate) fn bounds(&self, setup: &Setup) -> Result<Bounds> {
        self.file.timing.bounds(&setup.health).with_context(|| self.name().to_owned())
    }

    /// How long a scenario of it may take, beside what any may: its bounds are
    /// judged with a watchdog of twenty times their nominal value.
    pub(crate) fn patience(&self) -> Duration {
        let shortest = Duration::from_millis(self.file.shortest_period_ms);
        20 * self.period.unwrap_or(shortest)
    }

    /// Whether it can do all of this.
    ///
    /// # Errors
    /// [`Unsupported`], with the reason.
    pub(crate) fn offers<'a>(&self, needs: impl IntoIterator<Item = &'a str>) -> Result<()> {
        match needs.into_iter().find_map(|need| self.file.reason_against(need)) {
            Some(reason) => Err(Unsupported(reason).into()),
            None => Ok(()),
        }
    }

    /// The task in `flags`, as far as it can be told.
    ///
    /// # Errors
    /// [`Unsupported`] if it cannot do that.
    pub(crate) fn setup(&self, servers: &[std::net::SocketAddr], flags: &[&str]) -> Result<Setup> {
        let mut setup = Setup::parse(servers, flags, &self.health_path)?;
        self.offers(setup.needs.iter().map(String::as_str))?;
        let shortest = Duration::from_millis(self.file.shortest_period_ms);
        let wanted = Duration::from_millis(setup.health.period_ms).max(shortest);
        setup.health.set_period(self.period.unwrap_or(wanted));
        Ok(setup)
    }

    /// Its command, with its configuration written.
    fn command(&self, place: &Place<'_>) -> Result<Command> {
        let config = place.folder.join(&self.file.config_file);
        let text = match self.shape {
            Some(shape) => shape.write(place.port, place.setup),
            None => self.render(place)?,
        };
        std::fs::write(&config, text)?;
        let mut words = Vec::new();
        for word in shell_words::split(&self.file.command)? {
            words.extend(self.fill(&word, place, &config));
        }
        let mut words = words.into_iter();
        words.next();
        let mut command = programs::command(&self.program);
        command.args(words);
        command.env_remove("RUST_LOG").env_remove("LB_API_TOKEN");
        // What was typed has paths from here.
        if self.shape.is_none() {
            command.current_dir(place.folder);
            for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
                command.env(variable, place.folder);
            }
        }
        Ok(command)
    }

    fn render(&self, place: &Place<'_>) -> Result<String> {
        let mut jinja = Environment::new();
        jinja.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        jinja.set_trim_blocks(true);
        jinja.set_lstrip_blocks(true);
        let (port, folder, setup) = (place.port, place.folder, place.setup);
        let context = minijinja::context! {
            port, folder,
            servers => setup.servers, algorithm => setup.algorithm, health => setup.health,
            options => self.file.options,
            root => rustix::process::geteuid().is_root(),
        };
        let text = jinja.render_str(&self.file.config, context);
        text.with_context(|| format!("the template of {}", self.name()))
    }

    /// A word of the command line, which becomes several where it is a list.
    fn fill(&self, word: &str, place: &Place<'_>, config: &Path) -> Vec<String> {
        let servers = &place.setup.servers;
        let addresses: Vec<String> = servers.iter().map(|s| s.address.to_string()).collect();
        let urls: Vec<String> = servers.iter().map(|s| s.url.clone()).collect();
        match word {
            "{backends}" => return addresses,
            "{urls}" => return urls,
            _ => {}
        }
        let period = place.setup.health.period;
        let filled = word
            .replace("{port}", &place.port.to_string())
            .replace("{config}", &config.to_string_lossy())
            .replace("{folder}", &place.folder.to_string_lossy())
            .replace("{program}", &self.program.to_string_lossy())
            .replace("{backends}", &addresses.join(","))
            .replace("{urls}", &urls.join(","))
            .replace("{health_path}", &place.setup.health.path)
            .replace("{health_period}", &period.to_string());
        vec![filled]
    }
}
