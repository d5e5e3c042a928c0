//! The units for systemd, and what comes with the program.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The unit as it is packaged, but for the program, which is the one under
/// test, and the manual, which need not be installed.
fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("Documentation="));
    lines.collect::<Vec<_>>().join("\n").replace("/usr/bin/lb", env!("CARGO_BIN_EXE_lb"))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let [service, socket] = ["lb.service", "lb.socket"].map(|name| {
        let path = folder.path().join(name);
        fs::write(&path, unit(name)).unwrap();
        path
    });
    match Command::new("systemd-analyze").arg("verify").arg(service).arg(socket).output() {
        Err(error) => eprintln!("skipped: systemd-analyze cannot be run: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.trim().is_empty(), "{said}");
        }
    }
}

#[test]
fn the_program_takes_what_its_unit_says() {
    let service = unit("lb.service");
    let setting = |key: &str| {
        let line = service.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    let command = setting("ExecStart=").replace("$LB_OPTIONS", "--port x");
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("invalid value 'x' for '--port"), "{said}");
    let patience: u64 = setting("TimeoutStopSec=").parse().unwrap();
    assert!(patience > lb::config::Timeouts::default().drain.as_secs());
}

/// The names behind `[dependencies]` and `[dev-dependencies]` of a manifest.
fn dependencies(of: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of).join("Cargo.toml");
    let text = fs::read_to_string(path).unwrap();
    let sections = text.split("\n[").filter(|section| section.contains("dependencies]"));
    let lines = sections.flat_map(|section| section.lines().skip(1));
    let names = lines.filter(|line| line.contains('='));
    names.map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned()).collect()
}

#[test]
fn every_dependency_has_its_reason() {
    let used: BTreeSet<_> =
        ["lb", "testbed", "xtask"].map(dependencies).into_iter().flatten().collect();
    let page = include_str!("../docs/dependencies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let told: Vec<_> =
        rows.map(|(name, _)| name.to_owned()).filter(|name| name != "crate").collect();
    let named: BTreeSet<_> = told.iter().cloned().collect();
    assert_eq!(used, named);
    assert_eq!(told.len(), named.len(), "told twice");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let of_rust = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    of_rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn unsafe_is_allowed_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["lb", "testbed", "xtask", "tests"].map(|name| sources(&root.join(name)));
    let lint = ["unsafe", "code"].join("_");
    let allowing: Vec<_> = folders
        .into_iter()
        .flatten()
        .flat_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            vec![path; text.matches(&lint).count()]
        })
        .collect();
    assert_eq!(allowing, [root.join("lb/src/allocator.rs")]);
    for member in ["lb", "testbed", "xtask"] {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{member}");
    }
}
