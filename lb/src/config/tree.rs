//! The values of a YAML text, each with its line. JSON is YAML here.
//!
//! Owns syntax: aliases, tags, documents, and the limits that keep a hostile
//! text small. Does not know what a configuration says. An alias shares the
//! value that it stands for, and counts for all that is in it, so that neither
//! memory nor time grows beyond the limit.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::problems::Problem;

/// The values of one text, at most, aliases replaced.
const MAX_VALUES: usize = 500_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    /// Its line, from 1 on.
    pub(super) line: usize,
    /// How many values it is, aliases replaced.
    size: usize,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    /// A single value, as written; `plain` if without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Rc<Node>>),
    /// Keys and values, in their order and with all that are written twice.
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// Whether nothing is said: `null`, `~`, or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads the one document of `text`; `None` if there is none.
///
/// # Errors
/// Not YAML, or more than a configuration needs of it.
pub(super) fn parse(text: &str) -> Result<Option<Rc<Node>>, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.handle(event, span)?;
    }
    Ok(builder.root)
}

fn syntax(error: &ScanError) -> Problem {
    let mark = error.marker();
    at(mark.line(), mark.col(), format!("not valid YAML or JSON: {}", error.info()))
}

fn at(line: usize, column: usize, what: impl Into<String>) -> Problem {
    Problem { place: Some((line, Some(column + 1))), path: String::new(), what: what.into() }
}

#[derive(Default)]
struct Builder {
    documents: usize,
    values: usize,
    /// The lists and mappings that are not at their end, the innermost last.
    open: Vec<Open>,
    /// What aliases stand for.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Rc<Node>>,
}

impl Builder {
    fn handle(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let (line, column) = (span.start.line(), span.start.col());
        if let Some(tag) = event.tag()
            && !tag.is_yaml_core_schema()
        {
            return Err(at(line, column, format!("the tag {} is not supported", tag.original())));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(at(line, column, "a second document begins; expected one"));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let data = Data::Scalar { text: text.into_owned(), plain };
                self.count(1, line, column)?;
                self.add(Rc::new(Node { line, size: 1, data }), anchor);
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(at(line, column, "the alias stands for what it is a part of"));
                };
                self.count(node.size, line, column)?;
                self.add(node, 0);
            }
            Event::SequenceStart(_, anchor, _) => {
                self.count(1, line, column)?;
                self.open(line, anchor, Data::List(Vec::new()));
            }
            Event::MappingStart(_, anchor, _) => {
                self.count(1, line, column)?;
                self.open(line, anchor, Data::Mapping(Vec::new()));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.add(Rc::new(open.node), open.anchor);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, line: usize, anchor: usize, data: Data) {
        self.open.push(Open { node: Node { line, size: 1, data }, anchor, key: None });
    }

    fn count(&mut self, values: usize, line: usize, column: usize) -> Result<(), Problem> {
        self.values += values;
        if self.values > MAX_VALUES {
            let what = format!("there are more than {MAX_VALUES} values, aliases replaced");
            return Err(at(line, column, what));
        }
        Ok(())
    }

    /// Puts a value where it belongs.
    fn add(&mut self, node: Rc<Node>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        open.node.size += node.size;
        match &mut open.node.data {
            Data::List(list) => list.push(node),
            Data::Mapping(entries) => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => open.key = Some(node),
            },
            Data::Scalar { .. } => {}
        }
    }
}
