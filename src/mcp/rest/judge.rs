//! Do arguments fit a tool's schema? Whatever cannot be judged here is left to the backend.
//!
//! Schemas come from the backend and may ask for a lot: of time, so that they are judged on threads
//! of their own, and few at once; of stack, so that these have much of it, and what could need more
//! is not judged.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use jsonschema::PatternOptions;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use super::clipped;
use crate::mcp::Reason;
use crate::tally::{Outcome, Tally};

/// Larger schemas are not judged.
const MAX_SCHEMA: usize = 1024 * 1024;
/// Schemas that are judged at once.
const MAX_JUDGES: usize = 4;
/// The stack of one judge. Memory is taken as it is used.
const STACK: usize = 64 * 1024 * 1024;
/// Steps that one judgement may nest, each of less than 1 KiB of stack: references, times levels of
/// the schema, times levels of the arguments.
const MAX_STEPS: usize = 60_000;
/// Bytes that one compiled pattern of a schema may take.
const MAX_PATTERN: usize = 1024 * 1024;

/// Those who judge.
#[derive(Debug)]
pub(in crate::mcp) struct Judges {
    places: Arc<Semaphore>,
    tally: Tally,
}

impl Judges {
    /// Counts here when one of them panics.
    pub(in crate::mcp) fn new(tally: Tally) -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_JUDGES)), tally }
    }

    /// Refuses arguments that do not fit.
    pub(super) async fn judge(&self, schema: Bytes, arguments: Value) -> Result<(), Reason> {
        if schema.len() > MAX_SCHEMA {
            return Ok(());
        }
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return Ok(()) };
        let (tell, told) = oneshot::channel();
        let work = move || {
            // Its caller may have gone; the place is given back when the work is done.
            drop(tell.send(verdict(&schema, &arguments)));
            drop(place);
        };
        let judge = thread::Builder::new().name("judge".to_owned()).stack_size(STACK).spawn(work);
        if let Err(error) = judge {
            tracing::warn!(%error, "no thread to judge arguments");
        }
        told.await.unwrap_or_else(|_| {
            // The thread panicked, or could not be started.
            self.tally.count(Outcome::JudgeLost);
            Ok(())
        })
    }
}

fn verdict(schema: &[u8], arguments: &Value) -> Result<(), Reason> {
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else { return Ok(()) };
    let size = Size::of(&schema);
    if (size.references + 1) * size.depth * Size::of(arguments).depth > MAX_STEPS {
        tracing::debug!("a tool's schema is too intricate to be judged");
        return Ok(());
    }
    // Patterns in linear time only; `format` is an annotation in the dialect of MCP.
    let patterns = PatternOptions::regex().size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN);
    let options = jsonschema::options().offline().should_validate_formats(false);
    let validator = match options.with_pattern_options(patterns).build(&schema) {
        Ok(validator) => validator,
        Err(error) => {
            tracing::debug!(%error, "a tool's schema cannot be used");
            return Ok(());
        }
    };
    validator.validate(arguments).map_err(|error| Reason::BadArguments {
        at: clipped(&format!("/arguments{}", error.instance_path().as_str())),
        why: clipped(&error.masked().to_string()),
    })
}

/// What a value may cost.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    depth: usize,
    references: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let mut size = Self::default();
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    size.take(Self::of(member));
                    let reference =
                        ["$ref", "$dynamicRef", "$recursiveRef"].contains(&key.as_str());
                    size.references += usize::from(reference);
                }
            }
            Value::Array(members) => members.iter().for_each(|member| size.take(Self::of(member))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Self { depth: size.depth + 1, ..size }
    }

    fn take(&mut self, inner: Self) {
        self.depth = self.depth.max(inner.depth);
        self.references += inner.references;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(schema: &Value, arguments: &Value) -> Result<(), Reason> {
        verdict(schema.to_string().as_bytes(), arguments)
    }

    fn refused(schema: &Value, arguments: &Value) -> (String, String) {
        match judged(schema, arguments) {
            Err(Reason::BadArguments { at, why }) => (at, why),
            other => panic!("{schema} {arguments}: {other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_it_says_where() {
        let schema = json!({
            "type": "object",
            "properties": {
                "n": { "type": "integer", "maximum": 10 },
                "a/b": { "items": { "pattern": "^x+$" } },
                "mail": { "format": "email" },
            },
            "required": ["n"],
        });
        assert_eq!(judged(&schema, &json!({ "n": 1, "more": 1, "mail": "none" })), Ok(()));
        let (at, why) = refused(&schema, &json!({}));
        assert_eq!((&*at, &*why), ("/arguments", r#""n" is a required property"#));
        let (at, why) = refused(&schema, &json!({ "n": "secret" }));
        assert_eq!((&*at, &*why), ("/arguments/n", r#"value is not of type "integer""#));
        let (at, _) = refused(&schema, &json!({ "n": 1, "a/b": ["x", "y"] }));
        assert_eq!(at, "/arguments/a~1b/1");
        let many = json!({ "n": 1, "x".repeat(5000): 1 });
        let strict = json!({ "additionalProperties": false });
        assert!(refused(&strict, &many).1.len() <= 1000);
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_the_backends_affair() {
        for schema in [
            json!({ "type": "nonsense" }),
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "$ref": "#/$defs/none" }),
            json!({ "$schema": "https://example.com/dialect", "type": "string" }),
            json!({ "not": {}, "properties": { "a": { "pattern": "(?=look)ahead" } } }),
            json!({ "not": {}, "properties": { "a": { "pattern": "(x{1000}){1000}" } } }),
        ] {
            assert_eq!(judged(&schema, &json!({})), Ok(()), "{schema}");
        }
        assert_eq!(verdict(b"{", &json!({})), Ok(()));
    }

    /// Whoever nests: `$defs` that lead from one to the next.
    fn chain(length: usize, last: &Value) -> Value {
        let link = |at| json!({ "allOf": [{ "$ref": format!("#/$defs/d{at}") }] });
        let defs = (0..length).map(|at| (format!("d{at}"), link(at + 1)));
        let last = (format!("d{length}"), last.clone());
        let defs: serde_json::Map<_, _> = defs.chain([last]).collect();
        json!({ "$defs": defs, "$ref": "#/$defs/d0" })
    }

    #[tokio::test]
    async fn an_intricate_schema_is_judged_as_long_as_the_stack_lasts() {
        let judges = Judges::new(Tally::default());
        let judge = |schema: Value| judges.judge(schema.to_string().into(), json!({}));
        let never = json!({ "not": {} });
        // Six levels of schema, one of arguments.
        assert!(judge(chain(9_000, &never)).await.is_err());
        assert_eq!(judge(chain(11_000, &never)).await, Ok(()));
        // A reference to itself ends, too.
        assert_eq!(judge(json!({ "allOf": [{ "$ref": "#" }] })).await, Ok(()));
    }

    #[tokio::test]
    async fn a_large_schema_is_the_backends_affair() {
        let of = |size: usize| json!({ "not": {}, "description": "x".repeat(size) }).to_string();
        let judges = Judges::new(Tally::default());
        assert!(judges.judge(of(1_000_000).into(), json!({})).await.is_err());
        assert_eq!(judges.judge(of(1_048_576).into(), json!({})).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_few_judge_at_once() {
        let judges = Judges::new(Tally::default());
        let taken = Arc::clone(&judges.places).acquire_many_owned(4).await;
        let waiting = judges.judge(Bytes::from_static(b"{}"), json!({}));
        assert!(tokio::time::timeout(std::time::Duration::from_secs(9), waiting).await.is_err());
        drop(taken);
        assert_eq!(judges.judge(Bytes::from_static(b"{}"), json!({})).await, Ok(()));
    }
}
