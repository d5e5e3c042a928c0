//! The results as JSON, and the schema of that.

use anyhow::Result;
use schemars::{SchemaGenerator, generate::SchemaSettings};

use super::Results;

pub(super) fn render(results: &Results) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(results)?))
}

/// The JSON schema of [`Results`], as docs/e2e.schema.json has it.
pub(crate) fn schema() -> String {
    let generator = SchemaGenerator::new(SchemaSettings::draft07().for_serialize());
    format!("{:#}\n", generator.into_root_schema_for::<Results>().to_value())
}
