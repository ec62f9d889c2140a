//! Calibrations of questions, beside the model that is loaded.

use std::collections::BTreeMap;

use crate::{calibration::CalibratedModel, config::Config, event::ModelInfo};

/// Warns, once for each, of the questions whose answers are not calibrated because their calibration is for another model.
pub fn warn_of_unfit(config: &Config, model: &ModelInfo) {
    let model = CalibratedModel::from(model);
    let asked = config.cameras.values().flat_map(|camera| &camera.prompt_spec.questions);
    let unfit = asked.filter_map(|asked| {
        let why = asked.calibration.as_ref()?.check_model(&model).err()?;
        Some((&asked.name, why))
    });
    for (name, why) in unfit.collect::<BTreeMap<_, _>>() {
        tracing::warn!(
            "the answers to {name} are not calibrated: the calibration {why}; run `camscribe calibrate` again"
        );
    }
}
