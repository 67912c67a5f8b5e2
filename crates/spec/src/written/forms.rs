//! Values that may be written in more than one form: a string or a list, a string or a mapping.
//!
//! serde's untagged enums buffer their input and lose the places of what is inside, so these are read by visitors.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Written;
use super::image::{DetailedCommand, HealthcheckFile};

/// The schema of a text that YAML may take for a number or a truth: `1.10`, `80`, `yes`.
pub(super) struct Scalar;

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A command: a string for `/bin/sh -c`, or a list of arguments.
#[derive(Clone, Debug)]
pub enum CommandForm {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// The program and its arguments.
    Exec(Vec<Written<String>>),
}

/// One command of `run`, in whichever form it was written.
#[derive(Clone, Debug)]
pub struct RunForm(pub DetailedCommand);

/// The commands of `run`: a list, or a string for a single one.
#[derive(Clone, Debug)]
pub struct RunList(pub Vec<Written<RunForm>>);

/// A health check, or `none`.
#[derive(Clone, Debug)]
pub enum HealthcheckForm {
    /// A word in its place; only `none` means something.
    Word(String),
    /// A check.
    Check(Box<HealthcheckFile>),
}

/// Permissions as written: between quotes, or as the bare number that YAML misreads.
#[derive(Clone, Debug)]
pub enum ModeForm {
    /// Between quotes.
    Text(String),
    /// A bare number: YAML 1.1 reads `0755` as 493, YAML 1.2 as 755.0.
    Number,
}

/// A bare number or truth where a command is expected; YAML has already changed it.
fn not_a_command<T, E: Error>(found: &str) -> Result<T, E> {
    Err(E::custom(format!("expected a command, found {found}: put it between quotes")))
}

macro_rules! refuse_bare_scalars {
    () => {
        fn visit_bool<E: Error>(self, _value: bool) -> Result<Self::Value, E> {
            not_a_command("a truth value")
        }

        fn visit_i64<E: Error>(self, _value: i64) -> Result<Self::Value, E> {
            not_a_command("a number")
        }

        fn visit_u64<E: Error>(self, _value: u64) -> Result<Self::Value, E> {
            not_a_command("a number")
        }

        fn visit_f64<E: Error>(self, _value: f64) -> Result<Self::Value, E> {
            not_a_command("a number")
        }
    };
}

impl<'de> Deserialize<'de> for CommandForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl<'de> Visitor<'de> for FormVisitor {
            type Value = CommandForm;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(CommandForm::Shell(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(sequence)).map(CommandForm::Exec)
            }

            refuse_bare_scalars!();
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

impl JsonSchema for CommandForm {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A string for `/bin/sh -c`, or a list of arguments.",
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number", "boolean"] } }]
        })
    }
}

impl<'de> Deserialize<'de> for RunForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl<'de> Visitor<'de> for FormVisitor {
            type Value = RunShape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a command: a string, a list of strings, or a mapping with `command`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(RunShape::Plain(CommandForm::Shell(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
                let arguments = Vec::deserialize(SeqAccessDeserializer::new(sequence))?;
                Ok(RunShape::Plain(CommandForm::Exec(arguments)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let command = DetailedCommand::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RunShape::Detailed(Box::new(command)))
            }

            refuse_bare_scalars!();
        }

        struct Shape(RunShape);

        impl<'de> Deserialize<'de> for Shape {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(FormVisitor).map(Self)
            }
        }

        let written = Written::<Shape>::deserialize(deserializer)?;
        let location = written.place();
        Ok(match written.value.0 {
            RunShape::Plain(command) => Written::at(command, location).into(),
            RunShape::Detailed(command) => Self(*command),
        })
    }
}

enum RunShape {
    Plain(CommandForm),
    Detailed(Box<DetailedCommand>),
}

impl JsonSchema for RunForm {
    fn schema_name() -> Cow<'static, str> {
        "Run".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let detailed = generator.subschema_for::<DetailedCommand>();
        json_schema!({
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, detailed]
        })
    }
}

impl<'de> Deserialize<'de> for RunList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = ListShape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of commands")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(ListShape::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(sequence)).map(ListShape::Many)
            }

            refuse_bare_scalars!();
        }

        struct Shape(ListShape);

        impl<'de> Deserialize<'de> for Shape {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ListVisitor).map(Self)
            }
        }

        let written = Written::<Shape>::deserialize(deserializer)?;
        let place = written.place();
        Ok(Self(match written.value.0 {
            ListShape::One(line) => {
                let command = Written::at(CommandForm::Shell(line), place);
                vec![Written::at(command.into(), place)]
            }
            ListShape::Many(list) => list,
        }))
    }
}

enum ListShape {
    One(String),
    Many(Vec<Written<RunForm>>),
}

impl JsonSchema for RunList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RunList".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<RunForm>();
        json_schema!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": item }] })
    }
}

impl<'de> Deserialize<'de> for HealthcheckForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl<'de> Visitor<'de> for FormVisitor {
            type Value = HealthcheckForm;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`none`, or a mapping with `command`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(HealthcheckForm::Word(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let check = HealthcheckFile::deserialize(MapAccessDeserializer::new(map))?;
                Ok(HealthcheckForm::Check(Box::new(check)))
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

impl JsonSchema for HealthcheckForm {
    fn schema_name() -> Cow<'static, str> {
        "Healthcheck".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let check = generator.subschema_for::<HealthcheckFile>();
        json_schema!({ "oneOf": [{ "const": "none" }, check] })
    }
}

impl<'de> Deserialize<'de> for ModeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormVisitor;

        impl Visitor<'_> for FormVisitor {
            type Value = ModeForm;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an octal mode between quotes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(ModeForm::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, _value: i64) -> Result<Self::Value, E> {
                Ok(ModeForm::Number)
            }

            fn visit_u64<E: Error>(self, _value: u64) -> Result<Self::Value, E> {
                Ok(ModeForm::Number)
            }

            // What `0755` is to a parser of YAML 1.2, which knows no whole numbers that begin with a zero.
            fn visit_f64<E: Error>(self, _value: f64) -> Result<Self::Value, E> {
                Ok(ModeForm::Number)
            }
        }

        deserializer.deserialize_any(FormVisitor)
    }
}

impl JsonSchema for ModeForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-7]{3,4}$" })
    }
}
