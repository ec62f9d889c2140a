//! The layer of the environment: variables named `CAMSCRIBE__SECTION__KEY`. Variables that name no
//! section or key of the schema are errors here; values are text, which is read by each key's type
//! after the merge.

use std::{collections::BTreeSet, env};

use ::config::Value;

use super::{
    camera::URI,
    diagnostic::{Diagnostics, Location},
    hints,
    layer::Layer,
    schema,
};
use crate::camera::{BadCameraId, CameraId};

/// What the names of our variables begin with.
const PREFIX: &str = "CAMSCRIBE__";
/// What joins the parts of a name.
const SEPARATOR: &str = "__";

/// Reads all variables of this process. `known`: the cameras that lower layers declare.
pub fn read(known: &BTreeSet<CameraId>, diagnostics: &mut Diagnostics) -> Layer {
    let mut layer = Layer::default();
    let names: Vec<_> = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    // A name that means a camera of the file declares no other one.
    let declared = names.iter().filter_map(|name| declared_camera(name));
    let declared: Vec<_> = declared.map(|id| camera_named(id.as_str(), known).unwrap_or(id)).collect();
    let mut known = known.clone();
    known.extend(declared);
    for (name, value) in env::vars_os() {
        let Some(variable) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            warn_of_one_underscore(&name.to_string_lossy(), diagnostics);
            continue;
        };
        let location = Location::Environment { variable: variable.into() };
        let Some(value) = value.to_str() else {
            diagnostics.error(&location, "is not UTF-8 text");
            continue;
        };
        let path = variable[PREFIX.len()..].to_ascii_lowercase();
        if let Err(why) = set(&mut layer, &path, location.value(value), &known) {
            diagnostics.error(&location, why);
        }
    }
    layer
}

/// The camera whose address the variable of this name states, so that no file need declare it.
fn declared_camera(variable: &str) -> Option<CameraId> {
    let path = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let (camera, key) =
        path.strip_prefix(schema::CAMERAS)?.strip_prefix(SEPARATOR)?.rsplit_once(SEPARATOR)?;
    camera.parse().ok().filter(|_| key == URI.name)
}

/// Sets the key that a variable names. `path`: the name of the variable without the prefix, in lower
/// case, such as `cameras__porch__uri`. `Err`: why it names no key.
fn set(layer: &mut Layer, path: &str, value: Value, known: &BTreeSet<CameraId>) -> Result<(), String> {
    let (section, rest) = path
        .split_once(SEPARATOR)
        .ok_or("name section and key, joined by two underscores: CAMSCRIBE__SECTION__KEY")?;
    if let Some(schema) = schema::find(section) {
        let key = schema.find(rest).ok_or_else(|| hints::unknown_key(section, rest, schema))?;
        layer.set(section, key.name, value);
        return Ok(());
    }
    if section != schema::CAMERAS {
        return Err(hints::unknown_section(section));
    }
    let (camera, key) = rest
        .rsplit_once(SEPARATOR)
        .ok_or("name camera and key, joined by two underscores: CAMSCRIBE__CAMERAS__PORCH__URI")?;
    let camera = camera_named(camera, known).map_err(|e| e.to_string())?;
    let path = schema::camera_path(&camera);
    let key = schema::CAMERA.find(key).ok_or_else(|| hints::unknown_key(&path, key, &schema::CAMERA))?;
    if !known.contains(&camera) {
        return Err(hints::unknown_camera(&camera, known));
    }
    layer.add_camera(&camera);
    layer.set(&path, key.name, value);
    Ok(())
}

/// The camera that `name` means. A variable's name cannot hold `-`: `front_door` means the known camera
/// `front-door`, unless there is a `front_door`.
fn camera_named(name: &str, known: &BTreeSet<CameraId>) -> Result<CameraId, BadCameraId> {
    let id: CameraId = name.parse()?;
    if known.contains(&id) {
        return Ok(id);
    }
    let same = |known: &&CameraId| known.as_str().replace('-', "_") == name;
    Ok(known.iter().find(same).cloned().unwrap_or(id))
}

/// Warns of a variable such as `CAMSCRIBE_MQTT_URL`, which was meant for us and is not read.
fn warn_of_one_underscore(variable: &str, diagnostics: &mut Diagnostics) {
    let Some(rest) = variable.strip_prefix("CAMSCRIBE_") else { return };
    let section = rest.split('_').next().unwrap_or_default().to_ascii_lowercase();
    if section == schema::CAMERAS || schema::find(&section).is_some() {
        diagnostics.warning(
            &Location::Environment { variable: variable.into() },
            "is not read: its parts are joined by two underscores, as in CAMSCRIBE__MQTT__URL",
        );
    }
}
