//! The JSON Schema of the language, for editors, made from the types that read it.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::written::{FamilyFile, ImageFile};

/// The schema of `family.yaml`.
pub fn family() -> Value {
    schema_of::<FamilyFile>()
}

/// The schema of `image.yaml`.
pub fn image() -> Value {
    schema_of::<ImageFile>()
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}
