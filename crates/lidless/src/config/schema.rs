//! What does an editor need for completion? A JSON Schema, made from the same table that the reader uses.

use serde_json::{Map, Value, json};

use super::shape::{self, Accepts, Key, Shape};

/// Returns the schema of the configuration file, draft 2020-12.
pub fn schema() -> Value {
    let mut root = map_of(&shape::TOP);
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("lidless configuration, version 1"));
        root.insert("$defs".to_owned(), definitions());
    }
    root
}

fn definitions() -> Value {
    json!({
        "name": { "type": "string", "pattern": "^[A-Za-z0-9_@][A-Za-z0-9._@-]{0,63}$" },
        "text": { "type": ["string", "number", "boolean"], "description": "Any scalar; it is taken as it is written." },
        "duration": { "type": "string", "pattern": DURATION, "examples": ["100ms", "5s", "1m30s", "1h"] },
        "positive": { "type": "string", "pattern": DURATION, "not": { "pattern": "^(0+(ms|s|m|h|d))+$" }, "examples": ["100ms", "5s", "1m30s", "1h"] },
        "range": { "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+\\.\\.([0-9]+(ms|s|m|h|d))+$", "examples": ["5s..2m"] },
        "size": { "type": "string", "pattern": "^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB)$", "examples": ["64KiB", "1MiB"] },
        "signal": { "type": "string", "pattern": "^(SIG)?(TERM|HUP|INT|QUIT|USR1|USR2|KILL|ABRT|ALRM|CONT|PIPE|WINCH)$" },
        "status": { "type": ["integer", "string"], "minimum": 100, "maximum": 599, "pattern": "^[1-5][0-9]{2}(\\.\\.[1-5][0-9]{2})?$" },
        "secret": map_of(&shape::SECRET),
    })
}

const DURATION: &str = "^([0-9]+(ms|s|m|h|d))+$";

fn map_of(shape: &'static Shape) -> Value {
    let mut map = Map::new();
    map.insert("type".to_owned(), json!("object"));
    map.insert("additionalProperties".to_owned(), json!(false));
    let properties: Map<String, Value> =
        shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    map.insert("properties".to_owned(), Value::Object(properties));
    let required: Vec<&str> = shape.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        map.insert("required".to_owned(), json!(required));
    }
    let needs = |name: &&str| json!({ "required": [name] });
    let choices: Vec<Value> = shape.one_of.iter().map(needs).collect();
    let alone: Vec<&str> = shape.keys.iter().filter(|key| key.alone).map(|key| key.name).collect();
    if choices.is_empty() {
        return Value::Object(map);
    }
    if alone.is_empty() {
        map.insert("oneOf".to_owned(), json!(choices));
    } else {
        // At most one of the choice, or what may stand without.
        map.insert("not".to_owned(), json!({ "required": shape.one_of }));
        let any: Vec<Value> = choices.into_iter().chain(alone.iter().map(needs)).collect();
        map.insert("anyOf".to_owned(), json!(any));
    }
    Value::Object(map)
}

fn property(key: &'static Key) -> Value {
    let mut property = value_of(key.accepts);
    if let Value::Object(map) = &mut property {
        map.insert("description".to_owned(), json!(key.doc));
    }
    property
}

fn value_of(accepts: Accepts) -> Value {
    let definition = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    match accepts {
        Accepts::Text => definition("text"),
        Accepts::Whole(min) => json!({ "type": "integer", "minimum": min, "maximum": u32::MAX }),
        Accepts::Bool => json!({ "type": "boolean" }),
        Accepts::Duration { zero: true } => definition("duration"),
        Accepts::Duration { zero: false } => definition("positive"),
        Accepts::DurationRange => definition("range"),
        Accepts::Size => definition("size"),
        Accepts::Signal => definition("signal"),
        Accepts::TextOrMap(shape) => json!({ "oneOf": [definition("text"), map_of(shape)] }),
        Accepts::Json => json!({}),
        Accepts::Argv => json!({ "type": "array", "items": definition("text"), "minItems": 1 }),
        Accepts::ArgvOrMap(shape) => json!({ "oneOf": [value_of(Accepts::Argv), map_of(shape)] }),
        Accepts::Texts => json!({ "type": "array", "items": definition("text") }),
        Accepts::ExitCodes => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 } })
        }
        Accepts::Statuses => {
            json!({ "oneOf": [definition("status"), { "type": "array", "items": definition("status"), "minItems": 1 }] })
        }
        Accepts::Secrets => {
            json!({ "type": "object", "additionalProperties": { "oneOf": [definition("text"), definition("secret")] } })
        }
        Accepts::TextsByName => {
            json!({ "type": "object", "additionalProperties": definition("text") })
        }
        Accepts::Words(words) => json!({ "enum": words }),
        Accepts::Map(shape) if shape.keys.iter().any(|key| key.required) || !shape.one_of.is_empty() => {
            map_of(shape)
        }
        // A map that needs nothing may also be left empty.
        Accepts::Map(shape) => or_null(map_of(shape)),
        // YAML 1.1 readers, and so some editors, take `off` for `false`.
        Accepts::MapOrOff(shape) => json!({ "oneOf": [map_of(shape), { "enum": ["off", false] }] }),
        Accepts::Named(shape) => or_null(json!({
            "type": "object",
            "propertyNames": definition("name"),
            "additionalProperties": value_of(Accepts::Map(shape)),
        })),
        Accepts::Steps(shape) => json!({
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "propertyNames": definition("name"),
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": map_of(shape),
            },
        }),
    }
}

fn or_null(mut map: Value) -> Value {
    map["type"] = json!(["object", "null"]);
    map
}
