//! How values of a file are read into types, and how editors are told of them.
//!
//! Owns what all shapes have in common: keys that are unknown or there twice,
//! values of the wrong kind. A mapping is declared once, by [`mapping!`], which
//! makes of it a struct, what reads it, and its JSON schema, so that none can
//! know a key that the others do not.

use std::collections::HashMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    problems::{Problem, Problems},
    tree::{Data, Node},
    values::Invalid,
};

/// How one part of a file is read.
pub(crate) trait Shape: JsonSchema {
    /// What it is read into.
    type Value;

    /// The value; `None` if there is none, or it has problems, which are told.
    fn read(at: &At<'_>, problems: &mut Problems) -> Option<Self::Value>;

    /// What counts of two: the upper, and the lower where that says nothing.
    fn over(upper: Option<Self::Value>, lower: Option<Self::Value>) -> Option<Self::Value> {
        upper.or(lower)
    }
}

/// A value of the file, and the path to it.
pub(crate) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> At<'a> {
    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { place: Some((self.node.line, None)), path: self.path.clone(), what: what.into() }
    }

    /// The value as a sentence begins with it.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 80;
        match &self.node.data {
            Data::List(_) => "a list".into(),
            Data::Mapping(_) => "a mapping".into(),
            Data::Scalar { text, plain } => {
                let bare = *plain && (text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok());
                match text.char_indices().nth(LONGEST) {
                    Some((end, _)) => format!("{:?}...", &text[..end]),
                    None if bare => text.clone(),
                    None => format!("{text:?}"),
                }
            }
        }
    }

    /// The value of the first key `key` of a mapping.
    pub(super) fn field(&self, key: &str) -> Option<At<'a>> {
        let Data::Mapping(entries) = &self.node.data else { return None };
        let is_key = |node: &Node| matches!(&node.data, Data::Scalar { text, .. } if text == key);
        let (_, node) = entries.iter().find(|(node, _)| is_key(node))?;
        Some(At { node, path: self.path_of(key) })
    }

    /// The values of a list; told if it is none. Nothing at all is empty.
    pub(super) fn items(
        &self,
        problems: &mut Problems,
    ) -> Option<impl Iterator<Item = At<'a>> + use<'a>> {
        let path = self.path.clone();
        match &self.node.data {
            Data::List(list) => Some(
                list.iter()
                    .enumerate()
                    .map(move |(index, node)| At { node, path: format!("{path}[{index}]") }),
            ),
            _ if self.node.is_null() => None,
            _ => {
                problems.push(self.problem(format!(
                    "{} is not a list; expected [...], or lines that begin with -",
                    self.shown()
                )));
                None
            }
        }
    }

    /// The values of a mapping whose keys are among `known`; what else there is
    /// is told. Nothing at all is empty.
    pub(super) fn fields(
        &self,
        known: &[&str],
        problems: &mut Problems,
    ) -> Option<Vec<(&'a str, At<'a>)>> {
        let entries = match &self.node.data {
            Data::Mapping(entries) => entries,
            _ if self.node.is_null() => return None,
            _ => {
                let what = format!("{} is not a mapping; expected {}", self.shown(), list(known));
                problems.push(self.problem(what));
                return None;
            }
        };
        let mut seen = HashMap::new();
        let mut fields = Vec::new();
        for (key, node) in entries {
            let Data::Scalar { text, .. } = &key.data else {
                problems.push(Problem {
                    place: Some((key.line, None)),
                    ..self.problem(format!("a key is not a word; expected {}", list(known)))
                });
                continue;
            };
            let field = At { node, path: self.path_of(text) };
            let problem = |what| Problem { place: Some((key.line, None)), ..field.problem(what) };
            if let Some(first) = seen.insert(text, key.line) {
                problems
                    .push(problem(format!("is there twice, first in line {first}; expected once")));
            } else if known.contains(&text.as_str()) {
                fields.push((text.as_str(), field));
            } else if !(self.path.is_empty() && text == "$schema") {
                problems.push(problem(format!("is an unknown key; {}", suggestion(text, known))));
            }
        }
        Some(fields)
    }

    fn path_of(&self, key: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        let wordy = |c: char| c.is_ascii_alphanumeric() || "_-$".contains(c);
        let short: String = key.chars().take(64).collect();
        if !key.is_empty() && key.chars().all(wordy) {
            format!("{}{dot}{short}", self.path)
        } else {
            format!("{}{dot}{short:?}", self.path)
        }
    }
}

/// What might have been meant by `key`.
fn suggestion(key: &str, known: &[&str]) -> String {
    /// So that no single letter resembles every word that begins with it.
    const SIMILAR: f64 = 0.8;
    let key = key.chars().take(64).collect::<String>().to_lowercase().replace('-', "_");
    let similar = |known: &&str| strsim::jaro_winkler(&key, &known.to_lowercase());
    let best = known.iter().max_by(|a, b| similar(a).total_cmp(&similar(b)));
    if key == "<<" {
        return "merge keys are not supported; health is for what servers share".into();
    }
    match best.filter(|best| similar(best) > SIMILAR) {
        Some(best) => format!("did you mean {best}?"),
        None => format!("expected {}", list(known)),
    }
}

fn list(words: &[&str]) -> String {
    match words {
        [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
        _ => words.concat(),
    }
}

/// Reads a single value from its text, as the command line does.
pub(super) fn read_scalar<T>(
    at: &At<'_>,
    expected: &str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
    problems: &mut Problems,
) -> Option<T> {
    let read = match &at.node.data {
        _ if at.node.is_null() => Err(format!("has no value; expected {expected}")),
        Data::Scalar { text, .. } => {
            parse(text).map_err(|invalid| format!("{} {invalid}", at.shown()))
        }
        _ => Err(format!("is {}; expected {expected}", at.shown())),
    };
    read.map_err(|what| problems.push(at.problem(what))).ok()
}

/// Declares a mapping: its keys, what they mean, and their shapes. A key that is
/// no Rust name stands behind it.
macro_rules! mapping {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($(#[$meta:meta])* $name:ident {
        $($(#[doc = $doc:literal])* $field:ident $(as $key:literal)?: $shape:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            $($(#[doc = $doc])* pub(crate) $field: Option<<$shape as Shape>::Value>,)*
        }

        impl Shape for $name {
            type Value = $name;

            fn read(at: &At<'_>, problems: &mut Problems) -> Option<$name> {
                const KEYS: &[&str] = &[$(mapping!(@key $field $($key)?)),*];
                let mut value = $name::default();
                for (key, field) in at.fields(KEYS, problems)? {
                    $(if key == mapping!(@key $field $($key)?) {
                        value.$field = <$shape>::read(&field, problems);
                    })*
                }
                Some(value)
            }

            fn over(upper: Option<$name>, lower: Option<$name>) -> Option<$name> {
                let (upper, lower) = match (upper, lower) {
                    (Some(upper), Some(lower)) => (upper, lower),
                    (upper, lower) => return upper.or(lower),
                };
                Some($name {
                    $($field: <$shape>::over(upper.$field, lower.$field),)*
                })
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut properties = serde_json::Map::new();
                $(
                    let mut schema = generator.subschema_for::<$shape>();
                    schema.insert("description".into(), concat!($($doc),*).trim().into());
                    properties.insert(mapping!(@key $field $($key)?).into(), schema.to_value());
                )*
                json_schema!({
                    "type": ["object", "null"],
                    "properties": properties,
                    "additionalProperties": false,
                })
            }
        }
    };
}
pub(super) use mapping;

/// A list of shapes.
pub(crate) struct List<S>(std::marker::PhantomData<S>);

impl<S: Shape> Shape for List<S> {
    type Value = Vec<S::Value>;

    fn read(at: &At<'_>, problems: &mut Problems) -> Option<Self::Value> {
        let items = at.items(problems)?;
        Some(items.filter_map(|item| S::read(&item, problems)).collect())
    }
}

impl<S: JsonSchema> JsonSchema for List<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("ListOf{}", S::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["array", "null"], "items": generator.subschema_for::<S>() })
    }
}
