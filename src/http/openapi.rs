//! `/api/openapi.json`: the paths below `/api` as an OpenAPI document
//! (<https://spec.openapis.org/oas/v3.1.1.html>), made of the types that they answer.

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::documents::{CameraChange, CamerasDocument, EventDocument, EventsDocument, NodeDocument};

/// The routes of this module.
pub(super) fn router() -> Router {
    let show = || async { ([(CONTENT_TYPE, "application/json")], document().to_string()).into_response() };
    Router::new().route("/api/openapi.json", get(show))
}

/// What a request has besides its path.
#[derive(Clone, Copy)]
enum Input {
    Nothing,
    /// Parameters of the query: name, type, format, meaning.
    Query(&'static [(&'static str, &'static str, &'static str)]),
    /// JSON of this schema.
    Body(&'static str),
}

/// What an answer has.
#[derive(Clone, Copy)]
enum Output {
    /// Only its status.
    Nothing(&'static str),
    /// JSON of this schema.
    Json(&'static str),
    /// Something of this type.
    Other(&'static str),
}

const EVENTS_QUERY: &[(&str, &str, &str)] = &[
    ("camera", "string", "Those of this camera"),
    (
        "q",
        "string",
        "Those in whose words all these occur; \"words in quotes\" beside each other, tri* for all that begins so",
    ),
    ("alert", "string", "Those that switched this alert"),
    ("from", "date-time", "Those whose clip ended then or later"),
    ("to", "date-time", "Those whose clip ended then or earlier"),
    ("before", "string", "The field next of an answer before"),
    ("limit", "integer", "How many: 1 to 200, 50 if it is left out"),
];

/// Path, method, summary, input, output.
const ROUTES: &[(&str, &str, &str, Input, Output)] = &[
    ("/api/node", "get", "How the node is doing", Input::Nothing, Output::Json("NodeDocument")),
    ("/api/cameras", "get", "All cameras", Input::Nothing, Output::Json("CamerasDocument")),
    (
        "/api/cameras/{camera}",
        "patch",
        "Changes settings of a camera",
        Input::Body("CameraChange"),
        Output::Nothing("202"),
    ),
    (
        "/api/cameras/{camera}/snapshot.jpg",
        "get",
        "The newest picture of a camera as the model saw it; its event is the ETag",
        Input::Nothing,
        Output::Other("image/jpeg"),
    ),
    (
        "/api/cameras/{camera}/ask",
        "post",
        "A question about what a camera shows now",
        Input::Body("Ask"),
        Output::Json("Reply"),
    ),
    (
        "/api/events",
        "get",
        "Events of the history",
        Input::Query(EVENTS_QUERY),
        Output::Json("EventsDocument"),
    ),
    ("/api/events/{id}", "get", "An event of the history", Input::Nothing, Output::Json("EventDocument")),
    (
        "/api/events/{id}/frames/{name}",
        "get",
        "A frame that the model saw: 0.jpg, 1.jpg and so on",
        Input::Nothing,
        Output::Other("image/jpeg"),
    ),
    (
        "/api/live",
        "get",
        "What happens, as it happens: server-sent events event, camera, gone, node and reset",
        Input::Nothing,
        Output::Other("text/event-stream"),
    ),
    ("/api/login", "post", "The token in, a cookie out", Input::Body("Login"), Output::Nothing("204")),
    ("/api/logout", "post", "Removes the cookie", Input::Nothing, Output::Nothing("204")),
];

/// The OpenAPI document.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    for add in [
        add::<NodeDocument>,
        add::<CamerasDocument>,
        add::<CameraChange>,
        add::<EventsDocument>,
        add::<EventDocument>,
    ] {
        add(&mut generator);
    }
    let mut schemas = json!(generator.take_definitions(true));
    let text = json!({"type": "string"});
    schemas["Login"] = json!({"type": "object", "required": ["token"], "properties": {"token": text}});
    schemas["Ask"] = json!({"type": "object", "additionalProperties": false, "properties": {
        "question": text, "answers": {"type": "array", "items": text}, "last": text, "max_tokens": {"type": "integer"},
        "request": text,
    }});
    // An answer, or why there is none: docs/reference/topics.md.
    schemas["Reply"] = json!({"type": "object"});
    schemas["Error"] = json!({"type": "object", "required": ["error"], "properties": {"error": {
        "type": "object", "required": ["message", "type"], "properties": {
            "message": text, "type": text, "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
        },
    }}});
    let mut paths = json!({});
    for (path, method, summary, input, output) in ROUTES {
        paths[path][method] = operation(path, summary, *input, *output);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "camscribe",
            "version": "1",
            "description": "What the page of a camscribe shows, and what can be done there. Fields are only added.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}, {"cookie": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": format!("{}9180", super::access::COOKIE)},
            },
        },
    })
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn operation(path: &str, summary: &str, input: Input, output: Output) -> Value {
    let schema = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    let in_path = path
        .split(['{', '}'])
        .skip(1)
        .step_by(2)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let mut parameters: Vec<_> = in_path.collect();
    let mut operation = json!({"summary": summary});
    match input {
        Input::Nothing => {}
        Input::Query(query) => parameters.extend(query.iter().map(|(name, kind, meaning)| {
            let schema = match *kind {
                "date-time" => json!({"type": "string", "format": kind}),
                _ => json!({"type": kind}),
            };
            json!({"name": name, "in": "query", "description": meaning, "schema": schema})
        })),
        Input::Body(name) => {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": schema(name)}});
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    let (status, content) = match output {
        Output::Nothing(status) => (status, None),
        Output::Json(name) => ("200", Some(("application/json", schema(name)))),
        Output::Other(kind) => ("200", Some((kind, json!({})))),
    };
    let mut answer = json!({"description": "It is so"});
    if let Some((kind, schema)) = content {
        answer["content"] = json!({kind: schema});
    }
    let error = json!({"description": "Why not", "content": {"application/json": schema("Error")}});
    operation["responses"] = json!({status: answer, "default": error});
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(String::from));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_committed_document_is_the_generated_one_and_its_references_lead_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 10);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/openapi.json");
        if std::env::var_os("CAMSCRIBE_WRITE_OPENAPI").is_some() {
            std::fs::write(file, &text).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == text,
            "docs/reference/openapi.json is not what the code says: run the tests with CAMSCRIBE_WRITE_OPENAPI=1"
        );
    }
}
