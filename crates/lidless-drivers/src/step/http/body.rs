//! What does a request carry? A text, a form or JSON, each with placeholders.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::template::{Misread, Template, Way, Written};
use crate::step::Call;

/// What a user says that a request carries.
#[derive(Clone, PartialEq, Debug)]
pub enum BodySettings {
    /// A text. Values are put in as they are: where signs in them could mean something, JSON or a form is right.
    Text(String),
    /// JSON. Each text in it is a template; one that is nothing but a placeholder becomes the value itself, whatever its type.
    Json(Value),
    /// A form, `application/x-www-form-urlencoded`: names, and values that are templates.
    Form(Vec<(String, String)>),
}

/// A body that is ready to be filled.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Text(Template),
    Json(JsonTemplate),
    Form(Vec<(String, Template)>),
}

impl Body {
    /// Reads what a user says. An error comes with the place in the body: `.to.0`.
    pub(super) fn new(settings: &BodySettings) -> Result<Body, (String, Misread)> {
        match settings {
            BodySettings::Text(text) => {
                Template::parse(text).map(Body::Text).map_err(|misread| (String::new(), misread))
            }
            BodySettings::Json(value) => JsonTemplate::new(value, "").map(Body::Json),
            BodySettings::Form(fields) => {
                let field = |(name, value): &(String, String)| match Template::parse(value) {
                    Ok(value) => Ok((name.clone(), value)),
                    Err(misread) => Err((format!(".{name}"), misread)),
                };
                fields.iter().map(field).collect::<Result<_, _>>().map(Body::Form)
            }
        }
    }

    /// Returns its type, where that is beyond doubt.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        match self {
            Body::Text(_) => None,
            Body::Json(_) => Some("application/json"),
            Body::Form(_) => Some("application/x-www-form-urlencoded"),
        }
    }

    /// Puts a call's values in.
    pub(super) fn fill(&self, call: &Call) -> Result<Bytes, String> {
        match self {
            Body::Text(text) => text.fill(call, Written::Plainly).map(Bytes::from),
            Body::Json(json) => json.fill(call).map(|json| Bytes::from(json.to_string())),
            Body::Form(fields) => {
                let field = |(name, value): &(String, Template)| {
                    let name = super::template::write(name, Written::Encoded);
                    let value =
                        super::template::write(&value.fill(call, Written::Plainly)?, Written::Encoded);
                    Ok(format!("{name}={value}"))
                };
                let fields = fields.iter().map(field).collect::<Result<Vec<_>, String>>()?;
                Ok(Bytes::from(fields.join("&")))
            }
        }
    }

    /// Returns what it asks of a call.
    pub(super) fn ways(&self) -> Vec<&Way> {
        match self {
            Body::Text(text) => text.ways().collect(),
            Body::Json(json) => json.ways(),
            Body::Form(fields) => fields.iter().flat_map(|(_, value)| value.ways()).collect(),
        }
    }
}

/// JSON whose texts have placeholders.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum JsonTemplate {
    Fixed(Value),
    Whole(Way),
    Text(Template),
    List(Vec<JsonTemplate>),
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    fn new(value: &Value, place: &str) -> Result<JsonTemplate, (String, Misread)> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(JsonTemplate::Fixed(value.clone())),
            Value::String(text) => {
                let template = Template::parse(text).map_err(|misread| (place.to_owned(), misread))?;
                Ok(match template.sole() {
                    Some(way) => JsonTemplate::Whole(way.clone()),
                    None => JsonTemplate::Text(template),
                })
            }
            Value::Array(list) => {
                let item = |(at, value)| JsonTemplate::new(value, &format!("{place}.{at}"));
                list.iter().enumerate().map(item).collect::<Result<_, _>>().map(JsonTemplate::List)
            }
            Value::Object(object) => {
                let field = |(name, value): (&String, &Value)| {
                    let place = format!("{place}.{name}");
                    if let Some(at) = name.find("{{") {
                        let reason = "a name in an object has no placeholders".to_owned();
                        return Err((place, Misread { at, reason }));
                    }
                    Ok((name.clone(), JsonTemplate::new(value, &place)?))
                };
                object.iter().map(field).collect::<Result<_, _>>().map(JsonTemplate::Object)
            }
        }
    }

    fn fill(&self, call: &Call) -> Result<Value, String> {
        match self {
            JsonTemplate::Fixed(value) => Ok(value.clone()),
            JsonTemplate::Whole(way) => Ok(way.value(call)?.into_owned()),
            JsonTemplate::Text(text) => text.fill(call, Written::Plainly).map(Value::String),
            JsonTemplate::List(list) => {
                list.iter().map(|item| item.fill(call)).collect::<Result<_, _>>().map(Value::Array)
            }
            JsonTemplate::Object(fields) => {
                let field = |(name, value): &(String, JsonTemplate)| Ok((name.clone(), value.fill(call)?));
                fields.iter().map(field).collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
        }
    }

    fn ways(&self) -> Vec<&Way> {
        match self {
            JsonTemplate::Fixed(_) => Vec::new(),
            JsonTemplate::Whole(way) => vec![way],
            JsonTemplate::Text(text) => text.ways().collect(),
            JsonTemplate::List(list) => list.iter().flat_map(JsonTemplate::ways).collect(),
            JsonTemplate::Object(fields) => fields.iter().flat_map(|(_, value)| value.ways()).collect(),
        }
    }
}
