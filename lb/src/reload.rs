//! Reads the configuration file again: on SIGHUP, or when it has changed.
//!
//! Owns when that is. What a file says is [`config`](crate::config)'s to tell,
//! and what follows from it [`control`](crate::control)'s to do; a file that is
//! wrong changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    time::timeout,
};
use tracing::{info, warn};

use crate::{config::Config, control::Control};

/// For how long nothing may happen to the file before it is read: editors
/// write in pieces, or write another and rename it.
const QUIET: Duration = Duration::from_millis(100);

/// How long that is waited for in a folder in which something always happens.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// The file that the configuration came from.
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Reads it, with what the command line says laid over it.
    pub load: Box<dyn Fn() -> anyhow::Result<Config>>,
}

/// How reloads went, so far.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Those that were applied.
    pub applied: AtomicU64,
    /// Those that changed nothing, as the file was wrong.
    pub refused: AtomicU64,
    /// Whether the last one was refused.
    pub last_refused: AtomicBool,
}

/// Reloads `source` at each SIGHUP, which comes through `hangups`, and when the
/// file has changed; for ever.
pub async fn run(control: &Control, source: Option<Source>, mut hangups: UnboundedReceiver<()>) {
    let Some(source) = source else {
        while hangups.recv().await.is_some() {
            info!("SIGHUP changes nothing: there is no configuration file to read again");
        }
        return;
    };
    let (stirred, mut stirs) = mpsc::unbounded_channel();
    // Watches for as long as it lives.
    let _watcher = watch(&source.path, stirred).inspect_err(|error| {
        warn!("changes of {} go unnoticed, but for SIGHUP: {error}", source.path.display())
    });
    let mut seen = fs::read(&source.path).ok();
    loop {
        let asked = tokio::select! {
            asked = hangups.recv() => asked.is_some(),
            Some(()) = stirs.recv() => false,
            else => return,
        };
        let busy = async { while let Ok(Some(())) = timeout(QUIET, stirs.recv()).await {} };
        let _ = timeout(BUSY_LIMIT, busy).await;
        // Gone for a moment while it is replaced, or for good.
        let Ok(text) = fs::read(&source.path) else {
            if asked || seen.take().is_some() {
                refuse(control, &source.path, "cannot be read");
            }
            continue;
        };
        if !asked && seen.as_ref() == Some(&text) {
            continue;
        }
        seen = Some(text);
        reload(control, &source);
    }
}

fn reload(control: &Control, source: &Source) {
    match (source.load)() {
        Ok(config) => {
            control.replace(config, "reload");
            control.reloads.applied.fetch_add(1, Relaxed);
            control.reloads.last_refused.store(false, Relaxed);
            info!("reload of {} applied", source.path.display());
        }
        Err(problems) => refuse(control, &source.path, &format!("{problems:#}")),
    }
}

fn refuse(control: &Control, path: &Path, why: &str) {
    control.reloads.refused.fetch_add(1, Relaxed);
    control.reloads.last_refused.store(true, Relaxed);
    warn!("reload of {} refused, everything stays as it was: {why}", path.display());
}

/// Watches the file's folder, as the file itself may be replaced by another.
fn watch(path: &Path, stirred: mpsc::UnboundedSender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is no news.
        if !matches!(&event, Ok(event) if event.kind.is_access()) {
            // Nobody listens any more only when the process ends.
            let _ = stirred.send(());
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    watcher.watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
