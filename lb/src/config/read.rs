//! Reading a configuration file: from bytes to what it says, or all that is
//! wrong with it. The start, a reload and `lb check` go this one way.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use schemars::{SchemaGenerator, generate::SchemaSettings};

use super::{
    Config,
    file::{File, Whole},
    problems::{Problem, Problems},
    shape::{At, Shape},
    tree,
};

/// The largest file that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 8 << 20;

/// What the file at `path` says.
///
/// # Errors
/// It cannot be read, or there are mistakes in it.
pub(crate) fn read(path: &Path) -> Result<File, Problems> {
    let source = path.display().to_string();
    read_from(fs::File::open(path), &source)
}

/// What `input` says, which is called `source` in its problems.
///
/// # Errors
/// It cannot be read, or there are mistakes in it.
pub(crate) fn read_from(input: io::Result<impl Read>, source: &str) -> Result<File, Problems> {
    let mut bytes = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    let read = input.and_then(|input| input.take(limit).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse_file(&bytes, source),
        Err(error) => alone(source, Problem::of_file(unreadable(&error))),
    }
}

fn alone<T>(source: &str, problem: Problem) -> Result<T, Problems> {
    let mut problems = Problems::of(source);
    problems.push(problem);
    Err(problems)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::IsADirectory => "is a directory; expected a file".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// What `bytes` say.
///
/// # Errors
/// There are mistakes in them.
fn parse_file(bytes: &[u8], source: &str) -> Result<File, Problems> {
    if bytes.len() > MAX_BYTES {
        let what = format!("is larger than {} MiB, too large for a configuration", MAX_BYTES >> 20);
        return alone(source, Problem::of_file(what));
    }
    let text = match str::from_utf8(bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}'),
        Err(error) => {
            let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            let what = "not UTF-8; save the file in that encoding";
            let place = Some((lines + 1, None));
            return alone(source, Problem { place, ..Problem::of_file(what) });
        }
    };
    let root = match tree::parse(text) {
        Ok(Some(root)) if !root.is_null() => root,
        Ok(_) => {
            let what = "is empty; expected servers: and their URLs (lb init writes an example)";
            return alone(source, Problem::of_file(what));
        }
        Err(problem) => return alone(source, problem),
    };
    let mut problems = Problems::of(source);
    let file = Whole::read(&At { node: &root, path: String::new() }, &mut problems);
    problems.or(file.unwrap_or_default())
}

/// The configuration in `bytes`, which are called `source` in its problems.
///
/// # Errors
/// There are mistakes in them.
pub fn parse(bytes: &[u8], source: &str) -> Result<Config, Problems> {
    Ok(parse_file(bytes, source)?.into_config(None))
}

/// The JSON schema of a configuration file, for editors.
pub fn schema() -> String {
    let generator = SchemaGenerator::new(SchemaSettings::draft07());
    let schema = generator.into_root_schema_for::<Whole>();
    format!("{:#}\n", schema.to_value())
}
